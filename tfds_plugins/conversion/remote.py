"""Folders on object stores: whether they can be reached, and writing to them.

epath opens `s3://` and the like by TensorFlow where that is installed, which
knows no S3 (since 2.6, tensorflow/tensorflow#51583; google/etils#794), or by
fsspec if the environment variable `EPATH_USE_TF` is `false`.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import os
from typing import Any

from etils import epath
from tensorflow_datasets.core import dataset_info
from tensorflow_datasets.core import utils
from tensorflow_datasets.core.utils.lazy_imports_utils import tensorflow as tf

from tfds_plugins import errors


def is_remote(path: epath.PathLike) -> bool:
  """Returns whether a path is that of an object store."""
  return "://" in os.fspath(path)


def find_obstacle(path: epath.PathLike, option: str) -> errors.Problem | None:
  """Returns why nothing can be opened under a path, if that is so.

  Args:
    path: a folder, which need not be there.
    option: what the user knows it by.
  """
  if not is_remote(path):
    return None
  try:
    epath.Path(path).exists()
  except ImportError as e:  # fsspec's, which names what is not installed.
    found = str(e)
  except tf.errors.UnimplementedError as e:
    found = f"TensorFlow: {e.message}"
  else:
    return None
  return errors.Problem(
    what=f"{option} is in a place that cannot be reached from here.",
    where=os.fspath(path),
    expected="a file system that is installed",
    found=found,
    to_do=(
      "For s3://, run `pip install tfds-plugins[s3]` and start Python with the"
      " environment variable EPATH_USE_TF=false. Otherwise paths are opened by"
      " TensorFlow, which has no S3."
    ),
  )


def has_dataset(data_path: epath.Path) -> bool:
  """Returns whether a dataset is prepared.

  Args:
    data_path: the folder of the dataset's version. On a local disk it is there
      if the dataset is, for it is renamed to this name; on an object store files
      come one after the other, `dataset_info.json` last.
  """
  if is_remote(data_path):
    return dataset_info.dataset_info_path(data_path).exists()
  return data_path.exists()


@contextlib.contextmanager
def preparing(data_path: epath.Path) -> Iterator[None]:
  """Lets TFDS prepare a dataset on an object store, where it cannot.

  TFDS writes into a folder of another name and renames that. Folders of object
  stores have no name to change: fsspec copies what is in them and fails at the
  folder itself (`FileNotFoundError: The specified key does not exist`; fsspec
  2026.9.0, `AbstractFileSystem.mv`; fsspec/s3fs#394). So files are written
  where they belong. An object is there at once and whole, and it is by
  `dataset_info.json`, which comes last, that TFDS knows a dataset.

  Args:
    data_path: the folder of the dataset's version. No other build writes to it.
  """
  if not is_remote(data_path):
    yield
    return
  if data_path.exists() and not has_dataset(data_path):
    # What a build was placing when it was killed. TFDS would take the folder for
    # a prepared dataset.
    data_path.rmtree()
  with utils.temporary_assignment(utils, "incomplete_dir", _write_in_place):
    yield


@contextlib.contextmanager
def _write_in_place(
  dirname: epath.PathLike, *unused_args: Any, **unused_kwargs: Any
) -> Iterator[str]:
  """What takes the place of TFDS's `incomplete_dir`, and cleans up as it does."""
  try:
    yield os.fspath(dirname)
  except BaseException:
    epath.Path(dirname).rmtree(missing_ok=True)
    raise
