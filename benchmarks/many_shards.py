"""What a shard costs, whatever is in it, and how that grows with their number.

    python benchmarks/many_shards.py WORK_DIR [--num_shards 1000 10000 41455]
        [--num_workers 2]

41,455 is the number of LAION-400M's shards. Those of this benchmark are copies of
the fixture's first one, which img2dataset wrote: nearly all of the time is overhead.
Each number is measured in a process of its own, and so is a second build that finds
everything converted, and opening the dataset. Printed are milliseconds a shard, and
the largest resident memory of the process that coordinates.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import pathlib
import resource
import shutil
import subprocess
import sys
import time

_FIXTURE_DIR = (
  pathlib.Path(__file__).parents[1] / "dummy_data" / "laion400m" / "images"
)
_SUFFIXES = (".tar", ".parquet", "_stats.json")
_NAME = "laion400m/images"


def make_shards(folder: pathlib.Path, num_shards: int) -> None:
  """Copies the fixture's shard, unless that has been done."""
  if (folder / "finished").exists():
    return
  folder.mkdir(parents=True, exist_ok=True)
  for suffix in _SUFFIXES:
    content = (_FIXTURE_DIR / f"00000{suffix}").read_bytes()
    for i in range(num_shards):
      (folder / f"{i:05d}{suffix}").write_bytes(content)
  (folder / "finished").touch()


class _Watch:
  """Adds up how long some functions take."""

  def __init__(self) -> None:
    self.seconds: dict[str, float] = {}

  def time(self, owner: object, name: str, label: str) -> None:
    """Replaces a function by one that is timed."""
    function = getattr(owner, name)

    @functools.wraps(function)
    def call(*args, **kwargs):
      start = time.perf_counter()
      try:
        return function(*args, **kwargs)
      finally:
        passed = time.perf_counter() - start
        self.seconds[label] = self.seconds.get(label, 0.0) + passed

    setattr(owner, name, call)


def _build(manual_dir: str, data_dir: str, num_workers: int) -> dict:
  """Builds the dataset and returns what took how long."""
  import tensorflow_datasets as tfds
  from tensorflow_datasets.core import dataset_info

  import tfds_plugins  # noqa: F401  # Registers the builder.
  from tfds_plugins.conversion import builder as builder_lib
  from tfds_plugins.conversion import finalize
  from tfds_plugins.conversion import work_dir
  from tfds_plugins.sources.img2dataset import listing
  from tfds_plugins.sources.img2dataset import source

  watch = _Watch()
  watch.time(listing, "find_shards", "list")
  watch.time(source, "check_source", "check")
  watch.time(builder_lib.ConversionBuilder, "_plan", "plan")
  watch.time(work_dir.WorkDir, "find_receipts", "find receipts")
  watch.time(builder_lib.ConversionBuilder, "_run_tasks", "convert")
  watch.time(finalize, "finalize_split", "place")
  watch.time(finalize, "write_accounts", "accounts")
  watch.time(dataset_info.DatasetInfo, "write_to_directory", "TFDS's info")
  watch.time(work_dir.WorkDir, "remove", "clear away")
  builder = tfds.builder(_NAME, data_dir=data_dir, num_workers=num_workers)
  start = time.perf_counter()
  with contextlib.redirect_stdout(sys.stderr):
    builder.download_and_prepare(
      download_config=tfds.download.DownloadConfig(manual_dir=manual_dir)
    )
  watch.seconds["all"] = time.perf_counter() - start
  return watch.seconds


def _resume(manual_dir: str, data_dir: str, num_workers: int) -> dict:
  """Fails where everything is converted, and builds again."""
  from tfds_plugins.conversion import finalize

  def fail(*unused_args, **unused_kwargs):
    raise ZeroDivisionError

  real = finalize.finalize_split
  finalize.finalize_split = fail
  with contextlib.suppress(ZeroDivisionError):
    _build(manual_dir, data_dir, num_workers)
  finalize.finalize_split = real
  return _build(manual_dir, data_dir, num_workers)


def _open(manual_dir: str, data_dir: str, num_workers: int) -> dict:
  """Opens the dataset and reads its first batch and its accounts."""
  del manual_dir, num_workers
  import tensorflow as tf
  import tensorflow_datasets as tfds

  import tfds_plugins  # noqa: F401  # Registers the builder.
  from tfds_plugins.conversion import receipts
  from tfds_plugins.conversion import update

  tf.constant(0)
  seconds = {}
  start = time.perf_counter()
  builder = tfds.builder(_NAME, data_dir=data_dir)
  seconds["open"] = time.perf_counter() - start
  start = time.perf_counter()
  builder.is_prepared()
  seconds["look for changes"] = time.perf_counter() - start
  start = time.perf_counter()
  next(iter(builder.as_dataset(split="train", batch_size=None)))
  seconds["first example"] = time.perf_counter() - start
  start = time.perf_counter()
  update.read_receipts(builder.data_path)
  seconds["read receipts"] = time.perf_counter() - start
  start = time.perf_counter()
  ledger = builder.data_path / receipts.LEDGER_FILENAME
  sum(batch.num_rows for batch in receipts.iter_ledger(ledger))
  seconds["read the skip ledger"] = time.perf_counter() - start
  return seconds


_STEPS = {"build": _build, "build again": _resume, "open": _open}


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("work_dir", type=pathlib.Path)
  parser.add_argument(
    "--num_shards", type=int, nargs="*", default=[1000, 10_000, 41_455]
  )
  parser.add_argument("--num_workers", type=int, default=2)
  parser.add_argument("--step", choices=_STEPS, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.step:
    (num_shards,) = args.num_shards
    folder = args.work_dir / f"{num_shards}"
    place = "again" if args.step == "build again" else "data"
    seconds = _STEPS[args.step](
      str(folder / "manual"), str(folder / place), args.num_workers
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": seconds, "megabytes": peak * 1024 / 1e6}))
    return
  print("| shards | | ms a shard | seconds | MB |\n|---|---|---|---|---|")
  for num_shards in args.num_shards:
    folder = args.work_dir / f"{num_shards}"
    make_shards(folder / "manual", num_shards)
    for place in ("data", "again"):
      shutil.rmtree(folder / place, ignore_errors=True)
    for step in _STEPS:
      command = [
        *(sys.executable, __file__, str(args.work_dir), "--step", step),
        *("--num_shards", f"{num_shards}"),
        *("--num_workers", f"{args.num_workers}"),
      ]
      result = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True
      )
      found = json.loads(result.stdout.splitlines()[-1])
      for label, seconds in found["seconds"].items():
        print(
          f"| {num_shards:,} | {step}: {label} |"
          f" {seconds / num_shards * 1000:,.3f} | {seconds:,.2f} |"
          f" {found['megabytes']:,.0f} |",
          flush=True,
        )


if __name__ == "__main__":
  main()
