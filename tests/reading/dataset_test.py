"""`as_dataset(batch_size=...)` against TFDS's own."""

import itertools

import corpora
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from tfds_plugins.reading import blocks
from tfds_plugins.reading import dataset

SKIP = tfds.decode.SkipDecoding()
# What the fast path leaves to TFDS, unless it is skipped.
SLOW = {"image": SKIP, "images": SKIP, "any shape": SKIP}


@tfds.decode.make_decoder()
def plus_one(example, feature):
  return feature.decode_example(example) + 1


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  data_dir = tmp_path_factory.mktemp("data")
  corpora.prepare(corpora.Simple, data_dir, 5)
  corpora.prepare(corpora.Rich, data_dir, 2)
  corpora.prepare(corpora.Ordered, data_dir, 5)
  return data_dir


def check(corpus, data_dir, *, is_fast=True, **options):
  """Reads with both, and says whether the fast path had to be taken."""
  options = {"split": "train", "batch_size": 7, **options}
  make = corpora.make_fast if is_fast else corpora.make_either
  ours = make(corpus)(data_dir=data_dir).as_dataset(**options)
  theirs = corpus(data_dir=data_dir).as_dataset(**options)
  corpora.assert_same(ours, theirs)


@pytest.mark.parametrize("batch_size", [1, 3, 7, np.int64(7), 61, 100, -1])
def test_batch_sizes(data_dir, batch_size):
  check(corpora.Simple, data_dir, batch_size=batch_size)


@pytest.mark.parametrize("batch_size", [4, 100, -1])
def test_every_feature(data_dir, batch_size):
  check(corpora.Rich, data_dir, batch_size=batch_size, decoders=SLOW)


def test_last_batch_is_partial(data_dir):
  builder = corpora.make_fast(corpora.Simple)(data_dir=data_dir)
  ds = builder.as_dataset(split="train", batch_size=7)
  assert [len(e["row"]) for e in ds.as_numpy_iterator()] == [7] * 8 + [5]


@pytest.mark.parametrize("batch_size", [None, 0, True])
def test_no_batches(data_dir, batch_size):
  check(corpora.Simple, data_dir, batch_size=batch_size, is_fast=False)


@pytest.mark.parametrize("batch_size", [-2, 2.5])
def test_what_is_no_batch_size_is_refused_as_by_tfds(data_dir, batch_size):
  with pytest.raises(Exception) as theirs:  # noqa: PT011
    corpora.Simple(data_dir=data_dir).as_dataset(batch_size=batch_size)
  builder = corpora.make_either(corpora.Simple)(data_dir=data_dir)
  with pytest.raises(theirs.type):
    builder.as_dataset(batch_size=batch_size)


@pytest.mark.parametrize(
  "split",
  [
    None,
    "test",
    "all",
    "train[3:17]",
    "train[50%:]",
    "train[:1]",
    "train[40:]+test[:3]",
    "train[-5:]",
    "train[2shard]",
    ["train", "test"],
    {"a": "train[:10]", "b": ["test"]},
    tfds.core.ReadInstruction("train", from_=10, to=90, unit="%"),
    tfds.even_splits("train", n=3),
  ],
  ids=str,
)
def test_splits(data_dir, split):
  check(corpora.Simple, data_dir, split=split)


@pytest.mark.parametrize("split", [None, "train[3:17]", ["train", "test"]])
def test_a_whole_split_at_once(data_dir, split):
  check(corpora.Simple, data_dir, split=split, batch_size=-1)


@pytest.mark.parametrize("split", ["train[0:0]", "nonesuch"])
def test_no_such_data(data_dir, split):
  with pytest.raises(ValueError) as theirs:  # noqa: PT011
    corpora.Simple(data_dir=data_dir).as_dataset(split=split, batch_size=7)
  builder = corpora.make_either(corpora.Simple)(data_dir=data_dir)
  with pytest.raises(ValueError) as ours:  # noqa: PT011
    builder.as_dataset(split=split, batch_size=7)
  assert str(ours.value) == str(theirs.value)


@pytest.mark.parametrize(
  "decoders",
  [
    {
      **SLOW,
      **dict.fromkeys(("text", "label", "zlib", "complex", "box"), SKIP),
      **dict.fromkeys(("three", "two bytes", "words", "labels"), SKIP),
      "scalar": dict.fromkeys(("float64", "bool", "uint64"), SKIP),
      "bytes": {"float16": SKIP},
      "pairs": {"a": SKIP, "b": {"c": SKIP}},
    },
    tfds.decode.PartialDecoding({"text", "label", "pairs", "scalar"}),
    tfds.decode.PartialDecoding(
      {"text": True, "label": True, "scalar": {"int8", "float64"}}
    ),
    tfds.decode.PartialDecoding(
      {"text": tfds.features.Text(), "label": True, "image": True},
      decoders={"image": SKIP},
    ),
  ],
  ids=["skipped", "partial", "nested", "partial and skipped"],
)
def test_decoders(data_dir, decoders):
  check(corpora.Rich, data_dir, decoders=decoders)


