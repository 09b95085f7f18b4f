"""Casts columns as they are found on disk to the types a dataset asks for."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from tfds_plugins import errors


def cast_column(
  column: pa.Array, target: pa.DataType, *, name: str, where: str
) -> pa.Array:
  """Casts `column` to `target`; what is missing stays null.

  Writers disagree about types: pandas turns integers with nulls into doubles
  (NaN for null) and columns without any value into parquet's null type; other
  tools write `large_string`, dictionaries, or numbers as text.

  Args:
    column: the column as found.
    target: the type the dataset asks for.
    name: the column's name, for the error.
    where: the file, for the error.

  Returns:
    An array of type `target`.

  Raises:
    errors.SourceError: a value cannot be expressed in `target`.

  """
  if pa.types.is_string(target) and _holds_text(column.type):
    return _to_valid_utf8(column)
  if column.type == target:
    return column
  if pa.types.is_null(column.type):
    return pa.nulls(len(column), target)
  if pa.types.is_dictionary(column.type):
    column = column.dictionary_decode()
  if pa.types.is_floating(column.type) and pa.types.is_integer(target):
    column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
  try:
    return pc.cast(column, target)
  except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as e:
    problem = errors.Problem(
      what=f"Column '{name}' cannot be read as {target}.",
      where=where,
      expected=f"values of type {target}, or nulls",
      found=f"type {column.type}: {e}",
      to_do="Download the shard again, or correct the column.",
    )
    raise errors.SourceError(str(problem)) from e


def make_column(
  values: list, target: pa.DataType, *, name: str, where: str
) -> pa.Array:
  """Makes a column of Python values, as JSON gives them.

  Args:
    values: strings, numbers, booleans, None.
    target: the type the dataset asks for.
    name: the column's name, for the error.
    where: the file, for the error.

  Returns:
    An array of type `target`.

  Raises:
    errors.SourceError: a value cannot be expressed in `target`.

  """
  try:
    column = pa.array(values)
  except (pa.ArrowException, OverflowError, UnicodeError):
    # Mixed types, e.g. 3 and "3", integers beyond 64 bits, or half a surrogate
    # pair: every value by its own words.
    column = pa.array(
      [None if v is None else str(v).encode("utf-8", "replace") for v in values]
    )
    column = _to_valid_utf8(column)
  return cast_column(column, target, name=name, where=where)


def _holds_text(data_type: pa.DataType) -> bool:
  return (
    pa.types.is_string(data_type)
    or pa.types.is_large_string(data_type)
    or pa.types.is_binary(data_type)
    or pa.types.is_large_binary(data_type)
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
