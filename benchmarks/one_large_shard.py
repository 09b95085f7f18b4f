"""Shows that a worker's memory does not grow with the shard.

    python benchmarks/one_large_shard.py CORPUS_DIR

Joins all shards of `CORPUS_DIR` (from `benchmarks/make_corpus.py`) into one, and
converts the first shard, then the joined one, each as one task in a process of
its own. Printed is the largest resident memory of each process.
"""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile

import pyarrow as pa
import pyarrow.parquet as pq

CONVERT = """
import resource, sys
import tensorflow_datasets as tfds
import tfds_plugins
builder = tfds.builder("laion400m/images", data_dir=sys.argv[2], num_workers=1)
builder.download_and_prepare(download_config=tfds.download.DownloadConfig(
    manual_dir=sys.argv[1], max_shard_size=1 << 50))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(builder.info.splits["train"].shard_lengths, f"{peak / 1024:,.0f} MiB")
"""


def join_shards(corpus_dir: pathlib.Path, out_dir: pathlib.Path) -> None:
  """Writes all shards of `corpus_dir` as one shard into `out_dir`."""
  tables = []
  with (out_dir / "00000.tar").open("wb") as joined:
    for path in sorted(corpus_dir.glob("*.tar")):
      with tarfile.open(path) as tar:
        last = tar.getmembers()[-1]
      end = last.offset_data + -(-last.size // 512) * 512
      with path.open("rb") as part:
        left = end
        while left:
          chunk = part.read(min(left, 1 << 24))
          joined.write(chunk)
          left -= len(chunk)
      tables.append(pq.read_table(path.with_suffix(".parquet")))
    joined.write(bytes(10240))
  pq.write_table(
    pa.concat_tables(tables), out_dir / "00000.parquet", row_group_size=100
  )
  (out_dir / "00000_stats.json").write_text("{}")


def main() -> None:
  corpus_dir = pathlib.Path(sys.argv[1])
  with tempfile.TemporaryDirectory(dir=corpus_dir.parent) as tmp_dir:
    small, large = (
      pathlib.Path(tmp_dir) / "small",
      pathlib.Path(tmp_dir) / "large",
    )
    small.mkdir()
    large.mkdir()
    for path in corpus_dir.glob("00000*"):
      shutil.copy(path, small)
    join_shards(corpus_dir, large)
    for folder in (small, large):
      size = (folder / "00000.tar").stat().st_size
      result = subprocess.run(
        [sys.executable, "-c", CONVERT, str(folder), str(folder / "out")],
        check=True,
        capture_output=True,
        text=True,
      )
      num_rows = pq.read_metadata(folder / "00000.parquet").num_rows
      print(
        f"{size / 1e6:,.0f} MB, {num_rows:,} rows:",
        result.stdout.splitlines()[-1],
      )


if __name__ == "__main__":
  main()
