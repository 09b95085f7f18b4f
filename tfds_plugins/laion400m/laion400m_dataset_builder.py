"""LAION-400M: images as img2dataset downloads them, or their CLIP embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import json
from typing import Any
from typing import cast

from etils import epath
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow_datasets as tfds

from tfds_plugins import errors
from tfds_plugins.conversion import manual_dir as manual_dir_lib
from tfds_plugins.conversion import published
from tfds_plugins.conversion.builder import ConversionBuilder
from tfds_plugins.conversion.recipe import Recipe
from tfds_plugins.encoding import images
from tfds_plugins.encoding import tf_example
from tfds_plugins.laion400m import published_embeddings
from tfds_plugins.sources import arrays
from tfds_plugins.sources import columns
from tfds_plugins.sources import folders
from tfds_plugins.sources.clip_retrieval import embeddings
from tfds_plugins.sources.clip_retrieval import partition_check
from tfds_plugins.sources.clip_retrieval import partitions
from tfds_plugins.sources.img2dataset import source as img2dataset
from tfds_plugins.sources.rows import Source
from tfds_plugins.sources.rows import SourceShard

_HOMEPAGE = "https://laion.ai/blog/laion-400-open-dataset/"

# The features and their documentation are those of TFDS's own builder
# (tensorflow/datasets, `vision_language/laion400m/laion400m.py`).
_MISSING_SIMILARITY = -1.0
_MISSING_NSFW = "UNTAGGED"
_MISSING_PIXELS = -1
_NSFW_NAMES = ("UNLIKELY", "UNSURE", "NSFW", _MISSING_NSFW)

# Of the published embeddings, made with CLIP ViT-B/32.
_PUBLISHED_DIM = 512

# What img2dataset's output holds of LAION-400M's metadata: `caption`, `url` and
# the sizes always, the others by `save_additional_columns`. The metadata of the
# embeddings was made of it.
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


@dataclasses.dataclass(eq=False)
class Laion400mConfig(tfds.core.BuilderConfig):
  """Config of LAION-400M.

  Attributes:
    embedding_dim: the length of CLIP embeddings, e.g. 512 for ViT-B/32, 768 for
      ViT-L/14, 1024 for ViT-H/14; None for images instead of embeddings.
  """

  embedding_dim: int | None = None

  def __post_init__(self) -> None:
    dim = self.embedding_dim
    if dim is not None and (type(dim) is not int or dim < 1):
      raise errors.OptionError(
        f"embedding_dim must be an integer from 1 on, or None, not {dim!r}."
      )


class Builder(ConversionBuilder, skip_registration=True):
  """Builder of LAION-400M."""

  VERSION = tfds.core.Version("2.0.0")
  RELEASE_NOTES = {
    "1.0.0": "Initial release (TFDS).",
    "2.0.0": (
      "Images joined to their metadata by key. Embeddings stored as bytes."
    ),
  }
  BUILDER_CONFIGS = [
    Laion400mConfig(
      name="images",
      description="Images with their captions and metadata.",
    ),
    Laion400mConfig(
      name="embeddings",
      description=(
        "CLIP embeddings of images and captions, with captions and metadata."
      ),
      embedding_dim=_PUBLISHED_DIM,
    ),
  ]
  DEFAULT_BUILDER_CONFIG_NAME = "images"
  MANUAL_DOWNLOAD_INSTRUCTIONS = """\
Config `images`. LAION-400M is a list of URLs; the images are fetched with
img2dataset.

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
MANUAL_DIR, in this order, and in the folders directly below. img2dataset's
output formats files, parquet and tfrecord are read as well.

Config `embeddings`. The published files (img_emb_0.npy, text_emb_0.npy,
metadata_0.parquet, ...), or those that clip-retrieval wrote (`clip inference`),
are looked for in MANUAL_DIR/laion400m/embeddings, MANUAL_DIR/embeddings,
MANUAL_DIR/laion400m and MANUAL_DIR: either directly there, or in the folders
img_emb, text_emb and metadata, or images, texts and metadata. If there are none,
the published files are downloaded.
"""

  @property
  def _config(self) -> Laion400mConfig:
    return cast(Laion400mConfig, self.builder_config)

  @property
  def _table(self) -> Mapping[str, Any]:
    """The table of published files: URL -> size, checksum, file name."""
    return self.url_infos or {}

  @property
  def _has_published_files(self) -> bool:
    return self._config.embedding_dim is not None

  def _info(self) -> tfds.core.DatasetInfo:
    dim = self._config.embedding_dim
    return self.dataset_info_from_configs(
      features=tfds.features.FeaturesDict(
        {**_make_metadata_features(), **_make_features(dim)}
      ),
      supervised_keys=None,
      homepage=_HOMEPAGE,
    )

  def _find_sources(
    self,
    dl_manager: tfds.download.DownloadManager,
    download_config: tfds.download.DownloadConfig,
  ) -> Mapping[str, Source]:
    dim = self._config.embedding_dim
    if dim is not None:
      return {"train": self._find_embeddings(dl_manager, download_config, dim)}
    images = manual_dir_lib.list_images(
      self, manual_dir_lib.get_manual_dir(dl_manager)
    )
    return {"train": img2dataset.check_source(images)}

  def _list_shards(
    self, manual_dir: epath.Path
  ) -> Mapping[str, Sequence[SourceShard]]:
    if self._config.embedding_dim is None:
      return {"train": manual_dir_lib.list_images(self, manual_dir).shards}
    found = self._list_partitions(manual_dir)
    if found is None:
      problem = _describe_missing(manual_dir, self._config.embedding_dim)
      raise errors.ManualDirError(str(problem))
    return {"train": [files.make_shard() for files in found.complete]}

  def _list_partitions(
    self, manual_dir: epath.Path
  ) -> partitions.Listing | None:
    """Returns the partitions in the user's folder, None if there is no file."""
    candidates = folders.list_candidate_dirs(
      manual_dir,
      self.name,
      [self._config.name, "embeddings"],
      expected=partitions.EXPECTED,
      instructions=self.MANUAL_DOWNLOAD_INSTRUCTIONS,
    )
    return partitions.find_partitions(candidates)

  def _find_embeddings(
    self,
    dl_manager: tfds.download.DownloadManager,
    download_config: tfds.download.DownloadConfig,
    dim: int,
  ) -> Source:
    """Takes the user's files, or else downloads the published ones."""
    manual_dir = manual_dir_lib.get_manual_dir(dl_manager)
    found = None
    if download_config.manual_dir or manual_dir.is_dir():
      found = self._list_partitions(manual_dir)
    if found is None and dim != _PUBLISHED_DIM:
      raise errors.ManualDirError(str(_describe_missing(manual_dir, dim)))
    if found is None:
      found = published_embeddings.download(
        dl_manager, self._table, download_config.max_examples_per_split
      )
    elif self._options.verify_manual_files:
      published.verify_files(partitions.list_names(found), self._table)
    return partition_check.check_source(
      found, dim=dim, wanted=_COLUMNS, advise_dim=_advise_dim
    )

  def _make_recipe(self, specs: Sequence[tf_example.FeatureSpec]) -> Recipe:
    is_images = self._config.embedding_dim is None
    return Recipe(
      columns=_COLUMNS,
      read=img2dataset.iter_batches if is_images else embeddings.iter_batches,
      map_batch=map_images if is_images else map_embeddings,
      has_images=is_images,
      specs=specs,
    )


