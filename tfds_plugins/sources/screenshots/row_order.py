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

_DTYPE = np.dtype("<i8")
_NUM_FIELDS = 3
_ROW_BYTES = _NUM_FIELDS * _DTYPE.itemsize


def write_order(path: epath.Path, rows: np.ndarray) -> None:
  """Writes an order.

  Args:
    path: the file.
    rows: (num_rows, 3) integers.
  """
  path.write_bytes(np.ascontiguousarray(rows, _DTYPE).tobytes())


def read_order(path: epath.Path, start: int, stop: int) -> np.ndarray:
  """Returns a part of an order: (stop - start, 3) int64."""
  with path.open("rb") as file:
    file.seek(start * _ROW_BYTES)
    data = file.read((stop - start) * _ROW_BYTES)
  return np.frombuffer(data, _DTYPE).reshape(-1, _NUM_FIELDS)


def sort_rows(rows: np.ndarray, paths: Sequence[str]) -> np.ndarray:
  """Sorts rows by the tile that answers them.

  Args:
    rows: (num_rows, 3) integers.
    paths: the tile of each; '' where none is known.
  """
  return rows[sorted(range(len(rows)), key=lambda i: (paths[i], rows[i, 0]))]


def iter_chunks(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
  """Yields the rows of an order, a few at a time."""
  for start in range(0, len(rows), size):
    yield rows[start : start + size]
