"""Features of these datasets that TFDS does not have.

The name of a feature's class is part of a prepared dataset: TFDS imports it from
here when the dataset is read (`tfds.builder_from_directory`, too), so that this
package has to be installed where a dataset has one of them.
"""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image
import tensorflow_datasets as tfds
from tensorflow_datasets.core.features import feature as feature_lib
from tensorflow_datasets.core.utils.lazy_imports_utils import tensorflow as tf

_NUM_CHANNELS = 3
# A row of a table shows as many pictures as there is room for.
_MAX_SHOWN = 7
_THUMBNAIL_PIXELS = 128


class Images(tfds.features.FeatureConnector):
  """Any number of images, each of its own size.

  `tfds.features.Sequence(tfds.features.Image())` cannot be read if the images of
  an example differ in size. This feature is read

  - by `tfds.load` as a `tf.RaggedTensor` of shape (num_images, None, None, 3),
    uint8: `images[i].to_tensor()` is image i, (height, width, 3);
  - by `tfds.data_source` as a list of arrays (height, width, 3), uint8;
  - with `tfds.decode.SkipDecoding()` as (num_images,) strings, the encoded images.

  `resize` makes a dense tensor of it, for training; before that, elements cannot be
  batched by `padded_batch`, nor by `batch_size` of `tfds.load`. On the disk, it is a list of
  encoded images, each of which TensorFlow and Pillow decode alike.
  """

  def get_tensor_info(self) -> feature_lib.TensorInfo:
    """See base class."""
    return feature_lib.TensorInfo(
      shape=(None, None, None, _NUM_CHANNELS), dtype=np.uint8
    )

  def get_serialized_info(self) -> feature_lib.TensorInfo:
    """See base class."""
    return feature_lib.TensorInfo(shape=(None,), dtype=np.object_)

  def encode_example(self, example_data: Any) -> list[bytes]:
    """Encodes images.

    Args:
      example_data: what `tfds.features.Image` takes, for each image.

    Returns:
      The encoded images.
    """
    image = tfds.features.Image()
    return [image.encode_example(each) for each in example_data]

  def decode_example(self, tfexample_data: Any) -> Any:
    """Decodes images with TensorFlow.

    Args:
      tfexample_data: (num_images,) strings.

    Returns:
      A ragged tensor (num_images, None, None, 3), uint8.
    """
    # Of no image at all, `map_fn` would not know the number of channels.
    extra = tf.io.encode_png(tf.zeros([1, 1, _NUM_CHANNELS], tf.uint8))
    images = tf.map_fn(
      _decode,
      tf.concat([[extra], tfexample_data], axis=0),
      fn_output_signature=tf.RaggedTensorSpec(
        [None, None, _NUM_CHANNELS], tf.uint8, ragged_rank=1
      ),
    )
    return images[1:]

  def decode_example_np(self, example_data: Any) -> list[np.ndarray]:
    """Decodes images with Pillow or OpenCV, whatever TFDS uses.

    Args:
      example_data: (num_images,) bytes.

    Returns:
      Arrays (height, width, 3), uint8.
    """
    image = tfds.features.Image()
    return [image.decode_example_np(each) for each in example_data]

  def repr_html(self, ex: Any) -> str:
    """Returns a thumbnail of each image, for `tfds.as_dataframe`.

    Args:
      ex: decoded, in any of the ways above, or encoded.
    """
    images = list(ex)  # (A ragged tensor has no length of its own.)
    shown = [_show(_to_image(image)) for image in images[:_MAX_SHOWN]]
    return "".join(shown) + ("..." if len(images) > _MAX_SHOWN else "")


def _decode(data: Any) -> Any:
  image = tf.image.decode_image(
    data, channels=_NUM_CHANNELS, expand_animations=False
  )
  return tf.RaggedTensor.from_tensor(image)


def _to_image(image: Any) -> Image.Image:
  if isinstance(image, bytes):
    return Image.open(io.BytesIO(image))
  if isinstance(image, tf.RaggedTensor):
    image = image.to_tensor()
  return Image.fromarray(np.asarray(image))


def _show(image: Image.Image) -> str:
  image = image.convert("RGB")
  image.thumbnail((_THUMBNAIL_PIXELS, _THUMBNAIL_PIXELS))
  out = io.BytesIO()
  image.save(out, "PNG")
  data = base64.b64encode(out.getvalue()).decode()
  return f'<img src="data:image/png;base64,{data}" alt="Img" style="border: 1px solid #ccc"/>'


def resize(images: Any, height: int, width: int) -> Any:
  """Resizes images of any sizes to one, so that they can be stacked and batched.

  Args:
    images: what `Images` is read as by `tfds.load`, with or without decoding; or
      an image (height, width, 3).
    height: pixels.
    width: pixels.

  Returns:
    (num_images, height, width, 3) float32 from 0 to 255; for one image
    (height, width, 3).
  """
  size = (height, width)
  if isinstance(images, tf.RaggedTensor):
    return tf.map_fn(
      lambda image: tf.image.resize(image.to_tensor(), size, antialias=True),
      images,
      fn_output_signature=tf.TensorSpec([*size, _NUM_CHANNELS], tf.float32),
    )
  if images.dtype == tf.string:
    return tf.map_fn(
      lambda data: tf.image.resize(
        tf.image.decode_image(
          data, channels=_NUM_CHANNELS, expand_animations=False
        ),
        size,
        antialias=True,
      ),
      images,
      fn_output_signature=tf.TensorSpec([*size, _NUM_CHANNELS], tf.float32),
    )
  return tf.image.resize(images, size, antialias=True)
