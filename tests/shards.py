"""Writes img2dataset-like shards with the standard library and pyarrow alone.

What is written here was compared with files that img2dataset 1.47.0 wrote:
pax tars with a float mtime, a parquet in order of completion.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
import io
import json
import pathlib
import tarfile
from typing import Any

import numpy as np
from PIL import Image
import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA = pa.schema(
  [
    ("NSFW", pa.string()),
    ("similarity", pa.float64()),
    ("LICENSE", pa.string()),
    ("caption", pa.string()),
    ("url", pa.string()),
    ("key", pa.string()),
    ("status", pa.string()),
    ("error_message", pa.string()),
    ("width", pa.int32()),
    ("height", pa.int32()),
    ("original_width", pa.int32()),
    ("original_height", pa.int32()),
    ("exif", pa.string()),
    ("sha256", pa.string()),
  ]
)


def encode(
  image: Image.Image, image_format: str = "JPEG", **options: Any
) -> bytes:
  """Returns the encoded image."""
  out = io.BytesIO()
  image.save(out, image_format, **options)
  return out.getvalue()


def picture(number: int, width: int = 24, height: int = 16) -> bytes:
  """Returns a JPEG of one colour, (number, 255 - number, 7 * number) mod 256."""
  colour = (number % 256, (255 - number) % 256, 7 * number % 256)
  return encode(Image.new("RGB", (width, height), colour), quality=95)


def noise(seed: int, width: int = 40, height: int = 30) -> Image.Image:
  """Returns an image that uses all of an encoder's code tables."""
  rng = np.random.default_rng(seed)
  values = rng.integers(0, 256, (height, width, 3), np.uint8)
  return Image.fromarray(values)


def make_row(number: int, key: str, **values: Any) -> dict[str, Any]:
  """Returns the metadata of row `number`, as img2dataset would write it."""
  row = {
    "NSFW": ["UNLIKELY", "UNSURE", "NSFW"][number % 3],
    "similarity": 0.3 + number / 1000,
    "LICENSE": "?",
    "caption": f"caption {number}",
    "url": f"http://example.com/{number}.jpg",
    "key": key,
    "status": "success",
    "error_message": None,
    "width": 24,
    "height": 16,
    "original_width": 100 + number,
    "original_height": 200 + number,
    "exif": "{}",
    "sha256": "0" * 64,
  }
  return row | values


def failed_row(number: int, key: str, **values: Any) -> dict[str, Any]:
  """Returns the metadata of a row whose download failed."""
  failure = {
    "status": "failed_to_download",
    "error_message": "HTTP Error 404: Not Found",
    "width": None,
    "height": None,
    "original_width": None,
    "original_height": None,
    "exif": None,
    "sha256": None,
  }
  return make_row(number, key) | failure | values


def write_tar(
  path: pathlib.Path,
  members: Iterable[tuple[str, bytes]],
  tar_format: int = tarfile.PAX_FORMAT,
) -> None:
  """Writes a tar as webdataset's writer does."""
  with tarfile.open(path, "w", format=tar_format) as tar:
    for name, content in members:
      info = tarfile.TarInfo(name)
      info.size = len(content)
      info.mtime = 1700000000.25 if tar_format == tarfile.PAX_FORMAT else 0
      info.mode = 0o444
      info.uname = info.gname = "bigdata"
      tar.addfile(info, io.BytesIO(content))


def sample_members(
  row: dict[str, Any], image: bytes, extension: str = "jpg"
) -> list[tuple[str, bytes]]:
  """Returns the members of one sample: image, json, txt."""
  return [
    (f"{row['key']}.{extension}", image),
    (f"{row['key']}.json", json.dumps(row, indent=4).encode()),
    (f"{row['key']}.txt", str(row["caption"] or "").encode()),
  ]


def write_shard(
  folder: pathlib.Path,
  stem: str,
  rows: Sequence[dict[str, Any]],
  images: dict[str, bytes],
  *,
  parquet: bool = True,
  stats: bool = True,
  schema: pa.Schema = SCHEMA,
  parquet_order: Sequence[int] | None = None,
) -> None:
  """Writes one shard.

  Args:
    folder: where to write.
    stem: name of the shard, e.g. `00000`.
    rows: the rows in the order of the tar.
    images: key -> image, for the rows that have a sample.
    parquet: whether to write the parquet.
    stats: whether to write `_stats.json`.
    schema: the parquet's schema.
    parquet_order: another order for the parquet.
  """
  folder.mkdir(parents=True, exist_ok=True)
  members = []
  for row in rows:
    if row["key"] in images:
      members += sample_members(row, images[row["key"]])
  write_tar(folder / f"{stem}.tar", members)
  if parquet:
    ordered = (
      rows if parquet_order is None else [rows[i] for i in parquet_order]
    )
    columns = {
      name: pa.array(
        [row.get(name) for row in ordered], schema.field(name).type
      )
      for name in schema.names
    }
    table = pa.table(columns, schema=schema)
    pq.write_table(table, folder / f"{stem}.parquet", row_group_size=5)
  if stats:
    count = {"count": len(rows), "successes": len(images)}
    (folder / f"{stem}_stats.json").write_text(json.dumps(count))


def write_simple_shards(
  folder: pathlib.Path, lengths: Sequence[int], *, fail_every: int = 5
) -> list[dict[str, Any]]:
  """Writes shards 00000, 00001, ... and returns the rows that succeed, in order.

  Args:
    folder: where to write.
    lengths: the number of rows of each shard.
    fail_every: every so many rows one has failed; 0 for none.
  """
  succeeded = []
  number = 0
  for shard, length in enumerate(lengths):
    rows, images = [], {}
    for i in reversed(range(length)):  # Not in the order of the keys.
      key = f"{shard * 10000 + i:09d}"
      if fail_every and number % fail_every == fail_every - 1:
        rows.append(failed_row(number, key))
      else:
        rows.append(make_row(number, key))
        images[key] = picture(number)
        succeeded.append(rows[-1])
      number += 1
    order = list(range(length))[::2] + list(range(length))[1::2]
    write_shard(folder, f"{shard:05d}", rows, images, parquet_order=order)
  return succeeded
