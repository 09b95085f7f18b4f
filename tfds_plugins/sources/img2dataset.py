"""img2dataset's output folder as the source of a conversion."""

from __future__ import annotations

from collections.abc import Sequence
import concurrent.futures
import dataclasses
import json

from etils import epath

from tfds_plugins import errors
from tfds_plugins.sources import listing as listing_lib
from tfds_plugins.sources import parquet_rows
from tfds_plugins.sources import samples
from tfds_plugins.sources.rows import SourceSlice

_NUM_CHECKING_THREADS = 16
_MAX_NAMES_IN_NOTE = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
  """A source folder, looked over and ready to be converted.

  Attributes:
    source_dir: the folder that was taken.
    shards: whole shards, in order.
    notes: what the user should know: shards that were left out, and why.
  """

  source_dir: epath.Path
  shards: list[SourceSlice]
  notes: list[str]


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
  shards = [
    SourceSlice(
      name=shard.name,
      path=str(shard.tar_path),
      metadata_path=str(shard.parquet_path or ""),
      start=0,
      stop=shard.size_bytes,
      size_bytes=shard.size_bytes,
    )
    for shard in listing.shards
  ]
  notes = []
  nested = [shard.name for shard in listing.shards if "/" in shard.name]
  if nested:
    folders = list(dict.fromkeys(name.split("/")[0] for name in nested))
    notes.append(
      f"{len(nested):,} of the shards lie in sub-folders ({_name_some(folders)})."
    )
  if listing.unfinished:
    notes.append(
      f"{len(listing.unfinished):,} shards were left out, for they have no"
      " _stats.json: img2dataset is still writing them, or was stopped"
      f" ({_name_some(listing.unfinished)})."
    )
  if listing.without_tar:
    notes.append(
      f"{len(listing.without_tar):,} shards have metadata but no tar, and were"
      f" left out ({_name_some(listing.without_tar)})."
    )
  notes += _note_missing_parquets(listing.shards)
  return Source(source_dir=listing.source_dir, shards=shards, notes=notes)


def _list_problems(
  shard: listing_lib.SourceShard,
) -> list[errors.Problem | str]:
  """Returns what is wrong with the start of a tar and its parquet's footer."""
  problems = []
  try:
    samples.check_tar(shard.tar_path)
  except errors.SourceError as e:
    problems.append(str(e))
  if shard.parquet_path is not None:
    try:
      parquet_rows.check_file(shard.parquet_path)
    except errors.SourceError as e:
      problems.append(str(e))
  return problems


def _note_missing_parquets(
  shards: Sequence[listing_lib.SourceShard],
) -> list[str]:
  """Says how many failed rows cannot be listed for want of a parquet."""
  lacking = [shard for shard in shards if shard.parquet_path is None]
  if not lacking:
    return []
  num_failed = 0
  for shard in lacking:
    stats_path = shard.tar_path.with_name(f"{shard.tar_path.stem}_stats.json")
    try:
      stats = json.loads(stats_path.read_text())
      num_failed += int(stats["count"]) - int(stats["successes"])
    except (OSError, ValueError, KeyError, TypeError):
      continue  # An old version, or a file by someone else.
  return [
    f"{len(lacking):,} shards have no parquet: the rows whose download failed"
    f" ({num_failed:,} by the _stats.json files) are not in the counts"
    f" ({_name_some([shard.name for shard in lacking])})."
  ]


def _name_some(names: Sequence[str]) -> str:
  shown = ", ".join(names[:_MAX_NAMES_IN_NOTE])
  return shown + (", ..." if len(names) > _MAX_NAMES_IN_NOTE else "")
