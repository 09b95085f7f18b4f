"""Every tile once, as the source of a conversion."""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
import os

from etils import epath
import pyarrow as pa

from tfds_plugins import errors
from tfds_plugins.sources import arrays
from tfds_plugins.sources import folders
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
    dataset_dir: the folder of the dataset.
    index_path: the index of the tars.
    tar: the number of the tar in the index; -1 for a folder.
  """

  dataset_dir: str
  index_path: str
  tar: int


def check_source(
  layout: layout_lib.Layout,
  *,
  index: tile_index.TileIndex,
  work_dir: epath.Path,
  instructions: str,
) -> Source:
  """Lists the tars; and folders that were extracted from tars that are gone.

  Args:
    layout: the folder of the dataset.
    index: of its tars.
    work_dir: where the index is.
    instructions: how to get the data, for the error.

  Returns:
    The source, in the order of the numbers of the tars.

  Raises:
    errors.ManualDirError: there is no tile.
  """
  index_path = str(work_dir / tile_index.INDEX_FILENAME)
  dataset_dir = str(layout.dataset_dir)
  shards = []
  for i, tar in enumerate(index.tars):
    rows = index.list_rows(i, only_last=True)
    sizes = arrays.to_numpy(index.table.column("size").combine_chunks())
    shards.append(
      TileShard(
        name=tar.name.removesuffix(tile_paths.TAR_SUFFIX),
        length=len(rows) + (not tar.is_whole),
        size_bytes=int(sizes[rows].sum()),
        dataset_dir=dataset_dir,
        index_path=index_path,
        tar=i,
      )
    )
  names = {shard.name for shard in shards}
  if layout.has_images:
    images_dir = layout.dataset_dir / tile_paths.IMAGES_DIR
    for folder in folders.list_children(images_dir):
      if folder.name in names or not folder.is_dir():
        continue
      tiles = _list_folder(layout.dataset_dir, folder.name)
      shards.append(
        TileShard(
          name=folder.name,
          length=len(tiles),
          size_bytes=sum(getattr(tile, "size", 0) for tile in tiles),
          dataset_dir=dataset_dir,
          index_path=index_path,
          tar=-1,
        )
      )
  shards = [shard for shard in shards if shard.length]
  shards.sort(key=lambda shard: folders.natural_key(shard.name))
  if not shards:
    problem = errors.Problem(
      what="There are no tiles.",
      where=dataset_dir,
      expected=f"{tile_paths.SHARDS_DIR}/*.tar, or {tile_paths.IMAGES_DIR}/",
      found="neither, or nothing in them",
      to_do=f"Fetch the data like this:\n{instructions}",
    )
    raise errors.ManualDirError(str(problem))
  return Source(
    source_dir=dataset_dir,
    shards=shards,
    notes=tile_index.describe_damage(index),
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
