"""Rows of labels in the forms of a dataset, and loops that say what is right."""

import math

from hypothesis import strategies as st
import numpy as np
import tensorflow as tf

_NAN = math.nan

# Example 315 on the dataset's card, with a third label.
LAMPS = [(8087, 0.4453125), (11054, 0.304), (8086, 0.0625)]


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


# Few labels, so that they are often repeated, with both ends of the range.
PAIRS = st.tuples(
  st.sampled_from([0, 1, 8087, 21_839, 21_840, -1]),
  st.one_of(
    st.sampled_from([0.0, _NAN, 0.1, 0.25, 0.5, 1.0]),
    # TensorFlow takes subnormal numbers for 0.
    st.floats(0, 1, width=32, allow_subnormal=False),
  ),
)
HARD_BATCH = [
  [],
  [(3, 0.5), (4, 0.5)],
  [(0, 0.0)],
  [(7, 0.25), (7, 0.75), (7, 0.5)],
  [(21_840, _NAN), (0, 0.125)],
  [(0, _NAN)],
  [(-1, 0.9), (2, 0.125)],
]


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


ROWS = [LAMPS, *HARD_BATCH, LAMPS[1:], [(0, 0.125)]]
