"""A folder of the screenshot set."""

import pytest
import screens


@pytest.fixture
def folder(tmp_path):
  """26 tiles in 13 tars, and 24 rows in another order than they lie there."""
  folder = tmp_path / "with space" / screens.NAME
  screens.write_tars(folder, range(26))
  rows = [
    screens.make_row(i, i * 7 % 26, [i * 3 % 26, (i * 5 + 1) % 26])
    for i in range(24)
  ]
  screens.write_splits(folder, rows)
  return folder
