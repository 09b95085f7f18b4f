"""COYO-Labeled-300M's labels as targets of training, and what they look like.

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
from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np
from tensorflow_datasets.core.utils.lazy_imports_utils import tensorflow as tf

from tfds_plugins import errors
from tfds_plugins.coyo_labeled_300m import classes

# Examples that are counted at a time if the dataset is not batched.
_BATCH_SIZE = 1024

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
  labels, probs = _read_pairs(example)
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
  _check_threshold(threshold)
  labels, probs = _read_pairs(example)
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


def _read_pairs(example: Mapping[str, Any]) -> tuple[Any, Any]:
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


def _check_threshold(threshold: float) -> None:
  # Below 0, what fills a batch up would become labels.
  if not 0.0 <= threshold < 1.0:
    raise errors.OptionError(
      f"A threshold is a probability from 0 up to, but not including, 1; not"
      f" {threshold!r}."
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelStatistics:
  """How many labels have a probability greater than a threshold.

  Attributes:
    threshold: the threshold.
    labels_per_image: their mean number, of the images that have any; 0.0 if no
      image has.
    unique_labels: how many of the 21,841 labels occur.
    sampling_ratio: the share of images that have any, in [0, 1].
  """

  threshold: float
  labels_per_image: float
  unique_labels: int
  sampling_ratio: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelTable:
  """Statistics by threshold. `print` shows them as the published table.

  `pandas.DataFrame(table.rows)` makes a data frame.

  Attributes:
    num_images: how many images were counted.
    rows: one for each threshold, in the order in which they were asked for.
  """

  num_images: int
  rows: tuple[LabelStatistics, ...]

  def __str__(self) -> str:
    lines = ["Threshold  Labels per Image  Unique Labels  Sampling Ratio"]
    for row in self.rows:
      # Two digits, or as many as it takes.
      threshold = max(f"{row.threshold:.2f}", f"{row.threshold:g}", key=len)
      lines.append(
        f"{threshold:>9}  {row.labels_per_image:>16.2f}"
        f"  {row.unique_labels:>13,}  {row.sampling_ratio:>14.2%}"
      )
    return "\n".join([*lines, f"{self.num_images:,} images"])


def count_labels(
  ds: Any,
  thresholds: Sequence[float] = (0.0, 0.05, 0.10, 0.15, 0.20, 0.25),
) -> LabelTable:
  """Counts labels by threshold, as the dataset's card does.

  Published of all 300 million images (kakaobrain/coyo-dataset,
  `subset/COYO-Labeled-300M/README.md`):

      Threshold  Labels per Image  Unique Labels  Sampling Ratio
           0.00             50.00         21,841         100.00%
           0.05              3.16         18,922          96.69%
           0.10              1.98         18,471          85.83%
           0.15              1.58         18,122          74.49%
           0.20              1.37         17,781          64.30%
           0.25              1.26         17,479          55.60%

  The card does not define its columns; see `LabelStatistics` for how they are
  read here.

  The dataset is read once, and no more than a batch is held. To leave images
  undecoded and all other features unparsed:

      ds = builder.as_dataset(
        split="train",
        batch_size=1024,
        decoders=tfds.decode.PartialDecoding({"labels", "label_probs"}),
      )
      print(labels.count_labels(ds))

  Args:
    ds: a `tf.data.Dataset` of examples or of batches with `labels` and
      `label_probs`.
    thresholds: a label counts if its probability is greater; each in [0, 1).
      They are compared as float32.

  Returns:
    The statistics. A label that a row has twice counts once.

  Raises:
    errors.OptionError: there is no such threshold.
    ValueError: the dataset is empty, or does not end.
  """
  for threshold in thresholds:
    _check_threshold(threshold)
  if ds.cardinality() == tf.data.INFINITE_CARDINALITY:
    raise ValueError(
      "The dataset repeats without end. Count before `repeat()`, or `take(n)`."
    )
  pairs = ds.map(_read_pairs, num_parallel_calls=tf.data.AUTOTUNE)
  if pairs.element_spec[0].shape.rank == 1:
    pairs = pairs.padded_batch(_BATCH_SIZE)
  limits = np.array(thresholds, np.float32)
  num_images = 0
  num_labels = np.zeros(len(limits), np.int64)
  num_labeled_images = np.zeros(len(limits), np.int64)
  highest = np.zeros(classes.NUM_CLASSES, np.float32)
  for labels, probs in pairs.prefetch(tf.data.AUTOTUNE).as_numpy_iterator():
    labels, probs = np.atleast_2d(labels, probs)
    num_images += len(labels)
    num_labeled_images += _count_above(probs.max(axis=1, initial=0), limits)
    labels, probs = _drop_duplicates(labels, probs)
    num_labels += _count_above(probs, limits)
    np.maximum.at(highest, labels, probs)
  if not num_images:
    raise ValueError("There is nothing to count: the dataset has no example.")
  unique_labels = _count_above(highest, limits)
  return LabelTable(
    num_images=num_images,
    rows=tuple(
      LabelStatistics(
        threshold=float(thresholds[i]),
        labels_per_image=float(num_labels[i] / max(1, num_labeled_images[i])),
        unique_labels=int(unique_labels[i]),
        sampling_ratio=float(num_labeled_images[i] / num_images),
      )
      for i in range(len(limits))
    ),
  )


def _count_above(values: np.ndarray, limits: np.ndarray) -> np.ndarray:
  """Returns how many of the values (n,) are greater than each of the limits."""
  return np.array([np.count_nonzero(values > x) for x in limits], np.int64)


def _drop_duplicates(
  labels: np.ndarray, probs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Keeps of the pairs of a row with the same label the most likely one.

  Args:
    labels: (num_rows, n) int64.
    probs: (num_rows, n) float32, 0.0 for what is no label.

  Returns:
    (num_labels,) labels and (num_labels,) probabilities.
  """
  rows, places = np.nonzero(probs)
  labels, probs = labels[rows, places], probs[rows, places]
  positions = rows * classes.NUM_CLASSES + labels
  ordered = np.sort(positions)
  if not (ordered[1:] == ordered[:-1]).any():
    return labels, probs
  order = np.lexsort((-probs, positions))
  _, firsts = np.unique(positions[order], return_index=True)
  return labels[order][firsts], probs[order][firsts]
