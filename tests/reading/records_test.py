"""The order of records, and files that hold too few or too many."""

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


def read(files, batch_size, *, shuffle_files=False, **config):
  return [
    batch.tolist()
    for batch in records.read_batches(
      files,
      read_config=tfds.ReadConfig(**config),
      shuffle_files=shuffle_files,
      disable_shuffling=False,
      file_format=tfds.core.FileFormat.TFRECORD,
      batch_size=batch_size,
      decode_fn=lambda batch, ids: batch,
    ).as_numpy_iterator()
  ]


def read_as_tfds(files, batch_size, *, shuffle_files=False, **config):
  ds = reader_lib._read_files(
    files,
    read_config=tfds.ReadConfig(**config),
    shuffle_files=shuffle_files,
    disable_shuffling=False,
    file_format=tfds.core.FileFormat.TFRECORD,
  )
  return [b.tolist() for b in ds.batch(batch_size).as_numpy_iterator()]


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


@pytest.mark.usefixtures("cores", "by_blocks")
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


def test_shuffled_order_with_more_files_than_are_open(files):
  config = {
    "shuffle_seed": 3,
    "interleave_cycle_length": 3,
    "interleave_block_length": 4,
  }
  expected = read_as_tfds(files, 5, shuffle_files=True, **config)
  assert read(files, 5, shuffle_files=True, **config) == expected


@pytest.mark.parametrize("change", [-1, 1, -4, 4])
@pytest.mark.parametrize("batch_size", [4, 1000])
@pytest.mark.parametrize("num_files", [1, 4])
def test_files_of_other_lengths(tmp_path, change, batch_size, num_files):
  lengths = [8, 6, 5, 5][:num_files]
  files = write_files(tmp_path, lengths)
  write_files(tmp_path, [*lengths[:-1], lengths[-1] + change])
  config = {"interleave_cycle_length": 2}
  with pytest.raises(tf.errors.FailedPreconditionError):
    read_as_tfds(files, batch_size, **config)
  with pytest.raises(
    (tf.errors.FailedPreconditionError, tf.errors.InvalidArgumentError),
    match=r"expected to contain|Expected this many records",
  ):
    read(files, batch_size, **config)


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
