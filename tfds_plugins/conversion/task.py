"""One task: some source rows in, one output shard and its receipt out."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import dataclasses
import errno
import functools
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
from tfds_plugins.sources import folders
from tfds_plugins.sources.rows import KEY_COLUMN
from tfds_plugins.sources.rows import IncompleteRow
from tfds_plugins.sources.rows import LedgerEntry
from tfds_plugins.sources.rows import SourceBatch
from tfds_plugins.sources.rows import SourceSlice

_RECORDS_SUFFIX = "records"
_LEDGER_SUFFIX = "skipped"
RECEIPT_SUFFIX = "receipt"
_PROBLEM_SUFFIX = "problem"
# Of the files that a task leaves behind.
SUFFIXES = (_RECORDS_SUFFIX, _LEDGER_SUFFIX, RECEIPT_SUFFIX, _PROBLEM_SUFFIX)
_WHAT_FAILED = {
  errno.ENOSPC: "The disk is full.",
  errno.EDQUOT: "The disk quota is used up.",
  errno.EROFS: "The folder cannot be written to.",
  errno.EACCES: "A file or folder may not be read or written.",
  errno.ENOENT: "A file or folder is no longer there.",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
  """The unit of work. The same task gives the same bytes whoever runs it.

  Attributes:
    recipe: how rows become examples.
    sources: the parts of source shards to convert, in order.
    split: name of the split.
    shard_index: the output shard's number.
    fingerprint: stands for all that the bytes depend on, see `fingerprints.py`.
    work_dir: the folder to write to.
    file_format: value of a `tfds.core.FileFormat`.
    max_examples: stop after so many examples; None for all.
  """

  recipe: Recipe
  sources: Sequence[SourceSlice]
  split: str
  shard_index: int
  fingerprint: str
  work_dir: str
  file_format: str
  max_examples: int | None = None

  @property
  def output_path(self) -> epath.Path:
    """The record file to write."""
    return self._get_path(_RECORDS_SUFFIX)

  @property
  def ledger_path(self) -> epath.Path:
    """The skip ledger to write; no file if nothing was skipped."""
    return self._get_path(_LEDGER_SUFFIX)

  @property
  def receipt_path(self) -> epath.Path:
    """The receipt. Once it is there, the other two are complete."""
    return self._get_path(RECEIPT_SUFFIX)

  @property
  def problem_path(self) -> epath.Path:
    """What is wrong with the source, written where nobody waits for an error."""
    return self._get_path(_PROBLEM_SUFFIX)

  def _get_path(self, suffix: str) -> epath.Path:
    name = f"{self.split}-{self.fingerprint}.{suffix}"
    return epath.Path(self.work_dir) / name


def limit(task: Task, max_examples: int) -> Task:
  """Returns a task that stops after so many examples."""
  return dataclasses.replace(
    task,
    max_examples=max_examples,
    fingerprint=f"{task.fingerprint}-{max_examples}",
  )


def describe_sources(tasks: Sequence[Task]) -> str:
  """Returns the names of the source shards of some tasks."""
  names = {part.shard.name: None for task in tasks for part in task.sources}
  return folders.shorten(list(names))


def is_leftover(name: str) -> bool:
  """Whether a file of this name is of no use to another build."""
  return folders.INCOMPLETE_INFIX in name or name.endswith(
    f".{_PROBLEM_SUFFIX}"
  )


def run_task(task: Task) -> receipts.ShardReceipt:
  """Converts the rows of a task, unless that has been done.

  Files are written under names of their own and renamed when complete, the
  receipt as the last.

  Args:
    task: what to convert.

  Returns:
    The receipt, with its counts checked.

  Raises:
    errors.SourceError: a source shard is not what its format promises, or has
      changed.
    errors.ConversionError: the counts do not agree, or a file could not be
      read or written.
  """
  known = find_receipt(task)
  if known is not None:
    return known
  suffix = f"{folders.INCOMPLETE_INFIX}{uuid.uuid4().hex}"
  ledger_path, output_path, receipt_path = (
    path.with_name(path.name + suffix)
    for path in (task.ledger_path, task.output_path, task.receipt_path)
  )
  with contextlib.ExitStack() as stack:
    for path in (ledger_path, output_path, receipt_path):
      stack.callback(path.unlink, missing_ok=True)
    try:
      with receipts.LedgerWriter(ledger_path) as ledger:
        converter = _Converter(task, ledger)
        record_files.write_records(
          output_path, task.file_format, converter.iter_records()
        )
      _check_unchanged(task)
      file_bytes, _ = folders.get_identity(output_path)
      receipt = converter.make_receipt(file_bytes)
      receipt.check()
      receipt_path.write_text(receipt.to_json())
      if receipt.has_ledger:
        ledger_path.replace(task.ledger_path)
      output_path.replace(task.output_path)
      receipt_path.replace(task.receipt_path)
    except OSError as e:
      raise _file_error(task, e) from e
  return receipt


def find_receipt(task: Task) -> receipts.ShardReceipt | None:
  """Returns the receipt of a task that has been run; None if it has not.

  What a power cut has left behind is found by the sizes of the files: a file
  system has written the content of a file before it tells its size.
  """
  try:
    receipt = receipts.ShardReceipt.from_json(task.receipt_path.read_text())
    if receipt.fingerprint != task.fingerprint:
      return None
    if folders.get_identity(task.output_path)[0] != receipt.file_bytes:
      return None
    if receipt.has_ledger:
      num_rows = receipts.count_ledger_rows(task.ledger_path)
      if num_rows != receipt.num_ledger_rows:
        return None
  except (OSError, ValueError):  # (Arrow's errors are ValueErrors.)
    return None
  return dataclasses.replace(
    receipt,
    split=task.split,
    shard_index=task.shard_index,
    sources=task.sources,
  )


def _check_unchanged(task: Task) -> None:
  """Checks that the source is in the state that it was planned in."""
  for part in task.sources:
    shard = part.shard
    if shard.has_changed():
      problem = errors.Problem(
        what="A source shard has changed while it was converted.",
        where=f"source shard {shard.name}: {', '.join(shard.list_paths())}",
        expected="the files as they were when the build began",
        found="another size or time of one of them, or that it is gone",
        to_do=(
          "Wait until nothing writes to it any more, and build again: all other"
          " shards that have been converted are kept."
        ),
      )
      raise errors.SourceError(str(problem))


def _file_error(task: Task, error: OSError) -> errors.ConversionError:
  names = ", ".join(part.shard.name for part in task.sources)
  problem = errors.Problem(
    what=_WHAT_FAILED.get(
      error.errno or 0, "A file could not be read or written."
    ),
    where=f"source shard {names}, to be written to {task.work_dir}",
    expected="to read the one and to write the other",
    found=f"{type(error).__name__}: {error}",
    to_do=(
      "See to the disk (space, permissions, cables), and build again: what has"
      " been converted is kept."
    ),
  )
  return errors.ConversionError(str(problem))


@functools.lru_cache(maxsize=1)
def _get_encoder(
  specs: tuple[tf_example.FeatureSpec, ...],
) -> tf_example.ExampleEncoder:
  """Returns an encoder, whose tables take longer to make than a small shard."""
  return tf_example.ExampleEncoder(specs)


class _Converter:
  """Walks a task's rows and keeps the accounts."""

  def __init__(self, task: Task, ledger: receipts.LedgerWriter):
    self._task = task
    self._ledger = ledger
    self._encoder = _get_encoder(tuple(task.recipe.specs))
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

  def make_receipt(self, file_bytes: int) -> receipts.ShardReceipt:
    """Returns the accounts, given the size of the record file."""
    return receipts.ShardReceipt(
      split=self._task.split,
      shard_index=self._task.shard_index,
      sources=self._task.sources,
      num_rows=self._num_rows,
      num_examples=self._num_examples,
      skipped=dict(sorted(self._skipped.items())),
      incomplete=dict(sorted(self._incomplete.items())),
      num_bytes=self._num_bytes,
      file_bytes=file_bytes,
      fingerprint=self._task.fingerprint,
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
