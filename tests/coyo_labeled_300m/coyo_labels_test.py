"""Tests of labels as targets, against loops over plain numbers."""

import functools
import math

from hypothesis import example
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import label_rows
import numpy as np
import pytest
import tensorflow as tf

from tfds_plugins import errors
from tfds_plugins.coyo_labeled_300m import classes
from tfds_plugins.coyo_labeled_300m import label_statistics
from tfds_plugins.coyo_labeled_300m import labels


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


_BATCHES = st.lists(st.lists(label_rows.PAIRS, max_size=6), max_size=5)


def check_batch(rows, batch, *, take_top_1, make_multi_hot):
  """Checks all targets of a batch in both forms."""
  expected = [label_rows.find_top_1(row) for row in rows]
  out = take_top_1(batch)
  assert set(out) == {"id", "labels", "label_probs", "label", "label_prob"}
  assert out["label"].dtype == tf.int64
  assert out["label_prob"].dtype == tf.float32
  assert out["label"].shape == out["label_prob"].shape == (len(rows),)
  pairs = zip(out["label"].numpy(), out["label_prob"].numpy())
  assert [(int(label), float(prob)) for label, prob in pairs] == expected
  for threshold in (0.0, 0.1, 0.25):
    found = [label_rows.find_labels(row, threshold) for row in rows]
    ones = [dict.fromkeys(row, 1.0) for row in found]
    for as_probabilities, expected in ((True, found), (False, ones)):
      options = {"threshold": threshold, "as_probabilities": as_probabilities}
      dense = make_multi_hot(batch, sparse=False, **options)["multi_hot"]
      sparse = make_multi_hot(batch, sparse=True, **options)["multi_hot"]
      assert dense.shape == sparse.shape == (len(rows), classes.NUM_CLASSES)
      assert read_multi_hot(dense) == expected
      assert read_sparse(sparse) == expected


@given(rows=_BATCHES)
@example(rows=label_rows.HARD_BATCH)
@settings(max_examples=40)
def test_targets_of_padded_and_of_ragged_batches(rows):
  functions = {
    "take_top_1": labels.take_top_1,
    "make_multi_hot": labels.make_multi_hot,
  }

  check_batch(rows, label_rows.make_padded(rows), **functions)
  check_batch(rows, label_rows.make_ragged(rows), **functions)


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
@example(rows=label_rows.HARD_BATCH)
@settings(max_examples=20)
def test_targets_in_a_graph_with_unknown_shapes(kind, rows):
  batch = (
    label_rows.make_ragged(rows)
    if kind == "ragged"
    else label_rows.make_padded(rows)
  )

  check_batch(
    rows,
    batch,
    take_top_1=trace(labels.take_top_1, kind=kind),
    make_multi_hot=lambda x, **options: trace(
      labels.make_multi_hot, kind=kind, **options
    )(x),
  )


@given(row=st.lists(label_rows.PAIRS, max_size=6))
@example(row=[])
@example(row=label_rows.LAMPS)
@settings(max_examples=40)
def test_targets_of_single_examples(row):
  single = label_rows.make_example(row)

  top_1 = labels.take_top_1(single)
  dense = labels.make_multi_hot(single, as_probabilities=True)["multi_hot"]
  sparse = labels.make_multi_hot(single, as_probabilities=True, sparse=True)

  assert top_1["label"].shape == top_1["label_prob"].shape == ()
  assert top_1["id"].numpy() == 315
  expected = label_rows.find_top_1(row)
  assert (int(top_1["label"]), float(top_1["label_prob"])) == expected
  assert dense.shape == sparse["multi_hot"].shape == (classes.NUM_CLASSES,)
  assert read_multi_hot(dense) == [label_rows.find_labels(row, 0.0)]
  assert read_sparse(sparse["multi_hot"]) == [label_rows.find_labels(row, 0.0)]


def test_the_published_example():
  single = label_rows.make_example(label_rows.LAMPS)

  label = labels.take_top_1(single)["label"]
  multi_hot = labels.make_multi_hot(single, threshold=0.1)["multi_hot"]

  assert classes.lemmas(label) == ["lamp"]
  found = [classes.lemmas(i) for i in np.flatnonzero(multi_hot)]
  assert found == [["lamp"], ["table lamp"]]
  assert float(tf.reduce_sum(multi_hot)) == 2.0


