"""Values in and out of Arrow columns without a Python object for each.

`pa.array` would do some of it, but imports pandas (0.2 s) where there is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa


def make_array(
  values: Sequence[bytes | memoryview], *, is_large: bool = False
) -> pa.Array:
  """Makes a binary column, copying every value once.

  Args:
    values: the values, without nulls.
    is_large: whether to make `large_binary`, for 2 GiB and more.

  Returns:
    A `binary` or `large_binary` array.
  """
  offsets = np.zeros(len(values) + 1, np.int64 if is_large else np.int32)
  np.cumsum([len(value) for value in values], out=offsets[1:])
  return pa.Array.from_buffers(
    pa.large_binary() if is_large else pa.binary(),
    len(values),
    [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(values))],
  )


def from_fixed_size(data: Any, size_bytes: int) -> pa.Array:
  """Makes a binary column of values of one size, without copying them.

  Args:
    data: contiguous bytes-like object, the values one after the other.
    size_bytes: the size of each value.

  Returns:
    A `binary` array.
  """
  buffer = pa.py_buffer(data)
  num_values = buffer.size // size_bytes
  offsets = np.arange(num_values + 1, dtype=np.int32) * size_bytes
  return pa.Array.from_buffers(
    pa.binary(), num_values, [None, pa.py_buffer(offsets), buffer]
  )


def from_numpy(values: np.ndarray) -> pa.Array:
  """Makes a column of numbers, without copying them.

  Args:
    values: (n,) contiguous integers or floats.

  Returns:
    An array of the same type.
  """
  return pa.Array.from_buffers(
    pa.from_numpy_dtype(values.dtype),
    len(values),
    [None, pa.py_buffer(values)],
  )


def get_values(column: pa.Array) -> tuple[list[int], memoryview]:
  """Returns where the values of a string or binary column lie.

  Args:
    column: an array without nulls, of 32 or 64 bit offsets.

  Returns:
    The len(column) + 1 offsets, and the buffer: value i is
    `buffer[offsets[i] : offsets[i + 1]]`.
  """
  _, offsets_buffer, data = column.buffers()
  if not len(column) or offsets_buffer is None:
    return [0], memoryview(b"")
  is_large = pa.types.is_large_binary(column.type) or pa.types.is_large_string(
    column.type
  )
  offsets = np.frombuffer(offsets_buffer, np.int64 if is_large else np.int32)
  offsets = offsets[column.offset : column.offset + len(column) + 1]
  view = memoryview(data if data is not None else b"")
  return offsets.tolist(), view.cast("B")  # Arrow's views have signed bytes.
