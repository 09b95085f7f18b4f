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

  The elements are those of TFDS, and so is what is on disk: the same values in
  the same order and the same batches, in graphs, too, and for each worker that
  `tf.distribute` gives a part of the files or batches. It differs that

  - a file that has not the length that the dataset's metadata have is an error
    even where the sum of all is right, or where a worker does not know it;
  - `tf.distribute` does not see the size of the batches, as of any dataset that
    ends in a `map`: where it splits one between replicas that they do not
    divide evenly, as the last one may be, some get a row more or less than they
    would of TFDS.
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
