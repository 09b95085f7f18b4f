"""img2dataset's output folder as the source of a conversion."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import json
from typing import NamedTuple

from etils import epath
import pyarrow as pa

from tfds_plugins import errors
from tfds_plugins.sources import checking
from tfds_plugins.sources import folders
from tfds_plugins.sources.img2dataset import files
from tfds_plugins.sources.img2dataset import image_parquet
from tfds_plugins.sources.img2dataset import listing as listing_lib
from tfds_plugins.sources.img2dataset import parquet_rows
from tfds_plugins.sources.img2dataset import tfrecord
from tfds_plugins.sources.img2dataset import webdataset
from tfds_plugins.sources.img2dataset.shards import Format
from tfds_plugins.sources.img2dataset.shards import ImageShard
from tfds_plugins.sources.rows import Source
from tfds_plugins.sources.rows import SourceBatch
from tfds_plugins.sources.rows import SourceSlice

_NUM_CHECKING_THREADS = 16


class _Reader(NamedTuple):
  """How a format is read.

  Attributes:
    check: looks at the start of a shard, and completes what is known of it.
    iter_batches: yields the rows of a slice.
  """

  check: Callable[[ImageShard], ImageShard]
  iter_batches: Callable[
    [SourceSlice[ImageShard], pa.Schema], Iterator[SourceBatch]
  ]


_READERS = {
  Format.WEBDATASET: _Reader(webdataset.check, webdataset.iter_batches),
  Format.FILES: _Reader(files.check, files.iter_batches),
  Format.PARQUET: _Reader(image_parquet.check, image_parquet.iter_batches),
  Format.TFRECORD: _Reader(tfrecord.check, tfrecord.iter_batches),
}


def iter_batches(
  source_slice: SourceSlice[ImageShard], wanted: pa.Schema
) -> Iterator[SourceBatch]:
  """Yields the rows of a slice, in the order of the shard.

  Args:
    source_slice: a part of a shard of any format.
    wanted: names and types of the metadata columns.

  Yields:
    Batches with the columns `key`, `image` and the wanted ones.

  Raises:
    errors.SourceError: the shard is not what img2dataset writes.
  """
  reader = _READERS[source_slice.shard.format]
  return reader.iter_batches(source_slice, wanted)


def check_source(listing: listing_lib.Listing) -> Source:
  """Checks the start of every shard that was found.

  Args:
    listing: from `listing.find_shards`.

  Returns:
    The source.

  Raises:
    errors.SourceError: some are not what they seem, or their parquets are
      unusable; all of them are named.
  """
  checked = checking.map_all(
    _check_shard, listing.shards, num_threads=_NUM_CHECKING_THREADS
  )
  problems = [problem for _, found in checked for problem in found]
  if problems:
    raise errors.SourceError(errors.describe(problems))
  shards = [shard for shard, _ in checked]
  notes = []
  nested = [shard.name for shard in shards if "/" in shard.name]
  if nested:
    parents = list(dict.fromkeys(name.split("/")[0] for name in nested))
    notes.append(
      f"{len(nested):,} of the shards lie in sub-folders ({folders.shorten(parents)})."
    )
  if listing.unfinished:
    notes.append(
      f"{len(listing.unfinished):,} shards were left out, for they have no"
      " _stats.json: img2dataset is still writing them, or was stopped"
      f" ({folders.shorten(listing.unfinished)})."
    )
  if listing.without_images:
    notes.append(
      f"{len(listing.without_images):,} shards have metadata but no images, and"
      f" were left out ({folders.shorten(listing.without_images)})."
    )
  notes += _note_missing_parquets(listing.shards)
  return Source(source_dir=str(listing.source_dir), shards=shards, notes=notes)


def _check_shard(
  shard: ImageShard,
) -> tuple[ImageShard, list[errors.Problem | str]]:
  """Returns a shard, and what is wrong with its start or its parquet's footer."""
  problems: list[errors.Problem | str] = []
  try:
    shard = _READERS[shard.format].check(shard)
    # One in which every download failed has no sample, but a parquet of rows.
    shard = dataclasses.replace(shard, length=max(1, shard.length))
  except errors.SourceError as e:
    problems.append(str(e))
  if shard.parquet_path:
    try:
      parquet_rows.check_file(epath.Path(shard.parquet_path))
    except errors.SourceError as e:
      problems.append(str(e))
  return shard, problems


def _note_missing_parquets(shards: Sequence[ImageShard]) -> list[str]:
  """Says how many failed rows cannot be listed for want of a parquet."""
  lacking = [
    shard
    for shard in shards
    if not shard.parquet_path and shard.format is not Format.PARQUET
  ]
  if not lacking:
    return []
  num_failed = 0
  for shard in lacking:
    path = epath.Path(shard.path)
    stem = shard.name.rpartition("/")[2]
    try:
      stats = json.loads(path.with_name(f"{stem}_stats.json").read_text())
      num_failed += int(stats["count"]) - int(stats["successes"])
    except (
      *(OSError, ValueError, KeyError, TypeError, OverflowError),
      RecursionError,
    ):
      # An old version, a file by someone else, or a shard of another name.
      counted = "of unknown number"
      break
  else:
    counted = f"{num_failed:,} by the _stats.json files"
  return [
    f"{len(lacking):,} shards have no parquet: the rows whose download failed"
    f" ({counted}) are not in the counts"
    f" ({folders.shorten([shard.name for shard in lacking])})."
  ]
