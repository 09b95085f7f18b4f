"""Every tile once, as the source of a conversion."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import hashlib
import os

from etils import epath
import numpy as np
import pyarrow as pa

from tfds_plugins import errors
from tfds_plugins.sources import arrays
from tfds_plugins.sources import folders
from tfds_plugins.sources import states
from tfds_plugins.sources.rows import IMAGE_COLUMN
from tfds_plugins.sources.rows import KEY_COLUMN
from tfds_plugins.sources.rows import SkippedRow
from tfds_plugins.sources.rows import Source
from tfds_plugins.sources.rows import SourceBatch
from tfds_plugins.sources.rows import SourceShard
from tfds_plugins.sources.rows import SourceSlice
from tfds_plugins.sources.screenshots import layout as layout_lib
from tfds_plugins.sources.screenshots import questions
from tfds_plugins.sources.screenshots import tile_index
from tfds_plugins.sources.screenshots import tile_paths
from tfds_plugins.sources.screenshots import tile_reader

_BATCH_BYTES = 16 << 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class TileShard(SourceShard):
  """The tiles of a tar, or of a folder; positions are tiles.

  Attributes:
    path: the tar or folder.
    dataset_dir: the folder of the dataset.
    index_path: the index of the tars; '' where it is not known yet.
    tar: the number of the tar in the index; -1 for a folder.
  """

  path: str
  dataset_dir: str
  index_path: str = ""
  tar: int = -1

  @property
  def is_tar(self) -> bool:
    """Whether it is a tar, and not a folder."""
    return epath.Path(self.path).parent.name == tile_paths.SHARDS_DIR

  def list_paths(self) -> Sequence[str]:
    """Returns the tar, or else the folder."""
    return [self.path]


def list_source(layout: layout_lib.Layout) -> Source[TileShard]:
  """Lists the tars; and folders that were extracted from tars that are gone.

  Args:
    layout: the folder of the dataset.

  Returns:
    They in the order of their numbers and the state that they are in, of
    unknown length and size; maybe none.
  """
  paths = {
    path.name.removesuffix(tile_paths.TAR_SUFFIX): path for path in layout.tars
  }
  if layout.has_images:
    for folder in layout_lib.list_image_dirs(layout):
      paths.setdefault(folder.name, folder)
  names = sorted(paths, key=folders.natural_key)
  shards = []
  for name in names:
    shard = TileShard(
      name=name,
      length=0,
      size_bytes=0,
      path=str(paths[name]),
      dataset_dir=str(layout.dataset_dir),
    )
    state = states.describe(shard.list_paths())
    shards.append(dataclasses.replace(shard, state=state))
  return Source(source_dir=str(layout.dataset_dir), shards=shards, notes=[])


def check_source(
  source: Source[TileShard],
  *,
  index: tile_index.TileIndex,
  index_path: epath.Path,
  instructions: str,
) -> Source[TileShard]:
  """Counts the tiles of tars and folders.

  Args:
    source: from `list_source`.
    index: of the tars.
    index_path: where the index is.
    instructions: how to get the data, for the error.

  Returns:
    The source, without tars and folders that hold no tile.

  Raises:
    errors.ManualDirError: there is no tile.
  """
  numbers = {tar.name: i for i, tar in enumerate(index.tars)}
  sizes = arrays.to_numpy(index.table.column("size").combine_chunks())
  shards, empty = [], []
  for shard in source.shards:
    number, selection = -1, ""
    if shard.is_tar:
      number = numbers[epath.Path(shard.path).name]
      rows = index.list_rows(number, only_last=True)
      length = len(rows) + (not index.tars[number].is_whole)
      size_bytes = int(sizes[rows].sum())
      # A later tar may have members of the same names.
      kept = np.isin(index.list_rows(number), rows)
      selection = hashlib.sha256(kept.tobytes()).hexdigest()
    else:
      tiles = _list_folder(epath.Path(shard.dataset_dir), shard.name)
      length = len(tiles)
      size_bytes = sum(getattr(tile, "size", 0) for tile in tiles)
    if length:
      shards.append(
        dataclasses.replace(
          shard,
          length=length,
          size_bytes=size_bytes,
          index_path=str(index_path),
          tar=number,
          selection=selection,
        )
      )
    else:
      empty.append(shard)
  if not shards:
    problem = errors.Problem(
      what="There are no tiles.",
      where=source.source_dir,
      expected=f"{tile_paths.SHARDS_DIR}/*.tar, or {tile_paths.IMAGES_DIR}/",
      found="neither, or nothing in them",
      to_do=f"Fetch the data like this:\n{instructions}",
    )
    raise errors.ManualDirError(str(problem))
  return dataclasses.replace(
    source,
    shards=shards,
    notes=tile_index.describe_damage(index),
    empty=empty,
  )


def iter_batches(
  source_slice: SourceSlice[TileShard], wanted: pa.Schema
) -> Iterator[SourceBatch]:
  """Yields the tiles of a slice, in the order in which they lie in the tar.

  Args:
    source_slice: some tiles of a tar or folder.
    wanted: the path, under its name in `questions`.

  Yields:
    Batches with the columns `key` and `chunk_path`, both the path, and `image`,
    which is valid until the next batch is asked for.

  Raises:
    errors.SourceError: a tar or folder is not what it was when it was listed.
  """
  shard = source_slice.shard
  dataset_dir = epath.Path(shard.dataset_dir)
  index = tile_index.load_index(epath.Path(shard.index_path))
  if shard.tar < 0:
    tiles = _list_folder(dataset_dir, shard.name)
  else:
    finder = tile_reader.TileFinder(dataset_dir, index)
    tiles = finder.list_tar(shard.tar)
  if len(tiles) != shard.length:
    problem = errors.Problem(
      what="The folder has changed while it was converted.",
      where=str(dataset_dir / tile_paths.IMAGES_DIR / shard.name),
      expected=f"{shard.length:,} tiles",
      found=f"{len(tiles):,}",
      to_do="Wait until nothing writes to it any more, and build again.",
    )
    raise errors.SourceError(str(problem))
  with tile_reader.TileReader(dataset_dir, index.tars) as reader:
    memory = arrays.BinaryBuffer()
    some: list[tile_reader.Tile | tile_reader.LostTile] = []
    num_bytes = 0
    for tile in tiles[source_slice.start : source_slice.stop]:
      some.append(tile)
      num_bytes += tile.size if isinstance(tile, tile_reader.Tile) else 0
      if num_bytes >= _BATCH_BYTES:
        yield _make_batch(some, reader, memory, shard.name)
        some, num_bytes = [], 0
    if some:
      yield _make_batch(some, reader, memory, shard.name)


def _make_batch(
  tiles: list[tile_reader.Tile | tile_reader.LostTile],
  reader: tile_reader.TileReader,
  memory: arrays.BinaryBuffer,
  shard_name: str,
) -> SourceBatch:
  kept = [tile for tile in tiles if isinstance(tile, tile_reader.Tile)]
  images, views = memory.make_room([tile.size for tile in kept])
  reader.read(zip(kept, views, strict=True))
  paths = arrays.make_strings([tile.path for tile in kept])
  return SourceBatch(
    rows=pa.RecordBatch.from_pydict(
      {
        KEY_COLUMN: paths,
        questions.PATH: paths,
        IMAGE_COLUMN: images,
      }
    ),
    skipped=[
      SkippedRow(
        source_shard=shard_name,
        key=tile.path,
        reason=tile.reason,
        detail=tile.detail,
      )
      for tile in tiles
      if isinstance(tile, tile_reader.LostTile)
    ],
    num_rows=len(tiles),
  )


def _list_folder(
  dataset_dir: epath.Path, name: str
) -> list[tile_reader.Tile | tile_reader.LostTile]:
  """Returns the tiles of an extracted tar, sorted by their paths."""
  paths: list[str] = []
  pending = [f"{tile_paths.IMAGES_DIR}/{name}"]
  while pending:
    folder = pending.pop()
    for child in folders.list_children(dataset_dir / folder):
      path = f"{folder}/{child.name}"
      # (A linked folder could lead anywhere, and in circles.)
      is_folder = child.is_dir() and not os.path.islink(child)
      (pending if is_folder else paths).append(path)
  nowhere = tile_index.TileIndex([], tile_index.SCHEMA.empty_table())
  refused = {path: _find_problem(path) for path in sorted(paths)}
  found = tile_reader.TileFinder(dataset_dir, nowhere).find(
    path for path, problem in refused.items() if problem is None
  )
  return [
    found[path]
    if problem is None
    else tile_reader.LostTile(ascii(path), questions.UNSAFE_PATH, problem)
    for path, problem in refused.items()
  ]


def _find_problem(path: str) -> str | None:
  """Returns why the path of a file cannot be that of a tile."""
  try:
    path.encode()
  except UnicodeEncodeError:
    return "the name is no UTF-8"
  return tile_paths.find_problem(path)
