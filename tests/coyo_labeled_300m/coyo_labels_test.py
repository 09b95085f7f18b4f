"""Tests of labels as targets, against loops over plain numbers."""

import functools
import math

from hypothesis import example
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from tfds_plugins import errors
from tfds_plugins.coyo_labeled_300m import classes
from tfds_plugins.coyo_labeled_300m import labels

_NAN = math.nan

# Example 315 on the dataset's card, with a third label.
_LAMPS = [(8087, 0.4453125), (11054, 0.304), (8086, 0.0625)]


def to_float32(value):
  return float(np.float32(value))


def find_top_1(row):
  best = (-1, 0.0)
  for label, prob in row:
    if label >= 0 and prob > best[1]:
      best = (label, to_float32(prob))
  return best


def find_labels(row, threshold):
  """Returns label -> highest probability of the labels that count."""
  found = {}
  for label, prob in row:
    prob = to_float32(prob)
    if label >= 0 and prob > to_float32(threshold):
      found[label] = max(prob, found.get(label, 0.0))
  return found


def make_example(row):
  return {
    "id": tf.constant(315, tf.int64),
    "labels": tf.constant([label for label, _ in row], tf.int64),
    "label_probs": tf.constant([prob for _, prob in row], tf.float32),
  }


def make_ragged(rows):
  splits = np.cumsum([0, *map(len, rows)])
  pairs = [pair for row in rows for pair in row]
  flat = make_example(pairs)
  return {
    "id": tf.range(len(rows)),
    "labels": tf.RaggedTensor.from_row_splits(flat["labels"], splits),
    "label_probs": tf.RaggedTensor.from_row_splits(flat["label_probs"], splits),
  }


def make_padded(rows):
  """Makes rows equally long in the way of TFDS: with zeros."""
  length = max(map(len, rows), default=0)
  padded = [[*row, *[(0, 0.0)] * (length - len(row))] for row in rows]
  shape = (len(rows), length)
  return {
    "id": tf.range(len(rows)),
    "labels": tf.constant(
      [[label for label, _ in row] for row in padded], tf.int64, shape
    ),
    "label_probs": tf.constant(
      [[prob for _, prob in row] for row in padded], tf.float32, shape
    ),
  }


def read_multi_hot(dense):
  """Returns label -> value of each row of (batch, 21841)."""
  assert dense.dtype == tf.float32
  return [
    {int(i): float(row[i]) for i in np.flatnonzero(row)}
    for row in dense.numpy().reshape(-1, classes.NUM_CLASSES)
  ]


def read_sparse(sparse):
  """Returns what `read_multi_hot` returns, of a tensor in canonical order."""
  assert sparse.dtype == tf.float32
  indices = [tuple(index) for index in sparse.indices.numpy().tolist()]
  assert indices == sorted(set(indices))
  rows = [{} for _ in range(math.prod(sparse.dense_shape.numpy()[:-1]))]
  for index, value in zip(indices, sparse.values.numpy()):
    rows[index[0] if len(index) == 2 else 0][index[-1]] = float(value)
  return rows


# Few labels, so that they are often repeated, with both ends of the range.
_PAIRS = st.tuples(
  st.sampled_from([0, 1, 8087, 21_839, 21_840, -1]),
  st.one_of(
    st.sampled_from([0.0, _NAN, 0.1, 0.25, 0.5, 1.0]),
    # TensorFlow takes subnormal numbers for 0.
    st.floats(0, 1, width=32, allow_subnormal=False),
  ),
)
_BATCHES = st.lists(st.lists(_PAIRS, max_size=6), max_size=5)
_HARD_BATCH = [
  [],
  [(3, 0.5), (4, 0.5)],
  [(0, 0.0)],
  [(7, 0.25), (7, 0.75), (7, 0.5)],
  [(21_840, _NAN), (0, 0.125)],
  [(0, _NAN)],
  [(-1, 0.9), (2, 0.125)],
]


