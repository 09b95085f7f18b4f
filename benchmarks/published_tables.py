"""Times the conversion of published metadata, side by side.

    python benchmarks/published_tables.py TABLES_DIR [--rounds 3]

`TABLES_DIR` has a folder `coyo_700m` and a folder `coyo_labeled_300m`, as
`benchmarks/make_metadata.py` writes them. In each round and for each dataset, one
after the other, each in a process of its own and onto an empty folder:

    DATASET: pyarrow           reads the same columns, and does nothing with them
    DATASET: datasets          Hugging Face datasets' parquet builder, one process a
                               core, as far as there are files
    DATASET: ours              coyo_700m/metadata or coyo_labeled_300m/labels, one
                               worker a core
    DATASET: ours, 1 process   without worker processes
    DATASET: cp                copies the files

Printed are the medians of the rounds. Imports are not timed; starting workers
is.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import tempfile
import time

import contestants
import pyarrow.parquet as pq

DATASETS = {"coyo_700m": "metadata", "coyo_labeled_300m": "labels"}
CONTESTANTS = tuple(
  f"{name}: {way}"
  for name in DATASETS
  for way in ("pyarrow", "datasets", "ours", "ours, 1 process", "cp")
)


def list_files(folder: pathlib.Path) -> list[pathlib.Path]:
  """Returns the parquets."""
  return sorted(folder.glob("*.parquet"))


def count_rows(folder: pathlib.Path) -> int:
  """Returns the number of rows of all files."""
  return sum(pq.read_metadata(path).num_rows for path in list_files(folder))


def run_cp(folder: pathlib.Path, out_dir: pathlib.Path, *_: str) -> float:
  """Copies the files and returns the seconds it took."""
  start = contestants.start_clock()
  subprocess.run(
    ["cp", *map(str, list_files(folder)), str(out_dir)], check=True
  )
  return time.perf_counter() - start


def run_pyarrow(folder: pathlib.Path, *_: object) -> float:
  """Reads all columns, on all cores, and returns the seconds it took."""
  start = contestants.start_clock()
  for path in list_files(folder):
    for _batch in pq.ParquetFile(path).iter_batches():
      pass
  return time.perf_counter() - start


def run_datasets(folder: pathlib.Path, out_dir: pathlib.Path, *_: str) -> float:
  """Builds Hugging Face's dataset and returns the seconds it took."""
  import datasets

  files = list(map(str, list_files(folder)))
  start = contestants.start_clock()
  dataset = datasets.load_dataset(
    "parquet",
    data_files={"train": files},
    cache_dir=str(out_dir),
    num_proc=min(os.cpu_count() or 1, len(files)),
    split="train",
  )
  seconds = time.perf_counter() - start
  if len(dataset) != count_rows(folder):
    raise AssertionError(f"{len(dataset)} rows")
  return seconds


def run_ours(
  folder: pathlib.Path, out_dir: pathlib.Path, name: str, way: str
) -> float:
  """Builds this package's dataset and returns the seconds it took."""
  return contestants.build(
    f"{name}/{DATASETS[name]}",
    folder,
    out_dir,
    count_rows(folder),
    num_workers=1 if way.endswith("1 process") else None,
  )


RUNNERS = {
  "cp": run_cp,
  "pyarrow": run_pyarrow,
  "datasets": run_datasets,
  "ours": run_ours,
}


def main() -> None:
  parser = contestants.make_parser(__doc__, CONTESTANTS)
  parser.add_argument("tables_dir", type=pathlib.Path)
  args = parser.parse_args()
  if args.run:
    name, _, way = args.run.partition(": ")
    run = RUNNERS[way.partition(",")[0]]
    print(run(args.tables_dir / name, args.out_dir, name, way))
    return
  counts = {name: count_rows(args.tables_dir / name) for name in DATASETS}
  num_bytes = {
    name: sum(
      path.stat().st_size for path in list_files(args.tables_dir / name)
    )
    for name in DATASETS
  }
  print(
    ", ".join(
      f"{name}: {counts[name]:,} rows, {num_bytes[name] / 1e6:,.0f} MB"
      for name in DATASETS
    ),
    f"; {os.cpu_count()} cores, {args.rounds} rounds",
  )
  for name in DATASETS:  # All find the files in the page cache.
    with tempfile.TemporaryDirectory(dir=args.tables_dir.parent) as warm_up:
      shutil.copytree(args.tables_dir / name, warm_up, dirs_exist_ok=True)
  results = contestants.run_rounds(
    __file__,
    [str(args.tables_dir)],
    {each: counts[each.partition(":")[0]] for each in args.only},
    args,
    args.work_dir or args.tables_dir.parent,
    # Records are larger than the compressed columns that they come from.
    written_bytes=6 * max(num_bytes.values()) + contestants.PROCESS_BYTES,
  )
  contestants.print_table(
    results,
    {"speed, datasets = 1": lambda name: name.partition(":")[0] + ": datasets"},
  )


if __name__ == "__main__":
  main()
