"""Writes the sources that are damaged, in the layouts that builders know."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import pathlib
from typing import Any

from etils import epath
import fault_cases
from fault_cases import Case
import fault_oracles
import formats
import numpy as np
import partitions
import pyarrow as pa
import pyarrow.parquet as pq
import screens
import shards
import tensorflow_datasets as tfds

from tfds_plugins.conversion import feature_specs
from tfds_plugins.conversion.recipe import Recipe
from tfds_plugins.laion400m.laion400m_dataset_builder import Laion400mConfig
from tfds_plugins.sources.screenshots import layout as layout_lib
from tfds_plugins.sources.screenshots import tile_index
from tfds_plugins.sources.screenshots import tile_scan

_NUM_ROWS = 9
_FAILED = (3, 7)
_DIM = 16
_STEM = "00000"


def make_recipe(name: str, folder: pathlib.Path, **options: Any) -> Recipe:
  """Returns the recipe of a builder's config."""
  builder = tfds.builder(name, data_dir=folder / "data", **options)
  specs = feature_specs.make_feature_specs(builder.info.features)
  return builder._make_recipe(specs)


def _make_images(
  image_format: str = "JPEG", **options: Any
) -> Mapping[int, bytes]:
  return {
    i: fault_cases.make_image(i, image_format, **options)
    for i in range(_NUM_ROWS)
    if i not in _FAILED
  }


def _write_shard(
  folder: pathlib.Path,
  output_format: str,
  images: Mapping[int, bytes],
  stem: str = _STEM,
  first: int = 0,
  **options: Any,
) -> None:
  """Writes rows `first` and so on, not in the order of their keys."""
  rows = [
    fault_cases.make_row(first + i, f"{first + i:09d}")
    if i not in _FAILED
    else shards.failed_row(first + i, f"{first + i:09d}")
    for i in reversed(range(_NUM_ROWS))
  ]
  formats.write_shard(
    output_format,
    folder,
    stem,
    rows,
    {f"{i:09d}": image for i, image in images.items()},
    **options,
  )


def make_webdataset(folder: pathlib.Path, *, parquet: bool = True) -> Case:
  """A tar, with the parquet beside it or without."""
  images = _make_images()
  _write_shard(folder, "webdataset", images, parquet=parquet)
  return Case(
    kind="images",
    folder=folder,
    files=[f"{_STEM}.tar"],
    names=[_STEM],
    recipe=make_recipe("laion400m/images", folder),
    num_rows=_NUM_ROWS if parquet else None,
    images=images,
    list_pairs=fault_oracles.read_tar,
  )


def make_parquet_beside(folder: pathlib.Path) -> Case:
  """The parquet beside a tar; its rows and its keys decide what rows there are."""
  case = make_webdataset(folder)
  return dataclasses.replace(
    case,
    files=[f"{_STEM}.parquet"],
    num_rows=None,
    list_pairs=fault_oracles.read_table,
  )


def make_stats(folder: pathlib.Path) -> Case:
  """`_stats.json`, from which the failures of a shard without parquet are told."""
  case = make_webdataset(folder, parquet=False)
  return dataclasses.replace(
    case,
    files=[f"{_STEM}_stats.json"],
    num_rows=len(case.images),
    is_exact=True,
  )


def make_files(folder: pathlib.Path, *, parquet: bool = True) -> Case:
  """A folder; an image and a `.json` are damaged."""
  images = _make_images()
  _write_shard(folder, "files", images, parquet=parquet)
  return Case(
    kind="images",
    folder=folder,
    files=[f"{_STEM}/{4:09d}.jpg", f"{_STEM}/{5:09d}.json"],
    names=[_STEM],
    recipe=make_recipe("laion400m/images", folder),
    num_rows=_NUM_ROWS if parquet else len(images),
    images=images,
  )


