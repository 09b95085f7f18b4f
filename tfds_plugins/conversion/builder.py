"""The base class of this package's builders."""

from __future__ import annotations

import abc
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
from tfds_plugins.conversion import executors
from tfds_plugins.conversion import feature_specs
from tfds_plugins.conversion import finalize
from tfds_plugins.conversion import plan
from tfds_plugins.conversion import progress
from tfds_plugins.conversion import published
from tfds_plugins.conversion import remote
from tfds_plugins.conversion import summary
from tfds_plugins.conversion.options import ConversionOptions
from tfds_plugins.conversion.options import check_download_config
from tfds_plugins.conversion.receipts import ShardReceipt
from tfds_plugins.conversion.recipe import Recipe
from tfds_plugins.conversion.task import Task
from tfds_plugins.encoding import record_files
from tfds_plugins.encoding import tf_example
from tfds_plugins.reading import builder as reading_builder
from tfds_plugins.sources.rows import Source


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
      **kwargs: `data_dir`, `config`, `version`, `file_format`, as for every
        TFDS builder.

    Raises:
      errors.OptionError: an option makes no sense.
    """
    self._options = ConversionOptions(
      num_workers=num_workers, verify_manual_files=verify_manual_files
    )
    self._file_format = kwargs.get("file_format")
    self._account: str | None = None
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
    download_config: tfds.download.DownloadConfig | None = None,
    **kwargs: Any,
  ) -> None:
    """Prepares the dataset: TFDS's own, on object stores as well."""
    overwrites = (
      download_config is not None
      and download_config.download_mode.overwrite_dataset
    )
    with remote.preparing(self.data_path, overwrites=overwrites):
      super().download_and_prepare(download_config=download_config, **kwargs)

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
    if config.beam_runner is not None or config.beam_options is not None:
      logging.warning(
        "%s converts with processes of this machine; the Beam runner and"
        " options are not used.",
        self.name,
      )
    sources = self._find_sources(dl_manager, config)
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
    recipe = self._make_recipe(
      feature_specs.make_feature_specs(self.info.features)
    )
    tasks = {
      split: self._plan_tasks(split, source, recipe, config)
      for split, source in sources.items()
    }
    receipts = self._run_tasks(tasks, config)
    split_infos, all_tasks, all_receipts = [], [], []
    empty = [
      split
      for split, some in receipts.items()
      if not any(receipt.num_examples for receipt in some)
    ]
    for split, source in sources.items():
      done = tasks[split][: len(receipts[split])]
      all_tasks += done
      all_receipts += receipts[split]
      info = finalize.finalize_split(
        done,
        receipts[split],
        self._get_filename_template(split),
        source.shards if config.max_examples_per_split is None else None,
        may_be_empty=len(empty) < len(sources),
      )
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
        *_note_limit(config.max_examples_per_split),
        *_note_empty(empty),
      ],
    )

  def _run_tasks(
    self,
    tasks: Mapping[str, Sequence[Task]],
    config: tfds.download.DownloadConfig,
  ) -> dict[str, list[ShardReceipt]]:
    """Returns the receipts of each split, in the order of the output shards."""
    limit = config.max_examples_per_split
    together = list(itertools.chain.from_iterable(tasks.values()))
    arriving = (
      executors.run_tasks(together, self._options)
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

  def _post_download_and_prepare_hook(self) -> None:
    super()._post_download_and_prepare_hook()
    if self._account is not None:
      # Printed, not logged: TFDS shows no log below a warning, and nobody
      # should have to look for what was skipped.
      print(f"{self._account}\n  Prepared in {self.data_dir}", flush=True)
      self._account = None

  def _plan_tasks(
    self,
    split: str,
    source: Source,
    recipe: Recipe,
    config: tfds.download.DownloadConfig,
  ) -> list[Task]:
    planned = plan.plan_output_shards(
      source.shards,
      num_shards=config.num_shards,
      max_shard_bytes=config.max_shard_size,
    )
    return [
      Task(
        recipe=recipe,
        sources=slices,
        split=split,
        shard_index=i,
        output_path=str(self.data_path / f"{split}.{i}.records"),
        ledger_path=str(self.data_path / f"{split}.{i}.skipped"),
        file_format=self._format_name,
      )
      for i, slices in enumerate(planned)
    ]

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
