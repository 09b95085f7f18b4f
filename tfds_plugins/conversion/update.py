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

from tfds_plugins import errors
from tfds_plugins.conversion import receipts as receipts_lib
from tfds_plugins.conversion import source_shards
from tfds_plugins.conversion import work_dir
from tfds_plugins.conversion.receipts import ShardReceipt
from tfds_plugins.conversion.task import Task
from tfds_plugins.sources import folders
from tfds_plugins.sources.rows import SourceShard
from tfds_plugins.sources.rows import SourceSlice


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kept:
  """What a dataset has that is added to.

  Attributes:
    tasks: the tasks of its output shards, by split.
    states: the states of its source shards, by split.
  """

  tasks: Mapping[str, Sequence[Task]]
  states: source_shards.States


def read_receipts(data_dir: epath.Path) -> list[ShardReceipt]:
  """Returns the receipts of a prepared dataset, in order.

  Raises:
    errors.ConversionError: there are none, or they are damaged.
  """
  path = data_dir / receipts_lib.RECEIPTS_FILENAME
  try:
    return list(map(ShardReceipt.from_json, path.read_text().splitlines()))
  except (OSError, ValueError) as e:
    raise _damaged(path, f"{type(e).__name__}: {e}") from e


def adopt(
  data_dir: epath.Path,
  record_paths: Mapping[str, Sequence[epath.Path]],
  make_task: Callable[[ShardReceipt], Task],
) -> dict[str, list[Task]]:
  """Makes the output shards of a prepared dataset the results of tasks.

  They are linked to, where the file system has links, and copied else.

  Args:
    data_dir: where the dataset is prepared.
    record_paths: the record files of each split, in order. A split without
      examples has none, and nothing of it is adopted.
    make_task: returns the task that would have given a receipt.

  Returns:
    The tasks of each split, in order.

  Raises:
    errors.ConversionError: the dataset is damaged.
  """
  ledger = _LedgerReader(data_dir / receipts_lib.LEDGER_FILENAME)
  adopted: dict[str, list[Task]] = {split: [] for split in record_paths}
  for receipt in read_receipts(data_dir):
    rows = ledger.take(receipt.num_ledger_rows)
    if receipt.split not in record_paths:
      continue
    task = make_task(receipt)
    path = record_paths[receipt.split][receipt.shard_index]
    size_bytes = folders.get_size(path)
    if size_bytes != receipt.file_bytes:
      found = f"{size_bytes:,} bytes instead of {receipt.file_bytes:,}"
      raise _damaged(path, found)
    work_dir.lend(path, task.output_path)
    if receipt.has_ledger:
      with receipts_lib.LedgerWriter(task.ledger_path) as writer:
        for batch in rows:
          writer.add_batch(batch)
    task.receipt_path.write_text(receipt.to_json())
    adopted[receipt.split].append(task)
  return adopted


def _damaged(path: epath.Path, found: str) -> errors.ConversionError:
  problem = errors.Problem(
    what="The dataset that is to be updated is damaged.",
    where=str(path),
    expected="the files as they were when the dataset was prepared",
    found=found,
    to_do="Build it again, with --overwrite.",
  )
  return errors.ConversionError(str(problem))


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
    self._path = path
    self._batches = receipts_lib.iter_ledger(path)
    self._left: pa.RecordBatch | None = None

  def take(self, num_rows: int) -> list[pa.RecordBatch]:
    """Returns the next rows."""
    taken = []
    while num_rows:
      batch = self._left
      if batch is None:
        batch = next(self._batches, None)
      if batch is None:
        raise _damaged(self._path, "fewer rows than the receipts tell of")
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
    All tasks, their output shards numbered anew. Where the parts of a source shard
    lie in several of them, nothing comes in between.
  """
  added: dict[str, list[Task]] = {}
  for task in new:
    name = next(iter(_get_names(task)), "")  # An empty one has no part.
    added.setdefault(name, []).append(task)
  # Of each source shard the place behind all of its parts.
  ends: dict[str, int] = {}
  for i, task in enumerate(kept, start=1):
    for name in _get_names(task):
      ends[name] = i
  merged: list[Task] = []
  num_taken = 0
  for name in order:
    stop = ends.get(name, 0)
    while stop > num_taken:  # What begins in the last of them may end later.
      merged += kept[num_taken:stop]
      num_taken = stop
      stop = max(map(ends.__getitem__, _get_names(kept[stop - 1])), default=0)
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


def _get_names(task: Task) -> list[str]:
  return [part.shard.name for part in task.sources]
