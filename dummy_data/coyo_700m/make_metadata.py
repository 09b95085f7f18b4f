"""Regenerates `dummy_data/coyo_700m/metadata`, as it is published.

    python -m pip install numpy pillow pyarrow
    python dummy_data/coyo_700m/make_metadata.py

Three files of 9, 3 and 6 rows with the 17 published columns; the first in row
groups of 5 and 4 rows. `make_images.py` downloads the same rows and 12 more.
Row i is about picture i of `coyo_pictures.py`:

    id                        2559800550877 + 2**33 i
    text                      "a plain colour, number <i>"
    image_phash               e9e90c24f1d9c674 + 9e3779b97f4a7c15 i modulo
                              2**64, in hex
    text_length               characters of the text
    word_count                its words; BERT has 3 tokens more, GPT 5
    num_faces                 i mod 4
    clip_similarity_vitb32    (256 + i) / 1024
    clip_similarity_vitl14    (224 - i) / 1024
    nsfw_score_opennsfw2      i / 4096
    nsfw_score_gantman        (i + 1) / 8192
    watermark_score           i / 32
    aesthetic_score_laion_v2  4 + i / 16

What is special about some rows:

    1    clip_similarity_vitb32 is -0.0625; COYO-700M goes down to -0.08
    2    no text, and none of its four counts
    4    no clip_similarity_vitb32, no aesthetic_score_laion_v2
    6    the text is "Ein Bild — größer, 第六"
    7    no image_phash
    11   no id
    14   none of the six scores
    15   no text, no num_faces
"""

from __future__ import annotations

import pathlib
import shutil
import sys
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import coyo_pictures  # pylint: disable=g-import-not-at-top,wrong-import-position

_COUNTS = ("text_length", "word_count", "num_tokens_bert", "num_tokens_gpt")
SCORES = (
  "clip_similarity_vitb32",
  "clip_similarity_vitl14",
  "nsfw_score_opennsfw2",
  "nsfw_score_gantman",
  "watermark_score",
  "aesthetic_score_laion_v2",
)
SCHEMA = pa.schema(
  {
    "id": pa.int64(),
    "url": pa.string(),
    "text": pa.string(),
    "width": pa.int32(),
    "height": pa.int32(),
    "image_phash": pa.string(),
    **{name: pa.int32() for name in (*_COUNTS, "num_faces")},
    **{name: pa.float32() for name in SCORES},
  }
)
_MISSING = {
  2: ("text", *_COUNTS),
  4: ("clip_similarity_vitb32", "aesthetic_score_laion_v2"),
  7: ("image_phash",),
  11: ("id",),
  14: SCORES,
  15: ("text", "num_faces"),
}
_FILE_NAME = (
  "part-{:05d}-17da4908-939c-46e5-91d0-15f256041956-c000.snappy.parquet"
)


def _make_row(i: int) -> dict[str, Any]:
  text = "Ein Bild — größer, 第六" if i == 6 else f"a plain colour, number {i}"
  num_words = len(text.split())
  width, height = coyo_pictures.get_size(i)
  row = {
    "id": 2559800550877 + 2**33 * i,
    "url": coyo_pictures.get_url(i),
    "text": text,
    "width": width,
    "height": height,
    "image_phash": (
      f"{(0xE9E90C24F1D9C674 + 0x9E3779B97F4A7C15 * i) % 2**64:016x}"
    ),
    "text_length": len(text),
    "word_count": num_words,
    "num_tokens_bert": num_words + 3,
    "num_tokens_gpt": num_words + 5,
    "num_faces": i % 4,
    "clip_similarity_vitb32": -0.0625 if i == 1 else (256 + i) / 1024,
    "clip_similarity_vitl14": (224 - i) / 1024,
    "nsfw_score_opennsfw2": i / 4096,
    "nsfw_score_gantman": (i + 1) / 8192,
    "watermark_score": i / 32,
    "aesthetic_score_laion_v2": 4 + i / 16,
  }
  return row | dict.fromkeys(_MISSING.get(i, ()))


def make_table(num_rows: int) -> pa.Table:
  """Returns the first rows."""
  return pa.Table.from_pylist([_make_row(i) for i in range(num_rows)], SCHEMA)


def main() -> None:
  output_dir = pathlib.Path(__file__).parent / "metadata" / "data"
  shutil.rmtree(output_dir, ignore_errors=True)
  output_dir.mkdir(parents=True)
  table = make_table(18)
  for number, part in enumerate([table[:9], table[9:12], table[12:]]):
    pq.write_table(
      part,
      output_dir / _FILE_NAME.format(number),
      compression="snappy",
      row_group_size=5 if number == 0 else None,
      store_schema=False,  # Spark, which wrote it, knows nothing of Arrow.
    )


if __name__ == "__main__":
  main()
