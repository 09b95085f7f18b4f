"""Times the screenshot set against extracting it first.

    python benchmarks/screenshots.py FOLDER [--rounds 3]
    python benchmarks/screenshots.py FOLDER --only "index" "index: tarfile"

`FOLDER` is what `benchmarks/make_screenshots.py` writes. In each round, one after
the other, each in a process of its own and onto an empty folder:

    two steps          `tarfile.extractall`, then a plain GeneratorBasedBuilder that
                       reads the files
    ours               screenshot_training_natural_filtered_v2, one worker a core
    ours, 1 process    the same in one process
    ours, pairs        config `pairs`
    cp                 copies the tars
    index              the index of all tars
    index: tarfile     lists all tars with Python's `tarfile`

Imports are not timed. Examples are rows; for `index`, members.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import tarfile
import tempfile
import time
from typing import Any

import contestants

CONTESTANTS = (
  "two steps",
  "ours",
  "ours, 1 process",
  "ours, pairs",
  "cp",
  "index",
  "index: tarfile",
)
NAME = "screenshot_training_natural_filtered_v2"
SPLITS = ("train", "eval", "test")


def list_tars(folder: pathlib.Path) -> list[pathlib.Path]:
  """Returns the tars."""
  return sorted((folder / "image_shards").glob("*.tar"))


def count_rows(folder: pathlib.Path) -> int:
  """Returns the number of rows of all splits."""
  return sum(
    len((folder / f"{split}_hn.jsonl").read_text().splitlines())
    for split in SPLITS
  )


def run_ours(folder: pathlib.Path, out_dir: pathlib.Path, name: str) -> float:
  """Builds this package's dataset and returns the seconds it took."""
  config = "pairs" if name.endswith("pairs") else "hard_negatives"
  return contestants.build(
    f"{NAME}/{config}",
    folder,
    out_dir,
    count_rows(folder),
    num_workers=1 if name.endswith("1 process") else None,
  )


def make_plain_builder() -> Any:
  """Returns a builder that reads extracted files, as anyone would write it."""
  import tensorflow_datasets as tfds

  class Screenshots(tfds.core.GeneratorBasedBuilder):
    """The set without its tars."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
      return tfds.core.DatasetInfo(
        builder=self,
        features=tfds.features.FeaturesDict(
          {
            "query": tfds.features.Text(),
            "chunk_path": tfds.features.Text(),
            "image": tfds.features.Image(),
            "neg_chunk_paths": tfds.features.Sequence(tfds.features.Text()),
            "neg_images": tfds.features.Sequence(tfds.features.Image()),
          }
        ),
      )

    def _split_generators(self, dl_manager):
      return {
        split: self._generate_examples(dl_manager.manual_dir, split)
        for split in SPLITS
      }

    def _generate_examples(self, folder, split):
      with (folder / f"{split}_hn.jsonl").open() as file:
        for i, line in enumerate(file):
          row = json.loads(line)
          yield (
            i,
            {
              "query": row["query"],
              "chunk_path": row["chunk_path"],
              "image": folder / row["chunk_path"],
              "neg_chunk_paths": row["neg_chunk_paths"],
              "neg_images": [folder / path for path in row["neg_chunk_paths"]],
            },
          )

  Screenshots.MANUAL_DOWNLOAD_INSTRUCTIONS = "The extracted folder."
  return Screenshots


def run_two_steps(
  folder: pathlib.Path, out_dir: pathlib.Path, unused_name: str
) -> float:
  """Extracts the tars, builds the plain dataset, and returns the seconds."""
  import tensorflow as tf  # noqa: F401
  import tensorflow_datasets as tfds

  extracted = out_dir / "extracted"
  builder = make_plain_builder()(data_dir=out_dir / "data")
  start = contestants.start_clock()
  for path in list_tars(folder):
    with tarfile.open(path) as tar:
      tar.extractall(extracted / "images", filter="data")
  for split in SPLITS:
    shutil.copy(folder / f"{split}_hn.jsonl", extracted)
  builder.download_and_prepare(
    download_config=tfds.download.DownloadConfig(manual_dir=extracted)
  )
  return time.perf_counter() - start


def run_cp(
  folder: pathlib.Path, out_dir: pathlib.Path, unused_name: str
) -> float:
  """Copies the tars and returns the seconds it took."""
  start = contestants.start_clock()
  subprocess.run(["cp", *map(str, list_tars(folder)), str(out_dir)], check=True)
  return time.perf_counter() - start


def run_index(folder: pathlib.Path, out_dir: pathlib.Path, name: str) -> float:
  """Indexes the tars and returns the seconds it took."""
  from etils import epath

  from tfds_plugins.sources.screenshots import tile_index
  from tfds_plugins.sources.screenshots import tile_scan

  start = contestants.start_clock()
  if name.endswith("tarfile"):
    for path in list_tars(folder):
      with tarfile.open(path) as tar:
        tar.getmembers()
  else:
    paths = list(map(epath.Path, list_tars(folder)))
    index = tile_scan.make_index(paths)
    tile_index.write_index(index, epath.Path(out_dir) / "index")
  return time.perf_counter() - start


RUNS = {
  "two steps": run_two_steps,
  "cp": run_cp,
  "index": run_index,
  "index: tarfile": run_index,
}


def main() -> None:
  parser = contestants.make_parser(__doc__, CONTESTANTS)
  parser.add_argument("folder", type=pathlib.Path)
  args = parser.parse_args()
  if args.run:
    print(RUNS.get(args.run, run_ours)(args.folder, args.out_dir, args.run))
    return
  num_bytes = sum(path.stat().st_size for path in list_tars(args.folder))
  num_rows = count_rows(args.folder)
  num_members = 0
  for path in list_tars(args.folder):
    with tarfile.open(path) as tar:
      num_members += len(tar.getmembers())
  print(
    f"{len(list_tars(args.folder)):,} tars, {num_bytes / 1e6:,.0f} MB,"
    f" {num_members:,} members, {num_rows:,} rows; {os.cpu_count()} cores,"
    f" {args.rounds} rounds"
  )
  work_dir = args.work_dir or args.folder.parent
  with tempfile.TemporaryDirectory(dir=work_dir) as warm_up:
    for path in list_tars(args.folder):
      shutil.copy(path, warm_up)
  results = contestants.run_rounds(
    __file__,
    [str(args.folder)],
    {
      name: num_members if name.startswith("index") else num_rows
      for name in args.only
    },
    args,
    work_dir,
    # Extracted, and then three tiles a row twice: TFDS sorts through files.
    written_bytes=num_bytes
    + 6 * num_rows * num_bytes // max(1, num_members)
    + contestants.PROCESS_BYTES,
  )
  contestants.print_table(
    results,
    {
      "speed, two steps = 1": lambda name: "two steps",
      "speed, tarfile = 1": lambda name: "index: tarfile",
    },
  )


if __name__ == "__main__":
  main()
