"""Finds the tiles of tars in one pass over their headers."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from typing import cast

from etils import epath
import numpy as np
import pyarrow as pa

from tfds_plugins import errors
from tfds_plugins.sources import arrays
from tfds_plugins.sources import checking
from tfds_plugins.sources import folders
from tfds_plugins.sources import raw_files
from tfds_plugins.sources import tar as tar_lib
from tfds_plugins.sources.screenshots import tile_paths
from tfds_plugins.sources.screenshots.tile_index import SCHEMA
from tfds_plugins.sources.screenshots.tile_index import IndexedTar
from tfds_plugins.sources.screenshots.tile_index import TileIndex

# A header, maybe with a pax header and its records before it; tiles in between
# are passed over.
_WINDOW_BYTES = 4 * tar_lib.BLOCK_BYTES
_NUM_THREADS = 8
_NOT_UTF8 = "the name is no UTF-8"
_SYMBOLIC_LINK = "a symbolic link, which is not followed"
_LOST_LINK = "a hard link to nothing that comes before it in the tar"
_CUT = "the tar breaks off in the middle of it"


def make_index(
  tars: Sequence[epath.Path], known: Sequence[TileIndex] = ()
) -> TileIndex:
  """Makes the index of some tars.

  Args:
    tars: the files.
    known: indexes of earlier builds. What they say of a tar is taken if it has
      the same size and time. Of a tar without a time nothing is: tars have
      round sizes, and another one may well have the same.

  Raises:
    errors.SourceError: a file is no tar; all of them are named.
  """
  remembered = {
    (tar.name, tar.size, tar.mtime): (index, i)
    for index in known
    for i, tar in enumerate(index.tars)
    if tar.mtime != folders.UNKNOWN_TIME
  }

  def get(path: epath.Path) -> tuple[IndexedTar, pa.Table]:
    try:
      folders.check_regular(path)
      identity = folders.get_identity(path)
      place = remembered.get((path.name, *identity))
      if place is None:
        return _read_tar(path, *identity)
    except OSError as e:
      raise _make_error(path, f"{type(e).__name__}: {e}") from e
    index, i = place
    rows = arrays.from_numpy(index.list_rows(i))
    return index.tars[i], index.table.take(rows)

  ordered = sorted(tars, key=lambda path: folders.natural_key(path.name))
  parts = checking.check_all(get, ordered, num_threads=_NUM_THREADS)
  tables = [
    table.set_column(
      1, SCHEMA.field("tar"), arrays.from_numpy(np.full(len(table), i, "i4"))
    )
    for i, (_, table) in enumerate(parts)
  ]
  table = pa.concat_tables([SCHEMA.empty_table(), *tables])
  return TileIndex([tar for tar, _ in parts], table.combine_chunks())


def _read_tar(
  path: epath.Path, size: int, mtime: int
) -> tuple[IndexedTar, pa.Table]:
  """Reads the headers of a tar."""
  members: dict[bytes, tar_lib.Member] = {}
  num_repeated = 0
  with path.open("rb") as file:
    reader = tar_lib.TarReader(
      raw_files.without_read_ahead(file),
      size,
      window_bytes=_WINDOW_BYTES,
      with_links=True,
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
  return pa.Table.from_arrays(columns, schema=SCHEMA)


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


def _make_error(path: epath.Path, found: str) -> errors.SourceError:
  problem = errors.Problem(
    what="The tar cannot be read.",
    where=str(path),
    expected="a tar of tiles, not compressed",
    found=found,
    to_do="Download the file again, or remove it.",
  )
  return errors.SourceError(str(problem))
