"""Times the conversion of img2dataset's four formats against copying them.

    python benchmarks/img2dataset_formats.py CORPORA_DIR [--rounds 3]

`CORPORA_DIR` has a folder for each format, of the same images, as
`benchmarks/make_corpus.py --dataset coyo_labeled_300m` writes them. In each round
and for each format, one after the other, each in a process of its own and onto
an empty folder:

    FORMAT: cp               copies the shards with cp (into the page cache)
    FORMAT: cp + sync        and waits until they are on the disk
    FORMAT: ours             coyo_labeled_300m/images, one worker a core
    FORMAT: ours + sync      and waits until the output is on the disk

Printed are the medians of the rounds, and how many times as long as cp each
takes. Imports are not timed; starting workers is.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

import contestants

FORMATS = ("webdataset", "files", "parquet", "tfrecord")
CONTESTANTS = tuple(
  f"{name}: {way}"
  for name in FORMATS
  for way in ("cp", "cp + sync", "ours", "ours + sync")
)


def count_examples(folder: pathlib.Path) -> int:
  """Returns the number of images, by img2dataset's own stats."""
  stats = [json.loads(path.read_text()) for path in folder.glob("*_stats.json")]
  return sum(each["successes"] for each in stats)


def run_cp(folder: pathlib.Path, out_dir: pathlib.Path) -> float:
  """Copies the shards and returns the seconds it took."""
  start = contestants.start_clock()
  subprocess.run(["cp", "-r", str(folder), str(out_dir)], check=True)
  return time.perf_counter() - start


def run_ours(folder: pathlib.Path, out_dir: pathlib.Path) -> float:
  """Builds this package's dataset and returns the seconds it took."""
  return contestants.build(
    "coyo_labeled_300m/images", folder, out_dir, count_examples(folder)
  )


def main() -> None:
  parser = contestants.make_parser(__doc__, CONTESTANTS)
  parser.add_argument("corpora_dir", type=pathlib.Path)
  args = parser.parse_args()
  if args.run:
    name, _, way = args.run.partition(": ")
    run = run_cp if way.startswith("cp") else run_ours
    seconds = run(args.corpora_dir / name, args.out_dir)
    if way.endswith("sync"):
      start = time.perf_counter()
      contestants.sync(args.out_dir)
      seconds += time.perf_counter() - start
    print(seconds)
    return
  work_dir = args.work_dir or args.corpora_dir.parent
  num_bytes = {
    name: sum(
      path.stat().st_size
      for path in (args.corpora_dir / name).rglob("*")
      if path.is_file()
    )
    for name in FORMATS
  }
  counts = {name: count_examples(args.corpora_dir / name) for name in FORMATS}
  print(
    ", ".join(
      f"{name}: {counts[name]:,} images, {num_bytes[name] / 1e6:,.0f} MB"
      for name in FORMATS
    ),
    f"; {os.cpu_count()} cores, {args.rounds} rounds",
  )
  for name in FORMATS:  # All find the shards in the page cache.
    with tempfile.TemporaryDirectory(dir=work_dir) as warm_up:
      shutil.copytree(args.corpora_dir / name, warm_up, dirs_exist_ok=True)
  os.sync()
  results = contestants.run_rounds(
    __file__,
    [str(args.corpora_dir)],
    {each: counts[each.partition(":")[0]] for each in args.only},
    args,
    work_dir,
    written_bytes=max(num_bytes.values()) + contestants.PROCESS_BYTES,
  )
  contestants.print_table(results, {"time, cp = 1": find_cp})


def find_cp(name: str) -> str:
  """Returns what a contestant is compared with."""
  return name.replace("ours", "cp")


if __name__ == "__main__":
  main()
