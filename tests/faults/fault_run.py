"""Runs damaged inputs, one after the other, in a process that may die.

    python fault_run.py JOBS FIRST SECONDS

reads pickled jobs, and runs their inputs from number FIRST on; what came of them
is written beside it, as JSON. `run_jobs` starts it, and again behind an input
that ends the process. TensorFlow is not imported, so that the memory is that of
a worker.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
import dataclasses
import faulthandler
import json
import os
import pathlib
import pickle
import resource
import struct
import subprocess
import sys
import traceback
from typing import Protocol

import pyarrow as pa

_MAX_SECONDS = 20
MAX_MEMORY_BYTES = 1_000_000_000
_MAX_DEATHS = 5
_MAX_FAILURES = 20
_MAX_SHOWN_CHARACTERS = 1500
# What was found before a death is known but for the last inputs.
_INPUTS_PER_REPORT = 100
_IMAGE_HEAD = struct.Struct("<I")


class Runner(Protocol):
  """Runs the inputs of a job."""

  def run(self, number: int) -> str:
    """Runs an input and returns in a word what came of it; raises otherwise."""
    ...


class Job(Protocol):
  """Some inputs. Picklable."""

  @property
  def num_inputs(self) -> int:
    """How many there are."""
    ...

  def describe(self, number: int) -> str:
    """Returns what is needed to do an input again."""
    ...

  def make_runner(self, work_dir: pathlib.Path, recorder: Recorder) -> Runner:
    """Returns what runs them; called in the process that may die."""
    ...


@dataclasses.dataclass
class Report:
  """What came of inputs.

  Attributes:
    num_inputs: how many were run.
    outcomes: how often they came to what, in a word.
    failures: what should not have been, with the input.
    num_examples: how many there were in all.
    num_unclear: how many differ from the right ones so much that nothing tells
      of which row they are.
    memory_bytes: the most that the process had.
    largest: the input with which it grew to that.
    images: distinct images that came out and had not gone in.
  """

  num_inputs: int = 0
  outcomes: dict[str, int] = dataclasses.field(default_factory=dict)
  failures: list[str] = dataclasses.field(default_factory=list)
  num_examples: int = 0
  num_unclear: int = 0
  memory_bytes: int = 0
  largest: str = ""
  images: list[bytes] = dataclasses.field(default_factory=list)

  def add(self, other: Report) -> None:
    """Adds what came of other inputs."""
    outcomes = collections.Counter(self.outcomes)
    outcomes.update(other.outcomes)
    self.outcomes = dict(outcomes)
    self.num_inputs += other.num_inputs
    self.failures += other.failures
    self.num_examples += other.num_examples
    self.num_unclear += other.num_unclear
    self.images += other.images
    if other.memory_bytes > self.memory_bytes:
      self.memory_bytes = other.memory_bytes
      self.largest = other.largest


def run_jobs(
  jobs: Sequence[Job],
  work_dir: pathlib.Path,
  *,
  max_seconds: float = _MAX_SECONDS,
) -> Report:
  """Runs all inputs, in a process of their own.

  Args:
    jobs: what to run.
    work_dir: an empty folder.
    max_seconds: after which an input hangs.
  """
  path = work_dir / "jobs.pickle"
  path.write_bytes(pickle.dumps(jobs))
  names = [job.describe(i) for job in jobs for i in range(job.num_inputs)]
  report = Report()
  first = num_deaths = 0
  while first < len(names):
    result = subprocess.run(
      [sys.executable, __file__, str(path), str(first), str(max_seconds)],
      capture_output=True,
      text=True,
      errors="replace",
      check=False,
      env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    part = _read_report(work_dir)
    if result.returncode == 0:
      report.add(part)
      break
    number = int((work_dir / "progress").read_text() or -1)
    part.num_inputs = max(0, number + 1 - first)
    report.add(part)
    name = names[number] if number >= 0 else "before the first input"
    what = "hangs" if "Timeout (" in result.stderr else "ends the process"
    printed = result.stderr[-_MAX_SHOWN_CHARACTERS:]
    report.failures.append(f"{name}: {what} ({result.returncode}): {printed}")
    num_deaths += 1
    if number < 0 or num_deaths == _MAX_DEATHS:
      break
    first = number + 1
  return report


def _read_report(work_dir: pathlib.Path) -> Report:
  """Takes away what one process has written."""
  path = work_dir / "report.json"
  images_path = work_dir / "images"
  if not path.exists():
    return Report()
  report = Report(**json.loads(path.read_text()))
  data = images_path.read_bytes() if images_path.exists() else b""
  offset = 0
  while offset < len(data):
    (size,) = _IMAGE_HEAD.unpack_from(data, offset)
    offset += _IMAGE_HEAD.size + size
    report.images.append(data[offset - size : offset])
  path.unlink()
  images_path.unlink(missing_ok=True)
  return report


class Recorder:
  """Notes what comes of inputs, in the process that may die.

  Attributes:
    report: so far; its images are in a file of their own.
  """

  def __init__(self, work_dir: pathlib.Path):
    self.report = Report()
    self._work_dir = work_dir
    self._seen: set[bytes] = set()

  def add_image(self, image: bytes) -> None:
    """Notes an image that has come out."""
    if image not in self._seen:
      self._seen.add(image)
      with (self._work_dir / "images").open("ab") as file:
        file.write(_IMAGE_HEAD.pack(len(image)) + image)

  def run(self, runner: Runner, number: int, name: str) -> None:
    """Runs an input, called `name`."""
    report = self.report
    try:
      outcome = runner.run(number)
    except Exception:
      outcome = "failed"
      if len(report.failures) < _MAX_FAILURES:
        raised = traceback.format_exc()[-_MAX_SHOWN_CHARACTERS:]
        report.failures.append(f"{name}: {raised}")
    report.outcomes[outcome] = report.outcomes.get(outcome, 0) + 1
    report.num_inputs += 1
    memory_bytes = _measure_memory()
    # (And not the last one that took a page more.)
    if memory_bytes > 1.05 * report.memory_bytes:
      report.largest = name
    report.memory_bytes = memory_bytes

  def write(self) -> None:
    """Writes the report."""
    path = self._work_dir / "report.json"
    path.write_text(json.dumps(dataclasses.asdict(self.report)))


def _measure_memory() -> int:
  """Returns the most that this process has had in memory, in bytes.

  (`ru_maxrss` starts with what the parent has, which is much more.)
  """
  status = pathlib.Path("/proc/self/status")
  if not status.exists():
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
  (line,) = (x for x in status.read_text().splitlines() if "VmHWM" in x)
  return int(line.split()[1]) * 1024


def main(jobs_path: str, first: str, max_seconds: str) -> None:
  pa.set_cpu_count(1)
  work_dir = pathlib.Path(jobs_path).parent
  jobs = pickle.loads(pathlib.Path(jobs_path).read_bytes())
  recorder = Recorder(work_dir)
  number = 0
  with (work_dir / "progress").open("w", buffering=1) as progress:
    for job in jobs:
      start, number = number, number + job.num_inputs
      if number <= int(first):
        continue
      runner = job.make_runner(work_dir, recorder)
      for i in range(max(start, int(first)), number):
        progress.seek(0)
        progress.write(f"{i}\n")
        faulthandler.dump_traceback_later(float(max_seconds), exit=True)
        recorder.run(runner, i - start, job.describe(i - start))
        if i % _INPUTS_PER_REPORT == 0:
          recorder.write()
      faulthandler.cancel_dump_traceback_later()
  assert "tensorflow" not in sys.modules
  recorder.write()


if __name__ == "__main__":
  main(*sys.argv[1:])
