"""COYO-700M: images as img2dataset downloads them, or the metadata alone."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow_datasets as tfds

from tfds_plugins.conversion import manual_dir
from tfds_plugins.conversion.builder import ConversionBuilder
from tfds_plugins.conversion.recipe import Recipe
from tfds_plugins.encoding import images
from tfds_plugins.encoding import tf_example
from tfds_plugins.sources import arrays
from tfds_plugins.sources import tables
from tfds_plugins.sources.img2dataset import source as img2dataset
from tfds_plugins.sources.rows import Source

_HOMEPAGE = "https://github.com/kakaobrain/coyo-dataset"
_MISSING_NUMBER = -1

# The published columns and what they mean (kakaobrain/coyo-dataset, README.md).
_TEXTS = {
  "url": "URL of the image, the src attribute of the <img> tag",
  "text": "the alt attribute of the <img> tag",
  "image_phash": "perceptual hash (pHash) of the image",
}
_IDS = {
  "id": (
    "unique id of the pair. COYO-Labeled-300M has the same. Missing values"
    f" default to {_MISSING_NUMBER}"
  ),
}
_COUNTS = {
  "width": "width of the original image in pixels",
  "height": "height of the original image in pixels",
  "text_length": "number of characters in text",
  "word_count": "number of words in text, separated by spaces",
  "num_tokens_bert": "number of tokens of text, by BertTokenizer",
  "num_tokens_gpt": "number of tokens of text, by GPT2TokenizerFast",
  "num_faces": "number of faces in the image, detected by SCRFD",
}
_SCORES = {
  "clip_similarity_vitb32": (
    "cosine similarity of the CLIP ViT-B/32 embeddings of text and image"
  ),
  "clip_similarity_vitl14": (
    "cosine similarity of the CLIP ViT-L/14 embeddings of text and image"
  ),
  "nsfw_score_opennsfw2": "NSFW score of the image, by OpenNSFW2",
  "nsfw_score_gantman": "NSFW score of the image, by GantMan/NSFW",
  "watermark_score": (
    "watermark probability of the image, by Kakao Brain's own model"
  ),
  "aesthetic_score_laion_v2": (
    "aesthetic score of the image, by LAION-Aesthetics_Predictor V2"
  ),
}
_COLUMNS = pa.schema(
  [
    *((name, pa.int64()) for name in _IDS),
    *((name, pa.string()) for name in _TEXTS),
    *((name, pa.int32()) for name in _COUNTS),
    *((name, pa.float32()) for name in _SCORES),
  ]
)
# img2dataset keeps these names for the size of the image that it stores.
_SIZES = {"width": "original_width", "height": "original_height"}
# `caption` is the column that `--caption_col` named.
_DOWNLOAD_COLUMNS = pa.schema(
  [
    ("caption", pa.string()),
    *(
      field.with_name(_SIZES.get(field.name, field.name)) for field in _COLUMNS
    ),
  ]
)


class Builder(ConversionBuilder):
  """Builder of COYO-700M."""

  VERSION = tfds.core.Version("1.0.0")
  RELEASE_NOTES = {"1.0.0": "Initial release."}
  BUILDER_CONFIGS = [
    tfds.core.BuilderConfig(
      name="images",
      description="Images with their alt-texts and metadata.",
    ),
    tfds.core.BuilderConfig(
      name="metadata",
      description="The published metadata, without images.",
    ),
  ]
  DEFAULT_BUILDER_CONFIG_NAME = "images"
  MANUAL_DOWNLOAD_INSTRUCTIONS = """\
COYO-700M is a list of URLs with metadata, 128 files
data/part-*-17da4908-939c-46e5-91d0-15f256041956-c000.snappy.parquet at
https://huggingface.co/datasets/kakaobrain/coyo-700m.

Config `metadata`. Put these files, or their folder data, into
MANUAL_DIR/coyo_700m/metadata.

Config `images`. The images are fetched with img2dataset:

1. pip install img2dataset
   img2dataset --url_list coyo-700m/data --input_format parquet \\
       --url_col url --caption_col text --output_format webdataset \\
       --output_folder MANUAL_DIR/coyo_700m/images \\
       --processes_count 16 --thread_count 64 --image_size 384 \\
       --resize_only_if_bigger True --resize_mode keep_ratio \\
       --skip_reencode True --min_image_size 200 --max_aspect_ratio 3 \\
       --save_additional_columns '["id","image_phash","text_length",\\
   "word_count","num_tokens_bert","num_tokens_gpt","num_faces",\\
   "clip_similarity_vitb32","clip_similarity_vitl14","nsfw_score_opennsfw2",\\
   "nsfw_score_gantman","watermark_score","aesthetic_score_laion_v2"]'
