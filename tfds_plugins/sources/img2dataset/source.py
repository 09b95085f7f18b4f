"""img2dataset's output folder as the source of a conversion."""

from __future__ import annotations

from collections.abc import Sequence
import concurrent.futures
import json

from etils import epath

from tfds_plugins import errors
from tfds_plugins.sources import folders
from tfds_plugins.sources.img2dataset import listing as listing_lib
from tfds_plugins.sources.img2dataset import parquet_rows
from tfds_plugins.sources.img2dataset import samples
from tfds_plugins.sources.rows import Source

_NUM_CHECKING_THREADS = 16


def check_source(listing: listing_lib.Listing) -> Source:
  """Checks the start of every shard that was found.

  Args:
    listing: from `listing.find_shards`.

  Returns:
    The source.

  Raises:
    errors.SourceError: some are no tars, or their parquets are unusable; all
      of them are named.
  """
  with concurrent.futures.ThreadPoolExecutor(_NUM_CHECKING_THREADS) as pool:
    found = list(pool.map(_list_problems, listing.shards))
  problems = [problem for of_shard in found for problem in of_shard]
  if problems:
    raise errors.SourceError(errors.describe(problems))
  notes = []
  nested = [shard.name for shard in listing.shards if "/" in shard.name]
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
  if listing.without_tar:
    notes.append(
      f"{len(listing.without_tar):,} shards have metadata but no tar, and were"
      f" left out ({folders.shorten(listing.without_tar)})."
    )
  notes += _note_missing_parquets(listing.shards)
  return Source(
    source_dir=str(listing.source_dir), shards=listing.shards, notes=notes
  )


def _list_problems(
  shard: listing_lib.TarShard,
) -> list[errors.Problem | str]:
  """Returns what is wrong with the start of a tar and its parquet's footer."""
  problems = []
  try:
    samples.check_tar(epath.Path(shard.tar_path))
  except errors.SourceError as e:
    problems.append(str(e))
  if shard.parquet_path:
    try:
      parquet_rows.check_file(epath.Path(shard.parquet_path))
    except errors.SourceError as e:
      problems.append(str(e))
  return problems


def _note_missing_parquets(
  shards: Sequence[listing_lib.TarShard],
) -> list[str]:
  """Says how many failed rows cannot be listed for want of a parquet."""
  lacking = [shard for shard in shards if not shard.parquet_path]
  if not lacking:
    return []
  num_failed = 0
  for shard in lacking:
    tar_path = epath.Path(shard.tar_path)
    stats_path = tar_path.with_name(f"{tar_path.stem}_stats.json")
    try:
      stats = json.loads(stats_path.read_text())
      num_failed += int(stats["count"]) - int(stats["successes"])
    except (OSError, ValueError, KeyError, TypeError):
      continue  # An old version, or a file by someone else.
  return [
    f"{len(lacking):,} shards have no parquet: the rows whose download failed"
    f" ({num_failed:,} by the _stats.json files) are not in the counts"
    f" ({folders.shorten([shard.name for shard in lacking])})."
  ]
