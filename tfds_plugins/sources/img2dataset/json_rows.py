"""The `.json` member that img2dataset writes beside every image of a tar.

It holds the whole metadata of the row, caption included (rom1504/img2dataset,
`img2dataset/writer.py`), so a tar without its parquet is complete but for the
rows whose download failed.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import json
from typing import Any

import pyarrow as pa

from tfds_plugins.sources import columns as columns_lib

# img2dataset's largest field is a caption of 61,192 characters.
MAX_JSON_BYTES = 4 << 20


def parse_row(data: bytes) -> Mapping[str, Any] | str:
  """Parses one `.json` member.

  Args:
    data: UTF-8 JSON, a single object.

  Returns:
    The object, or what is wrong with it.
  """
  try:
    row = json.loads(data)
  except (ValueError, RecursionError) as e:
    return f"not JSON: {e}"
  if not isinstance(row, dict):
    return f"a JSON object was expected, not {type(row).__name__}"
  return row


def to_batch(
  rows: Sequence[Mapping[str, Any]], wanted: pa.Schema
) -> tuple[pa.RecordBatch, columns_lib.BadValues]:
  """Makes columns of parsed rows.

  Args:
    rows: parsed `.json` members.
    wanted: names and types of the columns; absent values become null.

  Returns:
    A batch of len(rows) rows; and the rows with a value that cannot be
    expressed in the wanted type.
  """
  arrays = []
  bad: columns_lib.BadValues = {}
  for field in wanted:
    array, bad_values = columns_lib.make_column(
      [row.get(field.name) for row in rows], field.type, field.name
    )
    arrays.append(array)
    bad |= bad_values
  return pa.RecordBatch.from_arrays(arrays, schema=wanted), bad
