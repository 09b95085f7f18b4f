"""A builder that reads in batches."""

from __future__ import annotations

from typing import Any

from tensorflow_datasets.core import dataset_builder
from tensorflow_datasets.core.utils import read_config as read_config_lib

from tfds_plugins.reading import dataset


class BatchReaderBuilder(
  dataset_builder.FileReaderBuilder, skip_registration=True
):
  """A `tfds.core.DatasetBuilder` whose `as_dataset` parses whole batches.

  The elements are those of TFDS, and so is what is on disk.
  """

  def _build_single_dataset(
    self,
    split: Any,
    batch_size: int | None,
    shuffle_files: bool,
    decoders: Any,
    read_config: read_config_lib.ReadConfig,
    as_supervised: bool,
  ) -> Any:
    """Reads one split, by batches where that is possible."""
    options = {
      "split": split,
      "batch_size": batch_size,
      "shuffle_files": shuffle_files,
      "decoders": decoders,
      "read_config": read_config,
      "as_supervised": as_supervised,
    }
    ds = dataset.make_batched_dataset(self, **options)
    return super()._build_single_dataset(**options) if ds is None else ds
