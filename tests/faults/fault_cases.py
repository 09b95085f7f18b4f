"""What is damaged, how it is read, and how rows are told from each other.

Everything in a source says of which row it is, several times, so that damage to
one part can be told from parts of two rows that were put together: texts have
the row's number three times, pixels and vectors are noise that is the row's own.
Nothing here imports TensorFlow.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
import io
import pathlib
import re
from typing import Any

from etils import epath
import numpy as np
from PIL import Image
import screens
import shards

from tfds_plugins.conversion.recipe import Recipe
from tfds_plugins.sources import tables
from tfds_plugins.sources.clip_retrieval import partition_check
from tfds_plugins.sources.clip_retrieval import partitions as partitions_lib
from tfds_plugins.sources.img2dataset import listing
from tfds_plugins.sources.img2dataset import source as img2dataset
from tfds_plugins.sources.rows import Source
from tfds_plugins.sources.screenshots import layout as layout_lib
from tfds_plugins.sources.screenshots import question_plan
from tfds_plugins.sources.screenshots import tile_index
from tfds_plugins.sources.screenshots import tile_scan
from tfds_plugins.sources.screenshots import tile_source

# A feature of an example: its name, the number in a list -> of which row it is.
Identities = dict[str, int]
# By feature, the values of an example.
Example = Mapping[str, Any]

# What the numbers of row 0 are; row i has i more.
NUMBER_BASES = {
  "original_width": 1000,
  "original_height": 2000,
  "width": 1000,
  "height": 2000,
  "id": 3000,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
  """A source of which some files are damaged, one at a time.

  Attributes:
    name: for people.
    kind: how it is found; a key of `FINDERS`.
    folder: the `manual_dir`.
    files: those that are damaged, below the folder.
    names: what an error may call them, beside their paths.
    recipe: of the builder.
    num_rows: how many rows there are, if the damaged files do not decide it.
    count_rows: how many rows a damaged file has, by another reader.
    has_end: whether it shows that the end of a damaged file is missing.
    is_exact: whether the damage may change nothing at all.
    images: the encoded images, by row.
    vectors: feature -> float16 vectors, by row.
    list_pairs: what the damaged file says itself: each of the identities that it
      puts together. Where there is no checksum, nobody can know better.
  """

  name: str = ""
  kind: str
  folder: pathlib.Path
  files: Sequence[str]
  names: Sequence[str] = ()
  recipe: Recipe
  num_rows: int | None = None
  is_exact: bool = False
  images: Mapping[int, bytes] = dataclasses.field(default_factory=dict)
  vectors: Mapping[str, Mapping[int, bytes]] = dataclasses.field(
    default_factory=dict
  )
  list_pairs: Callable[[Case, pathlib.Path], list[Identities]] | None = None
  count_rows: Callable[[pathlib.Path], int] | None = None
  has_end: bool = True

  def find(self, work_dir: pathlib.Path) -> Mapping[str, Source]:
    """Returns the sources by split, as the builder finds them."""
    return FINDERS[self.kind](self, epath.Path(work_dir))


def make_text(number: int) -> str:
  return f"row {number:03d} {number:03d} {number:03d}"


def make_url(number: int) -> str:
  return f"http://example.com/{number:03d}/{number:03d}/{number:03d}.jpg"


def make_row(number: int, key: str) -> dict[str, Any]:
  """Returns a row of img2dataset's whose values all say which it is."""
  return shards.make_row(
    number,
    key,
    caption=make_text(number),
    url=make_url(number),
    similarity=0.25 + number / 256,
    original_width=NUMBER_BASES["original_width"] + number,
    original_height=NUMBER_BASES["original_height"] + number,
  )


def make_image(number: int, image_format: str = "JPEG", **options) -> bytes:
  image = shards.noise(number, 12 + number, 9)
  if options.get("save_all"):
    options["append_images"] = [shards.noise(number + 100, 12 + number, 9)]
  return shards.encode(image, image_format, **options)


