"""Samples of img2dataset's files output: a folder of single files.

A shard is a folder `00000` of `<key>.jpg` (or `.png`, `.webp`), `<key>.json`
and maybe `<key>.txt` (rom1504/img2dataset, `img2dataset/writer.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses
from typing import Any

from etils import epath
import pyarrow as pa

from tfds_plugins import errors
from tfds_plugins.sources import folders
from tfds_plugins.sources.img2dataset import json_rows
from tfds_plugins.sources.img2dataset import pairing
from tfds_plugins.sources.img2dataset import samples as samples_lib
from tfds_plugins.sources.img2dataset.samples import Sample
from tfds_plugins.sources.img2dataset.shards import ImageShard
from tfds_plugins.sources.rows import SourceBatch
from tfds_plugins.sources.rows import SourceSlice

# So many samples are paired with their metadata at a time, or fewer large ones.
_BATCH_SAMPLES = 256
_BATCH_BYTES = 8 << 20
# The size of a shard is that of so many of its images, times their number.
_NUM_MEASURED = 16
_METADATA_EXTENSIONS = frozenset(("json", "txt"))


def iter_batches(
  source_slice: SourceSlice[ImageShard], wanted: pa.Schema
) -> Iterator[SourceBatch]:
  """Yields the rows of a slice in the order of their keys; see `pairing`."""
  reader = _FileSamples(source_slice)
  yield from pairing.iter_batches(reader, source_slice, wanted)


def check(shard: ImageShard) -> ImageShard:
  """Lists the folder of a shard.

  Args:
    shard: the shard, of unknown length and size.

  Returns:
    The shard, with its number of samples and about the size of their images.

  Raises:
    errors.SourceError: the folder cannot be listed.
  """
  try:
    images = _list_images(epath.Path(shard.path))
  except OSError as e:
    problem = errors.Problem(
      what="The folder of a shard cannot be listed.",
      where=shard.path,
      expected="a folder of images, as img2dataset writes it",
      found=f"{type(e).__name__}: {e}",
      to_do="See to its permissions, or remove it.",
    )
    raise errors.SourceError(str(problem)) from e
  paths = [path for path in images.values() if path is not None]
  measured = paths[:: max(1, len(paths) // _NUM_MEASURED)]
  total = sum(map(folders.get_size, measured))
  return dataclasses.replace(
    shard,
    length=len(images),
    # At least one byte a sample: plans are made of sizes.
    size_bytes=max(len(images), total * len(paths) // max(1, len(measured))),
  )


def _list_images(folder: epath.Path) -> dict[str, epath.Path | None]:
  """Returns the image of every key, in the order of the keys.

  Where a key has two, it is the first by name; None where there is only
  metadata.
  """
  images: dict[str, epath.Path | None] = {}
  for path in sorted(folders.list_children(folder), key=lambda path: path.name):
    key, _, extension = path.name.partition(".")
    extension = extension.lower()
    if not key:  # A hidden file.
      continue
    if extension in samples_lib.IMAGE_EXTENSIONS:
      images[key] = images.get(key) or path
    elif extension in _METADATA_EXTENSIONS:
      images.setdefault(key)
  return dict(sorted(images.items()))


class _FileSamples:
  """Reads the samples of a slice of a folder."""

  def __init__(self, source_slice: SourceSlice[ImageShard]):
    self._slice = source_slice
    self._folder = epath.Path(source_slice.shard.path)

  def iter_samples(self) -> Iterator[list[Sample]]:
    """Yields some samples at a time; a position is the number of a key."""
    samples: list[Sample] = []
    num_bytes = 0
    for position, (key, path) in enumerate(_list_images(self._folder).items()):
      is_inside = self._slice.start <= position < self._slice.stop
      if not is_inside and not self._slice.is_first:
        continue
      sample = Sample(
        key=key.encode("utf-8", "surrogateescape"), position=position
      )
      if is_inside and path is not None:
        num_bytes += _read_image(sample, path)
      samples.append(sample)
      if len(samples) >= _BATCH_SAMPLES or num_bytes >= _BATCH_BYTES:
        yield samples
        samples, num_bytes = [], 0
    if samples:
      yield samples

  def read_row(self, sample: Sample) -> Mapping[str, Any] | str:
    """Reads and parses the `.json` file."""
    key = sample.key.decode("utf-8", "surrogateescape")
    path = self._folder / f"{key}.json"
    try:
      folders.check_regular(path)
    except FileNotFoundError:
      return "neither a row in a parquet nor a .json file"
    except OSError as e:
      return f"{path.name}: {e}"
    with path.open("rb") as f:
      data: Any = f.read(json_rows.MAX_JSON_BYTES + 1)
    if len(data) > json_rows.MAX_JSON_BYTES:
      return f"the .json file has more than {json_rows.MAX_JSON_BYTES:,} bytes"
    return json_rows.parse_row(data)

  def find_damage(self) -> tuple[str, str] | None:
    """A folder has no end that could be missing."""
    return None


def _read_image(sample: Sample, path: epath.Path) -> int:
  """Reads the image of a sample and returns its size."""
  try:
    folders.check_regular(path)
  except OSError as e:
    sample.problem = (samples_lib.NO_IMAGE, f"{path.name}: {e}")
    return 0
  with path.open("rb") as f:
    data: Any = f.read(samples_lib.MAX_IMAGE_BYTES + 1)
  if len(data) > samples_lib.MAX_IMAGE_BYTES:
    sample.problem = samples_lib.describe_large(folders.get_size(path))
    return 0
  sample.image = data
  return len(data)
