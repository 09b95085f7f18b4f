"""Makes the corpus of the benchmarks: shards that img2dataset itself writes.

    python benchmarks/make_corpus.py CORPUS_DIR --num_shards 4

Images are drawn here, served on loopback and downloaded by img2dataset with
the options of LAION-400M's recipe. Needs `pip install img2dataset`.
"""

from __future__ import annotations

import argparse
import functools
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "dummy_data"))
import img2dataset_run  # pylint: disable=g-import-not-at-top,wrong-import-position

NUM_DRAWN = 500


@functools.cache
def _draw(seed: int) -> bytes:
  return img2dataset_run.draw_photo(seed, 256)


def _answer(path: str) -> img2dataset_run.Response:
  number = int(path.rsplit("/", 1)[1].split(".")[0])
  if number % 9 == 8:  # COYO reports that some 15% of the URLs are gone.
    return img2dataset_run.Response(body=b"gone", status=404)
  return img2dataset_run.Response(body=_draw(number % NUM_DRAWN))


def make_corpus(
  corpus_dir: pathlib.Path, *, num_shards: int, rows_per_shard: int
) -> None:
  """Writes `num_shards` webdataset shards into `corpus_dir`."""
  for seed in range(NUM_DRAWN):
    _draw(seed)
  num_rows = num_shards * rows_per_shard
  with img2dataset_run.serve(_answer) as root:
    img2dataset_run.run(
      {
        "URL": [f"{root}/{i}.jpg" for i in range(num_rows)],
        "TEXT": [f"a drawn picture of number {i}" for i in range(num_rows)],
        "NSFW": ["UNLIKELY", "UNSURE", "NSFW", None] * (num_rows // 4),
        "similarity": [0.3 + (i % 100) / 1000 for i in range(num_rows)],
        "LICENSE": ["?"] * num_rows,
      },
      corpus_dir,
      output_format="webdataset",
      image_size=256,
      number_sample_per_shard=rows_per_shard,
      save_additional_columns=["NSFW", "similarity", "LICENSE"],
      processes_count=2,
      thread_count=16,
    )


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("corpus_dir", type=pathlib.Path)
  parser.add_argument("--num_shards", type=int, default=4)
  parser.add_argument("--rows_per_shard", type=int, default=10_000)
  args = parser.parse_args()
  make_corpus(
    args.corpus_dir,
    num_shards=args.num_shards,
    rows_per_shard=args.rows_per_shard,
  )


if __name__ == "__main__":
  main()
