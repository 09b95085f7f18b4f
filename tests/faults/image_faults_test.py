"""Damaged images of every encoding, through the normalizer.

Each is rejected with a reason, or both of TFDS's decoders make the same shape of
what goes through; in less than 1 GB and 20 seconds, without another exception.

The short suite runs 25 encodings with 20 inputs each, 500 in all; the long one
with a thousand each (fewer of small files), 24,812 in all.
"""

import decoders
import fault_run
import image_job
import mutations
import numpy as np
from PIL import Image
import pytest
import shards

_NOISE = shards.noise(1, 20, 15)
_GRADIENT = Image.fromarray(
  np.arange(300, dtype=np.uint16).reshape(15, 20) * 200
)
_FRAMES = {"save_all": True, "append_images": [shards.noise(2, 20, 15)]}
IMAGES = {
  "JPEG": (_NOISE, "JPEG", {}),
  "JPEG with restarts": (_NOISE, "JPEG", {"restart_marker_blocks": 2}),
  "progressive JPEG": (_NOISE, "JPEG", {"progressive": True}),
  "grayscale JPEG": (_NOISE.convert("L"), "JPEG", {}),
  "CMYK JPEG": (_NOISE.convert("CMYK"), "JPEG", {}),
  "MPO": (_NOISE, "MPO", _FRAMES),
  "PNG": (_NOISE, "PNG", {}),
  "PNG, palette": (_NOISE.quantize(16), "PNG", {}),
  "PNG, transparency": (_NOISE.convert("RGBA"), "PNG", {}),
  "PNG, 16 bits": (_GRADIENT, "PNG", {}),
  "animated PNG": (_NOISE, "PNG", _FRAMES),
  "WebP": (_NOISE, "WEBP", {}),
  "lossless WebP": (_NOISE, "WEBP", {"lossless": True}),
  "animated WebP": (_NOISE, "WEBP", _FRAMES),
  "GIF": (_NOISE, "GIF", {}),
  "animated GIF": (_NOISE, "GIF", _FRAMES),
  "BMP": (_NOISE, "BMP", {}),
  "BMP, palette": (_NOISE.quantize(16), "BMP", {}),
  "TIFF": (_NOISE, "TIFF", {}),
  "TIFF, LZW": (_NOISE, "TIFF", {"compression": "tiff_lzw"}),
  "TIFF, JPEG": (_NOISE, "TIFF", {"compression": "jpeg"}),
  "TIFF, deflate": (_NOISE, "TIFF", {"compression": "tiff_adobe_deflate"}),
  "AVIF": (_NOISE, "AVIF", {}),
  "JPEG 2000": (_NOISE, "JPEG2000", {}),
  "PPM": (_NOISE, "PPM", {}),
}
# Larger ones, which claim to be, take a second each.
_MAX_CHECKED_PIXELS = 10_000_000


def make_job(name, count):
  """Plans damages: `count` of each class, and twice as many at random."""
  image, image_format, options = IMAGES[name]
  data = shards.encode(image, image_format, **options)
  planned = mutations.make_mutations(
    data, truncations=count, flips=count, randoms=2 * count
  )
  return image_job.ImageJob(name=name, image=data, mutations=planned)


def run(jobs, work_dir):
  report = fault_run.run_jobs(jobs, work_dir)
  assert not report.failures, "\n\n".join(report.failures)
  assert report.num_inputs == sum(job.num_inputs for job in jobs)
  assert report.memory_bytes < fault_run.MAX_MEMORY_BYTES, report.largest
  for image in report.images:
    decoders.check_alike(image, max_pixels=_MAX_CHECKED_PIXELS)
  return report


def test_a_few_damages_of_every_encoding(tmp_path):
  report = run([make_job(name, 5) for name in IMAGES], tmp_path)

  assert report.num_inputs == 20 * len(IMAGES) == 500
  assert {"right", "truncated_image", "undecodable_image"} <= set(
    report.outcomes
  )


@pytest.mark.slow
@pytest.mark.parametrize("name", IMAGES)
def test_many_damages_of_every_encoding(tmp_path, name):
  report = run([make_job(name, 250)], tmp_path)

  # Of 25 encodings together: more than 17,500 inputs.
  assert report.num_inputs >= 700
  assert {"right", "not_an_image"} <= report.outcomes.keys()
