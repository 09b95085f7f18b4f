"""The base class of this package's builders."""

from __future__ import annotations

import abc
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import itertools
import os
from typing import Any

from absl import logging
from etils import epath
import tensorflow_datasets as tfds
from tensorflow_datasets.core import splits as splits_lib
from tensorflow_datasets.core import utils

from tfds_plugins import errors
from tfds_plugins.conversion import beam_executor
from tfds_plugins.conversion import executors
from tfds_plugins.conversion import feature_specs
from tfds_plugins.conversion import finalize
from tfds_plugins.conversion import fingerprints
from tfds_plugins.conversion import plan
from tfds_plugins.conversion import progress
from tfds_plugins.conversion import published
from tfds_plugins.conversion import remote
from tfds_plugins.conversion import source_shards
from tfds_plugins.conversion import summary
from tfds_plugins.conversion import update as update_lib
from tfds_plugins.conversion import work_dir
from tfds_plugins.conversion.manual_dir import get_manual_dir
from tfds_plugins.conversion.options import UPDATE_ADD
from tfds_plugins.conversion.options import ConversionOptions
from tfds_plugins.conversion.options import check_download_config
from tfds_plugins.conversion.options import check_update
from tfds_plugins.conversion.receipts import ShardReceipt
from tfds_plugins.conversion.recipe import Recipe
from tfds_plugins.conversion.task import Task
from tfds_plugins.encoding import record_files
from tfds_plugins.encoding import tf_example
from tfds_plugins.reading import builder as reading_builder
from tfds_plugins.sources.rows import Source
from tfds_plugins.sources.rows import SourceShard
from tfds_plugins.sources.rows import SourceSlice

_UPDATE_INFO = tfds.download.GenerateMode.UPDATE_DATASET_INFO


