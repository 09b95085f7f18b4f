"""Makes the corpus of the benchmarks: shards that img2dataset itself writes.

    python benchmarks/make_corpus.py CORPUS_DIR --num_shards 4
        [--dataset coyo_labeled_300m] [--output_format tfrecord]

Images are drawn here, served on loopback and downloaded by img2dataset with
the options that the dataset documents. Needs `pip install img2dataset`, and
`tensorflow tensorflow-io` for TFRecord (Python 3.10 to 3.12).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
import dataclasses
import functools
import pathlib
import sys
from typing import Any

import make_metadata
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "dummy_data"))
import img2dataset_run  # pylint: disable=g-import-not-at-top,wrong-import-position

NUM_DRAWN = 500
_FORMATS = ("webdataset", "files", "parquet", "tfrecord")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Recipe:
  """How a dataset is downloaded.

  Attributes:
    image_size: width and height of the pictures in pixels, as drawn and as
      asked for.
    make_columns: the columns that are kept, of so many rows.
    options: what else `img2dataset_run.run` is given.
  """

  image_size: int
  make_columns: Callable[[int], dict[str, Any]]
  options: dict[str, Any]


def _make_laion400m(num_rows: int) -> dict[str, Any]:
  nsfw = ["UNLIKELY", "UNSURE", "NSFW", None]
  return {
    "NSFW": [nsfw[i % 4] for i in range(num_rows)],
    "similarity": [0.3 + (i % 100) / 1000 for i in range(num_rows)],
    "LICENSE": ["?"] * num_rows,
  }


def _make_coyo_labeled_300m(num_rows: int) -> dict[str, Any]:
  rng = np.random.default_rng(0)
  labels, label_probs = make_metadata.make_labels(rng, num_rows)
  ids = np.arange(num_rows)
  return {"id": ids, "labels": labels, "label_probs": label_probs}


_RECIPES = {
  "laion400m": _Recipe(
    image_size=256, make_columns=_make_laion400m, options={}
  ),
  "coyo_labeled_300m": _Recipe(
    image_size=512,
    make_columns=_make_coyo_labeled_300m,
    options={
      "caption_col": None,
      "resize_only_if_bigger": True,
      "resize_mode": "keep_ratio",
      "skip_reencode": True,
    },
  ),
}


@functools.cache
def _draw(seed: int, size: int) -> bytes:
  return img2dataset_run.draw_photo(seed, size)


def _answer(path: str, *, image_size: int) -> img2dataset_run.Response:
  number = int(path.rsplit("/", 1)[1].split(".")[0])
  if number % 9 == 8:  # COYO reports that some 15% of the URLs are gone.
    return img2dataset_run.Response(body=b"gone", status=404)
  return img2dataset_run.Response(body=_draw(number % NUM_DRAWN, image_size))


def make_corpus(
  corpus_dir: pathlib.Path,
  *,
  num_shards: int,
  rows_per_shard: int,
  dataset: str = "laion400m",
  output_format: str = "webdataset",
) -> None:
  """Writes `num_shards` shards into `corpus_dir`."""
  recipe = _RECIPES[dataset]
  for seed in range(NUM_DRAWN):
    _draw(seed, recipe.image_size)
  num_rows = num_shards * rows_per_shard
  columns = recipe.make_columns(num_rows)
  answer = functools.partial(_answer, image_size=recipe.image_size)
  with img2dataset_run.serve(answer) as root:
    img2dataset_run.run(
      {
        "URL": [f"{root}/{i}.jpg" for i in range(num_rows)],
        "TEXT": [f"a drawn picture of number {i}" for i in range(num_rows)],
        **columns,
      },
      corpus_dir,
      output_format=output_format,
      image_size=recipe.image_size,
      number_sample_per_shard=rows_per_shard,
      save_additional_columns=list(columns),
      processes_count=2,
      thread_count=16,
      **recipe.options,
    )


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("corpus_dir", type=pathlib.Path)
  parser.add_argument("--num_shards", type=int, default=4)
  parser.add_argument("--rows_per_shard", type=int, default=10_000)
  parser.add_argument("--dataset", choices=_RECIPES, default="laion400m")
  parser.add_argument("--output_format", choices=_FORMATS, default=_FORMATS[0])
  args = parser.parse_args()
  make_corpus(
    args.corpus_dir,
    num_shards=args.num_shards,
    rows_per_shard=args.rows_per_shard,
    dataset=args.dataset,
    output_format=args.output_format,
  )


if __name__ == "__main__":
  main()