def check_batch(rows, batch, *, take_top_1, make_multi_hot):
  """Checks all targets of a batch in both forms."""
  expected = [find_top_1(row) for row in rows]
  out = take_top_1(batch)
  assert set(out) == {"id", "labels", "label_probs", "label", "label_prob"}
  assert out["label"].dtype == tf.int64
  assert out["label_prob"].dtype == tf.float32
  assert out["label"].shape == out["label_prob"].shape == (len(rows),)
  pairs = zip(out["label"].numpy(), out["label_prob"].numpy())
  assert [(int(label), float(prob)) for label, prob in pairs] == expected
  for threshold in (0.0, 0.1, 0.25):
    found = [find_labels(row, threshold) for row in rows]
    ones = [dict.fromkeys(row, 1.0) for row in found]
    for as_probabilities, expected in ((True, found), (False, ones)):
      options = {"threshold": threshold, "as_probabilities": as_probabilities}
      dense = make_multi_hot(batch, sparse=False, **options)["multi_hot"]
      sparse = make_multi_hot(batch, sparse=True, **options)["multi_hot"]
      assert dense.shape == sparse.shape == (len(rows), classes.NUM_CLASSES)
      assert read_multi_hot(dense) == expected
      assert read_sparse(sparse) == expected


@given(rows=_BATCHES)
@example(rows=_HARD_BATCH)
@settings(max_examples=40)
def test_targets_of_padded_and_of_ragged_batches(rows):
  functions = {
    "take_top_1": labels.take_top_1,
    "make_multi_hot": labels.make_multi_hot,
  }

  check_batch(rows, make_padded(rows), **functions)
  check_batch(rows, make_ragged(rows), **functions)


@functools.cache
def trace(function, *, kind, **options):
  """Returns a function in a graph that knows only as much as `kind` says."""
  shape = {"batch": [None, None], "rank": None}
  if kind == "ragged":
    specs = [
      tf.RaggedTensorSpec([None, None], tf.int64),
      tf.RaggedTensorSpec([None, None], tf.float32),
    ]
  else:
    specs = [
      tf.TensorSpec(shape[kind], tf.int64),
      tf.TensorSpec(shape[kind], tf.float32),
    ]
  return tf.function(
    functools.partial(function, **options),
    input_signature=[
      {
        "id": tf.TensorSpec(None, tf.int32),
        "labels": specs[0],
        "label_probs": specs[1],
      }
    ],
  )


@pytest.mark.parametrize("kind", ["batch", "rank", "ragged"])
@given(rows=_BATCHES)
@example(rows=_HARD_BATCH)
@settings(max_examples=20)
def test_targets_in_a_graph_with_unknown_shapes(kind, rows):
  batch = make_ragged(rows) if kind == "ragged" else make_padded(rows)

  check_batch(
    rows,
    batch,
    take_top_1=trace(labels.take_top_1, kind=kind),
    make_multi_hot=lambda x, **options: trace(
      labels.make_multi_hot, kind=kind, **options
    )(x),
  )


@given(row=st.lists(_PAIRS, max_size=6))
@example(row=[])
@example(row=_LAMPS)
@settings(max_examples=40)
def test_targets_of_single_examples(row):
  single = make_example(row)

  top_1 = labels.take_top_1(single)
  dense = labels.make_multi_hot(single, as_probabilities=True)["multi_hot"]
  sparse = labels.make_multi_hot(single, as_probabilities=True, sparse=True)

  assert top_1["label"].shape == top_1["label_prob"].shape == ()
  assert top_1["id"].numpy() == 315
  expected = find_top_1(row)
  assert (int(top_1["label"]), float(top_1["label_prob"])) == expected
  assert dense.shape == sparse["multi_hot"].shape == (classes.NUM_CLASSES,)
  assert read_multi_hot(dense) == [find_labels(row, 0.0)]
  assert read_sparse(sparse["multi_hot"]) == [find_labels(row, 0.0)]