def test_fifty_labels_stay_fifty_at_threshold_0():
  """The first line of the published table."""
  row = [(label, 0.5 / 2**i) for i, label in enumerate(range(400, 450))]

  multi_hot = labels.make_multi_hot(label_rows.make_padded([row, []]))[
    "multi_hot"
  ]

  assert tf.reduce_sum(multi_hot, axis=1).numpy().tolist() == [50, 0]


def test_a_probability_must_be_greater_than_the_threshold():
  row = [(1, 0.25), (2, np.nextafter(np.float32(0.25), np.float32(1)))]

  out = labels.make_multi_hot(label_rows.make_example(row), threshold=0.25)

  assert read_multi_hot(out["multi_hot"]) == [{2: 1.0}]


@pytest.mark.parametrize("threshold", [-0.01, 1.0, 50, math.nan])
def test_other_thresholds_are_refused(threshold):
  with pytest.raises(errors.OptionError, match="from 0 up to"):
    labels.make_multi_hot(
      label_rows.make_example(label_rows.LAMPS), threshold=threshold
    )
  with pytest.raises(errors.OptionError, match="from 0 up to"):
    label_statistics.count_labels(
      label_rows.make_dataset([label_rows.LAMPS]), thresholds=[0.1, threshold]
    )


_FUNCTIONS = [
  labels.take_top_1,
  labels.make_multi_hot,
  functools.partial(labels.make_multi_hot, sparse=True),
  lambda example: label_statistics.count_labels(
    tf.data.Dataset.from_tensors(dict(example))
  ),
]


@pytest.mark.parametrize("function", _FUNCTIONS)
@pytest.mark.parametrize("prob", [0.5, 0.0])
@pytest.mark.parametrize(
  "make", [label_rows.make_padded, label_rows.make_ragged]
)
def test_labels_of_another_list_are_refused(function, prob, make):
  batch = make([label_rows.LAMPS, [(21_841, prob)], []])

  with pytest.raises(tf.errors.InvalidArgumentError, match="not below 21841"):
    function(batch)


_ONE = (1, 0.5)


@pytest.mark.parametrize("function", _FUNCTIONS)
@pytest.mark.parametrize(
  ("of_labels", "of_probs"),
  [
    (label_rows.make_padded([[_ONE] * 3]), label_rows.make_padded([[_ONE]])),
    (
      label_rows.make_padded([[_ONE] * 3]),
      label_rows.make_ragged([[_ONE], []]),
    ),
    (label_rows.make_padded([[_ONE]]), label_rows.make_example([_ONE])),
  ],
)
def test_unlike_shapes_are_refused(function, of_labels, of_probs):
  batch = {**of_labels, "label_probs": of_probs["label_probs"]}

  with pytest.raises(ValueError, match=r"same shape: \(.*\) and \(.*\)"):
    function(batch)


@pytest.mark.parametrize("function", _FUNCTIONS)
def test_rows_of_unlike_length_are_refused(function):
  batch = label_rows.make_ragged([[_ONE], [_ONE] * 2])
  batch["label_probs"] = label_rows.make_ragged([[_ONE] * 2, [_ONE]])[
    "label_probs"
  ]

  with pytest.raises(tf.errors.InvalidArgumentError, match="same shape"):
    function(batch)


@pytest.mark.parametrize("function", _FUNCTIONS[:3])
def test_unlike_shapes_are_refused_while_the_dataset_is_read(function):
  ds = label_rows.make_dataset([label_rows.LAMPS, label_rows.LAMPS]).map(
    lambda x: {**x, "label_probs": x["label_probs"][: x["id"] - 314]}
  )

  with pytest.raises(tf.errors.InvalidArgumentError, match="same shape"):
    list(ds.map(function))


@pytest.mark.parametrize("function", _FUNCTIONS)
def test_a_missing_feature_is_named(function):
  batch = {"id": tf.range(2), "labels": tf.zeros([2, 3], tf.int64)}

  with pytest.raises(ValueError, match=r"no feature label_probs\. .*'id', 'la"):
    function(batch)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("batching", ["none", "padded", "ragged"])
def test_targets_in_a_dataset(batching, sparse):
  ds = label_rows.make_dataset(label_rows.ROWS)
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
  assert top_1 == [label_rows.find_top_1(row) for row in label_rows.ROWS]
  read = read_sparse if sparse else read_multi_hot
  multi_hot = [row for batch in found for row in read(batch["multi_hot"])]
  assert multi_hot == [
    dict.fromkeys(label_rows.find_labels(r, 0.1), 1.0) for r in label_rows.ROWS
  ]
