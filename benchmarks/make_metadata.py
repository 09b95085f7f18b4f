"""Writes metadata like that of COYO-700M and COYO-Labeled-300M.

    python benchmarks/make_metadata.py OUT_DIR [--dataset coyo_700m]
        [--num_rows 1000000] [--num 1]

The files have the published names, columns and types. Strings are as long as
the published ones: URLs of some 90 characters, texts of 11 words and 68
characters on average (kakaobrain/coyo-dataset, `README.md`, "Statistics"),
16 hexadecimal digits for the hash. The same arguments give the same files.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

_NUM_LABELS = 50
_NUM_CLASSES = 21841
_NUM_WORDS = 20_000
_ROW_GROUP_ROWS = 250_000


def _make_strings(data: np.ndarray, offsets: np.ndarray) -> pa.Array:
  """Returns strings from (num_bytes,) uint8 and (num_strings + 1,) int32."""
  return pa.StringArray.from_buffers(
    len(offsets) - 1,
    pa.py_buffer(offsets.astype(np.int32)),
    pa.py_buffer(np.ascontiguousarray(data)),
  )


def _make_offsets(lengths: np.ndarray) -> np.ndarray:
  return np.concatenate([[0], np.cumsum(lengths)])


def _make_hex(rng: np.random.Generator, num_rows: int, length: int) -> pa.Array:
  """Returns strings of `length` hexadecimal digits."""
  digits = np.frombuffer(b"0123456789abcdef", np.uint8)
  data = digits[rng.integers(0, 16, num_rows * length, np.uint8)]
  return _make_strings(data, np.arange(num_rows + 1) * length)


def _make_words(rng: np.random.Generator) -> pa.Array:
  lengths = rng.integers(2, 10, _NUM_WORDS)
  data = rng.integers(ord("a"), ord("z") + 1, lengths.sum(), np.uint8)
  return _make_strings(data, _make_offsets(lengths))


def _join_words(
  rng: np.random.Generator, words: pa.Array, num_words: np.ndarray, by: str
) -> pa.Array:
  """Returns for each number so many random words, joined by `by`."""
  offsets = pa.array(_make_offsets(num_words), pa.int32())
  taken = words.take(pa.array(rng.integers(0, len(words), num_words.sum())))
  return pc.binary_join(pa.ListArray.from_arrays(offsets, taken), by)


def _make_urls(
  rng: np.random.Generator, words: pa.Array, num_rows: int
) -> pa.Array:
  hosts = _join_words(rng, words, np.full(num_rows, 2), "-")
  names = _join_words(rng, words, rng.integers(2, 8, num_rows), "-")
  ids = _make_hex(rng, num_rows, 8)
  return pc.binary_join_element_wise(
    "https://www.",
    hosts,
    ".com/wp-content/uploads/",
    names,
    "-",
    ids,
    ".jpg",
    "",
  )


def _make_sizes(rng: np.random.Generator, num_rows: int) -> np.ndarray:
  """Returns sides of 200 pixels and more, some 600 on average, int32."""
  return (200 + rng.exponential(400, num_rows)).astype(np.int32)


def _make_scores(
  rng: np.random.Generator, num_rows: int, mean: float, spread: float
) -> np.ndarray:
  """Returns float32 with the precision of float16, like the published ones."""
  return rng.normal(mean, spread, num_rows).astype(np.float16).astype("f4")


def _make_ids(start: int, num_rows: int) -> np.ndarray:
  # Spark's `monotonically_increasing_id` counts within a partition of its own,
  # whose number it writes from bit 33 on.
  rows = np.arange(start, start + num_rows, dtype=np.int64)
  return (rows % 1200 << 33) + rows


def _make_coyo_700m(
  rng: np.random.Generator, words: pa.Array, start: int, num_rows: int
) -> pa.Table:
  """Returns rows with COYO-700M's 17 columns."""
  num_words = np.maximum(3, rng.poisson(10.7, num_rows)).astype(np.int32)
  texts = _join_words(rng, words, num_words, " ")
  num_extra_tokens = rng.integers(2, 8, (2, num_rows), np.int32)
  return pa.table(
    {
      "id": _make_ids(start, num_rows),
      "url": _make_urls(rng, words, num_rows),
      "text": texts,
      "width": _make_sizes(rng, num_rows),
      "height": _make_sizes(rng, num_rows),
      "image_phash": _make_hex(rng, num_rows, 16),
      "text_length": pc.utf8_length(texts),
      "word_count": num_words,
      "num_tokens_bert": num_words + num_extra_tokens[0],
      "num_tokens_gpt": num_words + num_extra_tokens[1],
      "num_faces": rng.poisson(0.6, num_rows).astype(np.int32),
      "clip_similarity_vitb32": _make_scores(rng, num_rows, 0.29, 0.04),
      "clip_similarity_vitl14": _make_scores(rng, num_rows, 0.25, 0.04),
      "nsfw_score_opennsfw2": rng.beta(0.2, 15, num_rows).astype("f4"),
      "nsfw_score_gantman": rng.beta(0.5, 15, num_rows).astype("f4"),
      "watermark_score": rng.beta(0.5, 2.3, num_rows).astype("f4"),
      "aesthetic_score_laion_v2": _make_scores(rng, num_rows, 4.77, 0.7),
    }
  )


