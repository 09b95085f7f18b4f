"""Tests of Arrow columns that are made without Arrow's own converters."""

import numpy as np
import pyarrow as pa
import pytest

from tfds_plugins.sources import arrays

_GIB = 1 << 30


def test_values_of_one_size():
  data = np.arange(12, dtype=np.uint8)

  column = arrays.from_fixed_size(data, 4)

  assert column.to_pylist() == [bytes(data[i : i + 4]) for i in (0, 4, 8)]


def test_two_gibibytes_do_not_wrap_around():
  """Offsets of 32 bits would be negative from there on."""
  data = np.zeros(2 * _GIB, np.uint8)  # Memory that is never touched.

  column = arrays.from_fixed_size(data[: _GIB + 5], _GIB)
  assert column.type == pa.binary()
  assert len(column) == 1
  with pytest.raises(OverflowError, match="2,147,483,648 bytes"):
    arrays.from_fixed_size(data, _GIB)
  with pytest.raises(OverflowError, match="2,147,483,648 bytes"):
    arrays.from_parts(data, np.array([0, 5, 2 * _GIB]))
  with pytest.raises(OverflowError, match="3,221,225,472 bytes"):
    arrays.make_binary([memoryview(data[:_GIB])] * 3)


def test_joined_values():
  column = pa.array([b"a", b"", b"ccc"])

  joined = arrays.join_values(column, arrays.make_scalar(b"-"), column)

  assert joined.to_pylist() == [b"a-a", b"-", b"ccc-ccc"]
  assert arrays.join_values(column).to_pylist() == column.to_pylist()


@pytest.mark.parametrize("make_type", [pa.list_view, pa.large_list_view])
def test_list_views_become_lists(make_type):
  values = [[1, 2], None, [], [3, None], [4]]
  views = pa.array(values, make_type(pa.int32()))

  for column, expected in [
    (views, values),
    (views.slice(1, 3), values[1:4]),
    (views.take(pa.array([4, 0, 0])), [[4], [1, 2], [1, 2]]),
  ]:
    lists = arrays.from_list_view(column)
    lists.validate(full=True)
    assert lists.type == pa.list_(pa.int32())
    assert lists.to_pylist() == expected


def test_a_part_of_large_binary_becomes_binary():
  values = [b"a", b"", b"bcd", b"e" * 300, b"f"]
  column = pa.array(values, pa.large_binary())

  for start in range(len(values) + 1):
    for stop in range(start, len(values) + 1):
      part = arrays.to_binary(column[start:stop])
      assert part.type == pa.binary()
      assert part.to_pylist() == values[start:stop]
