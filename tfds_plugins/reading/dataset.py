"""The dataset that `as_dataset(batch_size=...)` returns."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from tensorflow_datasets.core import dataset_builder
from tensorflow_datasets.core import file_adapters
from tensorflow_datasets.core import splits as splits_lib
from tensorflow_datasets.core import tf_compat
from tensorflow_datasets.core.utils import read_config as read_config_lib
from tensorflow_datasets.core.utils.lazy_imports_utils import tensorflow as tf
from tensorflow_datasets.core.utils.lazy_imports_utils import tree

from tfds_plugins.reading import features
from tfds_plugins.reading import records as records_lib


def make_batched_dataset(
  builder: dataset_builder.FileReaderBuilder,
  *,
  split: Any,
  batch_size: Any,
  shuffle_files: bool,
  decoders: Any,
  read_config: read_config_lib.ReadConfig,
  as_supervised: bool,
) -> Any:
  """Makes what TFDS's `_build_single_dataset` makes, but parses batches.

  TFDS parses one record after the other, caches, and makes batches of what
  comes out. This batches the records first, parses a batch with one operation,
  and caches batches. The elements are the same, and so are their order, number
  and specification; `builder.BatchReaderBuilder` says what is not.

  Args:
    builder: a builder of a prepared dataset.
    split: a single split, of any kind that TFDS accepts.
    batch_size: examples in an element, -1 for all.
    shuffle_files: as for `as_dataset`.
    decoders: as for `as_dataset`.
    read_config: as for `as_dataset`, not None.
    as_supervised: as for `as_dataset`.

  Returns:
    A `tf.data.Dataset`; for `batch_size` -1 its only element; None where TFDS
    has to do it: without batches, where a batch of a feature cannot be decoded
    at once, and for what TFDS refuses.

  Raises:
    ValueError: TFDS does not accept the arguments.
  """
  if not _is_batch_size(batch_size):
    return None
  decode = features.make_batch_decoder(builder.info.features, decoders)
  file_format = file_adapters.FileFormat.from_value(
    read_config.file_format
    or builder.info.file_format
    or file_adapters.DEFAULT_FILE_FORMAT
  )
  if (
    decode is None or file_format not in file_adapters.FileFormat.with_tf_data()
  ):
    return None
  if as_supervised and not builder.info.supervised_keys:
    return None
  files = splits_lib.SplitDict(split_infos=builder.info.splits.values())[
    split
  ].file_instructions
  if not files:
    return None

  def decode_batch(records: Any, ids: Any) -> Any:
    example = decode(records)
    if ids is not None:
      example["tfds_id"] = ids
    if as_supervised:
      return tree.map_structure(
        lambda name: example[name], builder.info.supervised_keys
      )
    return example

  is_whole = batch_size == -1
  if is_whole:
    batch_size = builder.info.splits.total_num_examples or sys.maxsize
  ds = records_lib.read_batches(
    files,
    read_config=read_config,
    shuffle_files=shuffle_files,
    disable_shuffling=builder.info.disable_shuffling,
    file_format=file_format,
    batch_size=int(batch_size),
    decode_fn=decode_batch,
  )
  if is_whole:
    return tf_compat.get_single_element(ds)
  if builder._should_cache_ds(  # pylint: disable=protected-access
    split=split, shuffle_files=shuffle_files, read_config=read_config
  ):
    ds = ds.cache()
  if not read_config.skip_prefetch:
    ds = ds.prefetch(tf.data.AUTOTUNE)
  return ds


def _is_batch_size(batch_size: Any) -> bool:
  """Returns whether TFDS makes batches; 0 and None are none, others errors."""
  return (
    isinstance(batch_size, int | np.integer)
    and not isinstance(batch_size, bool)
    and bool(batch_size > 0 or batch_size == -1)
  )
