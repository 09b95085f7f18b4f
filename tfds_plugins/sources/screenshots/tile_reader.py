"""Reads tiles: from tars at the offsets of the index, or from a folder.

The tiles of a batch are read in the order in which they lie on the disk, each
once, and the system is told of all of them before the first is read.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable
from collections.abc import Sequence
import contextlib
import io
import os
from typing import Any
from typing import NamedTuple

from etils import epath

from tfds_plugins import errors
from tfds_plugins.sources import arrays
from tfds_plugins.sources import folders
from tfds_plugins.sources import raw_files
from tfds_plugins.sources.screenshots import tile_index
from tfds_plugins.sources.screenshots import tile_paths

# Tars that are open at the same time; there are a thousand.
_MAX_OPEN_FILES = 256
MAX_TILE_BYTES = 256 << 20
# Why a tile cannot be had.
MISSING_TILE = "missing_tile"
UNREADABLE_TILE = "unreadable_tile"
TILE_TOO_LARGE = "image_too_large"


class Tile(NamedTuple):
  """Where a tile is. Tiles of one tar sort by their place in it.

  Attributes:
    tar: the number of the tar in the index; -1 for a file of its own.
    offset: the byte at which it starts.
    size: bytes.
    path: the path by which it is known.
  """

  tar: int
  offset: int
  size: int
  path: str


class LostTile(NamedTuple):
  """Why a tile cannot be had.

  Attributes:
    path: the path by which it is known.
    reason: one of this module's reasons.
    detail: what was found.
  """

  path: str
  reason: str
  detail: str


class TileFinder:
  """Knows where each tile is."""

  def __init__(self, dataset_dir: epath.Path, index: tile_index.TileIndex):
    """Initializes a finder.

    Args:
      dataset_dir: the folder that has `images` and `image_shards`, or one of
        them.
      index: of all tars in `image_shards`.
    """
    self._dataset_dir = dataset_dir
    self._index = index
    self._tar_names = {tar.name for tar in index.tars}
    self._has_folder = (dataset_dir / tile_paths.IMAGES_DIR).is_dir()

  def find(self, paths: Iterable[str]) -> dict[str, Tile | LostTile]:
    """Returns where tiles are.

    Args:
      paths: those that `tile_paths.find_problem` has nothing against.
    """
    distinct = list(dict.fromkeys(paths))
    rows = self._index.find(list(map(tile_paths.to_member, distinct)))
    is_found = rows >= 0
    found = self._index.table.take(arrays.from_numpy(rows[is_found]))
    places = iter(
      zip(
        *(found.column(name).to_pylist() for name in _PLACE_COLUMNS),
        strict=True,
      )
    )
    return {
      path: self._find_one(path, next(places) if row >= 0 else None)
      for path, row in zip(distinct, rows.tolist())
    }

  def list_tar(self, number: int) -> list[Tile | LostTile]:
    """Returns the tiles of a tar of the index, in its order.

    A tar that does not end as it should has one more: what may be missing.
    """
    table = self._index.table
    rows = table.take(
      arrays.from_numpy(self._index.list_rows(number, only_last=True))
    )
    rows = rows.sort_by("offset")
    members = rows.column("member").to_pylist()
    places = zip(*(rows.column(name).to_pylist() for name in _PLACE_COLUMNS))
    found = [
      self._find_one(tile_paths.from_member(member), place)
      for member, place in zip(members, places)
    ]
    tar = self._index.tars[number]
    if not tar.is_whole:
      detail = f"{tar.name} does not end as a tar does, and may have had more"
      found.append(LostTile(tar.name, tar.end, detail))
    return found

  def _find_one(
    self, path: str, place: tuple[int, int, int, str] | None
  ) -> Tile | LostTile:
    if place is not None and not place[3]:
      tar, offset, size, _ = place
      return _limit(Tile(tar, offset, size, path))
    if self._has_folder:
      tile = self._find_file(path)
      if tile is not None:
        return tile
    tar_name = tile_paths.get_tar_name(path)
    where = f"{tile_paths.SHARDS_DIR}/{tar_name}"
    if place is not None:
      return LostTile(path, UNREADABLE_TILE, f"{path} in {where}: {place[3]}")
    if tar_name in self._tar_names:
      return LostTile(path, MISSING_TILE, f"{path} is not in {where}")
    return LostTile(path, MISSING_TILE, f"{path}: there is no {where}")

  def _find_file(self, path: str) -> Tile | LostTile | None:
    images_dir = str(self._dataset_dir / tile_paths.IMAGES_DIR)
    if "://" not in images_dir:
      # `images` may be a link of the user's own; what lies in it may not.
      expected = os.path.join(
        os.path.realpath(images_dir), tile_paths.to_member(path)
      )
      if os.path.realpath(self._dataset_dir / path) != expected:
        detail = f"{path}: a symbolic link, which is not followed"
        return LostTile(path, UNREADABLE_TILE, detail)
    try:
      folders.check_regular(self._dataset_dir / path)
      size = (self._dataset_dir / path).stat().length
    except (FileNotFoundError, NotADirectoryError):
      return None
    except OSError as e:
      return LostTile(path, UNREADABLE_TILE, f"{path}: {e}")
    return _limit(Tile(-1, 0, size, path))


_PLACE_COLUMNS = ("tar", "offset", "size", "problem")


def _limit(tile: Tile) -> Tile | LostTile:
  if tile.size <= MAX_TILE_BYTES:
    return tile
  detail = (
    f"{tile.path} has {tile.size:,} bytes, the limit is {MAX_TILE_BYTES:,}"
  )
  return LostTile(tile.path, TILE_TOO_LARGE, detail)


class TileReader:
  """Reads tiles. A context manager, which closes what it has opened."""

  def __init__(
    self, dataset_dir: epath.Path, tars: Sequence[tile_index.IndexedTar]
  ):
    """Initializes a reader.

    Args:
      dataset_dir: the folder of the dataset.
      tars: those of the index.
    """
    self._dataset_dir = dataset_dir
    self._tars = tars
    self._open: collections.OrderedDict[int, Any] = collections.OrderedDict()

  def __enter__(self) -> TileReader:
    return self

  def __exit__(self, *unused_args: object) -> None:
    for file in self._open.values():
      file.close()
    self._open.clear()

  def read(self, requests: Iterable[tuple[Tile, memoryview]]) -> None:
    """Reads tiles.

    Args:
      requests: what to read, in any order, maybe several times, and where to:
        as many bytes as the tile has.

    Raises:
      errors.SourceError: a tar or file is not what it was when it was indexed.
      OSError: the disk fails.
    """
    places: dict[Tile, list[memoryview]] = {}
    for tile, view in requests:
      places.setdefault(tile, []).append(view)
    ordered = sorted(places)
    self._announce(ordered)
    for tile in ordered:
      view, *others = places[tile]
      if tile.tar < 0:
        with contextlib.closing(self._open_file(tile.path)) as file:
          _read_into(file, 0, view, self._dataset_dir / tile.path)
      else:
        file = self._get_tar(tile.tar)
        _read_into(file, tile.offset, view, self._get_path(tile.tar))
      for other in others:
        other[:] = view

  def _announce(self, ordered: Sequence[Tile]) -> None:
    """Tells the system what will be read, so that the disk is not idle."""
    if not hasattr(os, "posix_fadvise"):
      return
    for tile in ordered:
      if tile.tar < 0:
        continue
      file = self._get_tar(tile.tar)
      if isinstance(file, io.FileIO):
        os.posix_fadvise(
          file.fileno(), tile.offset, tile.size, os.POSIX_FADV_WILLNEED
        )

  def _get_path(self, number: int) -> epath.Path:
    shards_dir = self._dataset_dir / tile_paths.SHARDS_DIR
    return shards_dir / self._tars[number].name

  def _get_tar(self, number: int) -> Any:
    """Returns an open tar, which is what it was when it was indexed."""
    if number in self._open:
      self._open.move_to_end(number)
      return self._open[number]
    tar = self._tars[number]
    path = self._get_path(number)
    size, mtime = folders.get_identity(path)
    if (size, mtime) != (tar.size, tar.mtime):
      raise _make_error(
        path,
        f"{tar.size:,} bytes, last changed at {tar.mtime} ns",
        f"{size:,} bytes, last changed at {mtime} ns",
      )
    while len(self._open) >= _MAX_OPEN_FILES:
      self._open.popitem(last=False)[1].close()
    self._open[number] = _unbuffer(path.open("rb"))
    return self._open[number]

  def _open_file(self, path: str) -> Any:
    folders.check_regular(self._dataset_dir / path)
    return _unbuffer((self._dataset_dir / path).open("rb"))


def _unbuffer(file: Any) -> Any:
  """Returns a file without its buffer: tiles are read at once."""
  if isinstance(file, io.BufferedReader):
    return file.detach()
  return raw_files.without_read_ahead(file)


def _read_into(
  file: Any, offset: int, view: memoryview, path: epath.Path
) -> None:
  """Reads `len(view)` bytes at an offset."""
  file.seek(offset)
  num_read = 0
  while num_read < len(view):
    count = raw_files.read_into(file, view[num_read:])
    if not count:
      raise _make_error(
        path, f"{len(view):,} bytes at byte {offset:,}", f"{num_read:,} bytes"
      )
    num_read += count


def _make_error(
  path: epath.Path, expected: str, found: str
) -> errors.SourceError:
  problem = errors.Problem(
    what="The file has changed while it was converted.",
    where=str(path),
    expected=expected,
    found=found,
    to_do="Wait until nothing writes to it any more, and build again.",
  )
  return errors.SourceError(str(problem))
