"""The pictures of both COYO fixtures, and how they are downloaded.

COYO-Labeled-300M is a subset of COYO-700M, so both lists name the same
pictures, on a server with a fixed port. Picture i is 240 + 4 i by 240 pixels
of the colour (8 i, 255 - 8 i, 53 i mod 256), a JPEG, except for

    3, 10, 17, 24   404
    5               HTML, which cannot be decoded
    8               grayscale
    9               a PNG, which `skip_reencode` does not skip
    13              600 by 520 pixels, which the recipes make smaller
    16              100 by 100 pixels, too small for the recipes
    19              800 by 200 pixels, too long for the recipes

Of a dozen, the later ones are answered earlier, so that rows and samples come
out of the order of their keys.
"""

from __future__ import annotations

from collections.abc import Mapping
import io
import pathlib
import shutil
from typing import Any

import img2dataset_run
from PIL import Image

NUM_PICTURES = 30
ROWS_PER_SHARD = 12
_PORT = 18401  # Fixed, for it is part of the URLs.
_SIZES = {13: (600, 520), 16: (100, 100), 19: (800, 200)}


def get_url(i: int) -> str:
  """Returns the URL of picture i."""
  return f"http://127.0.0.1:{_PORT}/{i}.jpg"


def get_size(i: int) -> tuple[int, int]:
  """Returns width and height of picture i as it is served, in pixels."""
  return _SIZES.get(i, (240 + 4 * i, 240))


def _answer(path: str) -> img2dataset_run.Response:
  i = int(path[1:].split(".")[0])
  delay_s = 0.04 * (ROWS_PER_SHARD - i % ROWS_PER_SHARD)
  if i % 7 == 3:
    return img2dataset_run.Response(body=b"", status=404, delay_s=delay_s)
  if i == 5:
    body = b"<html>This domain is for sale.</html>"
    return img2dataset_run.Response(body=body, delay_s=delay_s)
  colour = (8 * i, 255 - 8 * i, 53 * i % 256)
  image = Image.new("RGB", get_size(i), colour)
  if i == 8:
    image = image.convert("L")
  out = io.BytesIO()
  image.save(out, "PNG" if i == 9 else "JPEG")
  return img2dataset_run.Response(body=out.getvalue(), delay_s=delay_s)


def download(
  table: Mapping[str, Any], output_dir: pathlib.Path, **options: Any
) -> None:
  """Downloads the pictures as COYO documents it.

  Args:
    table: columns of the list of URLs, which are in the column `url`.
    output_dir: where the shards are written; what is there is deleted.
    **options: those of img2dataset in which the two recipes differ
      (kakaobrain/coyo-dataset, `download/README.md` and
      `subset/COYO-Labeled-300M/download/README.md`).
  """
  shutil.rmtree(output_dir, ignore_errors=True)
  with img2dataset_run.serve(_answer, port=_PORT):
    img2dataset_run.run(
      table,
      output_dir,
      url_col="url",
      number_sample_per_shard=ROWS_PER_SHARD,
      min_image_size=200,
      max_aspect_ratio=3,
      resize_only_if_bigger=True,
      resize_mode="keep_ratio",
      skip_reencode=True,
      processes_count=1,
      thread_count=ROWS_PER_SHARD,
      **options,
    )
