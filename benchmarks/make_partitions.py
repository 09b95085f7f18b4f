"""Writes embedding partitions like LAION-400M's, of random vectors.

    python benchmarks/make_partitions.py OUT_DIR [--num_rows 40000] [--num 1]

Vectors are normalized float16 of 512 values. The metadata has the published
columns and types: int64 keys that restart, a column of parquet's null type,
captions of 3 to 18 words, one row group for all rows (as pandas writes it).
"""

from __future__ import annotations

import argparse
import pathlib
import random

import numpy as np
import pandas as pd

_DIM = 512
_WRITTEN_ROWS = 50_000


def write_vectors(
  path: pathlib.Path, num_rows: int, rng: np.random.Generator
) -> None:
  """Writes (num_rows, 512) float16, a part at a time."""
  path.parent.mkdir(parents=True, exist_ok=True)
  array = np.lib.format.open_memmap(
    path, mode="w+", dtype=np.float16, shape=(num_rows, _DIM)
  )
  for start in range(0, num_rows, _WRITTEN_ROWS):
    part = array[start : start + _WRITTEN_ROWS]
    vectors = rng.standard_normal(part.shape, np.float32)
    part[:] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
  array.flush()


def make_metadata(num_rows: int, seed: int) -> pd.DataFrame:
  """Returns rows with the published columns."""
  rng = random.Random(seed)
  letters = "abcdefghijklmnopqrstuvwxyz"
  words = [
    "".join(rng.choices(letters, k=rng.randint(2, 10))) for _ in range(5000)
  ]
  rows = range(num_rows)
  return pd.DataFrame(
    {
      "image_path": [f"{i:09d}" for i in rows],
      "caption": [
        " ".join(rng.choices(words, k=rng.randint(3, 18))) for _ in rows
      ],
      "NSFW": rng.choices(["UNLIKELY", "UNSURE", "NSFW", None], k=num_rows),
      "similarity": [
        None if i % 100 == 7 else 0.3 + rng.random() / 5 for i in rows
      ],
      "LICENSE": ["?"] * num_rows,
      "url": [
        f"https://{rng.choice(words)}.com/{rng.getrandbits(64):x}.jpg"
        for _ in rows
      ],
      "key": [i % 10_000 for i in rows],
      "shard_id": [i // 10_000 for i in rows],
      "status": ["success"] * num_rows,
      "error_message": [None] * num_rows,
      "width": [256] * num_rows,
      "height": [256] * num_rows,
      "exif": ["{}"] * num_rows,
      "original_width": [rng.randint(100, 3000) for _ in rows],
      "original_height": [rng.randint(100, 3000) for _ in rows],
    }
  )


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("out_dir", type=pathlib.Path)
  parser.add_argument("--num_rows", type=int, default=40_000)
  parser.add_argument("--num", type=int, default=1)
  args = parser.parse_args()
  for number in range(args.num):
    rng = np.random.default_rng(number)
    for kind in ("img_emb", "text_emb"):
      path = args.out_dir / kind / f"{kind}_{number}.npy"
      write_vectors(path, args.num_rows, rng)
    folder = args.out_dir / "metadata"
    folder.mkdir(exist_ok=True)
    make_metadata(args.num_rows, number).to_parquet(
      folder / f"metadata_{number}.parquet", row_group_size=args.num_rows
    )


if __name__ == "__main__":
  main()
