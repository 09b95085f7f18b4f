"""Protobuf's integers: base-128 varints, many at a time.

Encoding: https://protobuf.dev/programming-guides/encoding#varints.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from tfds_plugins.sources import arrays

# Set in every byte of a varint but the last.
_MORE = np.uint8(0x80)
# Labels are below it.
_NUM_TABLED_VARINTS = 1 << 16


def encode_one(value: int) -> bytes:
  """Returns the base-128 encoding of an unsigned integer."""
  out = bytearray()
  while value > 0x7F:
    out.append((value & 0x7F) | 0x80)
    value >>= 7
  out.append(value)
  return bytes(out)


def encode(values: np.ndarray, offsets: np.ndarray | None = None) -> pa.Array:
  """Returns the varints of each row.

  Args:
    values: (n,) integers; negative ones are encoded as 64 bits.
    offsets: (num_rows + 1,) integers: the values of row i are
      `values[offsets[i] : offsets[i + 1]]`. None for one in each row.

  Returns:
    A `binary` array of num_rows values.
  """
  numbers = values.astype(np.int64, copy=False).view(np.uint64)
  if len(numbers) and numbers.max() < _NUM_TABLED_VARINTS:
    table = _get_varint_table()
    sizes = table.sizes[numbers]
    is_used = table.is_used[numbers].view(np.bool_)
    packed = table.data[numbers].view(np.uint8)[is_used]
  else:
    packed, sizes = _encode_varints(numbers)
  ends = np.zeros(len(numbers) + 1, np.int64)
  np.cumsum(sizes, out=ends[1:])
  return arrays.from_parts(packed, ends if offsets is None else ends[offsets])


def _encode_varints(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Encodes (n,) uint64 numbers, and returns the bytes and the sizes."""
  sizes = np.ones(len(numbers), np.int64)
  rest = numbers >> 7
  while rest.any():
    sizes += rest != 0
    rest = rest >> 7
  places = np.cumsum(sizes) - sizes
  packed = np.empty(int(sizes.sum()), np.uint8)
  left_sizes = sizes
  for i in range(int(sizes.max(initial=0))):
    left = left_sizes > i + 1
    packed[places + i] = (numbers & 0x7F).astype(np.uint8) | left * _MORE
    numbers, left_sizes, places = (
      numbers[left] >> 7,
      left_sizes[left],
      places[left],
    )
  return packed, sizes


class _VarintTable(NamedTuple):
  """The varints of small numbers, by number.

  Attributes:
    data: (_NUM_TABLED_VARINTS,) uint32: the bytes, filled up with zeros.
    is_used: (_NUM_TABLED_VARINTS,) uint32: a byte of 1 for each that is used.
    sizes: (_NUM_TABLED_VARINTS,) uint8.
  """

  data: np.ndarray
  is_used: np.ndarray
  sizes: np.ndarray


@functools.cache
def _get_varint_table() -> _VarintTable:
  packed, sizes = _encode_varints(
    np.arange(_NUM_TABLED_VARINTS, dtype=np.uint64)
  )
  is_used = np.arange(4) < sizes[:, None]
  data = np.zeros((_NUM_TABLED_VARINTS, 4), np.uint8)
  data[is_used] = packed
  return _VarintTable(
    data.view(np.uint32)[:, 0],
    is_used.view(np.uint32)[:, 0],
    sizes.astype(np.uint8),
  )
