"""The order of records, and files that hold too few or too many."""

import itertools
import pathlib
import random
import subprocess
import sys

import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core import reader as reader_lib
from tensorflow_datasets.core.utils import shard_utils

from tfds_plugins.reading import blocks
from tfds_plugins.reading import records

# Eleven and more files, of lengths around multiples of the blocks'.
LENGTHS = [7, 3, 12, 1, 9, 5, 2, 8, 4, 11, 6, 16, 32, 33, 15]


def write_files(folder: pathlib.Path, lengths) -> list:
  files = []
  for i, length in enumerate(lengths):
    path = folder / f"{i}.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
      for j in range(length):
        writer.write(f"{i}:{j}".encode())
    files.append(
      shard_utils.FileInstruction(
        filename=str(path), skip=0, take=-1, examples_in_shard=length
      )
    )
  return files


@pytest.fixture(scope="module")
def files(tmp_path_factory):
  return write_files(tmp_path_factory.mktemp("files"), LENGTHS)


def make_dataset(files, batch_size, *, shuffle_files=False, **config):
  return records.read_batches(
    files,
    read_config=tfds.ReadConfig(**config),
    shuffle_files=shuffle_files,
    disable_shuffling=False,
    file_format=tfds.core.FileFormat.TFRECORD,
    batch_size=batch_size,
    decode_fn=lambda batch, ids: batch,
  )


def make_dataset_of_tfds(files, batch_size, *, shuffle_files=False, **config):
  return reader_lib._read_files(
    files,
    read_config=tfds.ReadConfig(**config),
    shuffle_files=shuffle_files,
    disable_shuffling=False,
    file_format=tfds.core.FileFormat.TFRECORD,
  ).batch(batch_size)


def to_lists(ds):
  return [batch.tolist() for batch in ds.as_numpy_iterator()]


def read(files, batch_size, **options):
  return to_lists(make_dataset(files, batch_size, **options))


def read_as_tfds(files, batch_size, **options):
  return to_lists(make_dataset_of_tfds(files, batch_size, **options))


@pytest.fixture(params=["one core", "many cores"])
def cores(request, monkeypatch):
  few = 0 if request.param == "many cores" else 1 << 20
  monkeypatch.setattr(blocks, "_FEW_CORES", few)


@pytest.fixture
def by_blocks(monkeypatch):
  """Makes TFDS's reader, which the fast path has instead, unusable."""
  real = reader_lib._read_files

  def check(*args, **kwargs):
    if sys._getframe(1).f_globals["__name__"] == records.__name__:
      raise AssertionError("Not read by blocks.")
    return real(*args, **kwargs)

  monkeypatch.setattr(reader_lib, "_read_files", check)


@pytest.mark.usefixtures("cores")
def test_order_is_that_of_tfds(files):
  rng = random.Random(0)
  for _ in range(12):
    some = rng.sample(files, rng.randint(1, len(files)))
    if rng.random() < 0.5:  # What a sub-split reads.
      some = [
        f.replace(
          skip=(skip := rng.randint(0, f.examples_in_shard - 1)),
          take=rng.randint(1, f.examples_in_shard - skip),
        )
        for f in some
      ]
    config = {
      "interleave_cycle_length": rng.choice([1, 2, 3, 5, 16]),
      "interleave_block_length": rng.choice([2, 3, 4, 8, 16]),
    }
    batch_size = rng.choice([1, 2, 5, 16, 1000])
    expected = read_as_tfds(some, batch_size, **config)
    assert read(some, batch_size, **config) == expected, (some, config)


@pytest.mark.usefixtures("cores", "by_blocks")
@pytest.mark.parametrize("seed", [None, 3])
def test_shuffled_order_is_that_of_tfds(files, seed):
  """Without a seed, too, if TensorFlow as a whole has one."""
  config = {
    "shuffle_seed": seed,
    "interleave_block_length": 4,
    "options": tf.data.Options(),
  }
  config["options"].deterministic = True
  tf.random.set_seed(1)
  expected = read_as_tfds(files, 5, shuffle_files=True, **config)
  tf.random.set_seed(1)
  assert read(files, 5, shuffle_files=True, **config) == expected
  assert expected != read(files, 5, **config)


@pytest.mark.usefixtures("cores", "by_blocks")
@pytest.mark.parametrize("cycle_length", [1, 15, 16])
@pytest.mark.parametrize("block_length", [2, 4, 16])
def test_order_of_many_files_is_that_of_tfds(files, cycle_length, block_length):
  config = {
    "interleave_cycle_length": cycle_length,
    "interleave_block_length": block_length,
    "shuffle_seed": 3,
  }
  expected = [
    read_as_tfds(files, 5, shuffle_files=shuffle_files, **config)
    for shuffle_files in (False, True)
  ]
  assert expected[0] != expected[1]
  for shuffle_files in (False, True):
    ours = read(files, 5, shuffle_files=shuffle_files, **config)
    assert ours == expected[shuffle_files]


@pytest.mark.usefixtures("cores", "by_blocks")
@pytest.mark.parametrize("cycle_length", [2, 3, 14])
def test_many_files_in_any_order(files, cycle_length):
  """More than are open; TFDS's order is another one each time, too."""
  ds = make_dataset(
    files,
    5,
    shuffle_files=True,
    interleave_cycle_length=cycle_length,
    interleave_block_length=4,
  )
  orders = []
  for _ in range(3):
    batches = to_lists(ds)
    assert [len(batch) for batch in batches] == [5] * 32 + [4]
    orders.append(list(itertools.chain.from_iterable(batches)))
    for i, length in enumerate(LENGTHS):
      expected = [f"{i}:{j}".encode() for j in range(length)]
      prefix = f"{i}:".encode()
      assert [r for r in orders[-1] if r.startswith(prefix)] == expected
  assert orders[0] != orders[1]