def make_vector(number: int, kind: str, dim: int) -> np.ndarray:
  rng = np.random.default_rng([number, len(kind)])
  return rng.normal(size=dim).astype(np.float16)


def find_text(value: bytes | str) -> int | None:
  """Returns the number that a text has twice at least."""
  if isinstance(value, str):
    value = value.encode("utf-8", "replace")
  counts = collections.Counter(re.findall(rb"(?<!\d)\d{3}(?!\d)", value))
  number, count = max(counts.items(), key=lambda item: item[1], default=(0, 0))
  return int(number) if count >= 2 else None


def find_path(value: bytes | str) -> int | None:
  if isinstance(value, str):
    value = value.encode("utf-8", "replace")
  match = re.search(rb"(\d{6})\.png\.tiles", value)
  return int(match[1]) if match else None


@functools.cache
def _make_shingles(data: bytes) -> frozenset[bytes]:
  return frozenset(data[i : i + 6] for i in range(len(data) - 5))


def find_image(data: bytes, images: Mapping[int, bytes]) -> int | None:
  """Returns the row whose image this is, maybe damaged; None if unclear."""
  for number, image in images.items():
    if image == data:
      return number
  if data.startswith(b"\x89PNG") and not any(
    image.startswith(b"\x89PNG") for image in images.values()
  ):
    return _find_pixels(data, images)
  found = {data[i : i + 6] for i in range(len(data) - 5)}
  counts = {n: _make_shingles(image) for n, image in images.items()}
  common = collections.Counter(s for each in counts.values() for s in each)
  scores = collections.Counter(
    {
      n: sum(s in found for s in each if common[s] == 1)
      for n, each in counts.items()
    }
  )
  return _get_winner(scores)


def _get_winner(scores: collections.Counter) -> int | None:
  """Returns the row that is ahead of all others beyond doubt."""
  (first, most), (_, second) = (scores.most_common(2) + [(0, 0), (0, 0)])[:2]
  return first if most >= 40 and most > 3 * second else None


@functools.cache
def _decode(data: bytes) -> np.ndarray:
  with Image.open(io.BytesIO(data)) as image:
    return np.asarray(image.convert("RGB")).astype(int)


def _find_pixels(data: bytes, images: Mapping[int, bytes]) -> int | None:
  """Returns whose pixels these are, from the upper left corner on."""
  sizes = {_decode(image).shape[1::-1] for image in images.values()}
  with Image.open(io.BytesIO(data)) as image:
    if image.size not in sizes:
      return None  # Maybe a very large one.
  pixels = _decode(data)
  scores: collections.Counter = collections.Counter()
  for number, image in images.items():
    other = _decode(image)
    if other.shape == pixels.shape:
      scores[number] = int((np.abs(other - pixels) <= 2).sum())
  return _get_winner(scores)


def find_vector(data: bytes, vectors: Mapping[int, bytes]) -> int | None:
  """Returns the row whose vector this is, most of it."""
  values = np.frombuffer(data, np.uint16)
  for number, vector in vectors.items():
    other = np.frombuffer(vector, np.uint16)
    if len(other) == len(values) and (other == values).mean() > 0.5:
      return number
  return None


def identify(case: Case, example: Example) -> Identities:
  """Returns of which row each feature is; without those that cannot say."""
  found: dict[str, int | None] = {}
  for name in ("caption", "text", "url", "query"):
    if name in example:
      found[name] = find_text(example[name][0])
  for name, base in NUMBER_BASES.items():
    if name in example:
      found[name] = int(example[name][0]) - base
  # (A number has no second copy: two of them have to agree.)
  numbers = {name: found.pop(name) for name in NUMBER_BASES if name in found}
  if len(numbers) > 1 and len(set(numbers.values())) == 1:
    found |= numbers
  if "chunk_path" in example:
    found["path"] = find_path(example["chunk_path"][0])
  if "image" in example:
    found["image"] = find_image(example["image"][0], case.images)
  for name, vectors in case.vectors.items():
    found[name] = find_vector(example[name][0], vectors)
  return {name: value for name, value in found.items() if value is not None}