def _make_metadata_features() -> dict[str, tfds.features.FeatureConnector]:
  """Returns the features that every config has."""
  return {
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
          f" embedding. Missing values default to {_MISSING_SIMILARITY}"
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


def _make_features(
  embedding_dim: int | None,
) -> dict[str, tfds.features.FeatureConnector]:
  """Returns the image, or else its embeddings."""
  if embedding_dim is None:
    return {"image": tfds.features.Image(doc="image")}
  return {
    f"{name}_embedding": tfds.features.Tensor(
      shape=(embedding_dim,),
      dtype=np.float16,
      # Printed and read like any other encoding, it takes half the space.
      encoding="bytes",
      doc=f"CLIP {name} embedding",
    )
    for name in ("image", "text")
  }


def _advise_dim(dim: int) -> str:
  """Says how to convert vectors of another length."""
  config = json.dumps({"name": f"embeddings_{dim}", "embedding_dim": dim})
  return (
    f"Convert them under a name of their own: tfds build laion400m --config="
    f"'{config}' --imports=tfds_plugins ..., or tfds.builder('laion400m',"
    f" config=Laion400mConfig(name='embeddings_{dim}', embedding_dim={dim}))."
  )


def _describe_missing(manual_dir: epath.Path, dim: int) -> errors.Problem:
  return errors.Problem(
    what="No embedding partition was found.",
    where=str(manual_dir),
    expected=partitions.EXPECTED,
    found="none of these files",
    to_do=(
      f"The published vectors have {_PUBLISHED_DIM} values; those of {dim} are"
      " made with clip-retrieval (`clip inference`). Name their folder with"
      " --manual_dir or DownloadConfig(manual_dir=...)."
    ),
  )


def map_images(batch: pa.RecordBatch) -> pa.RecordBatch:
  """Maps img2dataset's columns to the features of config `images`.

  Args:
    batch: the columns of `_COLUMNS`, with `image`, `image_height` and
      `image_width`.

  Returns:
    A column without nulls for each feature.
  """
  width, height = images.get_original_size(batch)
  features = {
    "image": batch.column("image"),
    "original_width": width,
    "original_height": height,
    **_map_metadata(batch),
  }
  return pa.RecordBatch.from_pydict(features)


def map_embeddings(batch: pa.RecordBatch) -> pa.RecordBatch:
  """Maps the columns of partitions to the features of config `embeddings`.

  Args:
    batch: the columns of `_COLUMNS`, with `image_vector` and `text_vector`.

  Returns:
    A column without nulls for each feature.
  """
  features = {
    "image_embedding": batch.column(embeddings.IMAGE_VECTOR_COLUMN),
    "text_embedding": batch.column(embeddings.TEXT_VECTOR_COLUMN),
    "original_width": arrays.fill_null(
      batch.column("original_width"), _MISSING_PIXELS
    ),
    "original_height": arrays.fill_null(
      batch.column("original_height"), _MISSING_PIXELS
    ),
    **_map_metadata(batch),
  }
  return pa.RecordBatch.from_pydict(features)


def _map_metadata(batch: pa.RecordBatch) -> dict[str, pa.Array]:
  """Maps the columns that every config has."""
  nsfw = pc.index_in(batch.column("NSFW"), arrays.make_strings(_NSFW_NAMES))
  return {
    "caption": arrays.fill_null(batch.column("caption"), ""),
    "url": arrays.fill_null(batch.column("url"), ""),
    "license": arrays.fill_null(batch.column("LICENSE"), ""),
    "nsfw": arrays.fill_null(nsfw, _NSFW_NAMES.index(_MISSING_NSFW)),
    # A value outside [0, 1], such as 6016.0, is kept: it tells of a row whose
    # columns have slipped, and dropping it is for the user to decide.
    "similarity": arrays.fill_null(
      columns.nan_to_null(batch.column("similarity")), _MISSING_SIMILARITY
    ),
  }
