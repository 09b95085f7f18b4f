"""Writes the page of which README's picture is taken.

python dummy_data/screenshot_training_natural_filtered_v2/draw_preview.py PAGE
chromium --headless --window-size=960,540 --screenshot=docs/screenshots.png PAGE
"""

from __future__ import annotations

import pathlib
import sys
import tempfile

import tensorflow_datasets as tfds

import tfds_plugins  # noqa: F401

NAME = "screenshot_training_natural_filtered_v2"
_STYLE = """
<meta charset="utf-8">
<style>
  body { font: 14px sans-serif; margin: 12px }
  td, th { padding: 4px 8px; text-align: left }
  td { border-top: 1px solid #ddd }
</style>
"""


def main() -> None:
  with tempfile.TemporaryDirectory() as data_dir:
    builder = tfds.builder(
      f"{NAME}/hard_negatives_with_answer", data_dir=data_dir
    )
    manual_dir = pathlib.Path(__file__).parent
    builder.download_and_prepare(
      download_config=tfds.download.DownloadConfig(manual_dir=manual_dir)
    )
    ds = builder.as_dataset(split="train[:4]")
    names = ("query", "image", "neg_images", "answer")
    ds = ds.map(lambda row: {name: row[name] for name in names})
    html = tfds.as_dataframe(ds, builder.info)._repr_html_()
  pathlib.Path(sys.argv[1]).write_text(_STYLE + html)


if __name__ == "__main__":
  main()
