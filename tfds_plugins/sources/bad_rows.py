"""Leaving rows out of a batch, with the reason for each."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from tfds_plugins.sources.rows import KEY_COLUMN
from tfds_plugins.sources.rows import SkippedRow


def leave_out(
  rows: pa.RecordBatch,
  bad: Mapping[int, tuple[str, str]],
  source_shard: str,
) -> tuple[pa.RecordBatch, list[SkippedRow]]:
  """Leaves rows out.

  Args:
    rows: has the column `key`.
    bad: by row number the reason for leaving it out, and a detail.
    source_shard: the name of the shard that the rows are of.

  Returns:
    The rows that are left, and the others in their order.
  """
  if not bad:
    return rows, []
  keys = rows.column(KEY_COLUMN)
  skipped = [
    SkippedRow(
      source_shard=source_shard,
      key=keys[i].as_py(),
      reason=reason,
      detail=detail,
    )
    for i, (reason, detail) in sorted(bad.items())
  ]
  is_good = pa.array([i not in bad for i in range(rows.num_rows)])
  return rows.filter(is_good), skipped