def make_labels(
  rng: np.random.Generator, num_rows: int
) -> tuple[pa.Array, pa.Array]:
  """Returns the two columns of labels, lists of int32 and of float32.

  The 50 labels of a row differ; probabilities fall, with float16's precision.
  """
  first = rng.integers(0, _NUM_CLASSES, (num_rows, 1))
  # Multiples of a step smaller than a prime differ modulo that prime.
  step = rng.integers(1, _NUM_CLASSES, (num_rows, 1))
  labels = (first + step * np.arange(_NUM_LABELS)) % _NUM_CLASSES
  falls = rng.uniform(0.7, 1, (num_rows, _NUM_LABELS))
  probs = (0.9 * np.cumprod(falls, axis=1)).astype(np.float16)
  offsets = pa.array(np.arange(num_rows + 1) * _NUM_LABELS, pa.int32())
  return (
    pa.ListArray.from_arrays(offsets, pa.array(labels.ravel(), pa.int32())),
    pa.ListArray.from_arrays(offsets, pa.array(probs.ravel().astype("f4"))),
  )


def _make_coyo_labeled_300m(
  rng: np.random.Generator, words: pa.Array, start: int, num_rows: int
) -> pa.Table:
  """Returns rows with COYO-Labeled-300M's 7 columns."""
  labels, label_probs = make_labels(rng, num_rows)
  return pa.table(
    {
      "id": _make_ids(start, num_rows),
      "url": _make_urls(rng, words, num_rows),
      "imagehash": _make_hex(rng, num_rows, 16),
      "labels": labels,
      "label_probs": label_probs,
      "width": _make_sizes(rng, num_rows),
      "height": _make_sizes(rng, num_rows),
    }
  )


_DATASETS: dict[str, tuple[str, Callable[..., pa.Table]]] = {
  "coyo_700m": ("17da4908-939c-46e5-91d0-15f256041956", _make_coyo_700m),
  "coyo_labeled_300m": (
    "c9672901-7346-47d7-b02e-c1562fdf3cf9",
    _make_coyo_labeled_300m,
  ),
}


def write_file(
  out_dir: pathlib.Path, dataset: str, number: int, num_rows: int
) -> None:
  """Writes one file, a row group at a time."""
  run_id, make_rows = _DATASETS[dataset]
  words = _make_words(np.random.default_rng(0))
  path = out_dir / f"part-{number:05d}-{run_id}-c000.snappy.parquet"
  writer = None
  for start in range(0, num_rows, _ROW_GROUP_ROWS):
    table = make_rows(
      np.random.default_rng([number, start]),
      words,
      number * num_rows + start,
      min(_ROW_GROUP_ROWS, num_rows - start),
    )
    if writer is None:
      writer = pq.ParquetWriter(path, table.schema, store_schema=False)
    writer.write_table(table)
  if writer is not None:
    writer.close()


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("out_dir", type=pathlib.Path)
  parser.add_argument("--dataset", choices=_DATASETS, default="coyo_700m")
  parser.add_argument("--num_rows", type=int, default=1_000_000)
  parser.add_argument("--num", type=int, default=1)
  args = parser.parse_args()
  args.out_dir.mkdir(parents=True, exist_ok=True)
  for number in range(args.num):
    write_file(args.out_dir, args.dataset, number, args.num_rows)


if __name__ == "__main__":
  main()