def make_parquet(folder: pathlib.Path) -> Case:
  """The second of two shards of format `parquet`."""
  _write_shard(folder, "parquet", _make_images(), stem="00001")
  others = {i + 20: fault_cases.make_image(i + 20) for i in _make_images()}
  _write_shard(folder, "parquet", others, first=20)
  return Case(
    kind="images",
    folder=folder,
    files=["00001.parquet"],
    names=["00001"],
    recipe=make_recipe("laion400m/images", folder),
    num_rows=2 * _NUM_ROWS,
    images=_make_images() | others,
    list_pairs=fault_oracles.read_table,
  )


def make_tfrecord(folder: pathlib.Path, *, parquet: bool = True) -> Case:
  images = _make_images()
  _write_shard(folder, "tfrecord", images, parquet=parquet)
  return Case(
    kind="images",
    folder=folder,
    files=[f"{_STEM}.tfrecord"],
    names=[_STEM],
    recipe=make_recipe("laion400m/images", folder),
    num_rows=_NUM_ROWS if parquet else None,
    images=images,
    list_pairs=fault_oracles.read_records,
    # A file that ends between two records is a shorter file.
    has_end=False,
  )


def make_encoded_images(folder: pathlib.Path, image_format: str, **options):
  """An image of some encoding, in a folder of images."""
  images = _make_images(image_format, **options)
  extension = image_format.lower().replace("jpeg", "jpg")
  _write_shard(folder, "files", images, image_name=extension)
  return Case(
    kind="images",
    folder=folder,
    files=[f"{_STEM}/{4:09d}.{extension}"],
    names=[_STEM],
    recipe=make_recipe("laion400m/images", folder),
    num_rows=_NUM_ROWS,
    images=images,
  )


def make_partition(folder: pathlib.Path, kind: str) -> Case:
  """One of the three files of a partition: `img_emb`, `text_emb`, `metadata`."""
  metadata = partitions.make_metadata(0, _NUM_ROWS)
  numbers = range(_NUM_ROWS)
  metadata["caption"] = [fault_cases.make_text(i) for i in numbers]
  metadata["url"] = [fault_cases.make_url(i) for i in numbers]
  for name in ("original_width", "original_height"):
    metadata[name] = [fault_cases.NUMBER_BASES[name] + i for i in numbers]
  vectors = [
    np.array([fault_cases.make_vector(i, name, _DIM) for i in numbers])
    for name in ("image", "text")
  ]
  partitions.write_partition(folder, 0, metadata, vectors)
  extension = "parquet" if kind == "metadata" else "npy"
  config = Laion400mConfig(name="small", embedding_dim=_DIM)
  return Case(
    kind="embeddings",
    folder=folder,
    files=[f"{kind}/{kind}_0.{extension}"],
    recipe=make_recipe("laion400m", folder, config=config),
    num_rows=_NUM_ROWS,
    vectors={
      f"{name}_embedding": dict(enumerate(map(np.ndarray.tobytes, of_kind)))
      for name, of_kind in zip(("image", "text"), vectors, strict=True)
    },
    list_pairs=(
      fault_oracles.read_table
      if kind == "metadata"
      else fault_oracles.read_vectors
    ),
  )


_COYO_TEXTS = {"url": fault_cases.make_url, "text": fault_cases.make_text}


def _make_value(field: pa.Field, number: int) -> Any:
  """Returns what a published column has in some row."""
  if field.name in _COYO_TEXTS:
    return _COYO_TEXTS[field.name](number)
  if field.name in fault_cases.NUMBER_BASES:
    return fault_cases.NUMBER_BASES[field.name] + number
  if pa.types.is_list(field.type):
    return [number + 1, number + 2, number + 3]
  if pa.types.is_string(field.type):
    return f"{number:016x}"
  return number + 1


