"""Times the conversion and reading of embeddings, side by side.

    python benchmarks/laion400m_embeddings.py PARTITIONS_DIR [--rounds 3]

`PARTITIONS_DIR` is what `benchmarks/make_partitions.py` writes. In each round,
one after the other, each in a process of its own:

    build: ours               this package's laion400m/embeddings
    build: ours, 1 process    without worker processes
    build: records alone      the same records, all in memory, written with
                              tf.io.TFRecordWriter and nothing else
    build: cp                 copies the three files of every partition
    build: tfds               TFDS's own laion400m/embeddings on Beam's
                              DirectRunner; its downloads are the same files

    read: tfds                TFDS's own as_dataset(batch_size=1024)
    read: ours                this package's
    read: tf.data             TFRecordDataset, batch, tf.io.parse_example
    read: ours, shuffled      with shuffle_files=True
    read: data_source         tfds.data_source on array_record, in batches of
                              1,024 by __getitems__

Read are the records of one build, twice: the second pass is timed, the files
are in the page cache and the graph is made. Printed are the medians. Imports
are not timed; starting workers is.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import time
from typing import Any

import contestants
import pyarrow.parquet as pq

BATCH_SIZE = 1024
CONTESTANTS = (
  "build: ours",
  "build: ours, 1 process",
  "build: records alone",
  "build: cp",
  "build: tfds",
  "read: tfds",
  "read: ours",
  "read: tf.data",
  "read: ours, shuffled",
  "read: data_source",
)

# Those that start from a dataset which is there already.
NEED_PREPARED = {
  name
  for name in CONTESTANTS
  if name.startswith("read") or name == "build: records alone"
}
PREPARED = {"tfrecord": "prepared", "array_record": "prepared_array_record"}


def list_files(partitions_dir: pathlib.Path) -> list[pathlib.Path]:
  """Returns the files of all partitions."""
  return sorted(path for path in partitions_dir.rglob("*_*.*"))


def prepare(
  partitions_dir: pathlib.Path,
  data_dir: pathlib.Path,
  *,
  num_workers: int | None = None,
  file_format: str = "tfrecord",
) -> tuple[Any, float]:
  """Builds this package's dataset; returns it and the seconds it took."""
  import tensorflow_datasets as tfds

  import tfds_plugins  # noqa: F401

  builder = tfds.builder(
    "laion400m/embeddings",
    data_dir=data_dir,
    num_workers=num_workers,
    file_format=file_format,
  )
  config = tfds.download.DownloadConfig(manual_dir=partitions_dir)
  start = contestants.start_clock()
  builder.download_and_prepare(download_config=config)
  return builder, time.perf_counter() - start


def build_ours(
  partitions_dir: pathlib.Path, out_dir: pathlib.Path, name: str
) -> float:
  num_workers = 1 if "1 process" in name else None
  return prepare(partitions_dir, out_dir, num_workers=num_workers)[1]


def build_records_alone(
  partitions_dir: pathlib.Path, out_dir: pathlib.Path, unused_name: str
) -> float:
  import tensorflow as tf

  files = sorted((partitions_dir.parent / "prepared").rglob("*.tfrecord-*"))
  records = [
    list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    for path in files
  ]
  start = contestants.start_clock()
  for path, of_file in zip(files, records, strict=True):
    with tf.io.TFRecordWriter(str(out_dir / path.name)) as writer:
      for record in of_file:
        writer.write(record)
  return time.perf_counter() - start


def build_cp(
  partitions_dir: pathlib.Path, out_dir: pathlib.Path, unused_name: str
) -> float:
  start = contestants.start_clock()
  subprocess.run(
    ["cp", *map(str, list_files(partitions_dir)), str(out_dir)], check=True
  )
  return time.perf_counter() - start


def build_tfds(
  partitions_dir: pathlib.Path, out_dir: pathlib.Path, unused_name: str
) -> float:
  import apache_beam  # noqa: F401
  from etils import epath
  import tensorflow as tf  # noqa: F401
  import tensorflow_datasets as tfds
  from tensorflow_datasets.vision_language.laion400m import laion400m

  paths = {path.name: epath.Path(path) for path in list_files(partitions_dir)}
  laion400m.LAION400M_EMBEDDINGS_CONFIG.num_shards = len(paths) // 3
  # The files are there; what TFDS then makes of them is timed.
  tfds.download.DownloadManager.download = lambda self, urls: {
    name: paths[name] for name in urls
  }
  builder = laion400m.Laion400m(config="embeddings", data_dir=out_dir)
  start = contestants.start_clock()
  builder.download_and_prepare()
  return time.perf_counter() - start


def time_second_pass(ds: Any, num_examples: int) -> float:
  """Reads a dataset of batches twice and returns the seconds of the second."""
  seconds = 0.0
  for _ in range(2):
    count = 0
    start = time.perf_counter()
    for batch in ds:
      count += batch["image_embedding"].shape[0]
    seconds = time.perf_counter() - start
    if count != num_examples:
      raise AssertionError(f"{count} examples instead of {num_examples}")
  return seconds


