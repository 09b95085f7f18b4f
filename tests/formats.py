"""Writes one shard in each of img2dataset's formats, with other libraries.

What is written here was compared with files that img2dataset 1.47.0 wrote.
"""

from __future__ import annotations

from collections.abc import Sequence
import itertools
import json
import pathlib
from typing import Any

from etils import epath
import pyarrow as pa
import pyarrow.parquet as pq
import shards
import tensorflow as tf

from tfds_plugins.sources.img2dataset import listing
from tfds_plugins.sources.img2dataset import source
from tfds_plugins.sources.rows import SourceSlice

FORMATS = ("webdataset", "files", "parquet", "tfrecord")


def write_shard(
  output_format: str,
  folder: pathlib.Path,
  stem: str,
  rows: Sequence[dict[str, Any]],
  images: dict[str, bytes],
  *,
  parquet: bool = True,
  schema: pa.Schema = shards.SCHEMA,
  image_name: str = "jpg",
) -> None:
  """Writes the rows, those in `images` with their image.

  Args:
    output_format: one of `FORMATS`.
    folder: where to write.
    stem: name of the shard.
    rows: metadata, in the order of the shard.
    images: key -> image.
    parquet: whether to write the metadata beside the images.
    schema: that of the metadata.
    image_name: what img2dataset calls `encode_format`.
  """
  folder.mkdir(parents=True, exist_ok=True)
  good = [row for row in rows if row["key"] in images]
  if output_format == "webdataset":
    members = []
    for row in good:
      members += shards.sample_members(row, images[row["key"]], image_name)
    shards.write_tar(folder / f"{stem}.tar", members)
  elif output_format == "files":
    (folder / stem).mkdir()
    for row in good:
      for name, content in shards.sample_members(
        row, images[row["key"]], image_name
      ):
        (folder / stem / name).write_bytes(content)
  elif output_format == "tfrecord":
    with tf.io.TFRecordWriter(str(folder / f"{stem}.tfrecord")) as writer:
      for row in good:
        writer.write(make_record(row, images[row["key"]], image_name))
  else:
    schema = schema.append(pa.field(image_name, pa.binary()))
    rows = [row | {image_name: images.get(row["key"])} for row in rows]
  if parquet or output_format == "parquet":
    table = pa.table(
      {
        field.name: pa.array([row.get(field.name) for row in rows], field.type)
        for field in schema
      },
      schema=schema,
    )
    pq.write_table(table, folder / f"{stem}.parquet", row_group_size=5)
  count = {"count": len(rows), "successes": len(images)}
  (folder / f"{stem}_stats.json").write_text(json.dumps(count))


def make_record(
  row: dict[str, Any], image: bytes, image_name: str = "jpg"
) -> bytes:
  """Serializes a row as img2dataset's TFRecordSampleWriter does."""
  features = {name: _make_feature(value) for name, value in row.items()}
  features[image_name] = _make_feature(image)
  example = tf.train.Example(features=tf.train.Features(feature=features))
  return example.SerializeToString()


def _make_feature(value: Any) -> tf.train.Feature:
  values = value if isinstance(value, list) else [value]
  if isinstance(values[0], int):
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
  if isinstance(values[0], float):
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))
  data = [b"" if value is None else value for value in values]
  data = [v.encode() if isinstance(v, str) else v for v in data]
  return tf.train.Feature(bytes_list=tf.train.BytesList(value=data))


def make_slices(folder: pathlib.Path, cuts: Sequence[float] = ()):
  """Returns slices of the only shard in a folder, cut at fractions of it."""
  (shard,) = source.check_source(listing.list_shards(epath.Path(folder))).shards
  places = [0, *(int(shard.length * cut) for cut in cuts), shard.length]
  return [
    SourceSlice(shard=shard, start=start, stop=stop)
    for start, stop in itertools.pairwise(places)
  ]
