"""One task: some source rows in, one output shard and its receipt out."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import dataclasses
import uuid

from etils import epath
import pyarrow as pa

from tfds_plugins import errors
from tfds_plugins.conversion import receipts
from tfds_plugins.conversion.recipe import Recipe
from tfds_plugins.encoding import images
from tfds_plugins.encoding import record_files
from tfds_plugins.encoding import tf_example
from tfds_plugins.encoding.records import Records
from tfds_plugins.sources import bad_rows
from tfds_plugins.sources.rows import KEY_COLUMN
from tfds_plugins.sources.rows import IncompleteRow
from tfds_plugins.sources.rows import LedgerEntry
from tfds_plugins.sources.rows import SourceBatch
from tfds_plugins.sources.rows import SourceSlice


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
  """The unit of work. The same task gives the same bytes whoever runs it.

  Attributes:
    recipe: how rows become examples.
    sources: the parts of source shards to convert, in order.
    split: name of the split.
    shard_index: the output shard's number.
    output_path: the record file to write.
    ledger_path: the skip ledger to write; no file if nothing was skipped.
    file_format: value of a `tfds.core.FileFormat`.
    max_examples: stop after so many examples; None for all.
  """

  recipe: Recipe
  sources: Sequence[SourceSlice]
  split: str
  shard_index: int
  output_path: str
  ledger_path: str
  file_format: str
  max_examples: int | None = None


def run_task(task: Task) -> receipts.ShardReceipt:
  """Converts the rows of a task.

  Files are written under a name of their own and renamed when complete.

  Args:
    task: what to convert.

  Returns:
    The receipt, with its counts checked.

  Raises:
    errors.SourceError: a source shard is not what its format promises.
    errors.ConversionError: the counts do not agree, or a file could not be
      read or written.
  """
  output_path = epath.Path(task.output_path)
  ledger_path = epath.Path(task.ledger_path)
  suffix = f".incomplete.{uuid.uuid4().hex}"
  partial_output = output_path.with_name(output_path.name + suffix)
  partial_ledger = ledger_path.with_name(ledger_path.name + suffix)
  with contextlib.ExitStack() as stack:
    stack.callback(partial_output.unlink, missing_ok=True)
    stack.callback(partial_ledger.unlink, missing_ok=True)
    try:
      with receipts.LedgerWriter(partial_ledger) as ledger:
        converter = _Converter(task, ledger)
        record_files.write_records(
          partial_output, task.file_format, converter.iter_records()
        )
      receipt = converter.make_receipt()
      receipt.check()
      if receipt.has_ledger:
        partial_ledger.replace(ledger_path)
      partial_output.replace(output_path)
    except OSError as e:
      raise _file_error(task, e) from e
  return receipt


def _file_error(task: Task, error: OSError) -> errors.ConversionError:
  names = ", ".join(part.shard.name for part in task.sources)
  problem = errors.Problem(
    what="A file could not be read or written.",
    where=f"source shard {names}, to be written to {task.output_path}",
    expected="to read the one and to write the other",
    found=f"{type(error).__name__}: {error}",
    to_do="See to the disk (space, permissions, cables), and build again.",
  )
  return errors.ConversionError(str(problem))


class _Converter:
  """Walks a task's rows and keeps the accounts."""

  def __init__(self, task: Task, ledger: receipts.LedgerWriter):
    self._task = task
    self._ledger = ledger
    self._encoder = tf_example.ExampleEncoder(task.recipe.specs)
    # A task of its own each time: what it decides may not depend on which
    # tasks the same process ran before.
    self._normalizer = images.ImageNormalizer(
      trusts_png_checksums=task.recipe.trusts_png_checksums
    )
    self._num_rows = 0
    self._num_examples = 0
    self._num_bytes = 0
    self._skipped: collections.Counter[str] = collections.Counter()
    self._incomplete: collections.Counter[str] = collections.Counter()
    self._missing_columns: set[str] = set()

  def iter_records(self) -> Iterator[Records]:
    """Yields the serialized examples, many at a time."""
    for part in self._task.sources:
      for batch in self._task.recipe.read(part, self._task.recipe.columns):
        yield from self._iter_batch(batch, part.shard.name)
        if self._num_examples == self._task.max_examples:
          return

  def make_receipt(self) -> receipts.ShardReceipt:
    """Returns the accounts."""
    return receipts.ShardReceipt(
      split=self._task.split,
      shard_index=self._task.shard_index,
      sources=self._task.sources,
      num_rows=self._num_rows,
      num_examples=self._num_examples,
      skipped=dict(sorted(self._skipped.items())),
      incomplete=dict(sorted(self._incomplete.items())),
      num_bytes=self._num_bytes,
      missing_columns=sorted(self._missing_columns),
    )

  def _iter_batch(self, batch: SourceBatch, name: str) -> Iterator[Records]:
    rows = batch.rows
    skipped = list(batch.skipped)
    incomplete = list(batch.incomplete)
    num_rows = batch.num_rows
    if rows.num_rows:
      self._missing_columns |= self._find_missing(batch)
    if self._task.recipe.find_bad_rows is not None:
      bad = self._task.recipe.find_bad_rows(rows)
      rows, rejected = bad_rows.leave_out(rows, bad, name)
      skipped += rejected
    if self._task.recipe.has_images:
      rows, rejected = images.make_uniform(rows, self._normalizer, name)
      skipped += rejected
    for column, others in self._task.recipe.image_lists.items():
      rows, lacking = images.make_lists_uniform(
        rows, self._normalizer, name, column, others
      )
      incomplete += lacking
    if self._task.max_examples is not None:
      left = self._task.max_examples - self._num_examples
      num_rows -= max(0, rows.num_rows - left)
      rows = rows.slice(0, left)
    self._num_rows += num_rows
    self._skipped.update(row.reason for row in skipped)
    self._add_to_ledger(skipped)
    incomplete = _select(incomplete, rows)
    self._incomplete.update(row.reason for row in incomplete)
    self._add_to_ledger(incomplete)
    features = self._task.recipe.map_batch(rows)
    for records in self._encoder.encode(features):
      self._num_examples += len(records)
      self._num_bytes += records.num_bytes
      yield records

  def _find_missing(self, batch: SourceBatch) -> set[str]:
    """Returns the columns whose features have no values in this batch."""
    missing = set(batch.missing_columns)
    for column, stand_in in self._task.recipe.stand_ins.items():
      if {column, stand_in} <= missing:
        missing.remove(stand_in)
      else:
        missing -= {column, stand_in}
    return missing

  def _add_to_ledger(self, rows: Sequence[LedgerEntry]) -> None:
    self._ledger.add(rows, self._task.split)


def _select(
  incomplete: Sequence[IncompleteRow], rows: pa.RecordBatch
) -> list[IncompleteRow]:
  """Leaves out what is said of rows that have been skipped since."""
  if not incomplete:
    return []
  keys = set(rows.column(KEY_COLUMN).to_pylist())
  return [row for row in incomplete if row.key in keys]