def identify_negatives(case: Case, example: Example) -> list[Identities]:
  """Returns of which tiles the negatives of an example are."""
  paths = list(map(find_path, example.get("neg_chunk_paths", ())))
  images = [
    find_image(image, case.images) for image in example.get("neg_images", ())
  ]
  if len(paths) != len(images):
    return [{"number of paths": len(paths), "number of images": len(images)}]
  return [
    {"path": path, "image": image}
    for path, image in zip(paths, images, strict=True)
    if path is not None and image is not None
  ]


def _find_images(case: Case, work_dir: epath.Path) -> Mapping[str, Source]:
  found = listing.find_shards(
    epath.Path(case.folder),
    dataset="laion400m",
    config="images",
    instructions="",
  )
  return {"train": img2dataset.check_source(found)}


def _find_embeddings(case: Case, work_dir: epath.Path) -> Mapping[str, Source]:
  found = partitions_lib.find_partitions([epath.Path(case.folder)])
  assert found is not None
  dim = len(case.vectors["image_embedding"][0]) // 2
  source = partition_check.check_source(
    found, dim=dim, wanted=case.recipe.columns, advise_dim=str
  )
  return {"train": source}


def _find_tables(case: Case, work_dir: epath.Path) -> Mapping[str, Source]:
  listed = tables.list_tables(
    epath.Path(case.folder), dataset="coyo", config="metadata", instructions=""
  )
  return {"train": tables.check_source(listed, case.recipe.columns, ["id"])}


INDEX = f"earlier/{tile_index.INDEX_FILENAME}"


def _find_questions(
  case: Case, work_dir: epath.Path, *, is_lite: bool = False
) -> Mapping[str, Source]:
  layout = _find_layout(case)
  name = "lite-query-v2-full-filtered-hn-with-answer" if is_lite else "{}_hn"
  files = {
    split: layout_lib.pick_file(layout, [f"{name}.jsonl".format(split)], "")
    for split in screens.SPLITS
  }
  listed = question_plan.list_sources(files, dataset_dir=layout.dataset_dir)
  return question_plan.check_source(
    listed,
    index=_make_index(case, layout, work_dir),
    work_dir=work_dir,
    wanted=case.recipe.columns.names,
    refuse_missing_tiles=False,
  )


def _find_tiles(case: Case, work_dir: epath.Path) -> Mapping[str, Source]:
  layout = _find_layout(case)
  source = tile_source.check_source(
    tile_source.list_source(layout),
    index=_make_index(case, layout, work_dir),
    index_path=work_dir / tile_index.INDEX_FILENAME,
    instructions="",
  )
  return {"train": source}


def _find_tiles_by_index(
  case: Case, work_dir: epath.Path
) -> Mapping[str, Source]:
  """Damages the index of this build, which is there by the time it is read."""
  sources = _find_tiles(case, work_dir)
  path = epath.Path(case.folder / INDEX)
  (work_dir / tile_index.INDEX_FILENAME).write_bytes(path.read_bytes())
  return sources


def _find_layout(case: Case) -> layout_lib.Layout:
  return layout_lib.find_layout(
    epath.Path(case.folder), dataset=screens.NAME, instructions=""
  )


def _make_index(
  case: Case, layout: layout_lib.Layout, work_dir: epath.Path
) -> tile_index.TileIndex:
  known = tile_index.read_index(epath.Path(case.folder / INDEX))
  index = tile_scan.make_index(layout.tars, [known] if known else [])
  tile_index.write_index(index, work_dir / tile_index.INDEX_FILENAME)
  return index


FINDERS: Mapping[str, Callable[[Case, epath.Path], Mapping[str, Source]]] = {
  "images": _find_images,
  "embeddings": _find_embeddings,
  "tables": _find_tables,
  "questions": _find_questions,
  "lite_query": functools.partial(_find_questions, is_lite=True),
  "tiles": _find_tiles,
  "tiles by index": _find_tiles_by_index,
}
