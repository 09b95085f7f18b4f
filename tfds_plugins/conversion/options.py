"""Options of a conversion."""

from __future__ import annotations

import dataclasses
from typing import Any

from tfds_plugins import errors

# Each part of a source shard is read on its own; smaller ones cost more to
# find than to convert.
MIN_SHARD_BYTES = 1 << 20

# What may be done with a dataset whose source has changed.
UPDATE_ADD = "add"
UPDATE_SYNC = "sync"
UPDATES = (UPDATE_ADD, UPDATE_SYNC)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConversionOptions:
  """Options of a conversion.

  Attributes:
    num_workers: number of worker processes; 1 converts in this process. None
      stands for one per core that this process may use, and for 1 where the
      source is so small that it would be converted before they have started.
    verify_manual_files: whether to compare the user's files with the published
      ones first.
    update: what to do with a dataset that is there: nothing, or one of `UPDATES`.
  """

  num_workers: int | None = None
  verify_manual_files: bool = False
  update: str | None = None

  def __post_init__(self) -> None:
    if not isinstance(self.verify_manual_files, bool):
      raise errors.OptionError(
        "verify_manual_files must be True or False, not"
        f" {self.verify_manual_files!r}."
      )
    if self.update is not None and self.update not in UPDATES:
      raise errors.OptionError(
        f"update must be one of {', '.join(UPDATES)}, or None, not"
        f" {self.update!r}."
      )
    value = self.num_workers
    if value is None:
      return
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
      raise errors.OptionError(
        f"num_workers must be an integer from 1 on, or None, not {value!r}."
      )


def check_download_config(config: Any) -> None:
  """Checks what a `tfds.download.DownloadConfig` asks for.

  Args:
    config: the config; `num_shards`, `max_shard_size` and
      `max_examples_per_split` are looked at.

  Raises:
    errors.OptionError: no plan can be made with these.
  """
  if config.num_shards is not None and config.num_shards < 1:
    raise errors.OptionError(
      f"num_shards must be at least 1, not {config.num_shards}."
    )
  if config.max_shard_size < MIN_SHARD_BYTES:
    raise errors.OptionError(
      f"max_shard_size must be at least {MIN_SHARD_BYTES:,} bytes (1 MiB), not"
      f" {config.max_shard_size:,}."
    )
  limit = config.max_examples_per_split
  if limit is not None and limit < 0:
    raise errors.OptionError(
      f"max_examples_per_split must not be negative: {limit}."
    )


def check_update(
  config: Any,
  options: ConversionOptions,
  *,
  is_part: bool,
  is_remote: bool,
  can_add: bool,
  file_format: Any,
) -> None:
  """Checks whether a dataset can be updated.

  Args:
    config: the `tfds.download.DownloadConfig`.
    options: their `update` is asked for.
    is_part: whether the dataset is a part of its source on purpose.
    is_remote: whether it is on an object store.
    can_add: whether what a source shard gives does not depend on the others.
    file_format: what `download_and_prepare` was given.

  Raises:
    errors.OptionError: it cannot.
  """
  if is_remote:
    raise errors.OptionError(
      "update: an updated dataset takes the place of the one that is there by"
      " renaming its folder, and folders of object stores cannot be renamed."
      " Build it with --overwrite, or update a copy on a disk."
    )
  if config.max_examples_per_split is not None or is_part:
    raise errors.OptionError(
      "update: the dataset has a part of its source on purpose"
      " (max_examples_per_split). Build it with --overwrite."
    )
  if file_format is not None:
    raise errors.OptionError(
      "update: the dataset keeps the format that it has. Build it with"
      " --overwrite for another."
    )
  if options.update == UPDATE_ADD and not can_add:
    raise errors.OptionError(
      "update=add: what there is to convert depends on all source shards of this"
      " config together. Use update=sync, which converts again only what has"
      " changed."
    )
  if options.update == UPDATE_ADD and config.num_shards is not None:
    raise errors.OptionError(
      "num_shards: what is added to a dataset gets output shards of its own, so"
      " their number cannot be chosen. Use update=sync."
    )