def make_table(folder: pathlib.Path, name: str) -> Case:
  """The second of two published parquets of `coyo_700m/metadata` or the like."""
  recipe = make_recipe(name, folder)
  numbers = {"part-00000": range(20, 26), "part-00001": range(_NUM_ROWS)}
  for stem, rows in numbers.items():
    columns = [
      pa.array([_make_value(field, i) for i in rows], field.type)
      for field in recipe.columns
    ]
    table = pa.Table.from_arrays(columns, schema=recipe.columns)
    pq.write_table(table, folder / f"{stem}.parquet", row_group_size=4)
  return Case(
    kind="tables",
    folder=folder,
    files=["part-00001.parquet"],
    names=["part-00001"],
    recipe=recipe,
    num_rows=sum(map(len, numbers.values())),
    list_pairs=fault_oracles.read_table,
  )


_NUM_TILES = 6


def make_tile(number: int) -> bytes:
  return fault_cases.make_image(number, "PNG", compress_level=1)


def _write_screens(folder: pathlib.Path) -> dict[int, bytes]:
  """Writes tars of tiles and the JSON lines of all configs; returns the tiles."""
  tiles = {i: make_tile(i) for i in range(_NUM_TILES)}
  screens.write_tars(folder, tiles, tiles)
  rows = [
    screens.make_row(
      i,
      i,
      [(i + 1) % _NUM_TILES, (i + 2) % _NUM_TILES],
      query=fault_cases.make_text(i),
      split=screens.SPLITS[0 if i < 4 else i - 3],
      answer=fault_cases.make_text(i),
      source_positive_rank=i,
      source_positive_score=i / 8,
    )
    for i in range(_NUM_TILES)
  ]
  name = "lite-query-v2-full-filtered-hn-with-answer.jsonl"
  screens.write_lines(folder / name, rows)
  for split in screens.SPLITS:
    of_split = [row for row in rows if row["split"] == split]
    screens.write_lines(folder / f"{split}_hn.jsonl", of_split)
  return tiles


def make_screens(folder: pathlib.Path, kind: str) -> Case:
  """A part of the screenshot set.

  Args:
    folder: gets it.
    kind: what is damaged: `lines`, `tars`, `tars as tiles`, `folder`, `folder as
      tiles`, `index` of an earlier build or `index in use`.
  """
  tiles = _write_screens(folder)
  config = "tiles" if "tiles" in kind else "hard_negatives"
  case = Case(
    kind="tiles" if "tiles" in kind else "questions",
    folder=folder,
    files=["image_shards/shard_001.tar"],
    names=["shard_001"],
    recipe=make_recipe(f"{screens.NAME}/{config}", folder),
    num_rows=None if "tiles" in kind else _NUM_TILES,
    images=tiles,
    list_pairs=fault_oracles.read_tar,
  )
  if kind == "lines":
    return dataclasses.replace(
      case,
      kind="lite_query",
      recipe=make_recipe(f"{screens.NAME}/lite_query", folder),
      files=["lite-query-v2-full-filtered-hn-with-answer.jsonl"],
      names=[],
      num_rows=None,
      list_pairs=fault_oracles.read_lines,
      count_rows=fault_oracles.count_lines,
    )
  if kind.startswith("folder"):
    screens.extract(folder)
    return dataclasses.replace(
      case,
      files=[screens.get_path(3)],
      num_rows=_NUM_TILES,
      list_pairs=None,
    )
  if kind.startswith("index"):
    _write_index(folder)
    return dataclasses.replace(
      case,
      kind="tiles by index" if "in use" in kind else "tiles",
      recipe=make_recipe(f"{screens.NAME}/tiles", folder),
      files=[fault_cases.INDEX],
      names=[tile_index.INDEX_FILENAME],
      num_rows=_NUM_TILES,
      is_exact=True,
    )
  return case


def _write_index(folder: pathlib.Path) -> None:
  """Writes the index of an earlier build."""
  layout = layout_lib.find_layout(
    epath.Path(folder), dataset=screens.NAME, instructions=""
  )
  path = epath.Path(folder / fault_cases.INDEX)
  path.parent.mkdir()
  tile_index.write_index(tile_scan.make_index(layout.tars), path)
