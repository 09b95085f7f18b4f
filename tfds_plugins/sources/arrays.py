"""Values in and out of Arrow columns without a Python object for each.

`pa.array` and `pa.scalar` could do some of it, but import pandas where there is
one: 0.2 s, in which 50,000 rows are converted.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
import itertools
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# What 32-bit offsets reach.
_MAX_OFFSET = np.iinfo(np.int32).max
# Where Arrow's names of types are not NumPy's.
_FLOAT_NAMES = {"halffloat": "f2", "float": "f4", "double": "f8"}


def make_binary(
  values: Sequence[bytes | memoryview], *, is_large: bool = False
) -> pa.Array:
  """Makes a binary column, copying every value once.

  Args:
    values: the values, without nulls.
    is_large: whether to make `large_binary`, for 2 GiB and more.

  Returns:
    A `binary` or `large_binary` array.

  Raises:
    OverflowError: there are 2 GiB and more, and `is_large` was not set.
  """
  offsets = _add_up(np.array(list(map(len, values)), np.int64))
  return pa.Array.from_buffers(
    pa.large_binary() if is_large else pa.binary(),
    len(values),
    [
      None,
      pa.py_buffer(offsets if is_large else _to_int32(offsets)),
      pa.py_buffer(b"".join(values)),
    ],
  )


class BinaryBuffer:
  """Memory for one binary column after the other.

  Megabytes of fresh memory cost several times what copying into them does.
  """

  def __init__(self) -> None:
    self._data = np.empty(0, np.uint8)

  def make_binary(self, values: Sequence[bytes | memoryview]) -> pa.Array:
    """Makes a binary column, valid until the next one is made.

    Args:
      values: the values, without nulls.

    Returns:
      A `binary` array.

    Raises:
      OverflowError: there are 2 GiB and more.
    """
    column, views = self.make_room(list(map(len, values)))
    for view, value in zip(views, values):
      view[:] = value
    return column

  def make_room(
    self, sizes: Sequence[int]
  ) -> tuple[pa.Array, list[memoryview]]:
    """Makes a binary column that is yet to be filled.

    Args:
      sizes: of the values in bytes.

    Returns:
      A `binary` array, valid until the next one is made, and where its values
      are to be written.

    Raises:
      OverflowError: there are 2 GiB and more.
    """
    offsets = _add_up(np.array(sizes, np.int64))
    size_bytes = int(offsets[-1])
    if size_bytes > len(self._data):
      self._data = np.empty(size_bytes * 5 // 4, np.uint8)
    column = from_parts(self._data[:size_bytes], offsets)
    data = self._data.data
    pairs = itertools.pairwise(offsets.tolist())
    return column, [data[start:stop] for start, stop in pairs]


def make_strings(values: Sequence[str]) -> pa.Array:
  """Makes a string column."""
  return make_binary([value.encode() for value in values]).cast(pa.string())


def make_scalar(value: bytes) -> pa.Scalar:
  """Makes a value that Arrow repeats for every row."""
  return make_binary([value])[0]


def join_values(*columns: pa.Array | pa.Scalar) -> pa.Array:
  """Joins the values of each row.

  Args:
    *columns: `binary`, without nulls: an array, and any number of arrays of its
      length or of single values.

  Returns:
    A `binary` array.
  """
  return pc.binary_join_element_wise(*columns, make_scalar(b""))


def fill_null(column: pa.Array, value: str | float) -> pa.Array:
  """Replaces nulls.

  Args:
    column: strings or numbers.
    value: what stands for a missing value.

  Returns:
    A column of the same type without nulls.
  """
  if not column.null_count:
    return column
  filled = (
    make_strings([value])
    if isinstance(value, str)
    else from_numpy(np.array([value]))
  )
  return pc.coalesce(column, filled.cast(column.type)[0])


def fill_null_lists(column: pa.Array) -> pa.Array:
  """Replaces null lists by empty ones."""
  if not column.null_count:
    return column
  return pa.ListArray.from_arrays(_make_list_offsets(column), column.flatten())


def from_list_view(column: pa.Array) -> pa.Array:
  """Makes lists of a column of list views.

  Arrow's own cast gives an array whose offsets are not all there (25.0).
  """
  mask = column.is_null() if column.null_count else None
  return pa.ListArray.from_arrays(
    _make_list_offsets(column), column.flatten(), mask=mask
  )


def _make_list_offsets(column: pa.Array) -> pa.Array:
  """Returns where lists would start and end if the null ones were empty."""
  lengths = fill_null(pc.list_value_length(column), 0)
  return from_numpy(_to_int32(_add_up(to_numpy(lengths))))


def from_fixed_size(data: Any, size_bytes: int) -> pa.Array:
  """Makes a binary column of values of one size, without copying them.

  Args:
    data: contiguous bytes-like object, the values one after the other.
    size_bytes: the size of each value.

  Returns:
    A `binary` array.

  Raises:
    OverflowError: there are 2 GiB and more.
  """
  buffer = pa.py_buffer(data)
  num_values = buffer.size // size_bytes
  offsets = _to_int32(np.arange(num_values + 1, dtype=np.int64) * size_bytes)
  return pa.Array.from_buffers(
    pa.binary(), num_values, [None, pa.py_buffer(offsets), buffer]
  )


def from_parts(data: np.ndarray, offsets: np.ndarray) -> pa.Array:
  """Makes a binary column of parts of an array, without copying them.

  Args:
    data: contiguous uint8.
    offsets: (n + 1,) integers: value i is `data[offsets[i] : offsets[i + 1]]`.

  Returns:
    A `binary` array of n values.

  Raises:
    OverflowError: there are 2 GiB and more.
  """
  return pa.Array.from_buffers(
    pa.binary(),
    len(offsets) - 1,
    [None, pa.py_buffer(_to_int32(offsets)), pa.py_buffer(data)],
  )


def get_lengths(column: pa.Array) -> np.ndarray:
  """Returns the number of values in each row of a list column without nulls."""
  return to_numpy(pc.list_value_length(column))


def get_sizes(values: pa.Array | pa.Scalar) -> np.ndarray:
  """Returns the sizes of strings or binary values in bytes.

  Args:
    values: (n,) without nulls, or one value.

  Returns:
    (n,) or () integers.
  """
  if isinstance(values, pa.Scalar):
    return np.array(len(values.as_py()))
  return to_numpy(pc.binary_length(values))


def get_offsets(column: pa.Array) -> np.ndarray:
  """Returns the (n + 1,) int32 offsets of a binary column that is no slice."""
  return np.frombuffer(column.buffers()[1], np.int32)[: len(column) + 1]


def get_list(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
  """Returns the numbers of a list column.

  Args:
    column: lists of integers or floats, without nulls in them or of them.

  Returns:
    (len(column) + 1,) offsets and all numbers one after the other: those of row
    i are `values[offsets[i] : offsets[i + 1]]`.
  """
  return get_list_offsets(column), to_numpy(column.flatten())


def get_list_offsets(column: pa.Array) -> np.ndarray:
  """Returns the (n + 1,) int64 offsets of the flattened values of a list column.

  Args:
    column: lists, without nulls.
  """
  return _add_up(get_lengths(column))


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


def to_numpy(column: pa.Array) -> np.ndarray:
  """Returns the numbers of a column.

  Args:
    column: integers or floats, without nulls.

  Returns:
    (len(column),) of the same type, not writable.
  """
  name = str(column.type)
  dtype = np.dtype(_FLOAT_NAMES.get(name, name))
  if not len(column):
    return np.empty(0, dtype)
  numbers = np.frombuffer(column.buffers()[1], dtype)
  return numbers[column.offset : column.offset + len(column)]


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


def to_binary(column: pa.Array) -> pa.Array:
  """Returns strings or binary values as `binary`, without copying them.

  Args:
    column: without nulls; less than 2 GiB, maybe a part of more.
  """
  if not pa.types.is_large_binary(column.type) or not len(column):
    return pc.cast(column, pa.binary())
  # (Arrow's cast looks at where the values lie in the whole.)
  offsets = np.frombuffer(column.buffers()[1], np.int64)
  offsets = offsets[column.offset : column.offset + len(column) + 1]
  data = np.frombuffer(column.buffers()[2] or b"", np.uint8)
  part = data[offsets[0] : offsets[-1]]
  return from_parts(part, offsets - offsets[0])


def get_views(column: pa.Array) -> Iterator[memoryview]:
  """Yields the values of a string or binary column, without copying them."""
  offsets, data = get_values(column)
  for start, stop in itertools.pairwise(offsets):
    yield data[start:stop]


def _add_up(lengths: np.ndarray) -> np.ndarray:
  """Returns the (n + 1,) int64 offsets of n values that follow each other."""
  offsets = np.zeros(len(lengths) + 1, np.int64)
  np.cumsum(lengths, out=offsets[1:])
  return offsets


def _to_int32(offsets: np.ndarray) -> np.ndarray:
  """Narrows offsets, which NumPy would let wrap around."""
  if len(offsets) and offsets[-1] > _MAX_OFFSET:
    raise OverflowError(
      f"A column of {offsets[-1]:,} bytes needs offsets of 64 bits."
    )
  return offsets.astype(np.int32)
