"""Regenerates `dummy_data/coyo_700m/images` with the real img2dataset.

    python -m pip install img2dataset     # Python 3.10 to 3.12
    python dummy_data/coyo_700m/make_images.py

30 rows in shards of 12, 12 and 6: the rows of `make_metadata.py`, the pictures
of `coyo_pictures.py`. The options are those that COYO-700M documents. `id` and
`image_phash` are kept as well, and names of shards have six digits as in its
examples (kakaobrain/coyo-dataset, `download/README.md` and `examples/`).
"""

from __future__ import annotations

import pathlib
import sys

import make_metadata

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import coyo_pictures  # pylint: disable=g-import-not-at-top,wrong-import-position


def main() -> None:
  table = make_metadata.make_table(coyo_pictures.NUM_PICTURES)
  coyo_pictures.download(
    dict(zip(table.column_names, table.columns)),
    pathlib.Path(__file__).parent / "images",
    caption_col="text",
    output_format="webdataset",
    oom_shard_count=6,
    image_size=384,
    save_additional_columns=["id", "image_phash", *make_metadata.SCORES],
  )


if __name__ == "__main__":
  main()
