"""Regenerates `dummy_data/laion400m/images` with the real img2dataset.

    python -m pip install img2dataset     # Python 3.10 to 3.12
    python dummy_data/laion400m/make_images.py

30 rows in shards of 12, 12 and 6. Row i is a picture of one colour; some
downloads fail, and later ones answer first, so that rows and samples come out
of key order. What row i holds is written out in `make_table` and `_answer`.
"""

from __future__ import annotations

import io
import pathlib
import shutil
import sys

from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import img2dataset_run  # pylint: disable=g-import-not-at-top,wrong-import-position

NUM_ROWS = 30
ROWS_PER_SHARD = 12
PORT = 18400  # Fixed, for it is part of the URLs.
_CREATIVE_COMMONS = "https://creativecommons.org/licenses/by/2.0/"


def make_table(root: str) -> dict[str, list]:
  """Returns the list of URLs: row i is about picture i."""
  rows = range(NUM_ROWS)
  similarity: list[float | None] = [0.3 + i / 100 for i in rows]
  similarity[4] = None
  similarity[6] = 6016.0  # The largest value that LAION-400M holds.
  captions: list[str | None] = [f"picture number {i}" for i in rows]
  captions[2] = captions[15] = None
  captions[7] = "Bild Nr. 7 — größer, 第七"
  nsfw = ["UNLIKELY", "UNSURE", "NSFW", None, "?junk"]
  licenses = ["?", "", _CREATIVE_COMMONS, None]
  return {
    "URL": [f"{root}/{i}.jpg" for i in rows],
    "TEXT": captions,
    "NSFW": [nsfw[i % 5] for i in rows],
    "similarity": similarity,
    "LICENSE": [licenses[i % 4] for i in rows],
  }


def _draw(i: int) -> Image.Image:
  """Row i: 80 + i by 60 pixels of the colour (8i, 255 - 8i, 53i mod 256)."""
  return Image.new("RGB", (80 + i, 60), (8 * i, 255 - 8 * i, 53 * i % 256))


def _answer(path: str) -> img2dataset_run.Response:
  i = int(path[1:].split(".")[0])
  delay_s = 0.04 * (ROWS_PER_SHARD - i % ROWS_PER_SHARD)
  if i % 7 == 3:
    return img2dataset_run.Response(body=b"", status=404, delay_s=delay_s)
  if i == 5:
    body = b"<html>This domain is for sale.</html>"
    return img2dataset_run.Response(body=body, delay_s=delay_s)
  image, image_format = _draw(i), "JPEG"
  if i == 8:
    image = image.convert("L")
  if i == 9:
    image_format = "PNG"
    image.putalpha(128)
  out = io.BytesIO()
  image.save(out, image_format)
  return img2dataset_run.Response(body=out.getvalue(), delay_s=delay_s)


def main() -> None:
  output_dir = pathlib.Path(__file__).parent / "images"
  shutil.rmtree(output_dir, ignore_errors=True)
  with img2dataset_run.serve(_answer, port=PORT) as root:
    img2dataset_run.run(
      make_table(root),
      output_dir,
      output_format="webdataset",
      image_size=64,
      number_sample_per_shard=ROWS_PER_SHARD,
      save_additional_columns=["NSFW", "similarity", "LICENSE"],
      processes_count=1,
      thread_count=ROWS_PER_SHARD,
    )


if __name__ == "__main__":
  main()
