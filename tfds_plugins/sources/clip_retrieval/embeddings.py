"""Rows of embedding partitions: vectors and metadata, aligned by position.

The three files of a partition have no key in common; row i belongs to row i
(the readers of clip-retrieval's author rely on it as well: rom1504/
embedding-reader). So `partition_check.py` compares their lengths before the
first row is read.
"""

from __future__ import annotations

from collections.abc import Iterator

from etils import epath
import numpy as np
import pyarrow as pa

from tfds_plugins.sources import arrays
from tfds_plugins.sources import bad_rows
from tfds_plugins.sources import columns as columns_lib
from tfds_plugins.sources import parquet_files
from tfds_plugins.sources.clip_retrieval import npy
from tfds_plugins.sources.clip_retrieval.partitions import EmbeddingPartition
from tfds_plugins.sources.rows import BAD_METADATA
from tfds_plugins.sources.rows import KEY_COLUMN
from tfds_plugins.sources.rows import SourceBatch
from tfds_plugins.sources.rows import SourceSlice

# binary: float16 values, little-endian, one vector after the other.
IMAGE_VECTOR_COLUMN = "image_vector"
TEXT_VECTOR_COLUMN = "text_vector"
# A reason for skipping a row: a value beyond the range of float16.
VECTOR_OUT_OF_RANGE = "vector_out_of_range"

_BATCH_ROWS = 1024


def iter_batches(
  source_slice: SourceSlice[EmbeddingPartition], wanted: pa.Schema
) -> Iterator[SourceBatch]:
  """Yields the rows of a slice in their order.

  Args:
    source_slice: some rows of a partition.
    wanted: names and types of the metadata columns.

  Yields:
    Batches with the columns `key` (string, the row's number in its partition),
    `image_vector`, `text_vector` (binary, float16 values) and the wanted ones.

  Raises:
    errors.SourceError: a file is damaged behind its header or footer.
  """
  shard = source_slice.shard
  with shard.image_vectors.open() as images, shard.text_vectors.open() as texts:
    start = source_slice.start
    for metadata in parquet_files.iter_rows(
      epath.Path(shard.metadata_path),
      source_slice.start,
      source_slice.stop,
      wanted.names,
      batch_rows=_BATCH_ROWS,
      to_do="Download the file again.",
    ):
      stop = start + metadata.num_rows
      vectors = (images.read(start, stop), texts.read(start, stop))
      yield _join(start, vectors, metadata, shard.name, wanted)
      start = stop


def _join(
  start: int,
  vectors: tuple[np.ndarray, np.ndarray],
  metadata: pa.RecordBatch,
  name: str,
  wanted: pa.Schema,
) -> SourceBatch:
  """Puts vectors and metadata of the same rows together."""
  num_rows = metadata.num_rows
  known = metadata.schema.names
  reasons: dict[int, tuple[str, str]] = {}
  found: list[pa.Array] = []
  for array in vectors:
    stored, is_lost = npy.to_float16(array)
    size_bytes = stored.shape[1] * stored.itemsize
    found.append(arrays.from_fixed_size(stored, size_bytes))
    for i in np.flatnonzero(is_lost).tolist():
      detail = "a finite value beyond 65504, float16's largest"
      reasons[i] = (VECTOR_OUT_OF_RANGE, detail)
  columns, bad = columns_lib.cast_batch(metadata, wanted)
  reasons |= {i: (BAD_METADATA, detail) for i, detail in bad.items()}
  keys = arrays.from_numpy(np.arange(start, start + num_rows))
  names = [KEY_COLUMN, IMAGE_VECTOR_COLUMN, TEXT_VECTOR_COLUMN, *wanted.names]
  rows, skipped = bad_rows.leave_out(
    pa.RecordBatch.from_arrays(
      [keys.cast(pa.string()), *found, *columns], names=names
    ),
    reasons,
    name,
  )
  return SourceBatch(
    rows=rows,
    skipped=skipped,
    num_rows=num_rows,
    missing_columns=[n for n in wanted.names if n not in known],
  )
