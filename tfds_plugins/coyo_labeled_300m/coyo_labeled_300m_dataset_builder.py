"""COYO-Labeled-300M: images with the 50 likeliest of ImageNet-21K's classes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow_datasets as tfds

from tfds_plugins.conversion import url_list
from tfds_plugins.coyo_labeled_300m import classes
from tfds_plugins.sources import arrays

_MISSING_NUMBER = -1

# A reason for skipping a row.
BAD_LABELS = "bad_labels"

# The published columns (kakaobrain/coyo-dataset,
# `subset/COYO-Labeled-300M/README.md`).
_COLUMNS = pa.schema(
  [
    ("id", pa.int64()),
    ("url", pa.string()),
    ("imagehash", pa.string()),
    ("labels", pa.list_(pa.int64())),
    ("label_probs", pa.list_(pa.float32())),
    ("width", pa.int32()),
    ("height", pa.int32()),
  ]
)


def fill_missing(columns: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
  """Puts the documented values where there are none.

  Args:
    columns: the published columns.

  Returns:
    A column without nulls for each feature.
  """
  values = {
    **dict.fromkeys(("url", "imagehash"), ""),
    **dict.fromkeys(("id", "width", "height"), _MISSING_NUMBER),
  }
  filled = {
    name: arrays.fill_null(columns[name], value)
    for name, value in values.items()
  }
  for name in ("labels", "label_probs"):
    filled[name] = arrays.fill_null_lists(columns[name])
  return filled


def find_bad_labels(batch: pa.RecordBatch) -> dict[int, tuple[str, str]]:
  """Finds rows whose labels cannot be those of an image.

  Args:
    batch: has `labels` and `label_probs`; a null list is taken for an empty one.

  Returns:
    The reason for skipping a row, and a detail, by row number.
  """
  labels, probs = batch.column("labels"), batch.column("label_probs")
  lengths = [
    arrays.to_numpy(arrays.fill_null(pc.list_value_length(column), 0))
    for column in (labels, probs)
  ]
  bad: dict[int, tuple[str, str]] = {}
  for i in np.flatnonzero(lengths[0] != lengths[1]).tolist():
    detail = f"{lengths[0][i]} labels with {lengths[1][i]} probabilities"
    bad[i] = (BAD_LABELS, detail)
  values = labels.flatten()
  is_inside = pc.and_(
    pc.greater_equal(values, 0), pc.less(values, classes.NUM_CLASSES)
  )
  outside = pc.or_kleene(pc.is_null(values), pc.invert(is_inside))
  for parent, value in _list_marked(labels, outside):
    detail = f"label {value} lies outside 0 to {classes.NUM_CLASSES - 1}"
    bad.setdefault(parent, (BAD_LABELS, detail))
  for parent, _ in _list_marked(probs, pc.is_null(probs.flatten())):
    bad.setdefault(parent, (BAD_LABELS, "a probability is missing"))
  return bad


def _list_marked(column: pa.Array, is_marked: pa.Array) -> list[tuple]:
  """Returns row number and value of those values of lists that are marked."""
  column = arrays.fill_null_lists(column)
  rows = pc.list_parent_indices(column).filter(is_marked)
  values = column.flatten().filter(is_marked)
  return list(zip(rows.to_pylist(), values.to_pylist()))


class Builder(url_list.UrlListBuilder):
  """Builder of COYO-Labeled-300M."""

  VERSION = tfds.core.Version("1.0.0")
  RELEASE_NOTES = {"1.0.0": "Initial release."}
  BUILDER_CONFIGS = [
    tfds.core.BuilderConfig(
      name="images",
      description="Images with their labels.",
    ),
    tfds.core.BuilderConfig(
      name="labels",
      description="The published labels, without images.",
    ),
  ]
  DEFAULT_BUILDER_CONFIG_NAME = "images"
  MANUAL_DOWNLOAD_INSTRUCTIONS = """\
COYO-Labeled-300M is a list of URLs with labels, 128 files
data/part-*-c9672901-7346-47d7-b02e-c1562fdf3cf9-c000.snappy.parquet at
https://huggingface.co/datasets/kakaobrain/coyo-labeled-300m.

Config `labels`. Put these files, or their folder data, into
MANUAL_DIR/coyo_labeled_300m/labels. (imagenet21k_tree.pickle is not needed.)

Config `images`. The images are fetched with img2dataset:

1. pip install img2dataset
   img2dataset --url_list coyo-labeled-300m/data --input_format parquet \\
       --url_col url --output_format webdataset \\
       --output_folder MANUAL_DIR/coyo_labeled_300m/images \\
       --processes_count 16 --thread_count 64 --image_size 512 \\
       --resize_only_if_bigger True --resize_mode keep_ratio \\
       --skip_reencode True --min_image_size 200 --max_aspect_ratio 3 \\
       --save_additional_columns '["id","imagehash","labels","label_probs"]'
2. Name MANUAL_DIR: `tfds build coyo_labeled_300m/images
   --imports=tfds_plugins --manual_dir=MANUAL_DIR`, or in Python
   tfds.download.DownloadConfig(manual_dir=MANUAL_DIR).

All of img2dataset's output formats are read: tfrecord as well, which the
dataset's own recipe uses, and its files renamed by that recipe. The data is
looked for in MANUAL_DIR/coyo_labeled_300m/CONFIG, MANUAL_DIR/CONFIG,
MANUAL_DIR/coyo_labeled_300m and MANUAL_DIR, and in folders directly below.
"""

  HOMEPAGE = (
    "https://github.com/kakaobrain/coyo-dataset/tree/main/subset/"
    "COYO-Labeled-300M"
  )
  SUPERVISED_KEYS = ("image", "labels")
  URL_LIST = url_list.UrlList(
    columns=_COLUMNS,
    required=("id", "labels", "label_probs"),
    fill_missing=fill_missing,
    find_bad_rows=find_bad_labels,
  )

  def _make_features(self) -> dict[str, tfds.features.FeatureConnector]:
    """Returns the features that every config has."""
    return {
      "id": tfds.features.Scalar(
        np.int64,
        doc=(
          "id of the image in COYO-700M. Missing values default to"
          f" {_MISSING_NUMBER}"
        ),
      ),
      "url": tfds.features.Text(
        doc=(
          "URL of the image, the src attribute of the <img> tag. Missing values"
          " default to ''"
        )
      ),
      "imagehash": tfds.features.Text(
        doc=(
          "perceptual hash (pHash) of the image. Missing values default to ''"
        )
      ),
      "labels": tfds.features.Sequence(
        tfds.features.ClassLabel(names=classes.names()),
        doc=(
          "the 50 likeliest of ImageNet-21K's classes by EfficientNetV2-XL, the"
          " likeliest first. Missing values default to none"
        ),
      ),
      "label_probs": tfds.features.Sequence(
        np.float32,
        doc=(
          "the probability of each label, with the precision of a float16."
          " Missing values default to none"
        ),
      ),
      "width": tfds.features.Scalar(
        np.int32,
        doc=(
          "width of the original image in pixels. Missing values default to"
          f" {_MISSING_NUMBER}"
        ),
      ),
      "height": tfds.features.Scalar(
        np.int32,
        doc=(
          "height of the original image in pixels. Missing values default to"
          f" {_MISSING_NUMBER}"
        ),
      ),
    }
