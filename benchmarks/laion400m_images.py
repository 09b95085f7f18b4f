"""Times the conversion of one folder of img2dataset shards, side by side.

    python benchmarks/laion400m_images.py CORPUS_DIR [--rounds 3]

`CORPUS_DIR` is what `benchmarks/make_corpus.py` writes. In each round, one after
the other, each in a process of its own and onto an empty folder:

    cp               copies the tars with cp (into the page cache)
    cp + sync        and waits until they are on the disk
    ours             this package's laion400m/images, one worker a core
    ours + sync      and waits until the output is on the disk
    ours, 1 process  without worker processes
    ours, 1 process, unchecked      no image is looked at
    ours, 1 process, all decoded    every image is decoded to see whether it can be
    datasets         Hugging Face datasets' webdataset builder, one process a core
    tfds             TFDS's own laion400m/images on Beam's DirectRunner, its
                     default; on the first shard alone, for it stops at the second

Printed are the medians of the rounds: examples/s, microseconds an example, the
ratios to cp and to tfds, and the largest resident memory of a process. Imports
are not timed; starting workers is.
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
import pyarrow as pa

CONTESTANTS = (
  "cp",
  "cp + sync",
  "ours",
  "ours + sync",
  "ours, 1 process",
  "ours, 1 process, unchecked",
  "ours, 1 process, all decoded",
  "datasets",
  "tfds",
)


def list_tars(corpus_dir: pathlib.Path) -> list[pathlib.Path]:
  """Returns the tars of the corpus."""
  return sorted(corpus_dir.glob("*.tar"))


def count_examples(tars: list[pathlib.Path]) -> int:
  """Returns the number of images in the tars, by img2dataset's own stats."""
  stats = [tar.with_name(f"{tar.stem}_stats.json") for tar in tars]
  return sum(json.loads(path.read_text())["successes"] for path in stats)


def run_cp(corpus_dir: pathlib.Path, out_dir: pathlib.Path, name: str) -> float:
  """Copies the tars and returns the seconds it took."""
  start = contestants.start_clock()
  subprocess.run(
    ["cp", *map(str, list_tars(corpus_dir)), str(out_dir)], check=True
  )
  if name.endswith("sync"):
    contestants.sync(out_dir)
  return time.perf_counter() - start


def run_ours(
  corpus_dir: pathlib.Path, out_dir: pathlib.Path, name: str
) -> float:
  """Builds this package's dataset and returns the seconds it took."""
  from tfds_plugins.encoding import decoding
  from tfds_plugins.encoding import images

  if name.endswith("unchecked"):
    images.make_uniform = pass_through
  if name.endswith("all decoded"):
    images.ImageNormalizer.normalize = lambda self, data, *_: decoding.decode(
      bytes(data)
    )
  seconds = contestants.build(
    "laion400m/images",
    corpus_dir,
    out_dir,
    count_examples(list_tars(corpus_dir)),
    num_workers=1 if "1 process" in name else None,
  )
  if name.endswith("sync"):
    start = time.perf_counter()
    contestants.sync(out_dir)
    seconds += time.perf_counter() - start
  return seconds


def pass_through(batch, unused_normalizer, unused_source_shard):
  """Stands in for `images.make_uniform`, to find out what that costs."""
  sizes = pa.array([256] * batch.num_rows, pa.int32())
  batch = batch.append_column("image_height", sizes)
  return batch.append_column("image_width", sizes), []


def run_datasets(
  corpus_dir: pathlib.Path, out_dir: pathlib.Path, unused_name: str
) -> float:
  """Builds Hugging Face's dataset and returns the seconds it took."""
  import datasets

  start = contestants.start_clock()
  dataset = datasets.load_dataset(
    "webdataset",
    data_files={"train": [str(tar) for tar in list_tars(corpus_dir)]},
    cache_dir=str(out_dir),
    num_proc=os.cpu_count(),
    split="train",
  )
  seconds = time.perf_counter() - start
  if len(dataset) != count_examples(list_tars(corpus_dir)):
    raise AssertionError(f"{len(dataset)} examples")
  return seconds


def run_tfds(
  corpus_dir: pathlib.Path, out_dir: pathlib.Path, unused_name: str
) -> float:
  """Builds TFDS's own dataset from the first shard."""
  import apache_beam  # noqa: F401
  import tensorflow as tf  # noqa: F401
  import tensorflow_datasets as tfds
  from tensorflow_datasets.vision_language.laion400m import laion400m

  laion400m.LAION400M_IMAGES_CONFIG.num_shards = 1  # Instead of 41,455.
  builder = laion400m.Laion400m(config="images", data_dir=out_dir)
  config = tfds.download.DownloadConfig(manual_dir=corpus_dir)
  start = contestants.start_clock()
  builder.download_and_prepare(download_config=config)
  return time.perf_counter() - start


RUNNERS = {
  "cp": run_cp,
  "ours": run_ours,
  "datasets": run_datasets,
  "tfds": run_tfds,
}


def main() -> None:
  parser = contestants.make_parser(__doc__, CONTESTANTS)
  parser.add_argument("corpus_dir", type=pathlib.Path)
  args = parser.parse_args()
  if args.run:
    runner = RUNNERS[args.run.partition(" ")[0].rstrip(",")]
    print(runner(args.corpus_dir, args.out_dir, args.run))
    return
  work_dir = args.work_dir or args.corpus_dir.parent
  tars = list_tars(args.corpus_dir)
  num_bytes = sum(tar.stat().st_size for tar in tars)
  num_examples = count_examples(tars)
  print(
    f"{len(tars)} tars, {num_bytes / 1e6:,.0f} MB, {num_examples:,} images;"
    f" {os.cpu_count()} cores, {args.rounds} rounds"
  )
  with tempfile.TemporaryDirectory(dir=work_dir) as warm_up:
    for tar in tars:  # All find the tars in the page cache.
      shutil.copy(tar, warm_up)
  os.sync()
  counts = dict.fromkeys(args.only, num_examples)
  counts["tfds"] = count_examples(tars[:1])
  results = contestants.run_rounds(
    __file__,
    [str(args.corpus_dir)],
    counts,
    args,
    work_dir,
    written_bytes=num_bytes,
  )
  contestants.print_table(
    results,
    {"time, cp = 1": find_cp, "speed, tfds = 1": lambda _: "tfds"},
  )


def find_cp(name: str) -> str:
  """Returns what a contestant is compared with."""
  return "cp + sync" if name.endswith("sync") else "cp"


if __name__ == "__main__":
  main()