@pytest.mark.parametrize(
  "decoders",
  [
    None,
    {"image": SKIP, "images": SKIP},
    {**SLOW, "label": plus_one()},
    tfds.decode.PartialDecoding({"image", "text"}),
  ],
  ids=["images", "open shape", "custom", "partial"],
)
def test_what_batches_cannot_do_is_left_to_tfds(data_dir, decoders):
  plain = corpora.Rich(data_dir=data_dir)
  options = {
    "split": "test",
    "shuffle_files": False,
    "decoders": decoders,
    "read_config": tfds.ReadConfig(),
    "as_supervised": False,
  }
  assert dataset.make_batched_dataset(plain, batch_size=3, **options) is None
  check(
    corpora.Rich,
    data_dir,
    is_fast=False,
    batch_size=1,
    split="test",
    decoders=decoders,
  )


def test_decoders_that_fit_no_feature(data_dir):
  builder = corpora.make_either(corpora.Simple)(data_dir=data_dir)
  for decoders in (
    {"nonesuch": SKIP},
    tfds.decode.PartialDecoding({"nonesuch"}),
  ):
    with pytest.raises(ValueError, match="nonesuch"):
      builder.as_dataset(split="train", batch_size=7, decoders=decoders)


def test_as_supervised(data_dir):
  check(corpora.Simple, data_dir, as_supervised=True)
  check(corpora.Simple, data_dir, as_supervised=True, batch_size=-1)
  check(corpora.Rich, data_dir, as_supervised=True, decoders=SLOW)


def test_as_supervised_without_keys(data_dir):
  builder = corpora.make_either(corpora.Ordered)(data_dir=data_dir)
  with pytest.raises(ValueError, match="does not support a supervised"):
    builder.as_dataset(split="train", batch_size=7, as_supervised=True)


def _options(**values):
  options = tf.data.Options()
  for name, value in values.items():
    setattr(options, name, value)
  return options


@pytest.mark.parametrize(
  "config",
  [
    {"try_autocache": False},
    {"skip_prefetch": True},
    {"add_tfds_id": True},
    {"interleave_cycle_length": 1},
    {"interleave_cycle_length": 2, "interleave_block_length": 3},
    {"interleave_cycle_length": 3, "interleave_block_length": 4},
    {"interleave_cycle_length": 2, "interleave_block_length": 1},
    {"interleave_block_length": 4, "add_tfds_id": True},
    {"num_parallel_calls_for_decode": 1},
    {"num_parallel_calls_for_interleave_files": None},
    {"num_parallel_calls_for_interleave_files": 3},
    {"assert_cardinality": False},
    {"override_buffer_size": 100},
    {"options": _options(deterministic=True)},
    {"options": _options(threading=tf.data.ThreadingOptions())},
    {"experimental_interleave_sort_fn": lambda files: files[::-1]},
    {"file_format": "tfrecord"},
    {"input_context": tf.distribute.InputContext(2, 1, 2)},
  ],
  ids=lambda config: " ".join(config),
)
def test_read_configs(data_dir, config):
  read_config = tfds.ReadConfig(**config)
  check(corpora.Simple, data_dir, read_config=read_config)
  check(corpora.Simple, data_dir, read_config=read_config, split="train[5:47]")


def test_ids_name_the_records(data_dir):
  builder = corpora.make_fast(corpora.Simple)(data_dir=data_dir)
  ds = builder.as_dataset(
    split="train[2:]",
    batch_size=100,
    read_config=tfds.ReadConfig(add_tfds_id=True),
  )
  ids = next(ds.as_numpy_iterator())["tfds_id"]
  assert ids[0] == b"simple-train.tfrecord-00000-of-00005__2"
  assert len(set(ids)) == 59


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("cycle_length", [2, 16])
@pytest.mark.parametrize("reshuffle", [None, False])
def test_shuffling_with_a_seed(data_dir, seed, cycle_length, reshuffle):
  read_config = tfds.ReadConfig(
    shuffle_seed=seed,
    interleave_cycle_length=cycle_length,
    interleave_block_length=4,
    shuffle_reshuffle_each_iteration=reshuffle,
  )
  options = {
    "split": "train",
    "batch_size": 7,
    "shuffle_files": True,
    "read_config": read_config,
  }
  fast = corpora.make_fast(corpora.Simple)(data_dir=data_dir)
  ours = fast.as_dataset(**options)
  theirs = corpora.Simple(data_dir=data_dir).as_dataset(**options)
  # Both are shuffled anew for the second epoch, or neither.
  epochs = [corpora.read(theirs) for _ in range(2)]
  assert [corpora.read(ours) for _ in range(2)] == epochs
  assert (epochs[0] == epochs[1]) is (reshuffle is False)


