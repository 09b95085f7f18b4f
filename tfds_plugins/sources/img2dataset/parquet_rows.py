"""The rows of the parquet that img2dataset writes beside a shard, by key.

img2dataset writes a row for every URL of a shard, failed ones included, in the
order in which downloads completed (rom1504/img2dataset,
`img2dataset/downloader.py`, `img2dataset/writer.py`): a row's position says
nothing. Versions 1.9.3 and later write string keys; 1.4 to 1.9.2 wrote int64
keys that start again in every shard.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib

from etils import epath
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tfds_plugins import errors
from tfds_plugins.sources import columns as columns_lib
from tfds_plugins.sources import parquet_files
from tfds_plugins.sources.img2dataset import keys as keys_lib

# Without these a parquet is not img2dataset's output.
REQUIRED_COLUMNS = ("key", "status", "url")
# Values of `status`; the other two say that there is no image.
SUCCESS = "success"
_FAILURES = ("failed_to_download", "failed_to_resize")
UNKNOWN_STATUS = "unknown_status"
_TO_DO = (
  "Download the shard again, or remove the parquet: the metadata in the shard"
  " itself is then read instead (rows whose download failed are not listed"
  " then)."
)
_PUT_BACK = (
  "Put back the parquet that img2dataset wrote beside the shard (a list of URLs"
  " that was its input has other columns), or remove this one: the metadata in"
  " the shard itself is then read instead."
)


class ParquetRows:
  """The rows of one parquet: by key, in any order, a row group at a time.

  Attributes:
    num_rows: the number of rows.
    column_names: the names of all columns.
    has_global_keys: whether keys are unique beyond their shard.
    index: finds rows by key.
  """

  def __init__(self, path: epath.Path, wanted: pa.Schema):
    """Opens the file and reads its keys.

    Args:
      path: the parquet.
      wanted: names and types of the columns to read; those that the file does
        not have come out as nulls.

    Raises:
      errors.SourceError: it is no parquet, or not img2dataset's.
    """
    self._where = str(path)
    self._wanted = wanted
    self._last_group: tuple[int, pa.Table] | None = None
    self._stack = contextlib.ExitStack()
    with parquet_files.reading(self._where, _TO_DO):
      self._file = pq.ParquetFile(self._stack.enter_context(path.open("rb")))
      check_columns(self._file.schema_arrow, self._where)
      self.column_names = frozenset(self._file.schema_arrow.names)
      groups = [
        self._file.metadata.row_group(i).num_rows
        for i in range(self._file.num_row_groups)
      ]
      self._group_starts = np.cumsum([0, *groups])
      keys = self._file.read(columns=["key"], use_threads=False)["key"]
    self.num_rows = self._file.metadata.num_rows
    keys = self._normalize_keys(keys)
    # Integer keys start again in every shard: alone they cannot tell whether a
    # parquet belongs to its tar.
    self.has_global_keys = pa.types.is_string(keys.type)
    self.index = keys_lib.KeyIndex(keys, where=self._where)

  def __enter__(self) -> ParquetRows:
    return self

  def __exit__(self, *unused_args: object) -> None:
    self._stack.close()

  def read(
    self, positions: np.ndarray
  ) -> tuple[pa.RecordBatch, columns_lib.BadValues]:
    """Reads the wanted columns of some rows.

    Args:
      positions: (n,) int64, row numbers in any order.

    Returns:
      A batch of n rows in that order, with the wanted columns and types; and
      the rows of it with a value that cannot be expressed in the wanted type.
    """
    groups = np.searchsorted(self._group_starts, positions, side="right") - 1
    tables, places = [], []
    for group in np.unique(groups):
      inside = np.flatnonzero(groups == group)
      rows = positions[inside] - self._group_starts[group]
      with parquet_files.reading(self._where, _TO_DO):
        tables.append(
          self._read_group(int(group)).take(pa.array(rows.tolist(), pa.int64()))
        )
      places.append(inside)
    if not tables:
      return columns_lib.to_batch(self._wanted.empty_table()), {}
    order = np.argsort(np.concatenate(places), kind="stable").tolist()
    found = columns_lib.to_batch(
      pa.concat_tables(tables).take(pa.array(order, pa.int64()))
    )
    arrays, bad = columns_lib.cast_batch(found, self._wanted)
    return pa.RecordBatch.from_arrays(arrays, schema=self._wanted), bad

  def iter_status(
    self, is_wanted: np.ndarray
  ) -> Iterator[tuple[str, str, str]]:
    """Yields (key, status, error message) of the rows that `is_wanted` marks.

    Args:
      is_wanted: (num_rows,) bool.
    """
    names = ["key", "status", "error_message"]
    start = 0
    with parquet_files.reading(self._where, _TO_DO):
      for batch in self._file.iter_batches(
        columns=[name for name in names if name in self.column_names],
        use_threads=False,
      ):
        mask = is_wanted[start : start + len(batch)]
        start += len(batch)
        marked = batch.filter(pa.array(mask.tolist(), pa.bool_()))
        columns = [
          self._to_text(marked.column(name))
          if name in self.column_names
          # Before there were messages, the status said all.
          else [""] * len(marked)
          for name in names
        ]
        yield from zip(*columns)

  def _to_text(self, column: pa.Array) -> list[str]:
    text, _ = columns_lib.cast_column(column, pa.string(), "")
    return text.fill_null("").to_pylist()

  def _read_group(self, group: int) -> pa.Table:
    # The tar and the parquet usually have the same order: consecutive calls
    # meet in one row group, and the oldest files have only one.
    if self._last_group is None or self._last_group[0] != group:
      names = [n for n in self._wanted.names if n in self.column_names]
      with parquet_files.reading(self._where, _TO_DO):
        table = self._file.read_row_group(
          group, columns=names, use_threads=False
        )
      self._last_group = (group, table)
    return self._last_group[1]

  def _normalize_keys(self, keys: pa.ChunkedArray) -> pa.Array:
    is_number = pa.types.is_integer(keys.type) or pa.types.is_floating(
      keys.type
    )
    column, bad = columns_lib.cast_column(
      columns_lib.to_array(keys),
      pa.int64() if is_number else pa.string(),
      "key",
    )
    if bad:
      raise keys_lib.key_error(
        "A key is neither text nor a whole number.",
        self._where,
        "keys such as 000010005",
        next(iter(bad.values())),
      )
    return column


def explain_status(status: str, message: str) -> tuple[str, str]:
  """Returns why a row has no image: the reason for skipping it, and a detail.

  Args:
    status: the row's `status`, not `SUCCESS`.
    message: its `error_message`.
  """
  if status in _FAILURES:
    return status, message
  return UNKNOWN_STATUS, f"status '{status}': {message}"


def check_columns(
  schema: pa.Schema, where: str, to_do: str = _PUT_BACK
) -> None:
  """Checks that a parquet has the columns every img2dataset version writes.

  Args:
    schema: the parquet's schema.
    where: the file, for the error.
    to_do: what the user can do about it.

  Raises:
    errors.SourceError: a required column is missing, or a column is there
      twice.
  """
  missing = [name for name in REQUIRED_COLUMNS if name not in schema.names]
  if missing:
    problem = errors.Problem(
      what=f"The parquet has no column {', '.join(missing)}.",
      where=where,
      expected=f"img2dataset's output, with {', '.join(REQUIRED_COLUMNS)}",
      found=f"columns {', '.join(schema.names) or '(none)'}",
      to_do=to_do,
    )
    raise errors.SourceError(str(problem))
  parquet_files.check_unique_columns(schema, where, to_do)


def check_file(path: epath.Path) -> None:
  """Checks a parquet by its footer alone.

  Args:
    path: the parquet.

  Raises:
    errors.SourceError: it is damaged, or not img2dataset's.
  """
  with parquet_files.reading(str(path), _TO_DO), path.open("rb") as f:
    schema = pq.read_schema(f)
  check_columns(schema, str(path))
