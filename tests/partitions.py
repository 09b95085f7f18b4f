"""Writes embedding partitions, as numpy and pandas write them."""

from __future__ import annotations

import pathlib

import numpy as np
import pandas as pd

# Folders of image vectors, text vectors and metadata.
LAYOUT_A = ("img_emb", "text_emb", "metadata")
LAYOUT_B = ("images", "texts", "metadata")
FLAT = ("", "", "")

# The columns of LAION-400M's published metadata, as ClickHouse's copy of ten
# rows has them (ClickHouse/ClickHouse, `tests/queries/0_stateless/
# 02245_parquet_skip_unknown_type.reference`).
PUBLISHED_COLUMNS = [
  *("image_path", "caption", "NSFW", "similarity", "LICENSE", "url", "key"),
  *("shard_id", "status", "error_message", "width", "height", "exif"),
  *("original_width", "original_height"),
]


def make_metadata(number: int, num_rows: int) -> pd.DataFrame:
  """Returns metadata with the published columns; row i of N is `caption N-i`."""
  rows = range(num_rows)
  return pd.DataFrame(
    {
      "image_path": [f"{number:04d}{i:05d}" for i in rows],
      "caption": [f"caption {number}-{i}" for i in rows],
      "NSFW": [("UNLIKELY", "UNSURE", "NSFW", None)[i % 4] for i in rows],
      "similarity": [None if i == 5 else 0.25 + i / 64 for i in rows],
      "LICENSE": ["?"] * num_rows,
      "url": [f"https://example.org/{number}/{i}.jpg" for i in rows],
      "key": [i % 3 for i in rows],  # They restart in every shard.
      "shard_id": [i // 3 for i in rows],
      "status": ["success"] * num_rows,
      "error_message": [None] * num_rows,  # Parquet's null type.
      "width": [256] * num_rows,
      "height": [256] * num_rows,
      "exif": ["{}"] * num_rows,
      "original_width": [300 + i for i in rows],
      "original_height": [200 + number for i in rows],
    },
    columns=PUBLISHED_COLUMNS,
  )


def make_vectors(number: int, num_rows: int, dim: int = 512):
  """Returns (num_rows, dim) float16 of images and of texts; any bits at all."""
  rng = np.random.default_rng(number)
  bits = rng.integers(0, 1 << 16, (2, num_rows, dim), np.uint16)
  return bits.view(np.float16)


def write_partition(
  folder: pathlib.Path,
  number: int,
  metadata: pd.DataFrame,
  vectors=None,
  *,
  layout=LAYOUT_A,
  width: int = 0,
) -> None:
  """Writes the three files of a partition.

  Args:
    folder: gets the layout's folders.
    number: in the files' names, padded to `width` digits.
    metadata: the rows.
    vectors: of images and texts; by default what `make_vectors` gives.
    layout: see above.
    width: see above.
  """
  if vectors is None:
    vectors = make_vectors(number, len(metadata))
  image_dir, text_dir, metadata_dir = (folder / name for name in layout)
  for path in (image_dir, text_dir, metadata_dir):
    path.mkdir(parents=True, exist_ok=True)
  stem = f"{number:0{width}d}"
  np.save(image_dir / f"img_emb_{stem}.npy", vectors[0])
  np.save(text_dir / f"text_emb_{stem}.npy", vectors[1])
  metadata.to_parquet(metadata_dir / f"metadata_{stem}.parquet")