@pytest.mark.parametrize("cycle_length", [2, 16])
def test_shuffling_without_a_seed(data_dir, cycle_length):
  builder = corpora.make_fast(corpora.Simple)(data_dir=data_dir)
  ds = builder.as_dataset(
    split="train",
    batch_size=7,
    shuffle_files=True,
    read_config=tfds.ReadConfig(
      interleave_cycle_length=cycle_length, interleave_block_length=2
    ),
  )
  orders = []
  for _ in range(6):
    rows = [e["row"].tolist() for e in ds.as_numpy_iterator()]
    assert [len(batch) for batch in rows] == [7] * 8 + [5]
    orders.append(list(itertools.chain.from_iterable(rows)))
    assert sorted(orders[-1]) == list(range(61))
  assert len({tuple(order) for order in orders}) > 1


def test_ordered_datasets(data_dir):
  check(corpora.Ordered, data_dir)
  fast = corpora.make_fast(corpora.Ordered)(data_dir=data_dir)
  ds = fast.as_dataset(split="train", batch_size=100)
  assert next(ds.as_numpy_iterator())["row"].tolist() == list(range(61))
  for options in (
    {"shuffle_files": True},
    {"read_config": tfds.ReadConfig(interleave_cycle_length=2)},
  ):
    with pytest.raises(ValueError, match="ordered dataset"):
      fast.as_dataset(split="train", batch_size=7, **options)
  check(
    corpora.Ordered,
    data_dir,
    read_config=tfds.ReadConfig(
      interleave_cycle_length=2, enable_ordering_guard=False
    ),
  )


def test_repeated_files(data_dir):
  read_config = tfds.ReadConfig(
    repeat_filenames=True, assert_cardinality=False, try_autocache=False
  )
  options = {"split": "train", "batch_size": 7, "read_config": read_config}
  fast = corpora.make_fast(corpora.Simple)(data_dir=data_dir)
  ours = fast.as_dataset(**options)
  theirs = corpora.Simple(data_dir=data_dir).as_dataset(**options)
  assert corpora.read(ours.take(20)) == corpora.read(theirs.take(20))


def test_take_skip_and_repeat(data_dir):
  fast = corpora.make_fast(corpora.Simple)(data_dir=data_dir)
  plain = corpora.Simple(data_dir=data_dir)
  ours, theirs = (
    b.as_dataset(split="train", batch_size=7) for b in (fast, plain)
  )
  for change in (
    lambda ds: ds.take(2),
    lambda ds: ds.skip(7),
    lambda ds: ds.repeat(2),
    lambda ds: ds.unbatch().batch(9),
  ):
    assert change(ours).cardinality() == change(theirs).cardinality()
    assert corpora.read(change(ours)) == corpora.read(change(theirs))


@pytest.mark.parametrize("batch_size", [7, 61, 100])
def test_caching(data_dir, batch_size, tmp_path):
  """A small dataset is read once, as TFDS does it."""
  corpora.prepare(corpora.Ordered, tmp_path, 1)
  fast = corpora.make_fast(corpora.Ordered)(data_dir=tmp_path)
  cached = fast.as_dataset(split="train", batch_size=batch_size)
  read_config = tfds.ReadConfig(try_autocache=False)
  uncached = fast.as_dataset(
    split="train", batch_size=batch_size, read_config=read_config
  )
  before = corpora.read(cached)
  assert corpora.read(uncached) == before
  for path in tmp_path.rglob("*.tfrecord-*"):
    path.unlink()
  assert corpora.read(cached) == before
  with pytest.raises(tf.errors.NotFoundError):
    corpora.read(uncached)


@pytest.mark.parametrize("file_format", ["parquet", "array_record"])
def test_other_formats(tmp_path, file_format):
  builder = corpora.Simple(data_dir=tmp_path, file_format=file_format)
  builder.download_and_prepare(
    download_config=tfds.download.DownloadConfig(num_shards=3)
  )
  fast = corpora.make_fast(corpora.Simple)
  either = corpora.make_either(corpora.Simple)
  options = {"split": "train[4:]", "batch_size": 7}
  if file_format == "array_record":  # TFDS reads it without tf.data alone.
    with pytest.raises(NotImplementedError):
      either(data_dir=tmp_path, file_format=file_format).as_dataset(**options)
    return
  ours = fast(data_dir=tmp_path, file_format=file_format).as_dataset(**options)
  corpora.assert_same(ours, builder.as_dataset(**options))


def test_the_number_of_cores_does_not_matter(data_dir, monkeypatch):
  monkeypatch.setattr(blocks, "_FEW_CORES", 0)
  read_config = tfds.ReadConfig(
    interleave_cycle_length=2, interleave_block_length=3
  )
  check(corpora.Simple, data_dir, read_config=read_config)
