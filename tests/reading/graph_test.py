"""Reading in a graph, as programs of TensorFlow 1 do, against TFDS's own."""

import subprocess
import sys

import corpora
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  data_dir = tmp_path_factory.mktemp("data")
  corpora.prepare(corpora.Simple, data_dir, 5)
  return data_dir


def read_in_graph(builder, **options):
  with tf.Graph().as_default():
    data = tfds.as_numpy(builder.as_dataset(**options))
    if isinstance(data, dict):
      return corpora.to_plain(data)
    return [corpora.to_plain(element) for element in data]


def check(data_dir, **options):
  options = {"split": "train", **options}
  fast = corpora.make_fast(corpora.Simple)(data_dir=data_dir)
  theirs = read_in_graph(corpora.Simple(data_dir=data_dir), **options)
  assert theirs
  assert read_in_graph(fast, **options) == theirs
  return theirs


@pytest.mark.parametrize("batch_size", [1, 7, 16, 61, 100])
def test_batch_sizes(data_dir, batch_size):
  elements = check(data_dir, batch_size=batch_size)
  assert len(elements) == -(-61 // batch_size)
  num_rows = [dict(element)["row"][1][0] for element in elements]
  assert sum(num_rows) == 61
  assert num_rows[-1] == (61 % batch_size or batch_size)


@pytest.mark.parametrize("split", ["train", "train[3:17]"])
def test_a_whole_split_at_once(data_dir, split):
  check(data_dir, split=split, batch_size=-1)


@pytest.mark.parametrize("cycle_length", [2, 16])
def test_shuffling_with_a_seed(data_dir, cycle_length):
  config = {
    "interleave_cycle_length": cycle_length,
    "interleave_block_length": 3,
    "shuffle_seed": 1,
  }
  shuffled, ordered = (
    check(
      data_dir,
      batch_size=7,
      shuffle_files=shuffle_files,
      read_config=tfds.ReadConfig(**config),
    )
    for shuffle_files in (True, False)
  )
  assert shuffled != ordered


@pytest.mark.parametrize(
  "config",
  [
    {"try_autocache": False, "skip_prefetch": True},
    {"add_tfds_id": True},
    {"assert_cardinality": False},
  ],
  ids=lambda config: " ".join(config),
)
def test_read_configs(data_dir, config):
  check(data_dir, batch_size=7, read_config=tfds.ReadConfig(**config))
  check(data_dir, batch_size=7, as_supervised=True)


def test_inside_a_function(data_dir):
  fast = corpora.make_fast(corpora.Simple)(data_dir=data_dir)

  @tf.function
  def sum_rows():
    total = tf.constant(0, tf.int64)
    for batch in fast.as_dataset(split="train", batch_size=7):
      total += tf.reduce_sum(batch["row"])
    return total

  assert sum_rows().numpy() == sum(range(61))


# In a process of its own, as there is no way back.
_V1 = """
import sys
import tensorflow as tf
tf.compat.v1.disable_v2_behavior()
import corpora
import tensorflow_datasets as tfds

all_rows = []
for corpus in (corpora.make_fast(corpora.Simple), corpora.Simple):
  ds = corpus(data_dir=sys.argv[1]).as_dataset(split="train", batch_size=16)
  all_rows.append([batch["row"].tolist() for batch in tfds.as_numpy(ds)])
ours, theirs = all_rows
assert ours == theirs
print([len(batch) for batch in ours])
"""


def test_the_behaviour_of_tensorflow_1(data_dir):
  result = subprocess.run(
    [sys.executable, "-c", _V1, str(data_dir)],
    capture_output=True,
    text=True,
    check=True,
    env=corpora.make_env(),
  )
  assert result.stdout.strip() == "[16, 16, 16, 13]"
