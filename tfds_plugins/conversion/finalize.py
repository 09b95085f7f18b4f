"""Turns the receipts of all tasks into a dataset that TFDS knows."""

from __future__ import annotations

import collections
from collections.abc import Sequence

from etils import epath
import pyarrow.compute as pc
from tensorflow_datasets.core import naming
from tensorflow_datasets.core import splits as splits_lib

from tfds_plugins import errors
from tfds_plugins.conversion import plan
from tfds_plugins.conversion import receipts as receipts_lib
from tfds_plugins.conversion import summary
from tfds_plugins.conversion import work_dir
from tfds_plugins.conversion.task import Task
from tfds_plugins.sources.rows import SourceShard

# Of each reason for skipping rows, when nothing but skipped rows is left.
_NUM_SHOWN_ROWS = 3
_MAX_SHOWN_CHARACTERS = 300


def finalize_split(
  tasks: Sequence[Task],
  receipts: Sequence[receipts_lib.ShardReceipt],
  filename_template: naming.ShardedFileTemplate,
  shards: Sequence[SourceShard] | None = None,
  *,
  may_be_empty: bool = False,
) -> splits_lib.SplitInfo | None:
  """Checks the accounts and puts the output shards under their final names.

  Args:
    tasks: the tasks of one split that were run, in order.
    receipts: their receipts, in the same order.
    filename_template: TFDS's names for the split's files.
    shards: the source shards of the split, in order, where all of them were to
      be converted; None where only the first examples were.
    may_be_empty: whether the split may be without examples. TFDS has no such
      splits: its files are left where they are.

  Returns:
    What TFDS needs to know of the split; None if it has no examples.

  Raises:
    errors.ConversionError: the accounts do not agree, or there is not a single
      example where there has to be one.
  """
  for task, receipt in zip(tasks, receipts, strict=True):
    receipt.check()
    if task.shard_index != receipt.shard_index:
      raise errors.ConversionError(
        f"Output shard {task.shard_index} has the receipt of shard"
        f" {receipt.shard_index}."
      )
    if list(task.sources) != list(receipt.sources):
      raise errors.ConversionError(
        f"The receipt of output shard {task.shard_index} is for other parts of"
        " the source than its task was."
      )
  if shards is not None:
    plan.check_complete(
      shards, (part for receipt in receipts for part in receipt.sources)
    )
  lengths = [receipt.num_examples for receipt in receipts]
  if not sum(lengths):
    if may_be_empty:
      return None
    raise _no_examples_error(tasks, receipts)
  work_dir.give_all(
    [
      (
        task.output_path,
        filename_template.sharded_filepath(
          shard_index=task.shard_index, num_shards=len(tasks)
        ),
      )
      for task in tasks
    ]
  )
  return splits_lib.SplitInfo(
    name=tasks[0].split,
    shard_lengths=lengths,
    num_bytes=sum(receipt.num_bytes for receipt in receipts),
    filename_template=filename_template,
  )


def write_accounts(
  data_dir: epath.Path,
  tasks: Sequence[Task],
  receipts: Sequence[receipts_lib.ShardReceipt],
) -> None:
  """Writes the receipts and the skip ledger of all splits.

  Args:
    data_dir: where the dataset is prepared.
    tasks: the tasks of all splits, in order.
    receipts: their receipts, in the same order.
  """
  with receipts_lib.LedgerWriter(
    data_dir / receipts_lib.LEDGER_FILENAME
  ) as ledger:
    for task, receipt in zip(tasks, receipts, strict=True):
      if receipt.has_ledger:
        for batch in receipts_lib.iter_ledger(task.ledger_path):
          ledger.add_batch(batch)
  lines = "".join(receipt.to_json() + "\n" for receipt in receipts)
  (data_dir / receipts_lib.RECEIPTS_FILENAME).write_text(lines)


def _no_examples_error(
  tasks: Sequence[Task], receipts: Sequence[receipts_lib.ShardReceipt]
) -> errors.ConversionError:
  """Says why: the ledgers, which would, are deleted with the rest."""
  counts = summary.count_skipped(receipts)
  shown = _find_skipped(tasks, receipts)
  lines = []
  for reason, count in counts.items():
    lines.append(f"{count:,} {reason}, such as")
    lines += [f"    {row}" for row in shown[reason]]
  problem = errors.Problem(
    what="Not one row of the source became an example.",
    where=f"split '{tasks[0].split}', {len(receipts):,} output shards",
    expected="at least one row that can be used",
    found="\n      ".join(["skipped rows alone", *lines])
    if counts
    else "no rows at all",
    to_do=(
      "Mend what the rows above have in common, and build again. Nothing of"
      " this build is kept."
      if counts
      else "Give a source that has rows."
    ),
  )
  return errors.ConversionError(str(problem))


def _find_skipped(
  tasks: Sequence[Task], receipts: Sequence[receipts_lib.ShardReceipt]
) -> dict[str, list[str]]:
  """Describes the first skipped rows of each reason, reading no others."""
  wanted = {
    reason: min(count, _NUM_SHOWN_ROWS)
    for reason, count in summary.count_skipped(receipts).items()
  }
  found: dict[str, list[str]] = collections.defaultdict(list)
  for task, receipt in zip(tasks, receipts, strict=True):
    lacking = {
      reason
      for reason in receipt.skipped
      if len(found[reason]) < wanted[reason]
    }
    if not lacking:
      continue
    for batch in receipts_lib.iter_ledger(task.ledger_path):
      for reason in sorted(lacking):
        rows = batch.filter(pc.equal(batch.column("reason"), reason))
        num_lacking = wanted[reason] - len(found[reason])
        found[reason] += map(_describe, rows.slice(0, num_lacking).to_pylist())
        if len(found[reason]) == wanted[reason]:
          lacking.remove(reason)
      if not lacking:
        break
  return found


def _describe(row: dict[str, str]) -> str:
  detail = row["detail"]
  if len(detail) > _MAX_SHOWN_CHARACTERS:
    detail = f"{detail[:_MAX_SHOWN_CHARACTERS]}..."
  where = f"source shard {row['source_shard']}, key '{row['key']}'"
  return f"{where}: {detail}" if detail else where
