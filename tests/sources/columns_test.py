"""Tests of columns of types that no dataset asked for."""

import decimal
import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from tfds_plugins.sources import columns

INT32 = pa.int32()
STRING = pa.string()
INTEGERS = pa.list_(pa.int64())
FLOATS = pa.list_(pa.float32())


def cast(column, target):
  """Returns the values, and descriptions without the column's name."""
  found, bad = columns.cast_column(column, target, "c")
  assert found.type == target
  assert len(found) == len(column)
  found.validate(full=True)
  prefix, suffix = "column 'c': ", f" is no {target}"
  assert all(
    text.startswith(prefix) and text.endswith(suffix) for text in bad.values()
  )
  return found.to_pylist(), {
    i: text.removeprefix(prefix).removesuffix(suffix) for i, text in bad.items()
  }


@pytest.mark.parametrize(
  ("column", "target", "shown"),
  [
    (pa.array(["wide", None]), INT32, "'wide'"),
    (pa.array([b"w\xff", None]), INT32, "'w\ufffd'"),
    (pa.array(["'" * 100, None]), INT32, '"' + "'" * 59),
    (pa.array([1.5, None]), INT32, "1.5"),
    (pa.array([1 << 31, None]), INT32, "2147483648"),
    (pa.array([decimal.Decimal("0.31"), None]), INT32, "0.31"),
    # Python has no nanoseconds, no year 10,000, and needs to know the zone.
    (
      pa.array([1234567891, None], pa.timestamp("ns")),
      INT32,
      "1970-01-01 00:00:01.234567891",
    ),
    (
      pa.array([1, None], pa.timestamp("us", "Nowhere/X")),
      STRING,
      "1970-01-01 00:00:00.000001Z",
    ),
    (
      pa.array([1 << 62, None], pa.timestamp("us")),
      INT32,
      "<value out of range: 4611686018427387904>",
    ),
    (
      pa.array([(1 << 31) - 1, None], pa.date32()),
      INTEGERS,
      "<value out of range: 2147483647>",
    ),
    (pa.array([5, None], pa.duration("ns")), INT32, "5"),
    (pa.array([5, None], pa.time64("ns")), INT32, "00:00:00.000000005"),
    (pa.array([["x"], None]), STRING, '["x"]'),
    (pa.array([["x"], None]), INTEGERS, '["x"]'),
    (pa.array([[1, 2], None]), INT32, "[1,2]"),
    (pa.array([[1.5], None]), INTEGERS, "[1.5]"),
    (pa.array([[float("nan")], None]), INTEGERS, "[nan]"),
    (pa.array([[[1]], None]), INTEGERS, "[[1]]"),
    (pa.array(["[1]", None]), INTEGERS, "'[1]'"),
    (pa.array([3, None]), INTEGERS, "3"),
    (pa.array([1 << 62, None], pa.uint64()), FLOATS, str(1 << 62)),
    (
      pa.array([[("a", 1)], None], pa.map_(STRING, pa.int64())),
      INTEGERS,
      'keys:["a"]values:[1]',
    ),
    (
      pa.array([{"a": 1}, None]),
      INT32,
      "a struct<a: int64>",
    ),
  ],
)
def test_values_that_cannot_be_cast_are_named_and_nulls_stay(
  column, target, shown
):
  assert cast(column, target) == ([None, None], {0: shown})
  # One after the other, in a column of which some can be cast.
  assert cast(column.slice(1), target) == ([None], {})
  assert cast(column.slice(0, 0), target) == ([], {})


def test_only_the_values_that_cannot_be_cast_are_missing():
  column = pa.array(["1", "x", "", None, "-3", "99999999999"])

  found = cast(column, INT32)

  assert found == (
    [1, None, None, None, -3, None],
    {1: "'x'", 5: "'99999999999'"},
  )


@pytest.mark.parametrize("make_type", [pa.list_, pa.large_list, pa.list_view])
def test_a_list_that_cannot_be_cast_spoils_no_other(make_type):
  values = [["1"], ["x", "2"], None, ["3", "4"], [], ["5", ""]]
  column = pa.array(values, make_type(pa.string()))

  found = cast(column, INTEGERS)

  assert found == (
    [[1], None, None, [3, 4], [], None],
    {1: '["x","2"]', 5: '["5",""]'},
  )