def test_the_published_example():
  single = make_example(_LAMPS)

  label = labels.take_top_1(single)["label"]
  multi_hot = labels.make_multi_hot(single, threshold=0.1)["multi_hot"]

  assert classes.lemmas(label) == ["lamp"]
  found = [classes.lemmas(i) for i in np.flatnonzero(multi_hot)]
  assert found == [["lamp"], ["table lamp"]]
  assert float(tf.reduce_sum(multi_hot)) == 2.0


def test_fifty_labels_stay_fifty_at_threshold_0():
  """The first line of the published table."""
  row = [(label, 0.5 / 2**i) for i, label in enumerate(range(400, 450))]

  multi_hot = labels.make_multi_hot(make_padded([row, []]))["multi_hot"]

  assert tf.reduce_sum(multi_hot, axis=1).numpy().tolist() == [50, 0]


def test_a_probability_must_be_greater_than_the_threshold():
  row = [(1, 0.25), (2, np.nextafter(np.float32(0.25), np.float32(1)))]

  out = labels.make_multi_hot(make_example(row), threshold=0.25)

  assert read_multi_hot(out["multi_hot"]) == [{2: 1.0}]


@pytest.mark.parametrize("threshold", [-0.01, 1.0, 50, _NAN])
def test_other_thresholds_are_refused(threshold):
  with pytest.raises(errors.OptionError, match="from 0 up to"):
    labels.make_multi_hot(make_example(_LAMPS), threshold=threshold)
  with pytest.raises(errors.OptionError, match="from 0 up to"):
    labels.count_labels(make_dataset([_LAMPS]), thresholds=[0.1, threshold])


_FUNCTIONS = [
  labels.take_top_1,
  labels.make_multi_hot,
  functools.partial(labels.make_multi_hot, sparse=True),
  lambda example: labels.count_labels(
    tf.data.Dataset.from_tensors(dict(example))
  ),
]


@pytest.mark.parametrize("function", _FUNCTIONS)
@pytest.mark.parametrize("prob", [0.5, 0.0])
@pytest.mark.parametrize("make", [make_padded, make_ragged])
def test_labels_of_another_list_are_refused(function, prob, make):
  batch = make([_LAMPS, [(21_841, prob)], []])

  with pytest.raises(tf.errors.InvalidArgumentError, match="not below 21841"):
    function(batch)


_ONE = (1, 0.5)


@pytest.mark.parametrize("function", _FUNCTIONS)
@pytest.mark.parametrize(
  ("of_labels", "of_probs"),
  [
    (make_padded([[_ONE] * 3]), make_padded([[_ONE]])),
    (make_padded([[_ONE] * 3]), make_ragged([[_ONE], []])),
    (make_padded([[_ONE]]), make_example([_ONE])),
  ],
)
def test_unlike_shapes_are_refused(function, of_labels, of_probs):
  batch = {**of_labels, "label_probs": of_probs["label_probs"]}

  with pytest.raises(ValueError, match=r"same shape: \(.*\) and \(.*\)"):
    function(batch)


@pytest.mark.parametrize("function", _FUNCTIONS)
def test_rows_of_unlike_length_are_refused(function):
  batch = make_ragged([[_ONE], [_ONE] * 2])
  batch["label_probs"] = make_ragged([[_ONE] * 2, [_ONE]])["label_probs"]

  with pytest.raises(tf.errors.InvalidArgumentError, match="same shape"):
    function(batch)


@pytest.mark.parametrize("function", _FUNCTIONS[:3])
def test_unlike_shapes_are_refused_while_the_dataset_is_read(function):
  ds = make_dataset([_LAMPS, _LAMPS]).map(
    lambda x: {**x, "label_probs": x["label_probs"][: x["id"] - 314]}
  )

  with pytest.raises(tf.errors.InvalidArgumentError, match="same shape"):
    list(ds.map(function))


