"""Reading any parquet file, and what can be wrong with it.

Of a footer nothing but the schema and the numbers of rows is asked. pyarrow
ends the process, with `terminate called after throwing an instance of
'parquet::ParquetException'`, when it is asked about a column chunk
(`RowGroupMetaData.column`, 25.0) and a bit is wrong: its declarations of what
it calls (`pyarrow/includes/libparquet.pxd`) have no `except +`.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import dataclasses
import itertools
from typing import Any
from typing import NamedTuple
from typing import cast

from etils import epath
import pyarrow as pa
import pyarrow.parquet as pq

from tfds_plugins import errors
from tfds_plugins.sources import folders
from tfds_plugins.sources import raw_files

# Pages are read through a buffer of this size, for a column of a row group can
# have all of a million rows.
_PAGE_BUFFER_BYTES = 1 << 20
# Sizes are estimated from so many rows of the first, the middle and the last
# row group: some milliseconds a file (60 where a row group has a million rows),
# and within some percents of the true size of captions and URLs.
_SAMPLED_ROWS = 512
_SAMPLE_BUFFER_BYTES = 1 << 16
# How many threads should look at files whose sizes are estimated: each of them
# keeps some 50 MB, the pages of the columns and what the allocator holds back.
NUM_SAMPLING_THREADS = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileInfo:
  """What a look at a file tells.

  Attributes:
    schema: its columns.
    num_rows: its number of rows.
    value_bytes: about what the values of the columns that were named take in
      memory, as they are, not as they are encoded.
  """

  schema: pa.Schema
  num_rows: int
  value_bytes: int


@contextlib.contextmanager
def reading(where: str, to_do: str) -> Iterator[None]:
  """Turns pyarrow's errors about a damaged file into ours.

  Nothing else should be done inside: an error of what is done with the rows is
  no damage of the file.

  Args:
    where: the file.
    to_do: what the user can do about it.

  Raises:
    errors.SourceError: the file is no parquet, or cannot be read to its end.
  """
  try:
    yield
  except (pa.ArrowException, OSError, UnicodeDecodeError) as e:
    # The last is the name of a column whose bytes are no UTF-8.
    problem = errors.Problem(
      what="The parquet cannot be read.",
      where=where,
      expected="a complete parquet file, with columns that pyarrow can read",
      found=f"{type(e).__name__}: {e}",
      to_do=to_do,
    )
    raise errors.SourceError(str(problem)) from e


class OpenedFile(NamedTuple):
  """A parquet whose footer has been checked.

  Attributes:
    file: the file.
    schema: its columns; every name is text, and there once.
    group_rows: the number of rows of each row group.
  """

  file: pq.ParquetFile
  schema: pa.Schema
  group_rows: Sequence[int]


def open_file(
  path: epath.Path,
  to_do: str,
  stack: contextlib.ExitStack,
  *,
  buffer_bytes: int = 0,
) -> OpenedFile:
  """Opens a file.

  Args:
    path: the parquet.
    to_do: what the user can do about a damaged file.
    stack: closes the file.
    buffer_bytes: pages are read so many bytes at a time; 0 for all pages of a
      column of a row group at once.

  Raises:
    errors.SourceError: it is no parquet, its footer contradicts itself, or a
      column is there twice.
  """
  with reading(str(path), to_do):
    folders.check_regular(path)
    opened = cast(Any, stack.enter_context(path.open("rb")))
    # Columns are read side by side, each at its place.
    opened = raw_files.without_read_ahead(opened)
    file = pq.ParquetFile(opened, buffer_size=buffer_bytes)
    schema = file.schema_arrow
    names = schema.names  # Decoded here, so that wrong bytes are told here.
    metadata = file.metadata
    group_rows = [
      metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)
    ]
  problem = _find_repeated(names) or _find_contradiction(
    group_rows, metadata.num_rows
  )
  if problem is not None:
    what, expected, found = problem
    raise errors.SourceError(
      str(
        errors.Problem(
          what=what,
          where=str(path),
          expected=expected,
          found=found,
          to_do=to_do,
        )
      )
    )
  return OpenedFile(file, schema, group_rows)


def look_at(
  path: epath.Path, to_do: str, names: Collection[str] = ()
) -> FileInfo:
  """Looks at a footer and, for the size of some columns, at a few rows.

  Args:
    path: the parquet.
    to_do: what the user can do about a damaged file.
    names: the columns whose size is estimated; those that there are.

  Returns:
    What was found; the same for the same file.

  Raises:
    errors.SourceError: as `open_file` does, or the rows cannot be read.
  """
  with contextlib.ExitStack() as stack:
    opened = open_file(path, to_do, stack, buffer_bytes=_SAMPLE_BUFFER_BYTES)
    with reading(str(path), to_do):
      value_bytes = _estimate_bytes(opened, names)
  return FileInfo(
    schema=opened.schema,
    num_rows=sum(opened.group_rows),
    value_bytes=value_bytes,
  )


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
    opened = open_file(path, to_do, stack, buffer_bytes=_PAGE_BUFFER_BYTES)
    groups, position = _find_groups(opened.group_rows, start, stop)
    stack.enter_context(reading(str(path), to_do))
    batches = opened.file.iter_batches(
      batch_size=batch_rows,
      row_groups=groups,
      columns=[name for name in opened.schema.names if name in names],
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
  group_rows: Sequence[int], start: int, stop: int
) -> tuple[list[int], int]:
  """Returns the row groups of some rows, and the first row of the first group.

  pandas writes a whole file as one row group: rows in its middle are read with
  what comes before, some 1 us a row.
  """
  groups = []
  first = 0
  position = 0
  for i, num_rows in enumerate(group_rows):
    end = position + num_rows
    if position < stop and end > start:
      if not groups:
        first = position
      groups.append(i)
    position = end
  return groups, first


def _find_repeated(names: Sequence[str]) -> tuple[str, str, str] | None:
  """Finds columns of one name, of which one would be a guess."""
  repeated = sorted({name for name in names if names.count(name) > 1})
  if not repeated:
    return None
  return (
    "The parquet has columns of the same name.",
    "every column once",
    f"repeated {', '.join(repeated)}",
  )


def _find_contradiction(
  group_rows: Sequence[int], num_rows: int
) -> tuple[str, str, str] | None:
  """Finds numbers of rows by which some rows would be taken for others."""
  if min(group_rows, default=0) >= 0 and sum(group_rows) == num_rows:
    return None
  return (
    "The footer of the parquet contradicts itself.",
    f"row groups of {num_rows:,} rows together",
    f"{len(group_rows):,} row groups of {sum(group_rows):,} rows",
  )


def _estimate_bytes(opened: OpenedFile, names: Collection[str]) -> int:
  """Estimates what the values of some columns take.

  Sizes in a footer say little about it: those of single columns cannot be asked
  for (see above), and a value that many rows share is in them once.
  """
  columns = [name for name in opened.schema.names if name in names]
  groups = [i for i, num_rows in enumerate(opened.group_rows) if num_rows]
  if not groups or not columns:
    return 0
  sampled = sorted({groups[0], groups[len(groups) // 2], groups[-1]})
  num_rows = sum(min(opened.group_rows[i], _SAMPLED_ROWS) for i in sampled)
  num_bytes = 0
  # One by one: each column takes its pages of a row group in memory, which are
  # some MB, and many files are looked at side by side.
  for group, column in itertools.product(sampled, columns):
    batches = opened.file.iter_batches(
      batch_size=_SAMPLED_ROWS,
      row_groups=[group],
      columns=[column],
      use_threads=False,
    )
    for batch in itertools.islice(batches, 1):
      num_bytes += sum(map(_count_bytes, batch.columns))
  return sum(opened.group_rows) * num_bytes // num_rows


def _count_bytes(column: pa.Array) -> int:
  if pa.types.is_dictionary(column.type):
    column = column.dictionary_decode()
  return column.nbytes
