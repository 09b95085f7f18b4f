"""Twelve shards, and what one process makes of them."""

from builds import LENGTHS
from builds import prepare
import pytest
import shards


@pytest.fixture(scope="module")
def source(tmp_path_factory):
  """Returns a manual_dir of twelve shards and the captions of its examples."""
  manual_dir = tmp_path_factory.mktemp("manual dir")
  rows = shards.write_simple_shards(manual_dir, LENGTHS)
  assert len(rows) == 63
  return manual_dir, [row["caption"] for row in rows]


@pytest.fixture(scope="module")
def prepared(source, tmp_path_factory):
  """Returns the source converted by one process."""
  return prepare(source[0], tmp_path_factory.mktemp("data"))
