"""Batches of serialized examples, in the order in which TFDS reads them."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
from typing import Any

from tensorflow_datasets.core import file_adapters
from tensorflow_datasets.core import reader as reader_lib
from tensorflow_datasets.core import tf_compat
from tensorflow_datasets.core.utils import read_config as read_config_lib
from tensorflow_datasets.core.utils import shard_utils
from tensorflow_datasets.core.utils.lazy_imports_utils import tensorflow as tf

from tfds_plugins.reading import blocks

# From (batch,) serialized examples and as many ids, or None, to an element.
DecodeFn = Callable[[Any, Any], Any]


def read_batches(
  files: Sequence[shard_utils.FileInstruction],
  *,
  read_config: read_config_lib.ReadConfig,
  shuffle_files: bool,
  disable_shuffling: bool,
  file_format: file_adapters.FileFormat,
  batch_size: int,
  decode_fn: DecodeFn,
) -> tf.data.Dataset:
  """Reads records in batches and decodes these.

  Args:
    files: what is to be read; not empty.
    read_config: TFDS's options. All are honoured that are about records.
    shuffle_files: whether to shuffle `files`.
    disable_shuffling: whether the dataset is an ordered one.
    file_format: the format of `files`.
    batch_size: records in a batch; the last one may have fewer.
    decode_fn: from (batch,) strings, serialized examples, and (batch,) strings,
      their ids, to an element. The ids are None without
      `read_config.add_tfds_id`.

  Returns:
    The dataset of what `decode_fn` returns.

  Raises:
    ValueError: TFDS does not accept the options.
  """
  cycle_length: Any = read_config.interleave_cycle_length
  if cycle_length == read_config_lib.MISSING:
    cycle_length = reader_lib._get_default_interleave_cycle_length(  # pylint: disable=protected-access
      disable_shuffling=disable_shuffling
    )
  block_length: Any = read_config.interleave_block_length
  if (
    file_format is file_adapters.FileFormat.TFRECORD
    and _can_read_blocks(cycle_length, block_length, read_config=read_config)
    # Where this does not hold, TFDS has an error or a warning.
    and not (disable_shuffling and (shuffle_files or cycle_length > 1))
    and (
      blocks.keeps_order(files, cycle_length=cycle_length)
      or not is_deterministic(read_config, shuffle_files=shuffle_files)
    )
  ):
    return blocks.read_blocks(
      files,
      cycle_length=cycle_length,
      block_length=block_length,
      read_config=read_config,
      shuffle_files=shuffle_files,
      is_deterministic=is_deterministic(
        read_config, shuffle_files=shuffle_files
      ),
      batch_size=batch_size,
      decode_fn=lambda records: decode_fn(records, None),
    )

  def decode(batch: Any) -> Any:
    if read_config.add_tfds_id:
      return decode_fn(batch.example, batch.id)
    return decode_fn(batch, None)

  if file_format is file_adapters.FileFormat.TFRECORD:
    read_config = dataclasses.replace(
      read_config,
      override_buffer_size=blocks.pick_buffer_bytes(files, read_config),
    )
  ds = reader_lib._read_files(  # pylint: disable=protected-access
    files,
    read_config=read_config,
    shuffle_files=shuffle_files,
    disable_shuffling=disable_shuffling,
    file_format=file_format,
  )
  return ds.batch(batch_size).map(
    tf.autograph.experimental.do_not_convert(decode),
    num_parallel_calls=read_config.num_parallel_calls_for_decode,
  )


def is_deterministic(
  read_config: read_config_lib.ReadConfig, *, shuffle_files: bool
) -> bool:
  """Returns whether TFDS keeps an order: not for shuffling without a seed."""
  return not (
    shuffle_files
    and read_config.shuffle_seed is None
    and tf_compat.get_option_deterministic(read_config.options) is None
  )


def _can_read_blocks(
  cycle_length: Any,
  block_length: Any,
  *,
  read_config: read_config_lib.ReadConfig,
) -> bool:
  """Returns whether `blocks` knows all that the user has asked for."""
  return (
    isinstance(cycle_length, int)
    and cycle_length > 0
    and isinstance(block_length, int)
    and block_length > 1  # A block of one record has nothing to win.
    # Other numbers may be too high for `cycle_length`, which is an error.
    and read_config.num_parallel_calls_for_interleave_files
    in (None, tf.data.AUTOTUNE)
    # Without it, files may have other lengths than TFDS knows.
    and read_config.assert_cardinality
    and not read_config.input_context
    and not read_config.repeat_filenames
    and not read_config.add_tfds_id
    and read_config.experimental_interleave_sort_fn is None
  )
