"""What builders of several datasets look for in the user's folder."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from etils import epath
import pyarrow as pa
import tensorflow_datasets as tfds

from tfds_plugins import dataset_names
from tfds_plugins import errors
from tfds_plugins.conversion import remote
from tfds_plugins.sources import tables
from tfds_plugins.sources.img2dataset import listing
from tfds_plugins.sources.img2dataset import source as img2dataset
from tfds_plugins.sources.rows import Source


def get_manual_dir(dl_manager: tfds.download.DownloadManager) -> epath.Path:
  """Returns the folder that the user named, even if it is missing or empty.

  TFDS raises a bare AssertionError then, or NotADirectoryError for a file; the
  search for the source has more to say.

  Raises:
    errors.ManualDirError: the file system is one that cannot be reached.
  """
  problem = remote.find_obstacle(dl_manager._manual_dir or "", "manual_dir")  # pylint: disable=protected-access
  if problem is not None:
    raise errors.ManualDirError(str(problem))
  try:
    return epath.Path(dl_manager.manual_dir)
  except (AssertionError, OSError):
    return epath.Path(dl_manager._manual_dir or "")  # pylint: disable=protected-access


def find_images(
  builder: Any, dl_manager: tfds.download.DownloadManager
) -> Source:
  """Finds what img2dataset downloaded for a builder's config.

  Args:
    builder: the `tfds.core.DatasetBuilder`.
    dl_manager: knows the folder.

  Returns:
    The source; `img2dataset.source.iter_batches` reads it.

  Raises:
    errors.ManualDirError: there is none.
    errors.SourceError: shards are damaged.
  """
  found = listing.find_shards(
    get_manual_dir(dl_manager),
    dataset=builder.name,
    config=builder._config_name,
    other_datasets=set(dataset_names.DATASETS) - {builder.name},
    instructions=builder.MANUAL_DOWNLOAD_INSTRUCTIONS,
  )
  return img2dataset.check_source(found)


def find_tables(
  builder: Any,
  dl_manager: tfds.download.DownloadManager,
  wanted: pa.Schema,
  required: Collection[str],
) -> Source:
  """Finds the published metadata for a builder's config.

  Args:
    builder: the `tfds.core.DatasetBuilder`.
    dl_manager: knows the folder.
    wanted: names and types of the columns that the dataset has.
    required: names of columns without which a file is another one.

  Returns:
    The source; `tables.iter_batches` reads it.

  Raises:
    errors.ManualDirError: there is none.
    errors.SourceError: files are damaged, or hold something else.
  """
  return tables.find_source(
    get_manual_dir(dl_manager),
    dataset=builder.name,
    config=builder._config_name,
    wanted=wanted,
    required=required,
    instructions=builder.MANUAL_DOWNLOAD_INSTRUCTIONS,
  )
