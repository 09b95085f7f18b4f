"""Adds to a dataset that is prepared, and keeps what it has."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import itertools

from etils import epath
import pyarrow as pa

from tfds_plugins.conversion import receipts as receipts_lib
from tfds_plugins.conversion import work_dir
from tfds_plugins.conversion.receipts import ShardReceipt
from tfds_plugins.conversion.task import Task
from tfds_plugins.sources.rows import SourceShard
from tfds_plugins.sources.rows import SourceSlice


def read_receipts(data_dir: epath.Path) -> list[ShardReceipt]:
  """Returns the receipts of a prepared dataset, in order.

  Raises:
    ValueError: there are none, or they are damaged.
  """
  path = data_dir / receipts_lib.RECEIPTS_FILENAME
  try:
    lines = path.read_text().splitlines()
  except OSError as e:
    raise ValueError(f"{path} cannot be read") from e
  return list(map(ShardReceipt.from_json, lines))


def adopt(
  data_dir: epath.Path,
  receipts: Sequence[ShardReceipt],
  record_paths: Mapping[str, Sequence[epath.Path]],
  make_task: Callable[[ShardReceipt], Task],
) -> None:
  """Makes the output shards of a prepared dataset the results of tasks.

  They are linked to, where the file system has links, and copied else.

  Args:
    data_dir: where the dataset is prepared.
    receipts: all of its receipts, in order.
    record_paths: the record files of each split, in order. A split without
      examples has none, and nothing of it is adopted.
    make_task: returns the task that would have given a receipt.
  """
  ledger = _LedgerReader(data_dir / receipts_lib.LEDGER_FILENAME)
  for receipt in receipts:
    rows = ledger.take(receipt.num_ledger_rows)
    if receipt.split not in record_paths:
      continue
    task = make_task(receipt)
    work_dir.lend(
      record_paths[receipt.split][receipt.shard_index], task.output_path
    )
    if receipt.has_ledger:
      with receipts_lib.LedgerWriter(task.ledger_path) as writer:
        for batch in rows:
          writer.add_batch(batch)
    task.receipt_path.write_text(receipt.to_json())


def add_states(
  sources: Sequence[SourceSlice], states: Mapping[str, str]
) -> list[SourceSlice]:
  """Returns the parts of source shards of a receipt, with the shards' states."""
  return [
    dataclasses.replace(
      part,
      shard=dataclasses.replace(
        part.shard, state=states.get(part.shard.name, "")
      ),
    )
    for part in sources
  ]


class _LedgerReader:
  """Takes the rows of a skip ledger, one receipt's after the other's."""

  def __init__(self, path: epath.Path):
    self._batches = receipts_lib.iter_ledger(path)
    self._left: pa.RecordBatch | None = None

  def take(self, num_rows: int) -> list[pa.RecordBatch]:
    """Returns the next rows."""
    taken = []
    while num_rows:
      batch = self._left if self._left is not None else next(self._batches)
      taken.append(batch.slice(0, num_rows))
      num_rows -= taken[-1].num_rows
      rest = batch.slice(taken[-1].num_rows)
      self._left = rest if rest.num_rows else None
    return taken


def merge(
  kept: Sequence[Task], new: Sequence[Task], order: Sequence[str]
) -> list[Task]:
  """Puts new tasks where their source shards stand among the others.

  Args:
    kept: tasks of a prepared dataset, in order.
    new: tasks of source shards that it does not have, in order.
    order: the names of the source shards that there are now. Tasks of those
      that are gone stay behind what they come after.

  Returns:
    All tasks, their output shards numbered anew.
  """
  added: dict[str, list[Task]] = {}
  for task in new:
    added.setdefault(_get_name(task), []).append(task)
  last = {_get_name(task): i for i, task in enumerate(kept)}
  merged: list[Task] = []
  num_taken = 0
  for name in order:
    if name in last:
      stop = last[name] + 1
      merged += kept[num_taken:stop]
      num_taken = max(num_taken, stop)
    merged += added.pop(name, [])
  merged += kept[num_taken:]
  merged += itertools.chain.from_iterable(added.values())
  return [
    dataclasses.replace(task, shard_index=i) for i, task in enumerate(merged)
  ]


def list_shards(tasks: Sequence[Task]) -> list[SourceShard]:
  """Returns the source shards of tasks, each once, in order."""
  return list(_iter_distinct(tasks))


def _iter_distinct(tasks: Sequence[Task]) -> Iterator[SourceShard]:
  previous = None
  for task in tasks:
    for part in task.sources:
      if part.shard != previous:
        yield part.shard
        previous = part.shard


def _get_name(task: Task) -> str:
  return task.sources[0].shard.name if task.sources else ""
