"""What COYO-Labeled-300M's labels look like above thresholds."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np
from tensorflow_datasets.core.utils.lazy_imports_utils import tensorflow as tf

from tfds_plugins.coyo_labeled_300m import classes
from tfds_plugins.coyo_labeled_300m import labels as labels_lib

# Examples that are counted at a time if the dataset is not batched.
_BATCH_SIZE = 1024


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
      print(label_statistics.count_labels(ds))

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
    labels_lib.check_threshold(threshold)
  if ds.cardinality() == tf.data.INFINITE_CARDINALITY:
    raise ValueError(
      "The dataset repeats without end. Count before `repeat()`, or `take(n)`."
    )
  pairs = ds.map(labels_lib.read_pairs, num_parallel_calls=tf.data.AUTOTUNE)
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
