"""TFDS's interleave of files, by blocks of records instead of records.

TFDS interleaves records one by one, which costs more than to read them. Here,
each file is cut into the blocks that one visit of the interleave reads, these
are interleaved, and then cut into batches.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import itertools
import os
from typing import Any

from tensorflow_datasets.core.utils import read_config as read_config_lib
from tensorflow_datasets.core.utils import shard_utils
from tensorflow_datasets.core.utils.lazy_imports_utils import tensorflow as tf

from tfds_plugins.reading import lanes as lanes_lib

# TFDS gives each of 16 open files 8 MiB, which is for remote ones: local files
# are read more slowly with it, as the buffers fall out of the CPU's caches.
_LOCAL_BUFFER_BYTES = 256 << 10
_REMOTE_BUFFER_BYTES = 8 << 20
# Up to this many cores, threads that read ahead take from those that parse.
_FEW_CORES = 4


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
    shuffle_files: whether to shuffle `files`. With more than `cycle_length` of
      them, the order is not the one that TFDS makes of the same seed.
    is_deterministic: whether the order matters.
    batch_size: records in a batch; the last one may have fewer.
    decode_fn: from (batch,) strings, serialized examples, to an element.

  Returns:
    The dataset of what `decode_fn` returns. It fails as TFDS's does if the
    files have not the lengths that they should have.
  """
  num_records = sum(f.take for f in files)
  if shuffle_files:
    lanes = [[i] for i in range(len(files))]
  else:
    lanes = lanes_lib.plan_lanes(
      [f.take for f in files], num_lanes=cycle_length, block_length=block_length
    )
  if len(lanes) == 1:
    block_length = batch_size  # There is nothing to interleave with.
  open_file = _make_opener(
    files,
    block_length=block_length,
    buffer_bytes=read_config.override_buffer_size,
    # Matters for what comes next in the same lane, and to the other lanes.
    has_empty_blocks=1 < len(lanes) < len(files),
  )
  ds, open_lane = _list_lanes(files, lanes, open_file)
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
    open_lane,
    cycle_length=cycle_length,
    block_length=1,
    num_parallel_calls=num_parallel_calls,
    # tf.data warns of an order where it knows no other.
    deterministic=None if num_parallel_calls is None else is_deterministic,
  )

  def check_and_decode(i: Any, batch: Any) -> Any:
    expected = tf.minimum(
      tf.constant(batch_size, tf.int64), num_records - i * batch_size
    )
    return decode_fn(_assert_num_records(batch, expected))

  ds = ds.rebatch(batch_size).enumerate()
  ds = ds.apply(
    tf.data.experimental.assert_cardinality(-(-num_records // batch_size))
  )
  return ds.with_options(read_config.options or tf.data.Options()).map(
    tf.autograph.experimental.do_not_convert(check_and_decode),
    num_parallel_calls=read_config.num_parallel_calls_for_decode,
  )


def _list_lanes(
  files: Sequence[shard_utils.FileInstruction],
  lanes: Sequence[Sequence[int]],
  open_file: Callable[..., Any],
) -> tuple[tf.data.Dataset, Callable[..., Any]]:
  """Returns a dataset of lanes, and a function from a lane to its blocks."""
  in_order = [files[i] for lane in lanes for i in lane]
  columns = (
    tf.constant([os.fspath(f.filename) for f in in_order]),
    tf.constant([f.skip for f in in_order], tf.int64),
    tf.constant([f.take for f in in_order], tf.int64),
  )
  if len(lanes) == len(files):
    # Saves a layer, which every block has to pass.
    return tf.data.Dataset.from_tensor_slices(columns), open_file

  def open_lane(start: Any, stop: Any) -> tf.data.Dataset:
    lane = tuple(column[start:stop] for column in columns)
    return tf.data.Dataset.from_tensor_slices(lane).flat_map(open_file)

  stops = list(itertools.accumulate(len(lane) for lane in lanes))
  ds = tf.data.Dataset.from_tensor_slices(([0, *stops[:-1]], stops))
  return ds, open_lane


def _make_opener(
  files: Sequence[shard_utils.FileInstruction],
  *,
  block_length: int,
  buffer_bytes: int | None,
  has_empty_blocks: bool,
) -> Callable[..., Any]:
  """Returns a function from a path, skip and take to a dataset of blocks."""
  if not buffer_bytes:
    is_local = _are_local(files)
    buffer_bytes = _LOCAL_BUFFER_BYTES if is_local else _REMOTE_BUFFER_BYTES
  do_skip = any(f.skip > 0 for f in files)
  do_take = any(not f.takes_all for f in files)
  has_empty_blocks &= any(f.take % block_length == 0 for f in files)
  no_records = tf.zeros([0], tf.string)

  def open_file(path: Any, skip: Any, take: Any) -> tf.data.Dataset:
    ds = tf.data.TFRecordDataset(path, buffer_size=buffer_bytes)
    if do_skip:
      ds = ds.skip(skip)
    if do_take:
      ds = ds.take(take)
    ds = ds.batch(block_length)
    if not has_empty_blocks:
      return ds
    # The visit that finds the end of the file and nothing else.
    last = tf.data.Dataset.from_tensors(no_records).take(
      tf.cast(take % block_length == 0, tf.int64)
    )
    return ds.concatenate(last)

  return open_file


def _are_local(files: Sequence[shard_utils.FileInstruction]) -> bool:
  return not any("://" in os.fspath(f.filename) for f in files)


def _assert_num_records(batch: Any, expected: Any) -> Any:
  """Returns a batch, or fails if it has not the size that it should have.

  TFDS counts records with `assert_cardinality`. Batches are counted with it
  too, which leaves the size of the last one.

  Args:
    batch: (batch,) strings.
    expected: int64, the size. Not positive for a batch that is one too many;
      that is for the count of batches to refuse.
  """
  size = tf.size(batch, tf.int64)
  # Not `tf.debugging.Assert`, whose condition makes the whole function slower.
  check = tf.raw_ops.Assert(
    condition=(expected <= 0) | (size == expected),
    data=["Expected this many records in a batch, and read:", expected, size],
  )
  with tf.control_dependencies([check]):
    return tf.identity(batch)
