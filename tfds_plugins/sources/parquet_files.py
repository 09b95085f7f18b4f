"""Reading any parquet file, and what can be wrong with it."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterator
import contextlib
from typing import Any
from typing import cast

from etils import epath
import pyarrow as pa
import pyarrow.parquet as pq

from tfds_plugins import errors

# Pages are read through a buffer of this size, for a column of a row group can
# have all of a million rows.
_PAGE_BUFFER_BYTES = 1 << 20


@contextlib.contextmanager
def reading(where: str, to_do: str) -> Iterator[None]:
  """Turns pyarrow's errors about a damaged file into ours.

  Args:
    where: the file.
    to_do: what the user can do about it.

  Raises:
    errors.SourceError: the file is no parquet, or cannot be read to its end.
  """
  try:
    yield
  except (pa.ArrowException, OSError) as e:
    problem = errors.Problem(
      what="The parquet cannot be read.",
      where=where,
      expected="a complete parquet file",
      found=f"{type(e).__name__}: {e}",
      to_do=to_do,
    )
    raise errors.SourceError(str(problem)) from e


def check_unique_columns(schema: pa.Schema, where: str, to_do: str) -> None:
  """Checks that no two columns have the same name.

  Args:
    schema: the file's schema.
    where: the file, for the error.
    to_do: what the user can do about it.

  Raises:
    errors.SourceError: it could only be guessed which of them is meant.
  """
  names = schema.names
  repeated = sorted({name for name in names if names.count(name) > 1})
  if repeated:
    problem = errors.Problem(
      what="The parquet has columns of the same name.",
      where=where,
      expected="every column once",
      found=f"repeated {', '.join(repeated)}",
      to_do=to_do,
    )
    raise errors.SourceError(str(problem))


def iter_rows(
  path: epath.Path,
  start: int,
  stop: int,
  names: Collection[str],
  *,
  batch_rows: int,
  to_do: str,
) -> Iterator[pa.RecordBatch]:
  """Yields some rows of a file in their order, and all of them.

  Args:
    path: the parquet.
    start: the first row.
    stop: the row behind the last one.
    names: the columns to read; those that there are come out in the order of
      the file.
    batch_rows: the most rows in a batch.
    to_do: what the user can do about a damaged file.

  Yields:
    Batches with at least one row.

  Raises:
    errors.SourceError: the file cannot be read, or has fewer rows than its
      footer says.
  """
  if start >= stop:
    return
  with contextlib.ExitStack() as stack:
    stack.enter_context(reading(str(path), to_do))
    file = pq.ParquetFile(
      cast(Any, stack.enter_context(path.open("rb"))),
      buffer_size=_PAGE_BUFFER_BYTES,
    )
    groups, position = _find_groups(file.metadata, start, stop)
    batches = file.iter_batches(
      batch_size=batch_rows,
      row_groups=groups,
      columns=[n for n in file.schema_arrow.names if n in names],
      use_threads=False,
    )
    for batch in batches:
      first = max(start, position)
      last = min(stop, position + batch.num_rows)
      if first < last:
        yield batch.slice(first - position, last - first)
      position += batch.num_rows
      if position >= stop:
        return
  if position < stop:
    problem = errors.Problem(
      what="The parquet has fewer rows than its footer says.",
      where=str(path),
      expected=f"rows {start:,} to {stop:,}",
      found=f"rows up to {position:,}",
      to_do=to_do,
    )
    raise errors.SourceError(str(problem))


def _find_groups(
  metadata: pq.FileMetaData, start: int, stop: int
) -> tuple[list[int], int]:
  """Returns the row groups of some rows, and the first row of the first group.

  pandas writes a whole file as one row group: rows in its middle are read with
  what comes before, some 1 us a row.
  """
  groups = []
  first = 0
  position = 0
  for i in range(metadata.num_row_groups):
    end = position + metadata.row_group(i).num_rows
    if position < stop and end > start:
      if not groups:
        first = position
      groups.append(i)
    position = end
  return groups, first