@pytest.mark.parametrize("function", _FUNCTIONS)
def test_a_missing_feature_is_named(function):
  batch = {"id": tf.range(2), "labels": tf.zeros([2, 3], tf.int64)}

  with pytest.raises(ValueError, match=r"no feature label_probs\. .*'id', 'la"):
    function(batch)


def make_dataset(rows):
  """Makes examples whose shapes are not known beforehand."""
  return tf.data.Dataset.from_generator(
    lambda: map(make_example, rows),
    output_signature={
      "id": tf.TensorSpec([], tf.int64),
      "labels": tf.TensorSpec([None], tf.int64),
      "label_probs": tf.TensorSpec([None], tf.float32),
    },
  )


_ROWS = [_LAMPS, *_HARD_BATCH, _LAMPS[1:], [(0, 0.125)]]


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("batching", ["none", "padded", "ragged"])
def test_targets_in_a_dataset(batching, sparse):
  ds = make_dataset(_ROWS)
  if batching == "padded":
    ds = ds.padded_batch(4)
  elif batching == "ragged":
    ds = ds.ragged_batch(4)

  ds = ds.map(labels.take_top_1, num_parallel_calls=2)
  ds = ds.map(
    functools.partial(labels.make_multi_hot, threshold=0.1, sparse=sparse),
    num_parallel_calls=2,
  )

  outer = [] if batching == "none" else [None]
  spec = ds.element_spec
  assert spec["label"] == tf.TensorSpec(outer, tf.int64)
  assert spec["label_prob"] == tf.TensorSpec(outer, tf.float32)
  assert spec["multi_hot"].shape.as_list() == [*outer, classes.NUM_CLASSES]
  assert isinstance(spec["multi_hot"], tf.SparseTensorSpec) == sparse
  found = list(ds)
  sizes = [np.size(batch["label"]) for batch in found]
  assert sizes == ([1] * 10 if batching == "none" else [4, 4, 2])
  top_1 = [
    (int(label), float(prob))
    for batch in found
    for label, prob in zip(
      np.ravel(batch["label"]), np.ravel(batch["label_prob"])
    )
  ]
  assert top_1 == [find_top_1(row) for row in _ROWS]
  read = read_sparse if sparse else read_multi_hot
  multi_hot = [row for batch in found for row in read(batch["multi_hot"])]
  assert multi_hot == [dict.fromkeys(find_labels(r, 0.1), 1.0) for r in _ROWS]


def count(rows, thresholds):
  """Returns what `LabelStatistics` holds, as tuples."""
  counted = []
  for threshold in thresholds:
    found = [find_labels(row, threshold) for row in rows]
    labeled = [labels for labels in found if labels]
    num_labels = sum(map(len, labeled))
    counted.append(
      (
        threshold,
        num_labels / len(labeled) if labeled else 0.0,
        len(set().union(*found)),
        len(labeled) / len(rows),
      )
    )
  return counted


def to_tuples(table):
  return [
    (r.threshold, r.labels_per_image, r.unique_labels, r.sampling_ratio)
    for r in table.rows
  ]


@given(rows=st.lists(st.lists(_PAIRS, max_size=6), min_size=1, max_size=9))
@example(rows=_ROWS)
@settings(max_examples=25)
def test_counts_are_those_of_loops(rows):
  thresholds = [0.25, 0.0, 0.1, 0.99]
  padded = tf.data.Dataset.from_tensor_slices(make_padded(rows))
  ragged = tf.data.Dataset.from_tensor_slices(make_ragged(rows))

  for ds in (padded, padded.batch(2), ragged, ragged.batch(4)):
    table = labels.count_labels(ds, thresholds)

    assert table.num_images == len(rows)
    assert to_tuples(table) == count(rows, thresholds)


