"""When a dataset is prepared, gone on with, looked after, and updated."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from collections.abc import Sequence
import os
from typing import Any

from absl import logging
from etils import epath
import tensorflow_datasets as tfds
from tensorflow_datasets.core import splits as splits_lib
from tensorflow_datasets.core import utils

from tfds_plugins import errors
from tfds_plugins.conversion import remote
from tfds_plugins.conversion import source_shards
from tfds_plugins.conversion import update as update_lib
from tfds_plugins.conversion import work_dir
from tfds_plugins.conversion.options import UPDATE_ADD
from tfds_plugins.conversion.options import ConversionOptions
from tfds_plugins.conversion.options import check_update
from tfds_plugins.conversion.receipts import ShardReceipt
from tfds_plugins.conversion.task import Task
from tfds_plugins.reading import builder as reading_builder
from tfds_plugins.sources.rows import SourceShard

_UPDATE_INFO = tfds.download.GenerateMode.UPDATE_DATASET_INFO
_NOTHING_KEPT = update_lib.Kept(tasks={}, states={})
_DEFAULT_SHARD_SIZE = tfds.download.DownloadConfig().max_shard_size


class PreparationBuilder(
  reading_builder.BatchReaderBuilder, skip_registration=True
):
  """A `tfds.core.DatasetBuilder` whose builds survive and whose datasets grow.

  Around TFDS's `download_and_prepare` it keeps other builds away, lets a build go on
  where one was stopped (`work_dir.py`), says how the source of a prepared dataset has
  changed (`source_shards.py`), and updates it (`update.py`).
  """

  def __init__(self, options: ConversionOptions, **kwargs: Any):
    """Initializes a builder.

    Args:
      options: its `update` says what to do with a dataset that is there.
      **kwargs: as for every TFDS builder.

    Raises:
      errors.OptionError: `data_dir` is where nothing can be opened.
    """
    self._options = options
    # The folders of which the user has been told how they have changed.
    self._reported_dirs: set[str] = set()
    self._is_updated = False
    # What to print when a build is over; None if nothing was converted.
    self._account: str | None = None
    # While `download_and_prepare` runs:
    self._work_dir: work_dir.WorkDir | None = None
    self._kept = _NOTHING_KEPT
    self._num_tasks: int | None = None
    problem = remote.find_obstacle(kwargs.get("data_dir") or "", "data_dir")
    if problem is not None:
      raise errors.OptionError(str(problem))
    super().__init__(**kwargs)

  @property
  def _can_add(self) -> bool:
    """Whether what a source shard gives does not depend on the others."""
    return True

  @abc.abstractmethod
  def _list_shards(
    self, manual_dir: epath.Path
  ) -> Mapping[str, Sequence[SourceShard]]:
    """Returns the source shards of each split in the state that they are in.

    Args:
      manual_dir: the user's folder. Nothing in it is read but what is needed to
        tell what there is.

    Raises:
      errors.TfdsPluginsError: the data is not there.
    """

  @abc.abstractmethod
  def _make_kept_task(
    self, receipt: ShardReceipt, states: Mapping[str, str]
  ) -> Task:
    """Returns the task that gave a receipt, without what only running it needs."""

  def download_and_prepare(
    self,
    *,
    download_dir: epath.PathLike | None = None,
    download_config: tfds.download.DownloadConfig | None = None,
    **kwargs: Any,
  ) -> None:
    """Prepares the dataset, see `tfds.core.DatasetBuilder`.

    A build that was stopped is gone on with. If the dataset is prepared and its
    source has changed since, says so, or does what `update` asks for.

    Args:
      download_dir: see `tfds.core.DatasetBuilder`.
      download_config: likewise.
      **kwargs: likewise.

    Raises:
      errors.TfdsPluginsError: it cannot be prepared.
    """
    config = download_config or tfds.download.DownloadConfig()
    arguments = {
      "download_dir": download_dir,
      "download_config": config,
      **kwargs,
    }
    mode = config.download_mode
    is_update = self._options.update is not None and not mode.overwrite_dataset
    is_there = remote.has_dataset(self.data_path)
    if mode is _UPDATE_INFO or (
      is_there and not (mode.overwrite_dataset or is_update)
    ):
      if mode is not _UPDATE_INFO:
        self._report_changes(config.manual_dir)
      super().download_and_prepare(**arguments)
      return
    self._prepare(arguments, is_update=is_update)
    self._is_updated = True
    if self._account is not None:
      # Printed, not logged: TFDS shows no log below a warning, and nobody
      # should have to look for what was skipped.
      print(f"{self._account}\n  Prepared in {self.data_dir}", flush=True)
      self._account = None

  def _prepare(self, arguments: Mapping[str, Any], *, is_update: bool) -> None:
    """Builds or updates the dataset, and nobody else does at the same time."""
    config = arguments["download_config"]
    work = self._work_dir = work_dir.WorkDir(self.data_path)
    # Restored from a prepared dataset, it would be written to the new one.
    self.info._metadata = None
    try:
      with work.claim():
        try:
          if config.download_mode.overwrite_dataset:
            work.clear()
          if is_update and remote.has_dataset(self.data_path):
            self._update(work, arguments)
          else:
            with remote.preparing(self.data_path):
              super().download_and_prepare(**arguments)
          if self._account is None:
            # Another process has been faster, or nothing had to be done.
            self.info.read_from_directory(self.data_path)
          if config.max_examples_per_split is None:
            work.remove()
          # (A trial leaves what a build of everything has done before.)
        except BaseException:
          # Printed, for it is as true after Ctrl-C as after an error.
          if work.count_receipts():
            print(work.describe(self._num_tasks), flush=True)
          raise
    finally:
      self._work_dir = self._num_tasks = None
      self._kept = _NOTHING_KEPT

  def is_prepared(self) -> bool:
    """Whether there is nothing to be done before the dataset can be read.

    `tfds.load` asks this, and calls `download_and_prepare` if it is false. So it
    is here that it hears of changes of the source, and of what `update` is for.
    """
    is_prepared = super().is_prepared()
    if is_prepared and not self._is_updated:
      if self._options.update is not None:
        return False
      self._report_changes(None)
    return is_prepared

  def _report_changes(self, manual_dir: epath.PathLike | None) -> None:
    """Says, once, how the source differs from what the dataset was made of.

    Args:
      manual_dir: where it is now; None for where it was. Of an object store that
        is not asked for: to load a dataset takes no access to its source.
    """
    made_of = source_shards.read(self.data_path)
    if made_of is None or made_of.is_part:
      return
    folder = epath.Path(manual_dir or made_of.manual_dir).expanduser()
    is_wanted = manual_dir is not None or not remote.is_remote(folder)
    if not is_wanted or str(folder) in self._reported_dirs:
      return
    try:
      if not folder.is_dir():
        return
      changes = self._find_changes(made_of, folder)
    except (OSError, errors.TfdsPluginsError) as e:
      # The source may be gone once a dataset is prepared.
      logging.info("The source of %s was not looked at: %s", self.name, e)
      return
    self._reported_dirs.add(str(folder))
    if changes:
      logging.warning(
        "%s is read as it was prepared, but source shards in %s differ since"
        " then:\n%s\n%s",
        self.info.full_name,
        folder,
        source_shards.describe(changes),
        self._advise(changes),
      )

  def _advise(self, changes: source_shards.Changes) -> str:
    """Says what can be done about changes of the source."""
    if remote.is_remote(self.data_path):
      return "  To convert them, build with --overwrite."
    name = f"{self.name}/{self._config_name}"
    lines = []
    if changes.new and self._can_add:
      lines.append(
        "  To convert the new ones and keep the rest as it is:"
        f" {name}/update=add"
      )
    if changes.changed or changes.removed or not self._can_add:
      lines.append(
        "  To make the dataset what its source is now, converting what is new or"
        f" changed and dropping what was removed: {name}/update=sync"
      )
    lines.append(
      "  (in tfds.load or tfds build; or tfds.builder(..., update='...')"
      ".download_and_prepare(...))"
    )
    return "\n".join(lines)

  def _find_changes(
    self, made_of: source_shards.MadeOf, manual_dir: epath.Path
  ) -> source_shards.Changes:
    now = {
      split: {shard.place: shard.state for shard in shards}
      for split, shards in self._list_shards(manual_dir).items()
    }
    return source_shards.compare(made_of.states, now)

  def _update(
    self, work: work_dir.WorkDir, arguments: Mapping[str, Any]
  ) -> None:
    """Makes an updated dataset, and puts it in the place of the one there is."""
    config = arguments["download_config"]
    is_add = self._options.update == UPDATE_ADD
    made_of = source_shards.read(self.data_path)
    if made_of is None:
      raise errors.ConversionError(
        f"{self.data_path / source_shards.FILENAME} is missing or damaged: what"
        " the dataset was made of is not known. Build it with --overwrite."
      )
    check_update(
      config,
      self._options,
      is_part=made_of.is_part,
      is_remote=remote.is_remote(self.data_path),
      can_add=self._can_add,
      file_format=arguments.get("file_format"),
    )
    config = _complete_config(config, made_of, is_add=is_add)
    changes = self._find_changes(
      made_of, epath.Path(config.manual_dir or "").expanduser()
    )
    name = self.info.full_name
    if not changes:
      print(f"{name} has all of {config.manual_dir}.", flush=True)
      return
    print(
      f"{name}: source shards in {config.manual_dir} differ:\n"
      f"{source_shards.describe(changes)}",
      flush=True,
    )
    if is_add and not changes.new:
      print("  None is new: nothing is added.", flush=True)
      return
    record_paths = {
      split: [epath.Path(path) for path in info.filepaths]
      for split, info in self.info.splits.items()
    }

    def make_task(receipt: ShardReceipt) -> Task:
      return self._make_kept_task(receipt, made_of.states[receipt.split])

    tasks = update_lib.adopt(self.data_path, record_paths, make_task)
    if is_add:
      self._kept = update_lib.Kept(tasks=tasks, states=made_of.states)
    try:
      # TFDS asks for free space of the size of a dataset that it knows.
      self.info.set_splits(splits_lib.SplitDict([]))
      with utils.temporary_assignment(
        self, "_data_dir", os.fspath(work.updated_path)
      ):
        super().download_and_prepare(**{**arguments, "download_config": config})
      work.replace_dataset()
    finally:
      self.info.read_from_directory(self.data_path)

  @property
  def _work(self) -> work_dir.WorkDir:
    """The folder of the build that is running."""
    if self._work_dir is None:
      raise errors.ConversionError(
        "A dataset is prepared by download_and_prepare alone."
      )
    return self._work_dir

  @property
  def _config_name(self) -> str:
    """The name of the builder config; all our datasets have configs."""
    return self.builder_config.name if self.builder_config else ""


def _complete_config(
  config: tfds.download.DownloadConfig,
  made_of: source_shards.MadeOf,
  *,
  is_add: bool,
) -> tfds.download.DownloadConfig:
  """Adds where the source was, and how it was cut, where the user does not say."""
  num_shards = config.num_shards
  if num_shards is None and not is_add:
    num_shards = made_of.num_shards
  max_shard_size = config.max_shard_size
  if max_shard_size == _DEFAULT_SHARD_SIZE:
    max_shard_size = made_of.max_shard_size
  return config.replace(
    manual_dir=config.manual_dir or made_of.manual_dir,
    num_shards=num_shards,
    max_shard_size=max_shard_size,
  )
