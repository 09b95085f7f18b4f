"""LAION-400M: images as img2dataset downloads them, with their metadata."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence

from etils import epath
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow_datasets as tfds

from tfds_plugins import registration
from tfds_plugins.conversion.builder import ConversionBuilder
from tfds_plugins.conversion.recipe import Recipe
from tfds_plugins.encoding import images
from tfds_plugins.encoding import tf_example
from tfds_plugins.sources import img2dataset
from tfds_plugins.sources import listing
from tfds_plugins.sources import webdataset
from tfds_plugins.sources.rows import Source

_HOMEPAGE = "https://laion.ai/blog/laion-400-open-dataset/"

# The features and their documentation are those of TFDS's own builder
# (tensorflow/datasets, `vision_language/laion400m/laion400m.py`).
_MISSING_SIMILARITY = -1.0
_MISSING_NSFW = "UNTAGGED"
_NSFW_NAMES = ("UNLIKELY", "UNSURE", "NSFW", _MISSING_NSFW)

# What img2dataset's output holds of LAION-400M's metadata: `caption`, `url` and
# the sizes always, the others by `save_additional_columns`.
_COLUMNS = pa.schema(
  [
    ("caption", pa.string()),
    ("url", pa.string()),
    ("NSFW", pa.string()),
    ("similarity", pa.float64()),
    ("LICENSE", pa.string()),
    ("original_width", pa.int32()),
    ("original_height", pa.int32()),
  ]
)


class Builder(ConversionBuilder, skip_registration=True):
  """Builder of LAION-400M."""

  VERSION = tfds.core.Version("2.0.0")
  RELEASE_NOTES = {
    "1.0.0": "Initial release (TFDS).",
    "2.0.0": "Images joined to their metadata by key.",
  }
  BUILDER_CONFIGS = [
    tfds.core.BuilderConfig(
      name="images",
      description="Images with their captions and metadata.",
    ),
  ]
  DEFAULT_BUILDER_CONFIG_NAME = "images"
  MANUAL_DOWNLOAD_INSTRUCTIONS = """\
LAION-400M is a list of URLs; the images are fetched with img2dataset.

1. Get the metadata, 32 files part-*.snappy.parquet, as described at
   https://laion.ai/blog/laion-400-open-dataset/, into a folder laion400m-meta.
2. pip install img2dataset
   img2dataset --url_list laion400m-meta --input_format parquet \\
       --url_col URL --caption_col TEXT --output_format webdataset \\
       --output_folder MANUAL_DIR/laion400m/images \\
       --processes_count 16 --thread_count 128 --image_size 256 \\
       --save_additional_columns '["NSFW","similarity","LICENSE"]'
3. Name MANUAL_DIR: `tfds build laion400m/images --imports=tfds_plugins
   --manual_dir=MANUAL_DIR`, or in Python
   tfds.download.DownloadConfig(manual_dir=MANUAL_DIR).

The shards (00000.tar, 00000.parquet, 00000_stats.json, ...) are looked for in
MANUAL_DIR/laion400m/images, MANUAL_DIR/images, MANUAL_DIR/laion400m and
MANUAL_DIR, in this order, and in the folders directly below.
"""

  def _info(self) -> tfds.core.DatasetInfo:
    return self.dataset_info_from_configs(
      features=tfds.features.FeaturesDict(
        {
          "image": tfds.features.Image(doc="image"),
          "caption": tfds.features.Text(doc="HTML alt-text attribute"),
          "nsfw": tfds.features.ClassLabel(
            names=_NSFW_NAMES,
            doc=(
              "NSFW tag (detected with CLIP). Incohesive and missing tags"
              f" are replaced with {_MISSING_NSFW}"
            ),
          ),
          "similarity": tfds.features.Scalar(
            np.float64,
            doc=tfds.features.Documentation(
              desc=(
                "cosine similarity score between the text and image"
                " embedding. Missing values default to"
                f" {_MISSING_SIMILARITY}"
              ),
              value_range="[0.0, 1.0]",
            ),
          ),
          "license": tfds.features.Text(
            doc="type of Creative Commons license (if applicable)"
          ),
          "url": tfds.features.Text(doc="image URL"),
          "original_width": tfds.features.Scalar(
            np.int32, doc="original width of the image"
          ),
          "original_height": tfds.features.Scalar(
            np.int32, doc="original height of the image"
          ),
        }
      ),
      supervised_keys=None,
      homepage=_HOMEPAGE,
    )

  def _find_sources(self, manual_dir: epath.Path) -> Mapping[str, Source]:
    found = listing.find_shards(
      manual_dir,
      dataset=self.name,
      config=self.builder_config_name or "",
      other_datasets=set(registration.DATASETS) - {self.name},
      instructions=self.MANUAL_DOWNLOAD_INSTRUCTIONS,
    )
    return {"train": img2dataset.check_source(found)}

  def _make_recipe(self, specs: Sequence[tf_example.FeatureSpec]) -> Recipe:
    return Recipe(
      columns=_COLUMNS,
      read=webdataset.iter_batches,
      map_batch=map_images,
      has_images=True,
      specs=specs,
    )


def map_images(batch: pa.RecordBatch) -> pa.RecordBatch:
  """Maps img2dataset's columns to the features of config `images`.

  Args:
    batch: the columns of `_COLUMNS`, with `image`, `image_height` and
      `image_width`.

  Returns:
    A column without nulls for each feature.
  """
  features = {
    "image": batch.column("image"),
    "original_width": pc.coalesce(
      batch.column("original_width"),
      batch.column(images.IMAGE_WIDTH_COLUMN),
    ),
    "original_height": pc.coalesce(
      batch.column("original_height"),
      batch.column(images.IMAGE_HEIGHT_COLUMN),
    ),
    **_map_metadata(batch),
  }
  return pa.RecordBatch.from_pydict(features)


def _map_metadata(batch: pa.RecordBatch) -> dict[str, pa.Array]:
  """Maps the columns that every config has."""
  nsfw = pc.index_in(batch.column("NSFW"), pa.array(_NSFW_NAMES))
  similarity = batch.column("similarity")
  similarity = pc.if_else(pc.is_nan(similarity), None, similarity)
  return {
    "caption": pc.fill_null(batch.column("caption"), ""),
    "url": pc.fill_null(batch.column("url"), ""),
    "license": pc.fill_null(batch.column("LICENSE"), ""),
    "nsfw": pc.fill_null(nsfw, _NSFW_NAMES.index(_MISSING_NSFW)),
    # A value outside [0, 1], such as 6016.0, is kept: it tells of a row whose
    # columns have slipped, and dropping it is for the user to decide.
    "similarity": pc.fill_null(similarity, _MISSING_SIMILARITY),
  }
