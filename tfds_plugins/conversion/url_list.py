"""Datasets that are published as a list of URLs with metadata.

They have a config `images`, what img2dataset downloads from the list, and
another one, the list itself.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
from typing import ClassVar

from etils import epath
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow_datasets as tfds

from tfds_plugins.conversion import manual_dir as manual_dir_lib
from tfds_plugins.conversion.builder import ConversionBuilder
from tfds_plugins.conversion.recipe import Recipe
from tfds_plugins.encoding import images
from tfds_plugins.encoding import tf_example
from tfds_plugins.sources import tables
from tfds_plugins.sources.img2dataset import source as img2dataset
from tfds_plugins.sources.rows import Source
from tfds_plugins.sources.rows import SourceShard

IMAGES_CONFIG = "images"
# The column that img2dataset makes of the one that `--caption_col` names.
_CAPTION_COLUMN = "caption"
# img2dataset has the names on the left for the size of the image that it stores
# (rom1504/img2dataset, `img2dataset/main.py`): the list's own are not kept.
_SIZE_COLUMNS = {"width": "original_width", "height": "original_height"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class UrlList:
  """What a dataset declares about its list.

  Attributes:
    columns: names and types of the published columns; `width` and `height` among
      them. Each is a feature of the same name.
    required: names of columns without which a file is another one.
    fill_missing: turns these columns into the same without nulls. A function of
      a module.
    caption_column: the column that is img2dataset's caption; '' for none.
    find_bad_rows: see `Recipe`.
  """

  columns: pa.Schema
  required: Sequence[str]
  fill_missing: Callable[[Mapping[str, pa.Array]], dict[str, pa.Array]]
  caption_column: str = ""
  find_bad_rows: (
    Callable[[pa.RecordBatch], Mapping[int, tuple[str, str]]] | None
  ) = None

  @property
  def download_columns(self) -> pa.Schema:
    """The columns to be read from a download."""
    fields = [
      field.with_name(_SIZE_COLUMNS.get(field.name, field.name))
      for field in self.columns
    ]
    if self.caption_column:
      fields.append(pa.field(_CAPTION_COLUMN, pa.string()))
    return pa.schema(fields)


class UrlListBuilder(ConversionBuilder, skip_registration=True):
  """Builder of such a dataset.

  Attributes:
    URL_LIST: what it declares.
    SUPERVISED_KEYS: those of config `images`.
    HOMEPAGE: of the dataset.
  """

  URL_LIST: ClassVar[UrlList]
  SUPERVISED_KEYS: ClassVar[tuple[str, str]]
  HOMEPAGE: ClassVar[str]

  @abc.abstractmethod
  def _make_features(self) -> dict[str, tfds.features.FeatureConnector]:
    """Returns the features of the list."""

  @property
  def _has_images(self) -> bool:
    return self._config_name == IMAGES_CONFIG

  def _info(self) -> tfds.core.DatasetInfo:
    features = self._make_features()
    if self._has_images:
      features["image"] = tfds.features.Image(doc="image")
    return self.dataset_info_from_configs(
      features=tfds.features.FeaturesDict(features),
      supervised_keys=self.SUPERVISED_KEYS if self._has_images else None,
      homepage=self.HOMEPAGE,
    )

  def _list_shards(
    self, manual_dir: epath.Path
  ) -> Mapping[str, Sequence[SourceShard]]:
    if self._has_images:
      return {"train": manual_dir_lib.list_images(self, manual_dir).shards}
    return {"train": manual_dir_lib.list_tables(self, manual_dir).shards}

  def _find_sources(
    self,
    dl_manager: tfds.download.DownloadManager,
    download_config: tfds.download.DownloadConfig,
  ) -> Mapping[str, Source]:
    folder = manual_dir_lib.get_manual_dir(dl_manager)
    if self._has_images:
      images = manual_dir_lib.list_images(self, folder)
      return {"train": img2dataset.check_source(images)}
    source = tables.check_source(
      manual_dir_lib.list_tables(self, folder),
      self.URL_LIST.columns,
      self.URL_LIST.required,
    )
    return {"train": source}

  def _make_recipe(self, specs: Sequence[tf_example.FeatureSpec]) -> Recipe:
    url_list = self.URL_LIST
    caption = url_list.caption_column
    if not self._has_images:
      return Recipe(
        columns=url_list.columns,
        read=tables.iter_batches,
        map_batch=functools.partial(_map_list, url_list.fill_missing),
        has_images=False,
        specs=specs,
        find_bad_rows=url_list.find_bad_rows,
      )
    return Recipe(
      columns=url_list.download_columns,
      read=img2dataset.iter_batches,
      map_batch=functools.partial(_map_images, url_list.fill_missing, caption),
      has_images=True,
      specs=specs,
      find_bad_rows=url_list.find_bad_rows,
      stand_ins={_CAPTION_COLUMN: caption} if caption else {},
    )


def _map_list(
  fill_missing: Callable[[Mapping[str, pa.Array]], dict[str, pa.Array]],
  batch: pa.RecordBatch,
) -> pa.RecordBatch:
  """Maps published columns to features."""
  return pa.RecordBatch.from_pydict(fill_missing(_get_columns(batch)))


def _map_images(
  fill_missing: Callable[[Mapping[str, pa.Array]], dict[str, pa.Array]],
  caption_column: str,
  batch: pa.RecordBatch,
) -> pa.RecordBatch:
  """Maps the columns of a download to features."""
  columns = _get_columns(batch)
  columns["width"], columns["height"] = images.get_original_size(batch)
  if caption_column:
    columns[caption_column] = pc.coalesce(
      columns[_CAPTION_COLUMN], columns[caption_column]
    )
  return pa.RecordBatch.from_pydict(
    {"image": columns["image"], **fill_missing(columns)}
  )


def _get_columns(batch: pa.RecordBatch) -> dict[str, pa.Array]:
  return {name: batch.column(name) for name in batch.schema.names}
