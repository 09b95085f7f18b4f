"""What builders of several datasets look for in the user's folder."""

from __future__ import annotations

import os
from typing import Any

from etils import epath
import tensorflow_datasets as tfds

from tfds_plugins import dataset_names
from tfds_plugins import errors
from tfds_plugins.conversion import remote
from tfds_plugins.sources import tables
from tfds_plugins.sources.img2dataset import listing
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


def get_absolute(dl_manager: tfds.download.DownloadManager) -> str:
  """Returns the same folder, wherever this process runs."""
  path = str(get_manual_dir(dl_manager))
  return path if remote.is_remote(path) else os.path.abspath(path)


def list_images(builder: Any, manual_dir: epath.Path) -> listing.Listing:
  """Lists what img2dataset downloaded for a builder's config.

  Args:
    builder: the `tfds.core.DatasetBuilder`.
    manual_dir: the folder that the user named.

  Returns:
    The shards; `img2dataset.source.check_source` makes them ready.

  Raises:
    errors.ManualDirError: there are none.
    errors.SourceError: there is nothing but damaged ones.
  """
  return listing.find_shards(
    manual_dir,
    dataset=builder.name,
    config=builder._config_name,
    other_datasets=set(dataset_names.DATASETS) - {builder.name},
    instructions=builder.MANUAL_DOWNLOAD_INSTRUCTIONS,
  )


def list_tables(
  builder: Any, manual_dir: epath.Path
) -> Source[tables.TableShard]:
  """Lists the published metadata for a builder's config.

  Args:
    builder: the `tfds.core.DatasetBuilder`.
    manual_dir: the folder that the user named.

  Returns:
    The source; `tables.check_source` makes it ready.

  Raises:
    errors.ManualDirError: there is none.
  """
  return tables.list_tables(
    manual_dir,
    dataset=builder.name,
    config=builder._config_name,
    instructions=builder.MANUAL_DOWNLOAD_INSTRUCTIONS,
  )
