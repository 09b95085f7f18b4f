"""Reading by several workers, each of them a part, against TFDS's own."""

import itertools
import json
import subprocess
import sys

import corpora
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

_POLICIES = tf.data.experimental.AutoShardPolicy
_NUM_ROWS = corpora.Simple.NUM_ROWS["train"]


@pytest.fixture(scope="module")
def data_dirs(tmp_path_factory):
  """Returns a folder for each number of files."""
  data_dirs = {n: tmp_path_factory.mktemp(f"files{n}") for n in (1, 3, 10)}
  for num_files, data_dir in data_dirs.items():
    corpora.prepare(corpora.Simple, data_dir, num_files)
  return data_dirs


def take_part(ds, policy, num_workers, worker):
  """Returns what `tf.distribute` has a worker read."""
  specs = tf.nest.flatten(ds.element_spec)
  part = tf.raw_ops.AutoShardDataset(
    input_dataset=tf.data.experimental.to_variant(ds),
    num_workers=num_workers,
    index=worker,
    auto_shard_policy=int(policy),
    output_types=[spec.dtype for spec in specs],
    output_shapes=[spec.shape for spec in specs],
  )
  return tf.data.experimental.from_variant(part, ds.element_spec)


def read_parts(builder, policy, num_workers, **options):
  """Returns what each of the workers reads, or the error that it meets."""
  options = {"split": "train", "batch_size": 7, **options}
  parts = []
  for worker in range(num_workers):
    # Each makes a dataset of its own, as in processes of their own.
    ds = builder.as_dataset(**options)
    try:
      parts.append(corpora.read(take_part(ds, policy, num_workers, worker)))
    except tf.errors.OpError as e:
      parts.append((type(e), e.message.split("(s)")[0]))
  return parts


def count_rows(part) -> int:
  # An element is a list of names and (dtype, shape, content).
  return sum(dict(element)["row"][1][0] for element in part)


def check(data_dir, policy, num_workers, **options):
  ours, theirs = (
    read_parts(
      corpus(data_dir=data_dir), _POLICIES[policy], num_workers, **options
    )
    for corpus in (corpora.make_fast(corpora.Simple), corpora.Simple)
  )
  assert ours == theirs
  return ours


@pytest.mark.parametrize("cycle_length", [2, 16])
@pytest.mark.parametrize("num_workers", [2, 3])
@pytest.mark.parametrize("num_files", [1, 3, 10])
@pytest.mark.parametrize("policy", ["AUTO", "FILE", "DATA", "OFF"])
def test_a_worker_reads_what_it_reads_of_tfds(
  data_dirs, policy, num_files, num_workers, cycle_length
):
  read_config = tfds.ReadConfig(
    interleave_cycle_length=cycle_length, interleave_block_length=3
  )
  parts = check(
    data_dirs[num_files], policy, num_workers, read_config=read_config
  )
  if policy in ("AUTO", "FILE") and num_files < num_workers:
    assert parts[0][0] is tf.errors.InvalidArgumentError
  else:
    expected = num_workers * _NUM_ROWS if policy == "OFF" else _NUM_ROWS
    assert sum(map(count_rows, parts)) == expected


@pytest.mark.parametrize(
  "config",
  [
    {},
    {"try_autocache": False, "skip_prefetch": True},
    {"assert_cardinality": False},
    {"add_tfds_id": True},
  ],
  ids=lambda config: " ".join(config) or "default",
)
def test_read_configs(data_dirs, config):
  read_config = tfds.ReadConfig(**config)
  parts = check(data_dirs[10], "AUTO", 2, read_config=read_config)
  # By files of six or seven rows; by batches of seven, it would be 35 and 26.
  assert [count_rows(part) for part in parts] == [30, 31]


def test_workers_read_each_row_once(data_dirs):
  builder = corpora.make_fast(corpora.Simple)(data_dir=data_dirs[10])

  def list_rows(ds):
    return [row for e in ds.as_numpy_iterator() for row in e["row"].tolist()]

  parts = [
    list_rows(
      take_part(
        builder.as_dataset(split="train", batch_size=7),
        _POLICIES.FILE,
        2,
        worker,
      )
    )
    for worker in range(2)
  ]
  assert sorted(parts[0] + parts[1]) == list(range(_NUM_ROWS))
  files = [
    list_rows(builder.as_dataset(split=f"train[{i}shard]", batch_size=7))
    for i in range(10)
  ]
  for worker, part in enumerate(parts):
    assert sorted(part) == sorted(itertools.chain(*files[worker::2]))


