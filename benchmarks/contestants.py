"""Runs contestants in turn, each in a process of its own, and prints medians."""

from __future__ import annotations

import argparse
import collections
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

import psutil

# What a process needs beside what it writes.
PROCESS_BYTES = 512 << 20
# The file that `start_clock` writes, and its size.
_WARM_UP_PATH = "BENCHMARK_WARM_UP_PATH"
_WARM_UP_BYTES = "BENCHMARK_WARM_UP_BYTES"


@dataclasses.dataclass
class Result:
  """What the rounds of one contestant gave.

  Attributes:
    seconds: seconds an example, of each round.
    memory: the largest resident memory of any of its processes, of each round,
      in MB.
  """

  seconds: list[float] = dataclasses.field(default_factory=list)
  memory: list[float] = dataclasses.field(default_factory=list)

  @property
  def median(self) -> float:
    """Seconds an example, the median of the rounds."""
    return statistics.median(self.seconds)


def make_parser(
  description: str | None, names: Sequence[str]
) -> argparse.ArgumentParser:
  """Returns a parser of the options that every benchmark has."""
  parser = argparse.ArgumentParser(
    description=description,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("--rounds", type=int, default=3)
  parser.add_argument("--work_dir", type=pathlib.Path)
  parser.add_argument("--only", nargs="*", default=names)
  parser.add_argument("--run", help=argparse.SUPPRESS)
  parser.add_argument("--out_dir", type=pathlib.Path, help=argparse.SUPPRESS)
  return parser


def run_rounds(
  script: str,
  arguments: Sequence[str],
  counts: Mapping[str, int],
  args: argparse.Namespace,
  work_dir: pathlib.Path,
  *,
  written_bytes: int,
) -> dict[str, Result]:
  """Runs `script --run=NAME` for every contestant, in every round.

  Args:
    script: prints the seconds of the contestant in its last line.
    arguments: its other arguments.
    counts: how many examples a contestant converts or reads.
    args: from `make_parser`.
    work_dir: every run gets an empty folder in it.
    written_bytes: the memory that `start_clock` makes ready: what a contestant
      writes, and more for what its process needs.
  """
  results: dict[str, Result] = collections.defaultdict(Result)
  for _ in range(args.rounds):
    for name in args.only:
      command = [sys.executable, script, *arguments, f"--run={name}"]
      warm_up = {
        _WARM_UP_PATH: str(work_dir / "warm_up"),
        _WARM_UP_BYTES: str(written_bytes),
      }
      seconds, memory = _run(name, command, work_dir, warm_up)
      results[name].seconds.append(seconds / counts[name])
      results[name].memory.append(memory)
  return results


def start_clock() -> float:
  """Returns the time at which a contestant starts, in seconds.

  Before that, a large file is written and removed: the kernel then has pages at
  hand for everyone. Those that a virtual machine has to ask its host for cost
  several times the writing, and are given back within seconds: while TensorFlow
  is imported, say.
  """
  if _WARM_UP_PATH not in os.environ:  # Something is prepared, not timed.
    return time.perf_counter()
  path = pathlib.Path(os.environ[_WARM_UP_PATH])
  block = bytes(1 << 20)
  with path.open("wb") as file:
    for _ in range(-(-int(os.environ[_WARM_UP_BYTES]) // len(block))):
      file.write(block)
  path.unlink()
  return time.perf_counter()


def build(
  name: str,
  manual_dir: pathlib.Path,
  out_dir: pathlib.Path,
  num_examples: int | None = None,
  **options: Any,
) -> float:
  """Builds one of this package's datasets and returns the seconds it took.

  Args:
    name: of the dataset and config.
    manual_dir: the source.
    out_dir: where it goes.
    num_examples: how many there have to be; None not to look.
    **options: of the builder.
  """
  import tensorflow_datasets as tfds

  import tfds_plugins  # noqa: F401

  builder = tfds.builder(name, data_dir=out_dir, **options)
  config = tfds.download.DownloadConfig(manual_dir=manual_dir)
  start = start_clock()
  builder.download_and_prepare(download_config=config)
  seconds = time.perf_counter() - start
  found = sum(split.num_examples for split in builder.info.splits.values())
  if num_examples not in (None, found):
    raise AssertionError(f"{found} examples of {num_examples}")
  return seconds


def sync(folder: pathlib.Path) -> None:
  """Waits until the files are on the disk."""
  for path in folder.rglob("*"):
    if path.is_file():
      with path.open("rb") as file:
        os.fsync(file.fileno())


def _run(
  name: str,
  command: list[str],
  work_dir: pathlib.Path,
  environ: Mapping[str, str],
) -> tuple[float, float]:
  with tempfile.TemporaryDirectory(dir=work_dir) as out_dir:
    process = subprocess.Popen(
      [*command, f"--out_dir={out_dir}"],
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      env={**os.environ, **environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
      text=True,
    )
    peak = [0]
    thread = threading.Thread(target=_watch_memory, args=(process.pid, peak))
    thread.start()
    printed, _ = process.communicate()
    thread.join()
    if process.returncode:
      raise RuntimeError(f"{name} failed; run {' '.join(command)} to see why")
  os.sync()  # What one has written does not slow the next one down.
  return float(printed.splitlines()[-1]), peak[0] / 1e6


def _watch_memory(pid: int, peak: list[int]) -> None:
  """Notes the largest resident memory of a process or one of its children."""
  while True:
    try:
      parent = psutil.Process(pid)
      if parent.status() == psutil.STATUS_ZOMBIE:
        return
      for process in [parent, *parent.children(recursive=True)]:
        try:
          peak[0] = max(peak[0], process.memory_info().rss)
        except psutil.Error:
          continue
    except psutil.Error:
      return
    time.sleep(0.02)


def print_table(
  results: Mapping[str, Result],
  comparisons: Mapping[str, Callable[[str], str]],
) -> None:
  """Prints the medians.

  Args:
    results: by contestant.
    comparisons: heading -> with whom a contestant is compared, by name. A
      heading that starts with `time` gives how many times as long it takes,
      any other how many times as fast it is.
  """
  headings = [
    "",
    "examples/s",
    "us/example (lowest to highest)",
    *comparisons,
    "MB a process",
  ]
  print("| " + " | ".join(headings) + " |")
  print("|---" * len(headings) + "|")
  for name, result in results.items():
    cells = [
      name,
      f"{1 / result.median:,.0f}",
      f"{result.median * 1e6:,.1f} ({min(result.seconds) * 1e6:,.1f} to"
      f" {max(result.seconds) * 1e6:,.1f})",
    ]
    for heading, find_other in comparisons.items():
      other = results.get(find_other(name))
      if other is None:
        cells.append("")
      elif heading.startswith("time"):
        cells.append(f"{result.median / other.median:.2f}")
      else:
        cells.append(f"{other.median / result.median:.1f}")
    print("| " + " | ".join([*cells, f"{max(result.memory):,.0f}"]) + " |")
