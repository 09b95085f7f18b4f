"""The rows of the parquet that img2dataset writes beside a shard, by key.

img2dataset writes a row for every URL of a shard, failed ones included, in the
order in which downloads completed (rom1504/img2dataset,
`img2dataset/downloader.py`, `img2dataset/writer.py`): a row's position says
nothing. Versions 1.9.3 and later write string keys; 1.4 to 1.9.2 wrote int64
keys that start again in every shard.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib

from etils import epath
import numpy as np
import pyarrow as pa

from tfds_plugins import errors
from tfds_plugins.sources import arrays as arrays_lib
from tfds_plugins.sources import columns as columns_lib
from tfds_plugins.sources import parquet_files
from tfds_plugins.sources.img2dataset import keys as keys_lib

# Without these a parquet is not img2dataset's output.
REQUIRED_COLUMNS = ("key", "status", "url")
# So many rows are read at once, or a row group that has more.
_CHUNK_ROWS = 2048
# Of so many bytes, the chunks last read are kept.
_KEPT_BYTES = 32 << 20
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
    self._chunks: dict[int, pa.Table] = {}
    self._stack = contextlib.ExitStack()
    try:
      opened = parquet_files.open_file(path, _TO_DO, self._stack)
      check_columns(opened.schema, self._where)
      self._file = opened.file
      self.column_names = frozenset(opened.schema.names)
      self.num_rows = sum(opened.group_rows)
      self._chunk_groups, self._chunk_starts = _make_chunks(opened.group_rows)
      keys = self._read_keys()
      self.index = keys_lib.KeyIndex(keys, where=self._where)
    except errors.SourceError:
      self._stack.close()
      raise
    # Integer keys start again in every shard: alone they cannot tell whether a
    # parquet belongs to its tar.
    self.has_global_keys = pa.types.is_string(keys.type)

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
    if not len(positions):
      return columns_lib.to_batch(self._wanted.empty_table()), {}
    chunks = np.searchsorted(self._chunk_starts, positions, side="right") - 1
    tables = []
    rows = np.empty(len(positions), np.int64)
    num_before = 0
    for chunk in np.unique(chunks).tolist():
      table = self._read_chunk(chunk)
      is_inside = chunks == chunk
      first = self._chunk_starts[chunk] - num_before
      rows[is_inside] = positions[is_inside] - first
      num_before += table.num_rows
      tables.append(table)
    table = tables[0] if len(tables) == 1 else pa.concat_tables(tables)
    found = columns_lib.to_batch(table.take(arrays_lib.from_numpy(rows)))
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
    for batch in self._iter_batches(names):
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

  def _iter_batches(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    # What is done with a batch is not done in here, nor taken for damage.
    with parquet_files.reading(self._where, _TO_DO):
      yield from self._file.iter_batches(
        columns=[name for name in names if name in self.column_names],
        use_threads=False,
      )

  def _to_text(self, column: pa.Array) -> list[str]:
    text, _ = columns_lib.cast_column(column, pa.string(), "")
    return text.fill_null("").to_pylist()

  def _read_chunk(self, chunk: int) -> pa.Table:
    """Reads a run of row groups.

    The shard and the parquet usually have the same order: consecutive calls
    meet in one chunk. Where they have not, as many are kept as are no burden.
    """
    table = self._chunks.pop(chunk, None)
    if table is None:
      names = [n for n in self._wanted.names if n in self.column_names]
      with parquet_files.reading(self._where, _TO_DO):
        table = self._file.read_row_groups(
          self._chunk_groups[chunk], columns=names, use_threads=False
        )
    self._chunks[chunk] = table  # The last one of all.
    while sum(kept.nbytes for kept in self._chunks.values()) > _KEPT_BYTES:
      if len(self._chunks) == 1:
        break
      del self._chunks[next(iter(self._chunks))]
    return table

  def _read_keys(self) -> pa.Array:
    with parquet_files.reading(self._where, _TO_DO):
      keys = self._file.read(columns=["key"], use_threads=False)["key"]
    if len(keys) != self.num_rows:
      raise keys_lib.key_error(
        "Keys are missing.",
        self._where,
        f"{self.num_rows:,} keys, by the footer of the parquet",
        f"{len(keys):,}",
      )
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


def _make_chunks(
  group_rows: Sequence[int],
) -> tuple[list[list[int]], np.ndarray]:
  """Puts row groups together that are read at once.

  img2dataset's have 100 rows: one by one, opening them would take longer than
  reading them.

  Args:
    group_rows: the number of rows of each row group.

  Returns:
    The numbers of the row groups of each chunk, and its first row.
  """
  chunks: list[list[int]] = []
  starts: list[int] = []
  num_rows = _CHUNK_ROWS
  first = 0
  for group, length in enumerate(group_rows):
    if num_rows + length > _CHUNK_ROWS:
      chunks.append([])
      starts.append(first)
      num_rows = 0
    chunks[-1].append(group)
    num_rows += length
    first += length
  return chunks, np.array(starts, np.int64)


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
    errors.SourceError: a required column is missing.
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


def check_file(path: epath.Path) -> None:
  """Checks a parquet by its footer alone.

  Args:
    path: the parquet.

  Raises:
    errors.SourceError: it is damaged, or not img2dataset's.
  """
  check_columns(parquet_files.look_at(path, _TO_DO).schema, str(path))
