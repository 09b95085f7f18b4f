"""The base class of this package's builders."""

from __future__ import annotations

import abc
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import itertools
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
from tfds_plugins.conversion import manual_dir
from tfds_plugins.conversion import plan
from tfds_plugins.conversion import preparation
from tfds_plugins.conversion import progress
from tfds_plugins.conversion import published
from tfds_plugins.conversion import source_shards
from tfds_plugins.conversion import summary
from tfds_plugins.conversion import update
from tfds_plugins.conversion.options import ConversionOptions
from tfds_plugins.conversion.options import check_download_config
from tfds_plugins.conversion.receipts import ShardReceipt
from tfds_plugins.conversion.recipe import Recipe
from tfds_plugins.conversion.task import Task
from tfds_plugins.encoding import record_files
from tfds_plugins.encoding import tf_example
from tfds_plugins.sources import folders
from tfds_plugins.sources.rows import Source
from tfds_plugins.sources.rows import SourceShard
from tfds_plugins.sources.rows import SourceSlice


class ConversionBuilder(preparation.PreparationBuilder, skip_registration=True):
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
    self._file_format = kwargs.get("file_format")
    options = ConversionOptions(
      num_workers=num_workers,
      verify_manual_files=verify_manual_files,
      update=update,
    )
    super().__init__(options, **kwargs)

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
  def _has_published_files(self) -> bool:
    """Whether there is a table of the files that the config is made of."""
    return False

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
    for source in sources.values():
      logging.info("Converting the shards in %s", source.source_dir)
      for note in source.notes:
        logging.warning("%s: %s", source.source_dir, note)
    if config.max_examples_per_split == 0:
      return
    try:
      self._convert(sources, config, manual_dir.get_absolute(dl_manager))
    except BaseException:
      # TFDS deletes the folder.
      self._work.take_back()
      raise

  def _convert(
    self,
    sources: Mapping[str, Source],
    config: tfds.download.DownloadConfig,
    folder: str,
  ) -> None:
    recipe = self._make_recipe(self._make_specs())
    tasks = self._plan(sources, recipe, config)
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
      source_shards.MadeOf(
        manual_dir=folder,
        is_part=limit is not None,
        num_shards=config.num_shards,
        max_shard_size=config.max_shard_size,
        states={
          split: self._get_states(split, source)
          for split, source in sources.items()
        },
      ),
    )
    for split, source in sources.items():
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
          self._list_planned(split, source, done) if limit is None else None,
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
  ) -> dict[str, list[Task]]:
    """Returns the tasks of each split."""
    tasks = {}
    for split, source in sources.items():
      new = self._list_new(split, source)
      tasks[split] = self._plan_tasks(split, new, recipe, config) if new else []
      if self._is_kept(split):
        order = [shard.name for shard in source.shards]
        kept = self._kept.tasks[split]
        tasks[split] = update.merge(kept, tasks[split], order)
    self._num_tasks = sum(map(len, tasks.values()))
    return tasks

  def _is_kept(self, split: str) -> bool:
    """Whether the split of the dataset that is there is added to."""
    return split in self._kept.tasks

  def _list_new(self, split: str, source: Source) -> list[SourceShard]:
    """Returns the source shards that are to be converted."""
    known = self._kept.states[split] if self._is_kept(split) else ()
    return [shard for shard in source.shards if shard.place not in known]

  def _list_planned(
    self, split: str, source: Source, tasks: Sequence[Task]
  ) -> Sequence[SourceShard]:
    """Returns the source shards that tasks have to be all of."""
    if self._is_kept(split):
      return update.list_shards(tasks)
    return source.shards

  def _get_states(self, split: str, source: Source) -> dict[str, str]:
    """Returns the states of the source shards that the split is made of."""
    found = [*self._list_new(split, source), *source.empty]
    states = dict(self._kept.states[split]) if self._is_kept(split) else {}
    for shard in found:
      states.setdefault(shard.place, shard.state)
    names = sorted(states, key=folders.natural_key)
    return {name: states[name] for name in names}

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

  def _make_kept_task(
    self, receipt: ShardReceipt, states: Mapping[str, str]
  ) -> Task:
    return self._make_task(
      self._make_recipe(self._make_specs()),
      update.add_states(receipt.sources, states),
      receipt.split,
      receipt.shard_index,
      receipt.fingerprint,
    )

  def _make_specs(self) -> list[tf_example.FeatureSpec]:
    return feature_specs.make_feature_specs(self.info.features)

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