@pytest.mark.parametrize("split", ["train[5:47]", "train+test"])
@pytest.mark.parametrize("cycle_length", [2, 16])
def test_parts_of_other_splits(data_dirs, split, cycle_length):
  options = {
    "split": split,
    "read_config": tfds.ReadConfig(
      interleave_cycle_length=cycle_length, interleave_block_length=2
    ),
  }
  assert all(map(count_rows, check(data_dirs[10], "FILE", 3, **options)))


@pytest.mark.parametrize("cycle_length", [2, 16])
def test_shuffled_parts(data_dirs, cycle_length):
  """The files are shared out before they are shuffled."""
  options = {
    "shuffle_files": True,
    "read_config": tfds.ReadConfig(
      shuffle_seed=3,
      interleave_cycle_length=cycle_length,
      interleave_block_length=2,
    ),
  }
  parts = check(data_dirs[10], "FILE", 2, **options)
  assert sum(map(count_rows, parts)) == _NUM_ROWS


@pytest.mark.parametrize("cycle_length", [2, 16])
def test_parts_shuffled_without_a_seed(data_dirs, cycle_length):
  builder = corpora.make_fast(corpora.Simple)(data_dir=data_dirs[10])
  read_config = tfds.ReadConfig(
    interleave_cycle_length=cycle_length, interleave_block_length=2
  )
  parts = []
  for worker in range(2):
    ds = builder.as_dataset(
      split="train", batch_size=7, shuffle_files=True, read_config=read_config
    )
    part = take_part(ds, _POLICIES.AUTO, 2, worker)
    parts.append([row for e in part.as_numpy_iterator() for row in e["row"]])
  assert [len(part) for part in parts] == [30, 31]
  assert sorted(parts[0] + parts[1]) == list(range(_NUM_ROWS))


@pytest.mark.parametrize("cycle_length", [2, 16])
def test_every_nth_batch(data_dirs, cycle_length):
  read_config = tfds.ReadConfig(
    interleave_cycle_length=cycle_length, interleave_block_length=3
  )
  ours, theirs = (
    corpus(data_dir=data_dirs[10]).as_dataset(
      split="train", batch_size=7, read_config=read_config
    )
    for corpus in (corpora.make_fast(corpora.Simple), corpora.Simple)
  )
  for worker in range(3):
    corpora.assert_same(ours.shard(3, worker), theirs.shard(3, worker))


@pytest.mark.parametrize("num_read", [0, 1, 4, 8])
@pytest.mark.parametrize("cycle_length", [2, 16])
def test_an_iterator_goes_on_from_a_checkpoint(
  data_dirs, cycle_length, num_read, tmp_path
):
  ds = corpora.make_fast(corpora.Simple)(data_dir=data_dirs[10]).as_dataset(
    split="train",
    batch_size=7,
    read_config=tfds.ReadConfig(
      interleave_cycle_length=cycle_length,
      interleave_block_length=4,
      try_autocache=False,
    ),
  )
  iterator = iter(ds)
  for _ in range(num_read):
    next(iterator)
  path = tf.train.Checkpoint(iterator=iterator).write(str(tmp_path / "state"))
  expected = [e["row"].numpy().tolist() for e in iterator]
  assert len(expected) == 9 - num_read
  other = iter(ds)
  tf.train.Checkpoint(iterator=other).read(path).assert_consumed()
  assert [e["row"].numpy().tolist() for e in other] == expected


# In a process of its own: devices are made before TensorFlow is first used.
_REPLICAS = """
import json, sys
import corpora
import tensorflow as tf

[cpu] = tf.config.list_physical_devices("CPU")
device = tf.config.LogicalDeviceConfiguration()
tf.config.set_logical_device_configuration(cpu, [device, device])
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
all_rows = []
for corpus in (corpora.make_fast(corpora.Simple), corpora.Simple):
  ds = corpus(data_dir=sys.argv[1]).as_dataset(split="train", batch_size=8)
  all_rows.append([
    [rows.numpy().tolist() for rows in strategy.experimental_local_results(e["row"])]
    for e in strategy.experimental_distribute_dataset(ds)
  ])
print(json.dumps(all_rows))
"""


def test_replicas_share_batches(data_dirs):
  result = subprocess.run(
    [sys.executable, "-c", _REPLICAS, str(data_dirs[3])],
    capture_output=True,
    text=True,
    check=True,
    env=corpora.make_env(),
  )
  ours, theirs = json.loads(result.stdout)
  assert ours[:-1] == theirs[:-1]
  assert list(itertools.chain(*ours[-1])) == list(itertools.chain(*theirs[-1]))
  # TensorFlow sees no size of batches behind a `map`, and halves what it gets.
  assert [len(rows) for rows in ours[-1]] == [3, 2]
  assert [len(rows) for rows in theirs[-1]] == [4, 1]
