"""Looks at every file of embedding partitions before the first row is read."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from tfds_plugins import errors
from tfds_plugins.sources import checking
from tfds_plugins.sources import folders
from tfds_plugins.sources import parquet_files
from tfds_plugins.sources.clip_retrieval import npy
from tfds_plugins.sources.clip_retrieval import partitions
from tfds_plugins.sources.clip_retrieval.partitions import EmbeddingPartition
from tfds_plugins.sources.clip_retrieval.partitions import PartitionFiles
from tfds_plugins.sources.rows import Source

# What a record takes beside vectors and metadata: names and sizes.
_RECORD_BYTES = 256
_STORED_BYTES = 2  # A float16.
_TO_DO = "Download the file again."
_MODELS = "CLIP ViT-B/32 gives 512, ViT-L/14 768, ViT-H/14 1024"


def check_source(
  listing: partitions.Listing,
  *,
  dim: int,
  wanted: pa.Schema,
  advise_dim: Callable[[int], str],
) -> Source:
  """Looks at headers, footers and a few rows of all partitions.

  Args:
    listing: from `partitions.find_partitions`.
    dim: the length of the vectors.
    wanted: names and types of the metadata columns.
    advise_dim: says what to do about vectors of another length.

  Returns:
    The source.

  Raises:
    errors.SourceError: vectors of another length, files of one partition that
      differ in their number of rows, or damaged ones; all of them are named.
  """
  shards = checking.check_all(
    lambda files: _make_partition(files, dim, wanted, advise_dim),
    listing.complete,
    num_threads=parquet_files.NUM_SAMPLING_THREADS,
  )
  notes = []
  if listing.incomplete:
    names = [
      f"{p.number} without {' and '.join(p.missing)}"
      for p in listing.incomplete
    ]
    notes.append(
      f"{len(names):,} partitions were left out, for a file is missing"
      f" ({folders.shorten(names)})."
    )
  cast_names = [
    shard.name
    for shard in shards
    if not shard.image_vectors.is_float16 or not shard.text_vectors.is_float16
  ]
  if cast_names:
    notes.append(
      f"{len(cast_names):,} partitions hold vectors of more than 16 bits; they"
      f" were rounded to float16 ({folders.shorten(cast_names)})."
    )
  return Source(source_dir=listing.source_dir, shards=shards, notes=notes)


def _make_partition(
  files: PartitionFiles,
  dim: int,
  wanted: pa.Schema,
  advise_dim: Callable[[int], str],
) -> EmbeddingPartition:
  """Looks at the headers, the footer and a few rows of a partition's files."""
  image_path, text_path, metadata_path = (
    files.paths[kind]
    for kind in (
      partitions.IMAGE_FILE,
      partitions.TEXT_FILE,
      partitions.METADATA_FILE,
    )
  )
  shard = files.make_shard()
  image_vectors = npy.read_header(image_path)
  text_vectors = npy.read_header(text_path)
  metadata = parquet_files.look_at(metadata_path, _TO_DO, wanted.names)
  for vectors in (image_vectors, text_vectors):
    if vectors.dim != dim:
      problem = errors.Problem(
        what=f"The vectors do not have {dim} values.",
        where=vectors.path,
        expected=f"({vectors.num_rows:,}, {dim}) floats",
        found=f"({vectors.num_rows:,}, {vectors.dim}) floats. {_MODELS}.",
        to_do=advise_dim(vectors.dim),
      )
      raise errors.SourceError(str(problem))
  num_rows = (image_vectors.num_rows, text_vectors.num_rows, metadata.num_rows)
  if len(set(num_rows)) > 1:
    problem = errors.Problem(
      what=f"The files of partition {files.number} differ in their rows.",
      where=f"{image_path}, {text_path}, {metadata_path}",
      expected="the same number of rows, for rows are paired by position",
      found=(
        f"{num_rows[0]:,} image vectors, {num_rows[1]:,} text vectors,"
        f" {num_rows[2]:,} rows of metadata"
      ),
      to_do=(
        "Download the three files again, or remove them all: with any other"
        " pairing, captions would go to the wrong vectors."
      ),
    )
    raise errors.SourceError(str(problem))
  return EmbeddingPartition(
    name=shard.name,
    length=metadata.num_rows,
    size_bytes=(
      metadata.num_rows * (2 * dim * _STORED_BYTES + _RECORD_BYTES)
      + metadata.value_bytes
    ),
    state=shard.state,
    image_vectors=image_vectors,
    text_vectors=text_vectors,
    metadata_path=str(metadata_path),
  )
