"""The order in which the rows of a JSON Lines file are converted.

Rows are read in the order of the tiles that answer them, so that a build passes
over the tars from front to back; their own order is a random one (as published,
rows are shuffled before they are split). A file holds three little-endian int64
for each row: the number of its line, the byte at which it starts, its size.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence

from etils import epath
import numpy as np

from tfds_plugins import errors
from tfds_plugins.sources import folders

_DTYPE = np.dtype("<i8")
_NUM_FIELDS = 3
_ROW_BYTES = _NUM_FIELDS * _DTYPE.itemsize


def write_order(path: epath.Path, rows: np.ndarray) -> None:
  """Writes an order.

  Args:
    path: the file.
    rows: (num_rows, 3) integers.
  """
  folders.write_whole(path, np.ascontiguousarray(rows, _DTYPE).tobytes())


def read_order(path: epath.Path, start: int, stop: int) -> np.ndarray:
  """Returns a part of an order: (stop - start, 3) int64.

  Raises:
    errors.SourceError: there is not so much of it.
  """
  with path.open("rb") as file:
    file.seek(start * _ROW_BYTES)
    data = file.read((stop - start) * _ROW_BYTES)
  if len(data) < (stop - start) * _ROW_BYTES:
    raise errors.SourceError(
      f"The order of rows {path} is shorter than it was when it was written: does"
      " another build use this folder? Build again."
    )
  return np.frombuffer(data, _DTYPE).reshape(-1, _NUM_FIELDS)


def sort_rows(rows: np.ndarray, paths: Sequence[str]) -> np.ndarray:
  """Sorts rows by the tile that answers them.

  Args:
    rows: (num_rows, 3) integers.
    paths: the tile of each; '' where none is known.
  """
  return rows[sorted(range(len(rows)), key=lambda i: (paths[i], rows[i, 0]))]


def iter_chunks(
  rows: np.ndarray, max_rows: int, max_bytes: int
) -> Iterator[np.ndarray]:
  """Yields the rows of an order, a few at a time.

  Args:
    rows: (num_rows, 3) integers.
    max_rows: the most rows at a time.
    max_bytes: the most bytes of their lines, unless one alone has more.
  """
  ends = np.cumsum(rows[:, 2])
  start = 0
  while start < len(rows):
    limit = max_bytes + (int(ends[start - 1]) if start else 0)
    stop = int(np.searchsorted(ends, limit, "right"))
    stop = min(max(stop, start + 1), start + max_rows)
    yield rows[start:stop]
    start = stop
