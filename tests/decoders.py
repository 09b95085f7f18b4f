"""The two decoders of `tfds.features.Image`, which must agree."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image
import tensorflow as tf


def decode_with_tensorflow(data: bytes) -> np.ndarray:
  """Decodes as `tfds.features.Image().decode_example` does."""
  return tf.image.decode_image(data, channels=3).numpy()


def decode_with_pillow(data: bytes) -> np.ndarray:
  """Decodes as `tfds.features.Image().decode_example_np` does."""
  with Image.open(io.BytesIO(data)) as image:
    values = np.asarray(image)
  return np.stack([values] * 3, axis=-1) if values.ndim == 2 else values


def check_alike(data: bytes, *, max_pixels: int) -> None:
  """Checks that both make the same shape of an image, unless it is too large."""
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Damaged images make Pillow warn.
    with Image.open(io.BytesIO(data)) as image:
      if image.width * image.height > max_pixels:
        return
    first = decode_with_tensorflow(data)
    second = decode_with_pillow(data)
  assert first.shape == second.shape, data
  assert first.shape[2] == 3
  assert first.dtype == second.dtype == np.uint8
