"""COYO-700M: images as img2dataset downloads them, or the metadata alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import tensorflow_datasets as tfds

from tfds_plugins.conversion import url_list
from tfds_plugins.sources import arrays

_MISSING_NUMBER = -1

# The published columns and what they mean (kakaobrain/coyo-dataset, README.md).
_TEXTS = {
  "url": "URL of the image, the src attribute of the <img> tag",
  "text": "the alt attribute of the <img> tag",
  "image_phash": "perceptual hash (pHash) of the image",
}
_IDS = {
  "id": "unique id of the pair. COYO-Labeled-300M has the same",
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


def fill_missing(columns: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
  """Puts the documented values where there are none.

  Args:
    columns: the published columns.

  Returns:
    A column without nulls for each feature.
  """
  values = {
    **dict.fromkeys(_TEXTS, ""),
    **dict.fromkeys((*_IDS, *_COUNTS), _MISSING_NUMBER),
    **dict.fromkeys(_SCORES, np.nan),
  }
  return {
    name: arrays.fill_null(columns[name], value)
    for name, value in values.items()
  }


class Builder(url_list.UrlListBuilder):
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

  HOMEPAGE = "https://github.com/kakaobrain/coyo-dataset"
  SUPERVISED_KEYS = ("image", "text")
  URL_LIST = url_list.UrlList(
    columns=_COLUMNS,
    required=("id", "url", "text"),
    fill_missing=fill_missing,
    caption_column="text",
  )

  def _make_features(self) -> dict[str, tfds.features.FeatureConnector]:
    """Returns the features that every config has."""
    features: dict[str, tfds.features.FeatureConnector] = {}
    for name, doc in _TEXTS.items():
      features[name] = tfds.features.Text(
        doc=f"{doc}. Missing values default to ''"
      )
    for name, doc in _IDS.items():
      features[name] = tfds.features.Scalar(
        np.int64, doc=f"{doc}. Missing values default to {_MISSING_NUMBER}"
      )
    for name, doc in _COUNTS.items():
      features[name] = tfds.features.Scalar(
        np.int32, doc=f"{doc}. Missing values default to {_MISSING_NUMBER}"
      )
    for name, doc in _SCORES.items():
      features[name] = tfds.features.Scalar(
        np.float32, doc=f"{doc}. Missing values default to NaN"
      )
    return features
