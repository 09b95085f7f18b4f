"""Writes folders in the layout of the screenshot set, with small tiles."""

from __future__ import annotations

import io
import json
import pathlib
import tarfile

import builds
import numpy as np
from PIL import Image
import pyarrow.parquet as pq
import tensorflow_datasets as tfds

NAME = "screenshot_training_natural_filtered_v2"
SPLITS = ("train", "eval", "test")


def get_path(number: int, shard: int | None = None) -> str:
  """Returns the path of tile `number`; two tiles to a shard if not said."""
  shard = number // 2 if shard is None else shard
  return f"images/shard_{shard:03d}/shard_00000/{number:06d}.png.tiles/chunk_0000_00.png"


def get_size(number: int) -> tuple[int, int]:
  """Returns the height and width of a tile: no two of the first 50 alike."""
  return 5 + number, 9 + number % 7


def get_colour(number: int) -> tuple[int, int, int]:
  return (number * 5 % 256, number * 11 % 256, 255 - number)


def make_pixels(number: int) -> np.ndarray:
  pixels = np.zeros((*get_size(number), 3), np.uint8)
  pixels[:] = get_colour(number)
  pixels[0, :, :] = np.arange(pixels.shape[1])[:, None]
  return pixels


def make_tile(number: int, file_format="PNG") -> bytes:
  out = io.BytesIO()
  Image.fromarray(make_pixels(number)).save(out, file_format)
  return out.getvalue()


def make_row(number, positive, negatives=(), **fields):
  return {
    "query": f"question {number}?",
    "chunk_path": get_path(positive),
    "neg_chunk_paths": [get_path(i) for i in negatives],
    "split": "train",
    **fields,
  }


def write_tars(folder, numbers, contents=None) -> None:
  """Packs tiles as the published set's author does.

  Args:
    folder: the dataset's folder.
    numbers: of the tiles.
    contents: what tiles are instead, by number.
  """
  shards_dir = pathlib.Path(folder) / "image_shards"
  shards_dir.mkdir(parents=True, exist_ok=True)
  members = {
    get_path(i).removeprefix("images/"): (contents or {}).get(i, make_tile(i))
    for i in numbers
  }
  for shard in sorted({name.split("/")[0] for name in members}):
    with tarfile.open(shards_dir / f"{shard}.tar", "w") as tar:
      for name in sorted(members):
        if name.startswith(shard + "/"):
          info = tarfile.TarInfo(name)
          info.size = len(members[name])
          info.mtime = 1767225600.5
          tar.addfile(info, io.BytesIO(members[name]))


def extract(folder) -> None:
  """Does what the published extractor does, and removes the tars."""
  folder = pathlib.Path(folder)
  for path in sorted((folder / "image_shards").glob("*.tar")):
    with tarfile.open(path) as tar:
      tar.extractall(folder / "images", filter="data")
    path.unlink()


def write_lines(path, rows) -> None:
  """Writes JSON lines.

  Args:
    path: the file.
    rows: objects, or bytes as they are.
  """
  lines = [
    row
    if isinstance(row, bytes)
    else json.dumps(row, ensure_ascii=False).encode()
    for row in rows
  ]
  pathlib.Path(path).write_bytes(b"".join(line + b"\n" for line in lines))


def write_splits(folder, rows, suffix="_hn") -> None:
  """Writes rows as those of `train`, and one row each for the other splits."""
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  write_lines(folder / f"train{suffix}.jsonl", rows)
  for split in SPLITS[1:]:
    row = make_row(900, 0, [1, 2], split=split, answer=split)
    write_lines(folder / f"{split}{suffix}.jsonl", [row])


def prepare(
  manual_dir,
  data_dir,
  config="hard_negatives",
  *,
  file_format=None,
  refuse_missing_tiles=False,
  **options,
):
  return builds.prepare_dataset(
    f"{NAME}/{config}",
    manual_dir,
    data_dir,
    builder_options={
      "file_format": file_format,
      "refuse_missing_tiles": refuse_missing_tiles,
    },
    **options,
  )


def read_rows(builder, split="train"):
  ds = builder.as_dataset(
    split=split,
    decoders={
      "image": tfds.decode.SkipDecoding(),
      **(
        {"neg_images": tfds.decode.SkipDecoding()}
        if "neg_images" in builder.info.features
        else {}
      ),
    },
  )
  return list(tfds.as_numpy(ds))


def read_ledger(builder):
  table = pq.read_table(builder.data_path / "skipped_rows.parquet")
  return {
    (row["key"], row["reason"]): row["detail"] for row in table.to_pylist()
  }
