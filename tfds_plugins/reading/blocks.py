"""TFDS's interleave of files, by blocks of records instead of records.

TFDS interleaves records one by one, which costs time. Here, each file is cut
into the blocks that one visit of the interleave reads, these are interleaved,
and then cut into batches.

tf.data shards a dataset between the workers of `tf.distribute` by rewriting its
graph: it puts the shard before what feeds the files to their readers, takes
`assert_cardinality` away, and gives up at any other source, be it a counter of
batches (tensorflow/core/grappler/optimizers/data/auto_shard.cc). So all that is
known here of a file comes with its name, and the rest holds for any of them.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import os
from typing import Any

import numpy as np
from tensorflow_datasets.core.utils import read_config as read_config_lib
from tensorflow_datasets.core.utils import shard_utils
from tensorflow_datasets.core.utils.lazy_imports_utils import tensorflow as tf

# TFDS gives each of 16 open files 8 MiB, which is for remote ones: local files
# are read more slowly with it, as the buffers fall out of the CPU's caches.
_LOCAL_BUFFER_BYTES = 256 << 10
_REMOTE_BUFFER_BYTES = 8 << 20
# Up to this many cores, threads that read ahead take from those that parse.
_FEW_CORES = 4


def keeps_order(
  files: Sequence[shard_utils.FileInstruction], *, cycle_length: int
) -> bool:
  """Returns whether blocks are read in the order of TFDS's records.

  TFDS's visit of a file that ends within its block makes room for the next
  file. An interleave of blocks meets the end a visit later, so that a file that
  waits for its turn is opened too late, unless it is the only one then open. A
  worker that reads some of the files has no more that wait than there are here.

  Args:
    files: what is to be read.
    cycle_length: number of files that are open at the same time.
  """
  return cycle_length == 1 or len(files) <= cycle_length


def read_blocks(
  files: Sequence[shard_utils.FileInstruction],
  *,
  cycle_length: int,
  block_length: int,
  read_config: read_config_lib.ReadConfig,
  shuffle_files: bool,
  is_deterministic: bool,
  batch_size: int,
  decode_fn: Callable[[Any], Any],
) -> tf.data.Dataset:
  """Reads batches of the records of TFRecord files.

  Args:
    files: what is to be read; not empty.
    cycle_length: TFDS's number of files that are open at the same time.
    block_length: TFDS's number of records that are read from one of them.
    read_config: TFDS's options.
    shuffle_files: whether to shuffle `files`.
    is_deterministic: whether the order matters. It is TFDS's if `keeps_order`.
    batch_size: records in a batch; the last one may have fewer.
    decode_fn: from (batch,) strings, serialized examples, to an element.

  Returns:
    The dataset of what `decode_fn` returns. It fails with the error of TFDS's
    if a file has not the length that it should have.
  """
  if min(len(files), cycle_length) == 1:
    block_length = batch_size  # There is nothing to interleave with.
  ds = tf.data.Dataset.from_tensor_slices(
    (
      [os.fspath(f.filename) for f in files],
      np.array([f.skip for f in files], np.int64),
      np.array([f.take for f in files], np.int64),
    )
  )
  if shuffle_files:
    ds = ds.shuffle(
      len(files),
      seed=read_config.shuffle_seed,
      reshuffle_each_iteration=read_config.shuffle_reshuffle_each_iteration,  # pyright: ignore[reportArgumentType]
    )
  num_parallel_calls = read_config.num_parallel_calls_for_interleave_files
  if _are_local(files) and (os.cpu_count() or 1) <= _FEW_CORES:
    num_parallel_calls = None
  ds = ds.interleave(
    _make_opener(files, block_length=block_length, read_config=read_config),
    cycle_length=cycle_length,
    block_length=1,
    num_parallel_calls=num_parallel_calls,
    # tf.data warns of an order where it knows no other.
    deterministic=None if num_parallel_calls is None else is_deterministic,
  )
  num_batches = -(-sum(f.take for f in files) // batch_size)
  ds = ds.rebatch(batch_size).apply(
    # Tells the user; records are counted above.
    tf.data.experimental.assert_cardinality(num_batches)
  )
  return ds.with_options(read_config.options or tf.data.Options()).map(
    tf.autograph.experimental.do_not_convert(decode_fn),
    num_parallel_calls=read_config.num_parallel_calls_for_decode,
  )


def _make_opener(
  files: Sequence[shard_utils.FileInstruction],
  *,
  block_length: int,
  read_config: read_config_lib.ReadConfig,
) -> Callable[..., Any]:
  """Returns a function from a path, skip and take to a dataset of blocks."""
  buffer_bytes = pick_buffer_bytes(files, read_config)
  do_skip = any(f.skip > 0 for f in files)
  do_take = any(not f.takes_all for f in files)

  def open_file(path: Any, skip: Any, take: Any) -> tf.data.Dataset:
    ds = tf.data.TFRecordDataset(path, buffer_size=buffer_bytes)
    if do_skip:
      ds = ds.skip(skip)
    if do_take:
      ds = ds.take(take)
    # TFDS counts the records of all files, which a worker does not read.
    ds = ds.apply(tf.data.experimental.assert_cardinality(take))
    return ds.batch(block_length)

  return open_file


def pick_buffer_bytes(
  files: Sequence[shard_utils.FileInstruction],
  read_config: read_config_lib.ReadConfig,
) -> int:
  """Returns the size of the buffer of an open TFRecord file, in bytes."""
  if read_config.override_buffer_size:
    return read_config.override_buffer_size
  return _LOCAL_BUFFER_BYTES if _are_local(files) else _REMOTE_BUFFER_BYTES


def _are_local(files: Sequence[shard_utils.FileInstruction]) -> bool:
  return not any("://" in os.fspath(f.filename) for f in files)
