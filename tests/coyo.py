"""What the fixtures of both COYO datasets hold, said once more.

Worked out from the descriptions in `dummy_data/coyo_pictures.py`,
`dummy_data/coyo_labeled_300m/make_labels.py` and
`dummy_data/coyo_700m/make_metadata.py`, not from their code.
"""

from __future__ import annotations

import math
import pathlib

import builds
import numpy as np
import pyarrow.parquet as pq
import tensorflow_datasets as tfds

NUM_ROWS = 30
FAILED_DOWNLOADS = {3, 10, 17, 24}
FAILED_RESIZES = {5, 16, 19}
SUCCESSES = [
  i for i in range(NUM_ROWS) if i not in FAILED_DOWNLOADS | FAILED_RESIZES
]
BAD_LABELS = {2, 4, 6, 14}


def prepare(name, manual_dir, data_dir, **options):
  return builds.prepare_dataset(
    name, manual_dir, data_dir, builder_options=options
  )


def read(builder, **options):
  """Returns the examples by the number of their row."""
  ds = builder.as_dataset(split="train", **options)
  return {get_number(e["url"]): e for e in tfds.as_numpy(ds)}


def get_number(url: bytes) -> int:
  return int(url.decode().rpartition("/")[2].removesuffix(".jpg"))


def get_url(i: int) -> bytes:
  return b"http://127.0.0.1:18401/%d.jpg" % i


def get_size(i: int) -> tuple[int, int]:
  """Returns width and height of the picture as it was served."""
  return {13: (600, 520), 16: (100, 100), 19: (800, 200)}.get(
    i, (240 + 4 * i, 240)
  )


def check_image(i: int, image: np.ndarray, image_size: int) -> None:
  """Checks size and colour of picture i."""
  width, height = get_size(i)
  scale = min(1, image_size / min(width, height))
  if i == 13:  # keep_ratio: the shorter side gets the size.
    width, height = math.floor(width * scale + 0.5), image_size
  assert image.shape == (height, width, 3)
  colour = np.array([8 * i, 255 - 8 * i, 53 * i % 256])
  if i == 8:  # Served as grayscale: 0.299 R + 0.587 G + 0.114 B.
    colour = np.full(3, round(0.299 * 64 + 0.587 * 191 + 0.114 * 168))
  centre = image[height // 2, width // 2].astype(int)
  assert np.abs(centre - colour).max() <= 3, i


def get_labels(i: int) -> list[int]:
  """Returns the labels of row i of the downloads."""
  if i == 1:
    return []
  labels = [(8087 + 7919 * i + 2967 * j) % 21841 for j in range(50)]
  labels = {
    0: [8087, 11054, 8088, *labels[3:]],
    12: [0, *labels[1:49], 21840],
    15: labels[:3],
  }.get(i, labels)
  return labels


def get_probs(i: int) -> list[float]:
  """Returns the probabilities of row i of the downloads."""
  if i == 1:
    return []
  probs = [(560 + i - 11 * j) / 2048 for j in range(50)]
  return {0: [0.4453125, 0.30419921875, *probs[2:]], 15: probs[:3]}.get(
    i, probs
  )


def get_hash(i: int, first: int) -> bytes:
  return b"%016x" % ((first + 0x9E3779B97F4A7C15 * i) % 2**64)


def read_ledger(builder) -> dict[int | str, tuple[str, str]]:
  """Returns reason and detail of the skipped rows by key."""
  path = pathlib.Path(builder.data_dir) / "skipped_rows.parquet"
  return {
    row["key"]: (row["reason"], row["detail"])
    for row in pq.read_table(path).to_pylist()
  }