def load(partitions_dir: pathlib.Path, file_format: str) -> Any:
  """Returns the builder of a dataset that `main` has prepared."""
  import tensorflow_datasets as tfds

  import tfds_plugins  # noqa: F401

  return tfds.builder(
    "laion400m/embeddings",
    data_dir=partitions_dir.parent / PREPARED[file_format],
    file_format=file_format,
  )


def read(
  partitions_dir: pathlib.Path, unused_out_dir: pathlib.Path, name: str
) -> float:
  import tensorflow as tf
  import tensorflow_datasets as tfds
  from tensorflow_datasets.core import dataset_builder

  builder = load(partitions_dir, "tfrecord")
  num_examples = builder.info.splits["train"].num_examples
  # Without TFDS's cache in memory: large datasets have none.
  options: Any = {"read_config": tfds.ReadConfig(try_autocache=False)}
  if name == "read: tfds":
    # What TFDS's own class does, with the same files.
    type(
      builder
    )._build_single_dataset = (
      dataset_builder.DatasetBuilder._build_single_dataset
    )
  if name == "read: tf.data":
    flat = {
      "caption": tf.io.FixedLenFeature([], tf.string),
      "image_embedding": tf.io.FixedLenFeature([], tf.string),
      "license": tf.io.FixedLenFeature([], tf.string),
      "nsfw": tf.io.FixedLenFeature([], tf.int64),
      "original_height": tf.io.FixedLenFeature([], tf.int64),
      "original_width": tf.io.FixedLenFeature([], tf.int64),
      "similarity": tf.io.FixedLenFeature([], tf.float32),
      "text_embedding": tf.io.FixedLenFeature([], tf.string),
      "url": tf.io.FixedLenFeature([], tf.string),
    }
    files = builder.info.splits["train"].filepaths
    ds = tf.data.TFRecordDataset([str(path) for path in files])
    ds = ds.batch(BATCH_SIZE)
    ds = ds.map(
      lambda records: tf.io.parse_example(records, flat),
      num_parallel_calls=tf.data.AUTOTUNE,
    )
    ds = ds.prefetch(tf.data.AUTOTUNE)
  else:
    ds = builder.as_dataset(
      split="train",
      batch_size=BATCH_SIZE,
      shuffle_files=name.endswith("shuffled"),
      **options,
    )
  return time_second_pass(ds, num_examples)


def read_data_source(
  partitions_dir: pathlib.Path, unused_out_dir: pathlib.Path, unused_name: str
) -> float:
  builder = load(partitions_dir, "array_record")
  source = builder.as_data_source(split="train")
  seconds = 0.0
  for _ in range(2):
    start = time.perf_counter()
    for i in range(0, len(source), BATCH_SIZE):
      source.__getitems__(list(range(i, min(i + BATCH_SIZE, len(source)))))
    seconds = time.perf_counter() - start
  return seconds


RUNNERS = {
  "build: ours": build_ours,
  "build: ours, 1 process": build_ours,
  "build: records alone": build_records_alone,
  "build: cp": build_cp,
  "build: tfds": build_tfds,
  "read: tfds": read,
  "read: ours": read,
  "read: tf.data": read,
  "read: ours, shuffled": read,
  "read: data_source": read_data_source,
}


def main() -> None:
  parser = contestants.make_parser(__doc__, CONTESTANTS)
  parser.add_argument("partitions_dir", type=pathlib.Path)
  args = parser.parse_args()
  partitions_dir = args.partitions_dir.absolute()
  if args.run:
    print(RUNNERS[args.run](partitions_dir, args.out_dir, args.run))
    return
  num_examples = sum(
    pq.read_metadata(path).num_rows
    for path in partitions_dir.rglob("metadata_*.parquet")
  )
  if set(args.only) & NEED_PREPARED:
    for file_format, folder in PREPARED.items():
      data_dir = partitions_dir.parent / folder
      shutil.rmtree(data_dir, ignore_errors=True)
      prepare(partitions_dir, data_dir, file_format=file_format)
  os.sync()
  num_bytes = sum(path.stat().st_size for path in list_files(partitions_dir))
  print(
    f"{num_examples:,} rows, {num_bytes / 1e6:,.0f} MB; {os.cpu_count()} cores,"
    f" {args.rounds} rounds"
  )
  results = contestants.run_rounds(
    __file__,
    [str(partitions_dir)],
    dict.fromkeys(args.only, num_examples),
    args,
    args.work_dir or partitions_dir.parent,
    written_bytes=num_bytes + contestants.PROCESS_BYTES,
  )
  contestants.print_table(
    results,
    {
      "speed, tfds = 1": lambda name: name.partition(":")[0] + ": tfds",
      "time, TensorFlow alone = 1": lambda name: (
        "build: records alone" if name.startswith("build") else "read: tf.data"
      ),
    },
  )


if __name__ == "__main__":
  main()
