"""Tests of the published table of labels, against loops over plain numbers."""

from hypothesis import example
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import label_rows
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from tfds_plugins.coyo_labeled_300m import classes
from tfds_plugins.coyo_labeled_300m import label_statistics
from tfds_plugins.coyo_labeled_300m import labels


def count(rows, thresholds):
  """Returns what `LabelStatistics` holds, as tuples."""
  counted = []
  for threshold in thresholds:
    found = [label_rows.find_labels(row, threshold) for row in rows]
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


@given(
  rows=st.lists(st.lists(label_rows.PAIRS, max_size=6), min_size=1, max_size=9)
)
@example(rows=label_rows.ROWS)
@settings(max_examples=25)
def test_counts_are_those_of_loops(rows):
  thresholds = [0.25, 0.0, 0.1, 0.99]
  padded = tf.data.Dataset.from_tensor_slices(label_rows.make_padded(rows))
  ragged = tf.data.Dataset.from_tensor_slices(label_rows.make_ragged(rows))

  for ds in (padded, padded.batch(2), ragged, ragged.batch(4)):
    table = label_statistics.count_labels(ds, thresholds)

    assert table.num_images == len(rows)
    assert to_tuples(table) == count(rows, thresholds)


def test_counts_of_single_examples_and_of_more_than_a_batch():
  rows = [label_rows.ROWS[i * i % len(label_rows.ROWS)] for i in range(1500)]
  thresholds = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25)

  for ds in (
    label_rows.make_dataset(rows),
    label_rows.make_dataset(rows).padded_batch(64),
  ):
    table = label_statistics.count_labels(ds)

    assert table.num_images == 1500
    assert to_tuples(table) == count(rows, thresholds)


def test_counts_without_known_rank():
  ds = tf.data.Dataset.from_generator(
    lambda: map(label_rows.make_example, label_rows.ROWS),
    output_signature={
      "id": tf.TensorSpec([], tf.int64),
      "labels": tf.TensorSpec(None, tf.int64),
      "label_probs": tf.TensorSpec(None, tf.float32),
    },
  )

  assert to_tuples(label_statistics.count_labels(ds, [0.1])) == count(
    label_rows.ROWS, [0.1]
  )


def test_the_table_is_printed_as_published():
  rows = [
    label_statistics.LabelStatistics(
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
  table = label_statistics.LabelTable(num_images=1_234_567, rows=tuple(rows))

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
  ds = label_rows.make_dataset([label_rows.LAMPS])

  with pytest.raises(ValueError, match="no example"):
    label_statistics.count_labels(ds.take(0))
  with pytest.raises(ValueError, match="without end"):
    label_statistics.count_labels(tf.data.Dataset.range(1).repeat())


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
    for i, row in enumerate(label_rows.ROWS):
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

  assert sorted(top_1) == sorted(
    label_rows.find_top_1(row) for row in label_rows.ROWS
  )
  table = label_statistics.count_labels(ds, [0.0, 0.1])
  assert to_tuples(table) == count(label_rows.ROWS, [0.0, 0.1])
  feature = builder.info.features["labels"].feature
  assert feature.int2str(max(top_1)[0]) == "n04380533 table lamp"
