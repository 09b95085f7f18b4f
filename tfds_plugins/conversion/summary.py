"""What a user reads when a conversion is over."""

from __future__ import annotations

import collections
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence

from tfds_plugins.conversion import receipts as receipts_lib
from tfds_plugins.sources import rows

_DAMAGE = (rows.TRUNCATED_SHARD, rows.CORRUPT_SHARD, rows.CORRUPT_RECORD)
_MAX_SHOWN_NAMES = 10


def count_skipped(
  receipts: Sequence[receipts_lib.ShardReceipt],
) -> dict[str, int]:
  """Returns the number of skipped rows by reason, the most frequent first."""
  return _add_up(receipt.skipped for receipt in receipts)


def _add_up(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
  """Adds counts up by reason, the highest first."""
  total: collections.Counter[str] = collections.Counter()
  for each in counts:
    total.update(each)
  return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))


def summarize(
  receipts: Sequence[receipts_lib.ShardReceipt],
  *,
  dataset: str,
  source_dir: str,
  notes: Sequence[str],
) -> str:
  """Returns the account of a conversion, ready to be printed.

  Args:
    receipts: those of all output shards.
    dataset: full name of the dataset.
    source_dir: where the source shards were found.
    notes: what else the user should know.
  """
  num_rows = sum(receipt.num_rows for receipt in receipts)
  num_examples = sum(receipt.num_examples for receipt in receipts)
  skipped = count_skipped(receipts)
  num_skipped = sum(skipped.values())
  lines = [
    f"{dataset}: {num_rows:,} rows in {source_dir}",
    f"  {num_examples:>15,}  examples in {len(receipts):,}"
    f" shard{'s' * (len(receipts) != 1)}",
    f"  {num_skipped:>15,}  skipped",
  ]
  lines += [f"  {count:>19,}  {reason}" for reason, count in skipped.items()]
  incomplete = _add_up(receipt.incomplete for receipt in receipts)
  if incomplete:
    lines.append(
      f"  {sum(incomplete.values()):>15,}  left out of examples (is_skipped is"
      " false)"
    )
  lines += [f"  {count:>19,}  {reason}" for reason, count in incomplete.items()]
  if num_skipped or incomplete:
    lines.append(
      f"  Every {'one of them' if incomplete else 'skipped row'} is in"
      f" {receipts_lib.LEDGER_FILENAME}."
    )
  lines += _list_missing_columns(receipts)
  damaged = [
    part.shard.name
    for receipt in receipts
    if any(reason in receipt.skipped for reason in _DAMAGE)
    for part in receipt.sources
  ]
  if damaged:
    shown = ", ".join(damaged[:_MAX_SHOWN_NAMES])
    more = ", ..." if len(damaged) > _MAX_SHOWN_NAMES else ""
    lines.append(
      f"  Note: rows were lost to damaged shards: {shown}{more}. Downloaded again,"
      " they would give more examples."
    )
  lines += [f"  Note: {note}" for note in notes]
  return "\n".join(lines)


def _list_missing_columns(
  receipts: Sequence[receipts_lib.ShardReceipt],
) -> list[str]:
  """Names the columns that the source does not have, each once."""
  num_lacking: collections.Counter[str] = collections.Counter()
  for receipt in receipts:
    num_lacking.update(receipt.missing_columns)
  names: dict[int, list[str]] = {}
  for column, count in sorted(num_lacking.items()):
    names.setdefault(count, []).append(f"'{column}'")
  return [
    f"  Note: the source has no column{'s' * (len(columns) > 1)}"
    f" {', '.join(columns)} in {count:,} of"
    f" {len(receipts):,} shards; there, features have the value that stands for"
    " a missing one."
    for count, columns in sorted(names.items())
  ]
