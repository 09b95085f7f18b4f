"""Casts columns as they are found on disk to the types a dataset asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfds_plugins.sources import arrays

# Row number -> what is wrong with its value.
BadValues = dict[int, str]

_MAX_SHOWN_CHARACTERS = 60
# What Arrow raises for a value that cannot be cast, or for a type none of whose
# values can.
_CAST_ERRORS = (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError)


def to_array(column: pa.ChunkedArray) -> pa.Array:
  """Returns the chunks of a column as one array."""
  if not column.num_chunks:
    return pa.nulls(0, column.type)
  return pa.concat_arrays(column.chunks)


def to_batch(table: pa.Table) -> pa.RecordBatch:
  """Returns a table as one batch, even if it has no rows."""
  return pa.RecordBatch.from_arrays(
    [to_array(column) for column in table.columns], schema=table.schema
  )


def cast_column(
  column: pa.Array, target: pa.DataType, name: str
) -> tuple[pa.Array, BadValues]:
  """Casts `column` to `target`; what is missing becomes null.

  Writers disagree about types: pandas turns integers with nulls into doubles
  (NaN for null) and columns without any value into parquet's null type; other
  tools write `large_string`, dictionaries, or numbers as text.

  Args:
    column: the column as found.
    target: the type the dataset asks for: strings, numbers, or lists of
      numbers.
    name: the column's name, for the descriptions.

  Returns:
    An array of type `target`, null where a value cannot be expressed in it; and
    a description of each such value. Both are the same whether there is pandas
    or not. A float beyond the range of a smaller type becomes infinite; lists
    keep their null elements, which are for the dataset to judge.
  """
  if pa.types.is_dictionary(column.type):
    column = column.dictionary_decode()
  if _holds_text(column.type):
    column = _to_valid_utf8(column)
    if not pa.types.is_string(target):  # An empty field of a CSV file.
      column = pc.if_else(pc.equal(column, ""), None, column)
  elif pa.types.is_floating(column.type) and not pa.types.is_floating(target):
    column = nan_to_null(column)
  elif _is_list_view(column.type):
    column = arrays.from_list_view(column)
  if column.type == target:
    return column, {}
  try:
    return pc.cast(column, target), {}
  except _CAST_ERRORS:
    return _cast_one_by_one(column, target, name)


def cast_batch(
  batch: pa.RecordBatch, wanted: pa.Schema
) -> tuple[list[pa.Array], BadValues]:
  """Casts the columns that a dataset asks for.

  Args:
    batch: the columns as found.
    wanted: names and types of the columns; those that `batch` does not have
      come out as nulls.

  Returns:
    A column for each field of `wanted`; and the rows with a value that cannot
    be expressed in the wanted type.
  """
  known = frozenset(batch.schema.names)
  found = []
  bad: BadValues = {}
  for field in wanted:
    if field.name in known:
      column, bad_values = cast_column(
        batch.column(field.name), field.type, field.name
      )
      bad |= bad_values
    else:
      column = pa.nulls(batch.num_rows, field.type)
    found.append(column)
  return found, bad


def make_column(
  values: Sequence[Any], target: pa.DataType, name: str
) -> tuple[pa.Array, BadValues]:
  """Makes a column of Python values, as JSON gives them.

  Args:
    values: strings, numbers, booleans, lists, dictionaries, None.
    target: the type the dataset asks for.
    name: the column's name, for the descriptions.

  Returns:
    As `cast_column` does.
  """
  # NaN is what pandas writes for a missing value.
  values = [None if v != v else v for v in values]
  try:
    column = pa.array(values)
  except (pa.ArrowException, OverflowError, UnicodeError):
    # Mixed types, e.g. 3 and "3", integers beyond 64 bits, or half a surrogate
    # pair: every value by its own words. A list has none.
    if pa.types.is_list(target) and len(values) > 1:
      return _make_one_by_one(values, target, name)
    column = pa.array(
      [
        None if v is None else str(v).encode("utf-8", "replace") for v in values
      ],
      pa.binary(),
    )
  return cast_column(column, target, name)


def nan_to_null(column: pa.Array) -> pa.Array:
  """Returns a column of floats with null, as pandas cannot write it, for NaN."""
  return pc.if_else(pc.is_nan(column), pa.nulls(1, column.type)[0], column)


def _cast_one_by_one(
  column: pa.Array, target: pa.DataType, name: str
) -> tuple[pa.Array, BadValues]:
  """Casts values that cannot be cast together."""
  nothing = pa.nulls(1, target)
  parts = [nothing.slice(0, 0)]
  bad: BadValues = {}
  for i in range(len(column)):
    # Not a slice, with which the elements of all lists would be cast.
    value = column.take(arrays.from_numpy(np.array([i])))
    if value.null_count:  # Of whatever type it would be.
      parts.append(nothing)
      continue
    try:
      parts.append(pc.cast(value, target))
    except _CAST_ERRORS:
      parts.append(nothing)
      bad[i] = f"column '{name}': {_show(value)} is no {target}"
  return pa.concat_arrays(parts), bad


def _make_one_by_one(
  values: Sequence[Any], target: pa.DataType, name: str
) -> tuple[pa.Array, BadValues]:
  """Makes a column of values of which no column can be made together."""
  parts = []
  bad: BadValues = {}
  for i, value in enumerate(values):
    part, bad_values = make_column([value], target, name)
    parts.append(part)
    if bad_values:
      bad[i] = bad_values[0]
  return pa.concat_arrays(parts), bad


def _show(value: pa.Array) -> str:
  """Describes a value, the only one of an array, in Arrow's words.

  Python's own depend on whether there is pandas, which has a type for
  nanoseconds, and it has none for years beyond 9999 or unknown time zones.
  """
  if pa.types.is_string(value.type):
    return repr(value[0].as_py())[:_MAX_SHOWN_CHARACTERS]
  if pa.types.is_struct(value.type):
    return f"a {value.type}"[:_MAX_SHOWN_CHARACTERS]
  words = value.to_string(indent=0, skip_new_lines=True)
  words = " ".join(words.split()).removeprefix("[").removesuffix("]")
  return words[:_MAX_SHOWN_CHARACTERS]


def _holds_text(data_type: pa.DataType) -> bool:
  return (
    pa.types.is_string(data_type)
    or pa.types.is_large_string(data_type)
    or pa.types.is_binary(data_type)
    or pa.types.is_large_binary(data_type)
    or pa.types.is_fixed_size_binary(data_type)
    or pa.types.is_string_view(data_type)
    or pa.types.is_binary_view(data_type)
  )


def _is_list_view(data_type: pa.DataType) -> bool:
  return pa.types.is_list_view(data_type) or pa.types.is_large_list_view(
    data_type
  )


def _to_valid_utf8(column: pa.Array) -> pa.Array:
  """Returns a string array in which bytes that are no UTF-8 are replaced.

  Parquet writers are trusted by Arrow to write UTF-8; one wrong byte would
  otherwise surface at training time, as a UnicodeDecodeError.
  """
  try:
    text = pc.cast(column, pa.string())
    text.validate(full=True)
    return text
  except pa.ArrowInvalid:
    raw = pc.cast(column, pa.binary()).to_pylist()
    return pa.array(
      [None if v is None else v.decode("utf-8", "replace") for v in raw],
      pa.string(),
    )
