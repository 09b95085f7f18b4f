"""COYO-Labeled-300M's labels as targets of training.

An image has the 50 most likely of 21,841 classes with their probabilities, the
most likely first. These functions make targets of them in `ds.map`, of examples
and of batches, and are fastest on batches:

    ds = tfds.load("coyo_labeled_300m", split="train", batch_size=1024)
    ds = ds.map(labels.take_top_1)
    ds = ds.map(functools.partial(labels.make_multi_hot, threshold=0.1))

They read two features of equal shape, (n,), (batch, n) or ragged (batch, None):

- `labels`: integers from 0 to 21,840, see `classes.py`.
- `label_probs`: floats, the probability of each label.

TFDS makes the rows of a batch equally long with label 0 and probability 0.0 at
their end. So a pair counts only if its probability is greater than 0; NaN is
not. Nor does a negative label count: -1 is TFDS's "no label". Other numbers that
no class has are refused, for they come of another list of classes.

The probabilities are independent of each other and do not add up to 1: those of
the published example 463 start with 0.717 and 0.38.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tensorflow_datasets.core.utils.lazy_imports_utils import tensorflow as tf

from tfds_plugins import errors
from tfds_plugins.coyo_labeled_300m import classes

_UNLIKE_SHAPES = "labels and label_probs do not have the same shape"


def take_top_1(example: Mapping[str, Any]) -> dict[str, Any]:
  """Adds the most likely label, for classification with a single label.

  Args:
    example: an example or a batch with `labels` and `label_probs`. The order of
      labels does not matter.

  Returns:
    All features of the example, and with shape () or (batch,):
      label: int64, the label of the highest probability, the first of equals;
        -1 if there is none.
      label_prob: float32, its probability; 0.0 if there is none.
  """
  labels, probs = read_pairs(example)
  outer_shape = tf.shape(labels, out_type=tf.int64)[:-1]
  labels, probs = _to_rows(labels, probs)
  # In front of every row, a label that loses to all others.
  labels = tf.pad(labels, [[0, 0], [1, 0]], constant_values=-1)
  probs = tf.pad(probs, [[0, 0], [1, 0]])
  best = tf.argmax(probs, axis=1)
  return {
    **example,
    "label": tf.reshape(tf.gather(labels, best, batch_dims=1), outer_shape),
    "label_prob": tf.reshape(tf.gather(probs, best, batch_dims=1), outer_shape),
  }


def make_multi_hot(
  example: Mapping[str, Any],
  *,
  threshold: float = 0.0,
  sparse: bool = False,
  as_probabilities: bool = False,
) -> dict[str, Any]:
  """Adds a vector of all classes, for classification with several labels.

  Args:
    example: an example or a batch with `labels` and `label_probs`. The order of
      labels does not matter.
    threshold: a label counts if its probability is greater; in [0, 1). They are
      compared as float32.
    sparse: whether to make a `tf.sparse.SparseTensor`. Dense, a batch of 1,024
      takes 89 MB.
    as_probabilities: whether the value of a label is its probability, and not
      1.0. If a row has a label twice, the higher probability is taken.

  Returns:
    All features of the example, and `multi_hot`: float32 with shape (21841,) or
    (batch, 21841), dense, or sparse in canonical order.

  Raises:
    errors.OptionError: there is no such threshold.
  """
  check_threshold(threshold)
  labels, probs = read_pairs(example)
  outer_shape = tf.shape(labels, out_type=tf.int64)[:-1]
  shape = tf.concat([outer_shape, [classes.NUM_CLASSES]], axis=0)
  positions, values = _find_positions(*_to_rows(labels, probs), threshold)
  if not as_probabilities:
    values = tf.ones_like(values)
  size = tf.reduce_prod(shape)
  indices = positions[:, tf.newaxis]
  if sparse:
    flat = tf.sparse.SparseTensor(indices, values, [size])
    # `reshape` alone would forget how many classes there are.
    indices = tf.sparse.reshape(flat, shape).indices
    multi_hot = tf.sparse.SparseTensor(indices, values, shape)
  else:
    multi_hot = tf.reshape(tf.scatter_nd(indices, values, [size]), shape)
  return {**example, "multi_hot": multi_hot}


def _find_positions(labels: Any, probs: Any, threshold: float) -> Any:
  """Returns where the vectors of a batch, laid end to end, are not zero.

  Args:
    labels: (num_rows, n) int64.
    probs: (num_rows, n) float32.
    threshold: as for `make_multi_hot`.

  Returns:
    (num_labels,) int64, ascending and unique; and (num_labels,) float32, the
    highest probability at each position.
  """
  starts = tf.range(tf.shape(labels, out_type=tf.int64)[0])
  starts *= classes.NUM_CLASSES
  positions = tf.reshape(labels + starts[:, tf.newaxis], [-1])
  probs = tf.reshape(probs, [-1])
  chosen = tf.where(probs > threshold)[:, 0]
  positions, probs = tf.gather(positions, chosen), tf.gather(probs, chosen)
  order = tf.argsort(positions)
  positions, segments = tf.unique(tf.gather(positions, order))
  return positions, tf.math.segment_max(tf.gather(probs, order), segments)


def read_pairs(example: Mapping[str, Any]) -> tuple[Any, Any]:
  """Returns labels and probabilities, dense and of the same shape.

  Args:
    example: an example or a batch.

  Returns:
    int64 labels below 21,841; and float32 probabilities, 0.0 for all that is no
    label.

  Raises:
    ValueError: a feature is missing, or their shapes cannot be the same.
  """
  missing = {"labels", "label_probs"} - set(example)
  if missing:
    raise ValueError(
      f"The example has no feature {' and no feature '.join(sorted(missing))}."
      " Expected labels and label_probs of coyo_labeled_300m, found"
      f" {sorted(example)}."
    )
  labels, probs = example["labels"], example["label_probs"]
  checks = []
  if isinstance(labels, tf.RaggedTensor) and isinstance(probs, tf.RaggedTensor):
    checks.append(_assert_equal(labels.row_splits, probs.row_splits))
  labels, probs = (
    x.to_tensor() if isinstance(x, tf.RaggedTensor) else tf.convert_to_tensor(x)
    for x in (labels, probs)
  )
  labels, probs = tf.cast(labels, tf.int64), tf.cast(probs, tf.float32)
  if not labels.shape.is_compatible_with(probs.shape):
    raise ValueError(f"{_UNLIKE_SHAPES}: {labels.shape} and {probs.shape}.")
  checks.append(_assert_equal(tf.shape(labels), tf.shape(probs)))
  checks.append(
    tf.debugging.assert_less(
      labels,
      tf.constant(classes.NUM_CLASSES, tf.int64),
      message=(
        f"A label is not below {classes.NUM_CLASSES}. It is not one of"
        " COYO-Labeled-300M's, and its class cannot be known."
      ),
    )
  )
  with tf.control_dependencies(
    [check for check in checks if check is not None]
  ):
    probs = tf.where((probs > 0) & (labels >= 0), probs, 0.0)
  return labels, probs


def _assert_equal(labels_shape: Any, probs_shape: Any) -> Any:
  return tf.debugging.assert_equal(
    labels_shape,
    probs_shape,
    message=f"{_UNLIKE_SHAPES}.",
  )


def _to_rows(labels: Any, probs: Any) -> tuple[Any, Any]:
  """Reshapes (n,) to (1, n), and leaves (batch, n) as it is."""
  shape = tf.shape(labels)
  rows_shape = tf.stack([tf.reduce_prod(shape[:-1]), shape[-1]])
  return tf.reshape(labels, rows_shape), tf.reshape(probs, rows_shape)


def check_threshold(threshold: float) -> None:
  # Below 0, what fills a batch up would become labels.
  if not 0.0 <= threshold < 1.0:
    raise errors.OptionError(
      f"A threshold is a probability from 0 up to, but not including, 1; not"
      f" {threshold!r}."
    )
