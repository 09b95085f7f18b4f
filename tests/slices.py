"""Reads slices of shards, with the accounts checked on the way."""

from __future__ import annotations

import pyarrow as pa

from tfds_plugins.sources.img2dataset import source
from tfds_plugins.sources.img2dataset.shards import Format
from tfds_plugins.sources.img2dataset.shards import ImageShard
from tfds_plugins.sources.rows import SourceSlice

WANTED = pa.schema([("caption", pa.string()), ("similarity", pa.float64())])


def make_slice(folder, stem="00000", start=0, stop=None, parquet=True):
  path = folder / f"{stem}.tar"
  size = path.stat().st_size
  shard = ImageShard(
    name=stem,
    length=size,
    size_bytes=size,
    format=Format.WEBDATASET,
    path=str(path),
    parquet_path=str(folder / f"{stem}.parquet") if parquet else "",
  )
  return SourceSlice(
    shard=shard, start=start, stop=size if stop is None else stop
  )


def read(source_slice, wanted=WANTED):
  """Returns {key: (image, caption, similarity)} and {key: (reason, detail)}."""
  examples, skipped, num_rows = {}, {}, 0
  for batch in source.iter_batches(source_slice, wanted):
    assert batch.num_rows == batch.rows.num_rows + len(batch.skipped)
    num_rows += batch.num_rows
    for row in batch.rows.to_pylist():
      assert row["key"] not in examples
      examples[row["key"]] = (row["image"], row["caption"], row["similarity"])
    for row in batch.skipped:
      assert row.key not in skipped
      skipped[row.key] = (row.reason, row.detail)
  assert num_rows == len(examples) + len(skipped)
  return examples, skipped
