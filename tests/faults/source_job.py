"""Converts damaged sources as a build does, and checks what comes of them.

Shards are found, checked and planned, and every task is run; what TFDS does
before and afterwards is left out, for it takes a hundred times as long.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import pathlib
import shutil
import uuid

from example_records import parse_example
from example_records import read_records
from fault_cases import Case
from fault_cases import Example
from fault_cases import Identities
from fault_cases import identify
from fault_cases import identify_negatives
from fault_run import Recorder
from mutations import Mutation
import pyarrow.parquet as pq

from tfds_plugins import errors
from tfds_plugins.conversion import plan
from tfds_plugins.conversion import task as task_lib
from tfds_plugins.conversion.receipts import ShardReceipt
from tfds_plugins.sources import tar
from tfds_plugins.sources.rows import Source

_SHARD_BYTES = 1 << 30
# Damage after which what is left of the file shows that something is missing.
_SHOWS = ("truncate", "flip", "zero", "overwrite")

_Converted = Sequence[tuple[ShardReceipt, task_lib.Task]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceJob:
  """Inputs of one case.

  Attributes:
    case: the source.
    inputs: a file of the case and how it is damaged.
  """

  case: Case
  inputs: Sequence[tuple[str, Mutation]]

  @property
  def num_inputs(self) -> int:
    return len(self.inputs)

  def describe(self, number: int) -> str:
    file, mutation = self.inputs[number]
    return f"{self.case.name}, {file}, {mutation}"

  def make_runner(
    self, work_dir: pathlib.Path, recorder: Recorder
  ) -> SourceRunner:
    return SourceRunner(self, work_dir, recorder)


def convert(
  case: Case,
  sources: Mapping[str, Source],
  folder: pathlib.Path,
  *,
  num_shards: int | None = None,
) -> _Converted:
  """Plans and runs the tasks of some sources.

  Args:
    case: has the recipe.
    sources: by split.
    folder: where the outputs go.
    num_shards: as `DownloadConfig.num_shards`.
  """
  tasks = [
    task_lib.Task(
      recipe=case.recipe,
      sources=slices,
      split=split,
      shard_index=i,
      # (What another input has left behind is not to be gone on with.)
      fingerprint=uuid.uuid4().hex,
      work_dir=str(folder),
      file_format="tfrecord",
    )
    for split, source in sources.items()
    for i, slices in enumerate(
      plan.plan_output_shards(
        source.shards, num_shards=num_shards, max_shard_bytes=_SHARD_BYTES
      )
    )
  ]
  return [(task_lib.run_task(task), task) for task in tasks]


class SourceRunner:
  """Runs inputs and compares what comes of them with what is right."""

  def __init__(
    self, job: SourceJob, work_dir: pathlib.Path, recorder: Recorder
  ):
    """Converts the undamaged source, by which the others are measured."""
    self._job = job
    self._case = case = job.case
    self._recorder = recorder
    self._out_dir = work_dir / "out"
    self._originals = {
      file: (case.folder / file).read_bytes() for file in case.files
    }
    self._images = set(case.images.values())
    converted = self._convert(None)
    self._num_rows = sum(receipt.num_rows for receipt, _ in converted)
    assert case.num_rows in (None, self._num_rows)
    self._right = collections.Counter(_read_all(converted))
    assert self._right
    # By row, what does not say anything of the image.
    self._right_rows: dict[int, Example] = {}
    for record in self._right:
      example = parse_example(record)
      found = identify(case, example)
      assert len(set(found.values())) == 1, found
      assert len(found) > 1, found
      self._right_rows[found.popitem()[1]] = _leave_out_images(example)

  def run(self, number: int) -> str:
    """Returns `right`, `fewer`, `changed` (examples) or `refused`."""
    file, mutation = self._job.inputs[number]
    path = self._case.folder / file
    path.write_bytes(mutation.apply(self._originals[file]))
    try:
      return self._run(path, mutation, 3 if number % 4 == 3 else None)
    finally:
      path.write_bytes(self._originals[file])

  def _run(
    self, path: pathlib.Path, mutation: Mutation, num_shards: int | None
  ) -> str:
    try:
      converted = self._convert(num_shards)
    except errors.TfdsPluginsError as e:
      self._check_refusal(str(e), path)
      return "refused"
    self._check_accounts(converted, path, mutation)
    records = list(_read_all(converted))
    self._recorder.report.num_examples += len(records)
    changed = [record for record in records if record not in self._right]
    for record in changed:
      self._check_changed(record, path, mutation)
    again = collections.Counter(records) - self._right
    if self._case.count_rows is None:
      assert not any(r in self._right for r in again), "examples come twice"
    if changed:
      return "changed"
    return "right" if len(records) == self._right.total() else "fewer"

  def _convert(self, num_shards: int | None) -> _Converted:
    shutil.rmtree(self._out_dir, ignore_errors=True)
    self._out_dir.mkdir()
    sources = self._case.find(self._out_dir)
    return convert(self._case, sources, self._out_dir, num_shards=num_shards)

  def _check_refusal(self, message: str, path: pathlib.Path) -> None:
    names = [str(path), *self._case.names]
    assert any(name in message for name in names), f"not named: {message}"
    assert "defect of tfds_plugins" not in message, message
    leftovers = list(self._out_dir.glob("*.incomplete.*"))
    assert not leftovers, leftovers

  def _check_accounts(
    self, converted: _Converted, path: pathlib.Path, mutation: Mutation
  ) -> None:
    num_rows = num_skipped = 0
    for receipt, task in converted:
      assert receipt.num_rows == receipt.num_examples + receipt.num_skipped
      num_rows += receipt.num_rows
      num_skipped += receipt.num_skipped
      ledger = []
      if receipt.has_ledger:
        ledger = pq.read_table(task.ledger_path).to_pylist()
      reasons = collections.Counter(
        row["reason"] for row in ledger if row["is_skipped"]
      )
      assert dict(reasons) == dict(receipt.skipped)
      records = read_records(task.output_path)
      assert sum(1 for _ in records) == receipt.num_examples
    expected = self._case.num_rows
    if self._case.count_rows is not None:
      expected = self._case.count_rows(path)
    if expected is not None:
      # (A sample whose key is forged is one more than the parquet knows of.)
      most = num_rows if mutation.is_forged else expected
      assert expected <= num_rows <= most, f"{num_rows} rows of {expected}"
    elif (
      self._case.has_end
      and mutation.kind in _SHOWS
      and num_rows < self._num_rows
      # (With zeros up to its end, a tar is a shorter one.)
      and not self._is_start(path)
    ):
      assert num_skipped, f"{num_rows} rows of {self._num_rows}, none skipped"

  def _is_start(self, path: pathlib.Path) -> bool:
    """Whether a file is what it was, up to where it has only zeros."""
    original = self._originals[str(path.relative_to(self._case.folder))]
    start = path.read_bytes().rstrip(b"\0")
    num_blocks = -(-len(start) // tar.BLOCK_BYTES)
    return original[: num_blocks * tar.BLOCK_BYTES].rstrip(b"\0") == start

  def _check_changed(
    self, record: bytes, path: pathlib.Path, mutation: Mutation
  ) -> None:
    """Checks that an example which is not as before is of one row alone."""
    assert not self._case.is_exact, "an example has changed"
    example = parse_example(record)
    # (Who trusts checksums cannot know that they were forged.)
    if not (mutation.is_forged and self._case.recipe.trusts_png_checksums):
      for name in ("image", "neg_images"):
        for image in set(example.get(name, ())) - self._images:
          self._recorder.add_image(image)
    found = identify(self._case, example)
    if len(found) < 2:
      self._recorder.report.num_unclear += 1
    pairs: list[Identities] | None = None
    for each in (found, *identify_negatives(self._case, example)):
      if len(set(each.values())) <= 1:
        continue
      if pairs is None:
        list_pairs = self._case.list_pairs
        pairs = [] if list_pairs is None else list_pairs(self._case, path)
      is_said = any(
        all(pair.get(name, value) == value for name, value in each.items())
        for pair in pairs
      )
      assert is_said, f"a wrong pair: {each}"
    if mutation.kind == "truncate" and found:
      number = next(iter(found.values()))
      assert _leave_out_images(example) == self._right_rows[number], found


def _read_all(converted: _Converted) -> Iterator[bytes]:
  for _, task in converted:
    yield from read_records(task.output_path)


def _leave_out_images(example: Example) -> Example:
  lists = ("image", "neg_images", "neg_chunk_paths")
  return {k: v for k, v in example.items() if k not in lists}
