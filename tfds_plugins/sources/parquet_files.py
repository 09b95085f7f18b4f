"""What can be wrong with any parquet file, in words for the person who has it."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib

import pyarrow as pa

from tfds_plugins import errors


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
