"""Makes a folder like that of the screenshot set.

    python benchmarks/make_screenshots.py OUT_DIR [--num_tars 8]
        [--num_tiles 200] [--num_rows 800] [--empty]

Tiles of 875 x 1,024 pixels and some 460 kB, as published on average (93.5 GB,
about 200,000 of them): text-like noise. There are 16 different ones. Rows name tiles
at random, two of them as negatives. `--empty` makes tiles of one pixel, to time
the index alone. The same arguments give the same files.
"""

from __future__ import annotations

import argparse
import io
import json
import pathlib
import tarfile

import numpy as np
from PIL import Image

_NUM_PICTURES = 16
_SPLITS = {"train": 0.9, "eval": 0.05, "test": 0.05}


def draw_tile(seed: int) -> bytes:
  """Returns a PNG of white and dark strokes, and a coloured, noisy picture."""
  rng = np.random.default_rng(seed)
  pixels = np.full((1024, 875, 3), 255, np.uint8)
  lines = rng.integers(0, 2, (1024, 875, 1), np.uint8) * rng.integers(
    0, 2, (1024, 875, 1), np.uint8
  )
  is_text = (np.arange(1024) % 26 < 12)[:, None, None]
  pixels -= np.where(is_text, lines * 200, 0).astype(np.uint8)
  pixels[80:440, 480:835] = rng.integers(120, 180, (360, 355, 3), np.uint8)
  out = io.BytesIO()
  Image.fromarray(pixels).save(out, "PNG")
  return out.getvalue()


def _draw_pixel(seed: int) -> bytes:
  out = io.BytesIO()
  Image.new("RGB", (1, 1), (seed, 0, 0)).save(out, "PNG")
  return out.getvalue()


def get_path(tar: int, tile: int) -> str:
  """Returns the path of a tile."""
  page = f"{tar * 1000 + tile:06d}.png.tiles"
  return f"images/shard_{tar:03d}/shard_{tile % 9:05d}/{page}/chunk_0000_00.png"


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("out_dir", type=pathlib.Path)
  parser.add_argument("--num_tars", type=int, default=8)
  parser.add_argument("--num_tiles", type=int, default=200)
  parser.add_argument("--num_rows", type=int, default=800)
  parser.add_argument("--empty", action="store_true")
  args = parser.parse_args()
  draw = _draw_pixel if args.empty else draw_tile
  pictures = [draw(seed) for seed in range(_NUM_PICTURES)]
  shards_dir = args.out_dir / "image_shards"
  shards_dir.mkdir(parents=True)
  for i in range(args.num_tars):
    with tarfile.open(shards_dir / f"shard_{i:03d}.tar", "w") as tar:
      for j in sorted(range(args.num_tiles), key=lambda j: get_path(i, j)):
        data = pictures[(i + j) % _NUM_PICTURES]
        info = tarfile.TarInfo(get_path(i, j).removeprefix("images/"))
        info.size = len(data)
        info.mtime = 1767225600.5
        tar.addfile(info, io.BytesIO(data))
  rng = np.random.default_rng(0)
  for split, share in _SPLITS.items():
    num_rows = int(args.num_rows * share)
    tars = rng.integers(0, args.num_tars, (num_rows, 3))
    tiles = rng.integers(0, args.num_tiles, (num_rows, 3))
    with (args.out_dir / f"{split}_hn.jsonl").open("w") as file:
      for i in range(num_rows):
        positive, *negatives = map(get_path, tars[i], tiles[i])
        row = {
          "query": f"What does the page number {i} of {split} say about it?",
          "chunk_path": positive,
          "neg_chunk_paths": negatives,
          "split": split,
        }
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
  main()