@pytest.mark.parametrize("shuffle_files", [False, True])
def test_files_that_wait_for_others_are_read_as_by_tfds(
  files, shuffle_files, monkeypatch
):
  """The order is not that of blocks, so that these have to be left alone."""
  config = {
    "shuffle_files": shuffle_files,
    "shuffle_seed": 3,
    "interleave_cycle_length": 3,
    "interleave_block_length": 4,
  }
  expected = read_as_tfds(files, 5, **config)
  with monkeypatch.context() as patch:
    patch.setattr(blocks, "read_blocks", None)
    assert read(files, 5, **config) == expected
  monkeypatch.setattr(blocks, "keeps_order", lambda *_, **__: True)
  assert read(files, 5, **config) != expected


def test_the_buffers_of_local_files_are_small(files, monkeypatch):
  sizes = []

  class Dataset(tf.data.TFRecordDataset):
    def __init__(self, *args, **kwargs):
      sizes.append(kwargs["buffer_size"])
      super().__init__(*args, **kwargs)

  monkeypatch.setattr(tf.data, "TFRecordDataset", Dataset)
  for cycle_length in (3, 16):
    for size in (None, 1000):
      read(
        files,
        5,
        interleave_cycle_length=cycle_length,
        override_buffer_size=size,
      )
  assert sizes == [256 << 10, 1000] * 2


def take_part(ds, num_workers, worker):
  """Returns what a worker reads if files are shared out between them."""
  part = tf.raw_ops.AutoShardDataset(
    input_dataset=tf.data.experimental.to_variant(ds),
    num_workers=num_workers,
    index=worker,
    auto_shard_policy=int(tf.data.experimental.AutoShardPolicy.FILE),
    output_types=[tf.string],
    output_shapes=[ds.element_spec.shape],
  )
  return tf.data.experimental.from_variant(part, ds.element_spec)


@pytest.mark.usefixtures("cores", "by_blocks")
@pytest.mark.parametrize("shuffle_files", [False, True])
@pytest.mark.parametrize("num_workers", [2, 4])
@pytest.mark.parametrize("cycle_length", [1, 15, 16])
def test_order_of_a_worker_is_that_of_tfds(
  files, cycle_length, num_workers, shuffle_files
):
  config = {
    "interleave_cycle_length": cycle_length,
    "interleave_block_length": 4,
    "shuffle_seed": 3,
    "shuffle_files": shuffle_files,
  }
  records = []
  for worker in range(num_workers):
    ours, theirs = (
      take_part(make(files, 5, **config), num_workers, worker)
      for make in (make_dataset, make_dataset_of_tfds)
    )
    expected = to_lists(theirs)
    assert to_lists(ours) == expected
    records += [record for batch in expected for record in batch]
  assert len(set(records)) == len(records) == sum(LENGTHS)


@pytest.mark.parametrize("change", [-1, 1, -4, 4])
@pytest.mark.parametrize("batch_size", [4, 1000])
@pytest.mark.parametrize("num_files", [1, 4])
@pytest.mark.parametrize("cycle_length", [2, 16])
def test_files_of_other_lengths(
  tmp_path, change, batch_size, num_files, cycle_length
):
  lengths = [8, 6, 5, 5][:num_files]
  files = write_files(tmp_path, lengths)
  write_files(tmp_path, [*lengths[:-1], lengths[-1] + change])
  config = {"interleave_cycle_length": cycle_length}
  for reading in (read_as_tfds, read):
    with pytest.raises(
      tf.errors.FailedPreconditionError, match="expected to contain"
    ):
      reading(files, batch_size, **config)


@pytest.mark.usefixtures("by_blocks")
def test_each_file_has_a_length(tmp_path):
  """TFDS adds them up, and a worker that reads some files knows no sum."""
  files = write_files(tmp_path, [8, 6, 5, 5])
  write_files(tmp_path, [8, 5, 6, 5])
  with pytest.raises(tf.errors.FailedPreconditionError, match="6 elements"):
    read(files, 4)
  parts = [take_part(make_dataset(files, 4), 4, i) for i in range(4)]
  assert [len(batch) for batch in to_lists(parts[0])] == [4, 4]
  for part in parts[1:3]:
    with pytest.raises(tf.errors.FailedPreconditionError):
      to_lists(part)


def test_files_of_other_lengths_are_read_if_nobody_minds(tmp_path):
  files = write_files(tmp_path, [8, 6, 5, 5])
  write_files(tmp_path, [8, 1, 5, 7])
  config = {"assert_cardinality": False, "interleave_cycle_length": 2}
  assert read(files, 4, **config) == read_as_tfds(files, 4, **config)


def test_a_damaged_file(tmp_path):
  [file] = write_files(tmp_path, [8])
  path = pathlib.Path(file.filename)
  content = bytearray(path.read_bytes())
  content[40] ^= 1
  path.write_bytes(content)
  for reading in (read_as_tfds, read):
    with pytest.raises(tf.errors.DataLossError):
      reading([file], 3)


def test_tensorflow_is_imported_when_it_is_needed():
  code = (
    "import sys; import tfds_plugins.reading.builder;"
    "print('tensorflow' in sys.modules)"
  )
  result = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  assert result.stdout.split() == ["False"]