@pytest.mark.parametrize(
  "column",
  [
    pa.array(["a", None, "é"], pa.string_view()),
    pa.array(["a", None, "é"], pa.large_string()),
    pa.array([b"a", None, b"\xc3\xa9"], pa.binary_view()),
    pa.array(["a", None, "é"]).dictionary_encode(),
  ],
)
def test_text_of_any_type(column):
  assert cast(column, STRING) == (["a", None, "é"], {})


@pytest.mark.parametrize(
  "data_type", [pa.binary(), pa.large_binary(), pa.binary(2), pa.binary_view()]
)
def test_bytes_that_are_no_text_are_replaced(data_type):
  column = pa.array([b"a\xff", None], data_type)

  assert cast(column, STRING) == (["a\ufffd", None], {})


@pytest.mark.parametrize(
  "make_type",
  [
    pa.list_,
    pa.large_list,
    pa.list_view,
    pa.large_list_view,
    lambda value_type: pa.list_(value_type, 2),
  ],
)
@pytest.mark.parametrize("value_type", [pa.int8(), pa.float64(), pa.string()])
def test_lists_of_any_type(make_type, value_type):
  values = [[1, 2], None, [3, None], [5, 6]]
  column = pa.array(values, pa.list_(pa.int8())).cast(pa.list_(value_type))
  column = pa.array(column.to_pylist(), make_type(value_type))

  assert cast(column, INTEGERS) == (values, {})
  assert cast(column.slice(1, 2), FLOATS) == (values[1:3], {})


def test_lists_without_a_value():
  assert cast(pa.array([[], None]), INTEGERS) == ([[], None], {})
  assert cast(pa.nulls(2), INTEGERS) == ([None, None], {})
  assert cast(pa.array([np.nan, np.nan]), INTEGERS) == ([None, None], {})
  assert cast(pa.array(["", None]), INTEGERS) == ([None, None], {})


def test_floats_beyond_the_range_become_infinite():
  (values, bad) = cast(pa.array([[1e300, -1e300, 0.5]]), FLOATS)

  assert values == [[np.inf, -np.inf, 0.5]]
  assert not bad


def test_lists_of_json_beside_something_else():
  """One value of another kind does not spoil those of other rows."""
  values = [[1, 2], "x", None, [], [None, 3], [1 << 70], {"a": 1}, float("nan")]

  found, bad = columns.make_column(values, INTEGERS, "c")

  assert found.to_pylist() == [[1, 2], None, None, [], [None, 3], *[None] * 3]
  assert sorted(bad) == [1, 5, 6]
  assert bad[1] == "column 'c': 'x' is no list<item: int64>"


def test_descriptions_are_the_same_without_pandas():
  """Workers have none: what they write may not differ."""
  code = """
import json
import sys
import pyarrow as pa
from tfds_plugins.conversion import executors
from tfds_plugins.sources import columns
if sys.argv[1] == "hidden":
  sys.meta_path.insert(0, executors._WithoutPandas())
found = []
for data_type in (
  pa.timestamp("ns"), pa.timestamp("us", "Nowhere/X"), pa.duration("ns"),
  pa.time64("ns"), pa.list_(pa.timestamp("ns")), pa.timestamp("s"),
):
  value = 1234567891
  is_list = pa.types.is_list(data_type)
  column = pa.array([[value] if is_list else value, None], data_type)
  _, bad = columns.cast_column(column, pa.float64(), "c")
  found.append(bad[0])
  assert len(bad) == 1
assert (sys.argv[1] == "shown") or "pandas" not in sys.modules
print(json.dumps(found))
"""
  shown, hidden = (
    json.loads(
      subprocess.run(
        [sys.executable, "-c", code, argument],
        capture_output=True,
        text=True,
        check=True,
      ).stdout
    )
    for argument in ("shown", "hidden")
  )

  assert shown == hidden
  assert shown[0] == "column 'c': 1970-01-01 00:00:01.234567891 is no double"