2. Name MANUAL_DIR: `tfds build coyo_700m/images --imports=tfds_plugins
   --manual_dir=MANUAL_DIR`, or in Python
   tfds.download.DownloadConfig(manual_dir=MANUAL_DIR).

Columns that are not kept take the value that stands for a missing one. All of
img2dataset's output formats are read. The data is looked for in
MANUAL_DIR/coyo_700m/CONFIG, MANUAL_DIR/CONFIG, MANUAL_DIR/coyo_700m and
MANUAL_DIR, and in folders directly below.
"""

  @property
  def _has_images(self) -> bool:
    return self._config_name == "images"

  def _info(self) -> tfds.core.DatasetInfo:
    image = {"image": tfds.features.Image(doc="image")}
    return self.dataset_info_from_configs(
      features=tfds.features.FeaturesDict(
        {**_make_features(), **(image if self._has_images else {})}
      ),
      supervised_keys=("image", "text") if self._has_images else None,
      homepage=_HOMEPAGE,
    )

  def _find_sources(
    self,
    dl_manager: tfds.download.DownloadManager,
    download_config: tfds.download.DownloadConfig,
  ) -> Mapping[str, Source]:
    if self._has_images:
      return {"train": manual_dir.find_images(self, dl_manager)}
    source = manual_dir.find_tables(
      self, dl_manager, _COLUMNS, required=["id", "url", "text"]
    )
    return {"train": source}

  def _make_recipe(self, specs: Sequence[tf_example.FeatureSpec]) -> Recipe:
    if self._has_images:
      return Recipe(
        columns=_DOWNLOAD_COLUMNS,
        read=img2dataset.iter_batches,
        map_batch=map_images,
        has_images=True,
        specs=specs,
        stand_ins={"caption": "text"},
      )
    return Recipe(
      columns=_COLUMNS,
      read=tables.iter_batches,
      map_batch=map_metadata,
      has_images=False,
      specs=specs,
    )


def _make_features() -> dict[str, tfds.features.FeatureConnector]:
  """Returns the features that every config has."""
  features: dict[str, tfds.features.FeatureConnector] = {}
  for name, doc in _TEXTS.items():
    features[name] = tfds.features.Text(
      doc=f"{doc}. Missing values default to ''"
    )
  for name, doc in _IDS.items():
    features[name] = tfds.features.Scalar(np.int64, doc=doc)
  for name, doc in _COUNTS.items():
    features[name] = tfds.features.Scalar(
      np.int32, doc=f"{doc}. Missing values default to {_MISSING_NUMBER}"
    )
  for name, doc in _SCORES.items():
    features[name] = tfds.features.Scalar(
      np.float32, doc=f"{doc}. Missing values default to NaN"
    )
  return features


def map_images(batch: pa.RecordBatch) -> pa.RecordBatch:
  """Maps img2dataset's columns to the features of config `images`.

  Args:
    batch: the columns of `_DOWNLOAD_COLUMNS`, with `image`, `image_height` and
      `image_width`.

  Returns:
    A column without nulls for each feature.
  """
  columns = {name: batch.column(name) for name in batch.schema.names}
  columns["text"] = pc.coalesce(columns["caption"], columns["text"])
  columns["width"], columns["height"] = images.get_original_size(batch)
  return pa.RecordBatch.from_pydict(
    {"image": columns["image"], **_fill_missing(columns)}
  )


def map_metadata(batch: pa.RecordBatch) -> pa.RecordBatch:
  """Maps the published columns to the features of config `metadata`.

  Args:
    batch: the columns of `_COLUMNS`.

  Returns:
    A column without nulls for each feature.
  """
  columns = {name: batch.column(name) for name in batch.schema.names}
  return pa.RecordBatch.from_pydict(_fill_missing(columns))


def _fill_missing(columns: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
  """Puts the documented values where there are none."""
  values = {
    **dict.fromkeys(_TEXTS, ""),
    **dict.fromkeys((*_IDS, *_COUNTS), _MISSING_NUMBER),
    **dict.fromkeys(_SCORES, np.nan),
  }
  return {
    name: arrays.fill_null(columns[name], value)
    for name, value in values.items()
  }
