"""Where the tiles lie in the tars, as it is kept from one build to the next.

An index is an Arrow file (https://arrow.apache.org/docs/format/Columnar.html),
followed by its CRC-32 in 4 bytes, little-endian; with a row for each tile, in the order of the tars' numbers and of their members:

    member   string, the path in the tar
    tar      int32, the number of the tar in `tars` below
    offset   int64, the byte of the tar at which the tile starts
    size     int64, bytes
    problem  string, why it cannot be read; '' if it can

and, as the schema's metadata under `tars`, a JSON list of objects {name, size,
mtime, end, num_repeated}: what the tar was like when it was read (size in
bytes, mtime in nanoseconds), how it ended, and how many members came again later (the
last one counts, as for whoever extracts them). Another size or time, and the tar
is read again; and always where the time is 0, as of objects in S3, of which epath
does not tell it.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import functools
import json
import struct
import zlib

from etils import epath
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfds_plugins import errors
from tfds_plugins.sources import arrays
from tfds_plugins.sources import folders
from tfds_plugins.sources import tar as tar_lib

INDEX_FILENAME = "tile_index.arrow"
SCHEMA = pa.schema(
  [
    ("member", pa.string()),
    ("tar", pa.int32()),
    ("offset", pa.int64()),
    ("size", pa.int64()),
    ("problem", pa.string()),
  ]
)

_TARS_KEY = b"tars"
_CHECKSUM = struct.Struct("<I")


@dataclasses.dataclass(frozen=True, kw_only=True)
class IndexedTar:
  """A tar, as it was when it was read.

  Attributes:
    name: of the file.
    size: bytes.
    mtime: time of the last change, nanoseconds since 1970.
    end: how it ended, a value of `tar.End`.
    num_repeated: how many members came again later.
  """

  name: str
  size: int
  mtime: int
  end: str
  num_repeated: int

  @property
  def is_whole(self) -> bool:
    """Whether it ended as a tar does."""
    return self.end == tar_lib.End.MARKER.value


@dataclasses.dataclass(frozen=True)
class TileIndex:
  """The tiles of some tars.

  Attributes:
    tars: in the order of their numbers.
    table: the tiles. A member may be there again in a later tar: the last one
      counts, as for whoever extracts them.
  """

  tars: Sequence[IndexedTar]
  table: pa.Table

  def find(self, members: Sequence[str]) -> np.ndarray:
    """Returns the row of each member; -1 for those that are nowhere.

    Args:
      members: paths in the tars.
    """
    places = pc.index_in(arrays.make_strings(members), self._members_backwards)
    places = arrays.to_numpy(arrays.fill_null(places, -1))
    return np.where(places >= 0, len(self.table) - 1 - places, -1)

  @functools.cached_property
  def _members_backwards(self) -> pa.Array:
    # Of equal ones, Arrow finds the first.
    rows = np.arange(len(self.table))[::-1]
    members = self.table.column("member").combine_chunks()
    return members.take(arrays.from_numpy(np.ascontiguousarray(rows)))

  @functools.cached_property
  def _is_last(self) -> np.ndarray:
    members = self.table.column("member").to_pylist()
    is_last = np.zeros(len(members), bool)
    is_last[list(dict(zip(members, range(len(members)))).values())] = True
    return is_last

  def list_rows(self, number: int, *, only_last: bool = False) -> np.ndarray:
    """Returns the rows of a tar.

    Args:
      number: of the tar, in `tars`.
      only_last: whether to leave out what is there again in a later tar.
    """
    numbers = self.table.column("tar").combine_chunks()
    is_wanted = arrays.to_numpy(numbers) == number
    if only_last:
      is_wanted &= self._is_last
    return np.flatnonzero(is_wanted)


def describe_damage(index: TileIndex) -> list[str]:
  """Returns what the user should know of the tars."""
  notes = []
  damaged = [
    f"{tar.name} ({tar.end})" for tar in index.tars if not tar.is_whole
  ]
  if damaged:
    notes.append(
      f"{len(damaged):,} tar{'s' * (len(damaged) != 1)} of tiles"
      f" {'do' if len(damaged) != 1 else 'does'} not end as a tar does, and may"
      f" lack tiles: {folders.shorten(damaged)}. Download them again."
    )
  repeated = [tar.name for tar in index.tars if tar.num_repeated]
  if repeated:
    notes.append(
      "members come again later in their tar, and the last one counts:"
      f" {folders.shorten(repeated)}."
    )
  return notes


def write_index(index: TileIndex, path: epath.Path) -> None:
  """Writes an index."""
  tars = json.dumps([dataclasses.asdict(tar) for tar in index.tars])
  schema = SCHEMA.with_metadata({_TARS_KEY: tars.encode()})
  out = pa.BufferOutputStream()
  with pa.ipc.new_file(out, schema) as writer:
    writer.write_table(index.table.cast(schema))
  data = out.getvalue()
  folders.write_whole(
    path, data.to_pybytes() + _CHECKSUM.pack(zlib.crc32(data))
  )


def read_index(path: epath.Path) -> TileIndex | None:
  """Reads an index; None if there is none, or if it is damaged."""
  try:
    # Mapped where that is possible: every worker has it, and it is in memory once.
    if "://" in str(path):
      data = pa.py_buffer(path.read_bytes())
    else:
      data = pa.memory_map(str(path)).read_buffer()
    if data.size < _CHECKSUM.size:
      return None
    content = data.slice(0, data.size - _CHECKSUM.size)
    (checksum,) = _CHECKSUM.unpack(data.slice(content.size).to_pybytes())
    if zlib.crc32(content) != checksum:
      return None
    table = pa.ipc.open_file(content).read_all()
    described = json.loads((table.schema.metadata or {})[_TARS_KEY])
    tars = [IndexedTar(**each) for each in described]
  except (OSError, pa.ArrowException, ValueError, KeyError, TypeError):
    return None  # Another version's, maybe.
  if not table.schema.equals(SCHEMA):
    return None
  return TileIndex(tars, table.combine_chunks())


def load_index(path: epath.Path) -> TileIndex:
  """Reads an index that has to be there.

  Raises:
    errors.SourceError: there is none, or it is damaged.
  """
  index = read_index(path)
  if index is not None:
    return index
  problem = errors.Problem(
    what="The index of the tars cannot be read.",
    where=str(path),
    expected="the index that this build has written",
    found="nothing, or another file",
    to_do="Leave the folder of the dataset alone while it is built; build again.",
  )
  raise errors.SourceError(str(problem))
