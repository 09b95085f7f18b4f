"""Where the tiles lie in the tars: found in one pass over the headers, and kept.

An index is an Arrow file (https://arrow.apache.org/docs/format/Columnar.html)
with a row for each tile, in the order of the tars' numbers and of their members:

    member   string, the path in the tar
    tar      int32, the number of the tar in `tars` below
    offset   int64, the byte of the tar at which the tile starts
    size     int64, bytes
    problem  string, why it cannot be read; '' if it can

and, as the schema's metadata under `tars`, a JSON list of objects {name, size,
mtime, end, num_repeated}: what the tar was like when it was read (size in
bytes, mtime in nanoseconds), how it ended, and how many members came again later (the
last one counts, as for whoever extracts them). Another size or time, and the tar
is read again.
"""

from __future__ import annotations

from collections.abc import Sequence
import concurrent.futures
import dataclasses
import json
from typing import Any
from typing import cast

from etils import epath
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfds_plugins import errors
from tfds_plugins.sources import arrays
from tfds_plugins.sources import folders
from tfds_plugins.sources import tar as tar_lib
from tfds_plugins.sources.screenshots import tile_paths

INDEX_FILENAME = "tile_index.arrow"

_SCHEMA = pa.schema(
  [
    ("member", pa.string()),
    ("tar", pa.int32()),
    ("offset", pa.int64()),
    ("size", pa.int64()),
    ("problem", pa.string()),
  ]
)
EMPTY_TABLE = _SCHEMA.empty_table()
_TARS_KEY = b"tars"
# A header, maybe with a pax header and its records before it; tiles in between
# are passed over.
_WINDOW_BYTES = 4 * tar_lib.BLOCK_BYTES
_NUM_THREADS = 8
_NOT_UTF8 = "the name is no UTF-8"
_SYMBOLIC_LINK = "a symbolic link, which is not followed"
_LOST_LINK = "a hard link to nothing that comes before it in the tar"
_CUT = "the tar breaks off in the middle of it"


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
    table: the tiles.
  """

  tars: Sequence[IndexedTar]
  table: pa.Table

  def find(self, members: Sequence[str]) -> np.ndarray:
    """Returns the row of each member; -1 for those that are nowhere.

    Args:
      members: paths in the tars.
    """
    wanted = arrays.make_strings(members)
    places = pc.index_in(wanted, self.table.column("member").combine_chunks())
    return arrays.to_numpy(arrays.fill_null(places, -1))

  def list_rows(self, number: int) -> np.ndarray:
    """Returns the rows of a tar.

    Args:
      number: of the tar, in `tars`.
    """
    numbers = self.table.column("tar").combine_chunks()
    return np.flatnonzero(arrays.to_numpy(numbers) == number)


def make_index(
  tars: Sequence[epath.Path], known: Sequence[TileIndex]
) -> TileIndex:
  """Makes the index of some tars.

  Args:
    tars: the files.
    known: indexes of earlier builds. What they say of a tar is taken if it has
      the same size and time.

  Raises:
    errors.SourceError: a file is no tar; all of them are named.
  """
  remembered = {
    (tar.name, tar.size, tar.mtime): (index, i)
    for index in known
    for i, tar in enumerate(index.tars)
  }

  def get(path: epath.Path) -> tuple[IndexedTar, pa.Table] | errors.Problem:
    try:
      folders.check_regular(path)
      identity = folders.get_identity(path)
      place = remembered.get((path.name, *identity))
      if place is None:
        return _read_tar(path, *identity)
    except OSError as e:
      return _make_problem(path, f"{type(e).__name__}: {e}")
    index, i = place
    rows = arrays.from_numpy(index.list_rows(i))
    return index.tars[i], index.table.take(rows)

  ordered = sorted(tars, key=lambda path: folders.natural_key(path.name))
  with concurrent.futures.ThreadPoolExecutor(_NUM_THREADS) as pool:
    found = list(pool.map(get, ordered))
  problems = [each for each in found if isinstance(each, errors.Problem)]
  if problems:
    raise errors.SourceError(errors.describe(problems))
  parts = [each for each in found if not isinstance(each, errors.Problem)]
  tables = [
    table.set_column(
      1, _SCHEMA.field("tar"), arrays.from_numpy(np.full(len(table), i, "i4"))
    )
    for i, (_, table) in enumerate(parts)
  ]
  table = pa.concat_tables(tables) if tables else EMPTY_TABLE
  table = _drop_repeated(table.combine_chunks())
  return TileIndex([tar for tar, _ in parts], table)


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


def _drop_repeated(table: pa.Table) -> pa.Table:
  """Leaves out what comes again in a later tar, as extracting would."""
  members = table.column("member").to_pylist()
  last = {member: i for i, member in enumerate(members)}
  if len(last) == len(members):
    return table
  rows = np.array(sorted(last.values()), np.int64)
  return table.take(arrays.from_numpy(rows)).combine_chunks()


def write_index(index: TileIndex, path: epath.Path) -> None:
  """Writes an index."""
  tars = json.dumps([dataclasses.asdict(tar) for tar in index.tars])
  schema = _SCHEMA.with_metadata({_TARS_KEY: tars.encode()})
  with (
    path.open("wb") as file,
    pa.ipc.new_file(cast(Any, file), schema) as writer,
  ):
    writer.write_table(index.table.cast(schema))


def read_index(path: epath.Path) -> TileIndex | None:
  """Reads an index; None if there is none, or if it is damaged."""
  try:
    # Mapped where that is possible: every worker has it, and it is in memory once.
    is_remote = "://" in str(path)
    data = path.read_bytes() if is_remote else pa.memory_map(str(path))
    table = pa.ipc.open_file(data).read_all()
    described = json.loads((table.schema.metadata or {})[_TARS_KEY])
    tars = [IndexedTar(**each) for each in described]
    table.validate(full=True)
    is_good = table.schema.equals(_SCHEMA) and not any(
      column.null_count for column in table.columns
    )
  except (OSError, pa.ArrowException, ValueError, KeyError, TypeError):
    return None
  return TileIndex(tars, table.combine_chunks()) if is_good else None


def _read_tar(
  path: epath.Path, size: int, mtime: int
) -> tuple[IndexedTar, pa.Table]:
  """Reads the headers of a tar."""
  members: dict[bytes, tar_lib.Member] = {}
  num_repeated = 0
  with path.open("rb") as file:
    reader = tar_lib.TarReader(
      file, size, window_bytes=_WINDOW_BYTES, with_links=True
    )
    for window in reader.iter_windows(lambda member: False):
      for member in window:
        member.name = member.name.removeprefix(b"./")
        link = (member.link or b"").removeprefix(b"./")
        if member.is_hard_link and link in members:
          member = dataclasses.replace(members[link], name=member.name)
        num_repeated += members.pop(member.name, None) is not None
        members[member.name] = member
  if reader.end is tar_lib.End.CORRUPT and not members:
    raise OSError("there is no tar header at its start")
  tar = IndexedTar(
    name=path.name,
    size=size,
    mtime=mtime,
    end=cast(tar_lib.End, reader.end).value,
    num_repeated=num_repeated,
  )
  return tar, _make_table(list(members.values()))


def _make_table(members: Sequence[tar_lib.Member]) -> pa.Table:
  names = [_decode_name(member.name) for member in members]
  columns = [
    arrays.make_strings([name for name, _ in names]),
    arrays.from_numpy(np.zeros(len(members), np.int32)),
    arrays.from_numpy(np.array([m.data_offset for m in members], np.int64)),
    arrays.from_numpy(np.array([m.size_bytes for m in members], np.int64)),
    arrays.make_strings(
      [
        problem or _find_problem(member)
        for member, (_, problem) in zip(members, names)
      ]
    ),
  ]
  return pa.Table.from_arrays(columns, schema=_SCHEMA)


def _decode_name(name: bytes) -> tuple[str, str]:
  """Returns a member's name and what is wrong with it, '' for nothing."""
  try:
    return name.decode(), ""
  except UnicodeDecodeError:
    return ascii(name), _NOT_UTF8


def _find_problem(member: tar_lib.Member) -> str:
  if member.link is not None:
    return _LOST_LINK if member.is_hard_link else _SYMBOLIC_LINK
  if member.is_cut:
    return _CUT
  path = tile_paths.from_member(_decode_name(member.name)[0])
  return tile_paths.find_problem(path) or ""


def _make_problem(path: epath.Path, found: str) -> errors.Problem:
  return errors.Problem(
    what="The tar cannot be read.",
    where=str(path),
    expected="a tar of tiles, not compressed",
    found=found,
    to_do="Download the file again, or remove it.",
  )