class ConversionBuilder(
  reading_builder.BatchReaderBuilder, skip_registration=True
):
  """A `tfds.core.DatasetBuilder` that converts source shards one by one.

  TFDS's `GeneratorBasedBuilder` sorts a whole dataset through temporary files;
  this class keeps the order of the source, holds a batch of rows in memory,
  and uses all cores. Reading in batches is faster as well (`reading/`).
  Everything else (`tfds.load`, `tfds build`) is TFDS's own.

  Output shards follow source shards. `DownloadConfig.num_shards` gives that
  many shards of about the same size; `max_shard_size` cuts larger source
  shards; `max_examples_per_split` takes the first examples of the source, one
  source shard after the other, in as many output shards as that needs.
  """

  def __init__(
    self,
    *,
    num_workers: int | None = None,
    verify_manual_files: bool = False,
    update: str | None = None,
    **kwargs: Any,
  ):
    """Initializes a builder.

    Args:
      num_workers: worker processes that convert; None for one per core where the
        source is large enough to be worth it, 1 for none beside this process.
        The result is the same.
      verify_manual_files: whether to compare the files in `manual_dir` with the
        published ones (size and SHA-256) before they are converted, where a
        dataset has a table of them. Reads all of them once more.
      update: what `download_and_prepare` does if the dataset is there and its
        source has changed. None reads it as it is and says what has changed;
        "add" converts source shards that are new, and keeps all else; "sync"
        makes the dataset what its source is now, and converts of it what is new
        or has changed.
      **kwargs: `data_dir`, `config`, `version`, `file_format`, as for every
        TFDS builder.

    Raises:
      errors.OptionError: an option makes no sense.
    """
    self._options = ConversionOptions(
      num_workers=num_workers,
      verify_manual_files=verify_manual_files,
      update=update,
    )
    self._file_format = kwargs.get("file_format")
    self._account: str | None = None
    # Whether the user has been told how the source has changed.
    self._is_reported = False
    # While `download_and_prepare` runs:
    self._work_dir: work_dir.WorkDir | None = None
    self._kept: Mapping[str, Sequence[Task]] | None = None
    self._num_tasks: int | None = None
    self._manual_dir = ""
    problem = remote.find_obstacle(kwargs.get("data_dir") or "", "data_dir")
    if problem is not None:
      raise errors.OptionError(str(problem))
    super().__init__(**kwargs)

  def __getstate__(self) -> dict[str, Any]:
    # TFDS's own state leaves out `file_format` (4.9.10): the processes of
    # `tfds build --num-processes` would fall back to TFRecord.
    state = super().__getstate__()["_original_state"]
    return {
      "_original_state": {
        **state,
        "file_format": self._file_format,
        **dataclasses.asdict(self._options),
      }
    }

  @utils.classproperty
  @classmethod
  def _checksums_path(cls) -> epath.Path | None:
    """The table of published files, which TFDS looks for beside the module."""
    return published.find_checksums(cls.name)

  @property
  def _config_name(self) -> str:
    """The name of the builder config; all our datasets have configs."""
    return self.builder_config.name if self.builder_config else ""

  @property
  def _has_published_files(self) -> bool:
    """Whether there is a table of the files that the config is made of."""
    return False

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
  def _find_sources(
    self,
    dl_manager: tfds.download.DownloadManager,
    download_config: tfds.download.DownloadConfig,
  ) -> Mapping[str, Source]:
    """Returns the source of each split.

    Args:
      dl_manager: downloads what is published; `manual_dir.py` finds what
        the user has.
      download_config: what the user asked for.

    Raises:
      errors.ManualDirError: the data is not there.
      errors.SourceError: it is there, but damaged.
    """

  @abc.abstractmethod
  def _make_recipe(self, specs: Sequence[tf_example.FeatureSpec]) -> Recipe:
    """Returns how the rows of the config's source become examples."""

  def download_and_prepare(
    self,
    *,
    download_dir: epath.PathLike | None = None,
    download_config: tfds.download.DownloadConfig | None = None,
    **kwargs: Any,
  ) -> None:
    """Prepares the dataset, see `tfds.core.DatasetBuilder`.

    A build that was stopped is gone on with (`work_dir.py`). If the dataset is
    prepared and its source has changed since, says so, or does what `update`
    asks for.

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
    if mode is _UPDATE_INFO or (
      remote.has_dataset(self.data_path)
      and not (mode.overwrite_dataset or is_update)
    ):
      if mode is not _UPDATE_INFO:
        self._report_changes(config.manual_dir)
      super().download_and_prepare(**arguments)
      return
    work = self._work_dir = work_dir.WorkDir(self.data_path)
    # Restored from a prepared dataset, it would be written to the new one.
    self.info._metadata = None
    try:
      with work.claim():
        if mode.overwrite_dataset:
          work.clear()
        if is_update and remote.has_dataset(self.data_path):
          self._update(work, arguments)
        else:
          with remote.preparing(self.data_path):
            super().download_and_prepare(**arguments)
        if self._account is None:
          # Another process has been faster, or nothing had to be done.
          self.info.read_from_directory(self.data_path)
        work.remove()
    except BaseException:
      # Printed, for it is as true after Ctrl-C as after an error.
      if work.path.exists() and work.count_receipts():
        print(work.describe(self._num_tasks), flush=True)
      raise
    finally:
      self._work_dir = self._kept = self._num_tasks = None
    self._is_reported = True
    if self._account is not None:
      # Printed, not logged: TFDS shows no log below a warning, and nobody
      # should have to look for what was skipped.
      print(f"{self._account}\n  Prepared in {self.data_dir}", flush=True)
      self._account = None

  def is_prepared(self) -> bool:
    """Whether there is nothing to be done before the dataset can be read.

    `tfds.load` asks this, and calls `download_and_prepare` if it is false. So it
    is here that it hears of changes of the source, and of what `update` is for.
    """
    is_prepared = super().is_prepared()
    if is_prepared and not self._is_reported:
      if self._options.update is not None:
        return False
      self._report_changes(None)
    return is_prepared

  def _report_changes(self, manual_dir: epath.PathLike | None) -> None:
    """Says, once, how the source differs from what the dataset was made of."""
    made_of = source_shards.read(self.data_path)
    if made_of is None or made_of.is_part or self._is_reported:
      return
    self._is_reported = True
    folder = epath.Path(manual_dir or made_of.manual_dir).expanduser()
    if not folder.is_dir():
      return
    try:
      changes = self._find_changes(made_of, folder)
    except errors.TfdsPluginsError:
      # The source may be gone once a dataset is prepared.
      return
    if changes:
      logging.warning(
        "%s",
        source_shards.describe(changes, self.info.full_name, str(folder)),
      )

  def _find_changes(
    self, made_of: source_shards.MadeOf, manual_dir: epath.Path
  ) -> source_shards.Changes:
    now = {
      split: {shard.name: shard.state for shard in shards}
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
    )
    config = config.replace(manual_dir=config.manual_dir or made_of.manual_dir)
    changes = self._find_changes(
      made_of, epath.Path(config.manual_dir).expanduser()
    )
    if not (changes.new or (changes and not is_add)):
      print(
        f"{self.info.full_name}: there is nothing to"
        f" {'add' if is_add else 'change'}, it has all of {config.manual_dir}",
        flush=True,
      )
      return
    receipts = update_lib.read_receipts(self.data_path)
    recipe = self._make_recipe(self._make_specs())
    record_paths = {
      name: [epath.Path(path) for path in split.filepaths]
      for name, split in self.info.splits.items()
    }

    def make_task(receipt: ShardReceipt) -> Task:
      return self._make_task(
        recipe,
        update_lib.add_states(receipt.sources, made_of.states[receipt.split]),
        receipt.split,
        receipt.shard_index,
        receipt.fingerprint,
      )

    update_lib.adopt(self.data_path, receipts, record_paths, make_task)
    if is_add:
      self._kept = {
        split: [make_task(r) for r in receipts if r.split == split]
        for split in record_paths
      }
    with utils.temporary_assignment(
      self, "_data_dir", os.fspath(work.updated_path)
    ):
      super().download_and_prepare(**{**arguments, "download_config": config})
    work.replace_dataset()
    self.info.read_from_directory(self.data_path)

  def _download_and_prepare(
    self,
    dl_manager: tfds.download.DownloadManager,
    download_config: tfds.download.DownloadConfig | None = None,
  ) -> None:
    """Converts the source into the folder that TFDS has made for it."""
    config = download_config or tfds.download.DownloadConfig()
    if self._options.verify_manual_files and not self._has_published_files:
      raise errors.OptionError(
        "verify_manual_files: there is no table of published files of"
        f" {self.info.full_name} to compare yours with. There is one of"
        " laion400m/embeddings."
      )
    record_files.check_format(self._format_name, self.data_path)
    check_download_config(config)
    sources = self._find_sources(dl_manager, config)
    self._manual_dir = str(get_manual_dir(dl_manager))
    for source in sources.values():
      logging.info("Converting the shards in %s", source.source_dir)
      for note in source.notes:
        logging.warning("%s: %s", source.source_dir, note)
    if config.max_examples_per_split == 0:
      return
    self._convert(sources, config)

  def _convert(
    self,
    sources: Mapping[str, Source],
    config: tfds.download.DownloadConfig,
  ) -> None:
    recipe = self._make_recipe(self._make_specs())
    shards, tasks = self._plan(sources, recipe, config)
    receipts = self._run_tasks(tasks, config)
    self._work.notice_workers()
    split_infos, all_tasks, all_receipts = [], [], []
    empty = [
      split
      for split, some in receipts.items()
      if not any(receipt.num_examples for receipt in some)
    ]
    limit = config.max_examples_per_split
    # First of all: on an object store, a file can be moved to a folder only when
    # there is something in it.
    source_shards.write(
      self.data_path,
      self._manual_dir,
      {
        split: [*shards[split], *source.empty]
        for split, source in sources.items()
      },
      limit,
    )
    for split in sources:
      # (A limit on examples has a fingerprint of its own.)
      done = [
        dataclasses.replace(task, fingerprint=receipt.fingerprint)
        for task, receipt in zip(tasks[split], receipts[split])
      ]
      all_tasks += done
      all_receipts += receipts[split]
      try:
        info = finalize.finalize_split(
          done,
          receipts[split],
          self._get_filename_template(split),
          shards[split] if limit is None else None,
          may_be_empty=len(empty) < len(sources),
        )
      except errors.ConversionError:
        # The same would come of what was converted the next time.
        self._work.clear()
        raise
      if info is not None:
        split_infos.append(info)
    finalize.write_accounts(self.data_path, all_tasks, all_receipts)
    self.info.set_splits(splits_lib.SplitDict(split_infos))
    self._account = summary.summarize(
      all_receipts,
      dataset=self.info.full_name,
      source_dir=", ".join(
        dict.fromkeys(s.source_dir for s in sources.values())
      ),
      notes=[
        *itertools.chain.from_iterable(s.notes for s in sources.values()),
        *_note_limit(limit),
        *_note_empty(empty),
      ],
    )

  def _plan(
    self,
    sources: Mapping[str, Source],
    recipe: Recipe,
    config: tfds.download.DownloadConfig,
  ) -> tuple[dict[str, Sequence[SourceShard]], dict[str, list[Task]]]:
    """Returns the source shards and the tasks of each split."""
    shards: dict[str, Sequence[SourceShard]] = {}
    tasks: dict[str, list[Task]] = {}
    for split, source in sources.items():
      kept = (self._kept or {}).get(split)
      if kept is None:
        shards[split] = source.shards
        tasks[split] = self._plan_tasks(split, source.shards, recipe, config)
        continue
      known = {shard.name for shard in update_lib.list_shards(kept)}
      new = [shard for shard in source.shards if shard.name not in known]
      planned = self._plan_tasks(split, new, recipe, config) if new else []
      order = [shard.name for shard in source.shards]
      tasks[split] = update_lib.merge(kept, planned, order)
      shards[split] = update_lib.list_shards(tasks[split])
    self._num_tasks = sum(map(len, tasks.values()))
    return shards, tasks

  def _run_tasks(
    self,
    tasks: Mapping[str, Sequence[Task]],
    config: tfds.download.DownloadConfig,
  ) -> dict[str, list[ShardReceipt]]:
    """Returns the receipts of each split, in the order of the output shards."""
    limit = config.max_examples_per_split
    together = list(itertools.chain.from_iterable(tasks.values()))
    arriving = (
      self._resume(together, config)
      if limit is None
      else itertools.chain.from_iterable(
        executors.run_until(some, limit) for some in tasks.values()
      )
    )
    receipts: dict[str, list[ShardReceipt]] = {split: [] for split in tasks}
    for receipt in progress.show_progress(
      arriving, len(together), f"Converting {self.name}"
    ):
      receipts[receipt.split].append(receipt)
    return {
      split: sorted(some, key=lambda receipt: receipt.shard_index)
      for split, some in receipts.items()
    }

  def _resume(
    self, tasks: Sequence[Task], config: tfds.download.DownloadConfig
  ) -> Iterator[ShardReceipt]:
    """Yields the receipts of tasks that have been run, and runs the others."""
    found = self._work.find_receipts(tasks)
    done = [receipt for receipt in found if receipt is not None]
    if done:
      print(
        f"{self.info.full_name}: {len(done):,} of {len(tasks):,} output shards"
        f" are taken as they were converted before.",
        flush=True,
      )
    yield from done
    left = [task for task, receipt in zip(tasks, found) if receipt is None]
    if config.beam_runner is None and config.beam_options is None:
      yield from executors.run_tasks(left, self._options)
    else:
      yield from beam_executor.run_tasks(
        left, self._work, config.beam_runner, config.beam_options
      )

  def _plan_tasks(
    self,
    split: str,
    shards: Sequence[SourceShard],
    recipe: Recipe,
    config: tfds.download.DownloadConfig,
  ) -> list[Task]:
    planned = plan.plan_output_shards(
      shards,
      num_shards=config.num_shards,
      max_shard_bytes=config.max_shard_size,
    )
    digest = fingerprints.digest_recipe(recipe, self._format_name)
    return [
      self._make_task(
        recipe,
        slices,
        split,
        i,
        fingerprints.make_fingerprint(digest, slices, i),
      )
      for i, slices in enumerate(planned)
    ]

  def _make_task(
    self,
    recipe: Recipe,
    slices: Sequence[SourceSlice],
    split: str,
    shard_index: int,
    fingerprint: str,
  ) -> Task:
    return Task(
      recipe=recipe,
      sources=slices,
      split=split,
      shard_index=shard_index,
      fingerprint=fingerprint,
      work_dir=str(self._work.path),
      file_format=self._format_name,
    )

  def _make_specs(self) -> list[tf_example.FeatureSpec]:
    return feature_specs.make_feature_specs(self.info.features)

  @property
  def _work(self) -> work_dir.WorkDir:
    """The folder of the build that is running."""
    if self._work_dir is None:
      raise errors.ConversionError(
        "A dataset is prepared by download_and_prepare alone."
      )
    return self._work_dir

  @property
  def _format_name(self) -> str:
    file_format = self.info.file_format or tfds.core.FileFormat.TFRECORD
    return tfds.core.FileFormat.from_value(file_format).value


def _note_empty(empty: Sequence[str]) -> list[str]:
  """Names the splits that are left out."""
  if not empty:
    return []
  return [
    f"there is no example for split {', '.join(empty)}, which is left out."
  ]


def _note_limit(max_examples: int | None) -> list[str]:
  """Says that a dataset is not all of its source."""
  if max_examples is None:
    return []
  return [f"only the first {max_examples:,} examples were asked for."]
