"""Rows of img2dataset's parquet output: metadata and images in one file.

The image is in a binary column named by its encoding (`jpg`, `png`, `webp`),
null where the download failed (rom1504/img2dataset, `img2dataset/writer.py`).
A row has everything: there is nothing to be paired.
"""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses

from etils import epath
import pyarrow as pa
import pyarrow.compute as pc

from tfds_plugins import errors
from tfds_plugins.sources import arrays
from tfds_plugins.sources import bad_rows
from tfds_plugins.sources import columns as columns_lib
from tfds_plugins.sources import folders
from tfds_plugins.sources import parquet_files
from tfds_plugins.sources.img2dataset import parquet_rows
from tfds_plugins.sources.img2dataset import samples as samples_lib
from tfds_plugins.sources.img2dataset.shards import ImageShard
from tfds_plugins.sources.rows import BAD_METADATA
from tfds_plugins.sources.rows import IMAGE_COLUMN
from tfds_plugins.sources.rows import KEY_COLUMN
from tfds_plugins.sources.rows import SourceBatch
from tfds_plugins.sources.rows import SourceSlice

# img2dataset writes row groups of 100 rows.
_BATCH_ROWS = 100
_BATCH_BYTES = 8 << 20
_STATUS_COLUMNS = pa.schema(
  [
    (KEY_COLUMN, pa.string()),
    ("status", pa.string()),
    ("error_message", pa.string()),
  ]
)
_TO_DO = "Remove this shard, or have img2dataset write it again."


def find_image_columns(schema: pa.Schema) -> list[str]:
  """Returns the names of the columns that hold images."""
  return [
    field.name
    for field in schema
    if field.name in samples_lib.IMAGE_EXTENSIONS
    and (pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type))
  ]


def check(shard: ImageShard) -> ImageShard:
  """Checks by its footer that a parquet holds images.

  Args:
    shard: the shard, of unknown length and size.

  Returns:
    The shard, with its number of rows and its size.

  Raises:
    errors.SourceError: it is damaged, or not img2dataset's output with images.
  """
  path = epath.Path(shard.path)
  info = parquet_files.look_at(path, _TO_DO)
  schema = info.schema
  parquet_rows.check_columns(schema, shard.path, _TO_DO)
  names = find_image_columns(schema)
  if len(names) != 1:
    problem = errors.Problem(
      what="It is not clear which column holds the images.",
      where=shard.path,
      expected="one binary column jpg, png or webp",
      found=f"{', '.join(names) or 'none'} of {', '.join(schema.names)}",
      to_do=_TO_DO,
    )
    raise errors.SourceError(str(problem))
  return dataclasses.replace(
    shard,
    length=info.num_rows,
    size_bytes=max(info.num_rows, folders.get_size(path)),
  )


def iter_batches(
  source_slice: SourceSlice[ImageShard], wanted: pa.Schema
) -> Iterator[SourceBatch]:
  """Yields the rows of a slice in their order.

  Args:
    source_slice: some rows of a parquet.
    wanted: names and types of the metadata columns.

  Yields:
    Batches with the columns `key`, `image` and the wanted ones.

  Raises:
    errors.SourceError: the file is damaged behind its footer.
  """
  path = epath.Path(source_slice.shard.path)
  info = parquet_files.look_at(path, _TO_DO)
  (image_name,) = find_image_columns(info.schema)
  row_bytes = folders.get_size(path) // max(1, info.num_rows)
  names = {image_name, *_STATUS_COLUMNS.names, *wanted.names}
  for batch in parquet_files.iter_rows(
    path,
    source_slice.start,
    source_slice.stop,
    names,
    batch_rows=max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(1, row_bytes))),
    to_do=_TO_DO,
  ):
    yield _make_batch(batch, image_name, source_slice.shard.name, wanted)


def _make_batch(
  found: pa.RecordBatch, image_name: str, shard_name: str, wanted: pa.Schema
) -> SourceBatch:
  images = found.column(image_name)
  metadata, bad = columns_lib.cast_batch(found, wanted)
  status, _ = columns_lib.cast_batch(found, _STATUS_COLUMNS)
  keys, statuses, messages = (arrays.fill_null(c, "") for c in status)
  sizes = arrays.fill_null(pc.binary_length(images), -1)
  reasons: dict[int, tuple[str, str]] = {}
  for i, (text, size) in enumerate(
    zip(statuses.to_pylist(), sizes.to_pylist())
  ):
    if text != parquet_rows.SUCCESS:
      reasons[i] = parquet_rows.explain_status(text, messages[i].as_py())
    elif size < 0:
      reasons[i] = (samples_lib.NO_IMAGE, "a success without an image")
    elif size > samples_lib.MAX_IMAGE_BYTES:
      reasons[i] = samples_lib.describe_large(size)
    elif i in bad:
      reasons[i] = (BAD_METADATA, bad[i])
  rows, skipped = bad_rows.leave_out(
    pa.RecordBatch.from_arrays(
      [keys, images, *metadata],
      names=[KEY_COLUMN, IMAGE_COLUMN, *wanted.names],
    ),
    reasons,
    shard_name,
  )
  return SourceBatch(
    rows=rows,
    skipped=skipped,
    num_rows=found.num_rows,
    missing_columns=[n for n in wanted.names if n not in found.schema.names],
  )