def test_counts_of_single_examples_and_of_more_than_a_batch():
  rows = [_ROWS[i * i % len(_ROWS)] for i in range(1500)]
  thresholds = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25)

  for ds in (make_dataset(rows), make_dataset(rows).padded_batch(64)):
    table = labels.count_labels(ds)

    assert table.num_images == 1500
    assert to_tuples(table) == count(rows, thresholds)


def test_counts_without_known_rank():
  ds = tf.data.Dataset.from_generator(
    lambda: map(make_example, _ROWS),
    output_signature={
      "id": tf.TensorSpec([], tf.int64),
      "labels": tf.TensorSpec(None, tf.int64),
      "label_probs": tf.TensorSpec(None, tf.float32),
    },
  )

  assert to_tuples(labels.count_labels(ds, [0.1])) == count(_ROWS, [0.1])


def test_the_table_is_printed_as_published():
  rows = [
    labels.LabelStatistics(
      threshold=threshold,
      labels_per_image=mean,
      unique_labels=unique,
      sampling_ratio=ratio,
    )
    for threshold, mean, unique, ratio in (
      (0.0, 50.0, 21_841, 1.0),
      (0.05, 3.159, 18_922, 0.96694),
      (0.125, 0.0, 0, 0.0),
    )
  ]
  table = labels.LabelTable(num_images=1_234_567, rows=tuple(rows))

  assert str(table).split("\n") == [
    "Threshold  Labels per Image  Unique Labels  Sampling Ratio",
    "     0.00             50.00         21,841         100.00%",
    "     0.05              3.16         18,922          96.69%",
    "    0.125              0.00              0           0.00%",
    "1,234,567 images",
  ]
  frame = pd.DataFrame(table.rows)
  assert frame.unique_labels.tolist() == [21_841, 18_922, 0]


def test_no_example_and_no_end_are_refused():
  ds = make_dataset([_LAMPS])

  with pytest.raises(ValueError, match="no example"):
    labels.count_labels(ds.take(0))
  with pytest.raises(ValueError, match="without end"):
    labels.count_labels(tf.data.Dataset.range(1).repeat())


class CoyoLikeDataset(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Labels in features of TFDS, beside an image."""

  VERSION = tfds.core.Version("1.0.0")
  name = "coyo_like_dataset"

  def _info(self):
    return tfds.core.DatasetInfo(
      builder=self,
      features=tfds.features.FeaturesDict(
        {
          "image": tfds.features.Image(shape=(1, 1, 3)),
          "labels": tfds.features.Sequence(
            tfds.features.ClassLabel(names=classes.names())
          ),
          "label_probs": tfds.features.Sequence(np.float32),
        }
      ),
    )

  def _split_generators(self, dl_manager):
    return {"train": self._generate_examples()}

  def _generate_examples(self):
    for i, row in enumerate(_ROWS):
      yield (
        i,
        {
          "image": np.zeros((1, 1, 3), np.uint8),
          "labels": [
            classes.names()[label] if label >= 0 else label for label, _ in row
          ],
          "label_probs": [prob for _, prob in row],
        },
      )


def test_a_dataset_of_tfds_in_its_own_batches(tmp_path):
  builder = CoyoLikeDataset(data_dir=tmp_path)
  builder.download_and_prepare(
    download_config=tfds.download.DownloadConfig(try_download_gcs=False)
  )
  builder = tfds.builder_from_directory(builder.data_dir)

  ds = builder.as_dataset(
    split="train",
    batch_size=4,
    decoders=tfds.decode.PartialDecoding({"labels", "label_probs"}),
  )
  top_1 = [
    (int(label), float(prob))
    for batch in ds.map(labels.take_top_1)
    for label, prob in zip(batch["label"], batch["label_prob"])
  ]

  assert sorted(top_1) == sorted(find_top_1(row) for row in _ROWS)
  table = labels.count_labels(ds, [0.0, 0.1])
  assert to_tuples(table) == count(_ROWS, [0.0, 0.1])
  feature = builder.info.features["labels"].feature
  assert feature.int2str(max(top_1)[0]) == "n04380533 table lamp"
