"""Settings of the whole suite."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pathlib

from hypothesis import settings
import pytest
import tensorflow_datasets as tfds

settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")
tfds.disable_progress_bar()

_DUMMY_DATA = pathlib.Path(__file__).parents[1] / "dummy_data"


@pytest.fixture
def dummy_data() -> pathlib.Path:
  """The folder with the fixtures, a `manual_dir`."""
  return _DUMMY_DATA
