"""The feature of images of any sizes, against `tfds.features.Image`."""

import io

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
from PIL import Image
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from tfds_plugins import features

FEATURES = tfds.features.FeaturesDict({"images": features.Images()})


def make_image(size: tuple[int, int], seed: int) -> np.ndarray:
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (*size, 3), np.uint8)


def read(serialized, **options):
  ds = tf.data.Dataset.from_tensors(serialized).map(
    lambda data: FEATURES.deserialize_example(data, **options)["images"]
  )
  [found] = ds
  return found


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), max_size=4))
@settings(max_examples=25)
def test_all_ways_of_reading(sizes):
  expected = [make_image(size, i) for i, size in enumerate(sizes)]
  serialized = FEATURES.serialize_example({"images": expected})
  ragged = read(serialized)
  assert ragged.shape.as_list() == [len(sizes), None, None, 3]
  assert ragged.dtype == tf.uint8
  found = [image.to_tensor().numpy() for image in ragged]
  arrays = FEATURES.deserialize_example_np(serialized)["images"]
  encoded = read(serialized, decoders={"images": tfds.decode.SkipDecoding()})
  pillow = [
    np.asarray(Image.open(io.BytesIO(data))) for data in encoded.numpy()
  ]
  for each in (found, arrays, pillow):
    assert len(each) == len(expected)
    for image, other in zip(each, expected):
      np.testing.assert_array_equal(image, other)


def test_resizing_is_that_of_tensorflow():
  expected = [make_image((9, 5), 0), make_image((4, 8), 1)]
  serialized = FEATURES.serialize_example({"images": expected})
  encoded = read(serialized, decoders={"images": tfds.decode.SkipDecoding()})
  for images in (read(serialized), encoded):
    found = features.resize(images, 6, 7)
    assert found.shape == (2, 6, 7, 3)
    for image, other in zip(found, expected):
      resized = tf.image.resize(other, (6, 7), antialias=True)
      np.testing.assert_array_equal(image, resized)
  one = features.resize(tf.constant(expected[0]), 6, 7)
  np.testing.assert_array_equal(one, features.resize(encoded, 6, 7)[0])


def test_no_image_at_all():
  serialized = FEATURES.serialize_example({"images": []})
  assert features.resize(read(serialized), 6, 7).shape == (0, 6, 7, 3)
  assert FEATURES["images"].repr_html(read(serialized)) == ""


@pytest.mark.parametrize("num_images", [1, 7, 9])
def test_thumbnails(num_images):
  images = [make_image((300, 20 + i), i) for i in range(num_images)]
  html = FEATURES["images"].repr_html(images)
  assert html.count("<img ") == min(7, num_images)
  assert html.endswith("...") == (num_images > 7)


def test_the_feature_is_found_again_by_its_name(tmp_path):
  FEATURES.save_config(str(tmp_path))
  found = tfds.features.FeatureConnector.from_config(str(tmp_path))
  assert repr(found) == repr(FEATURES)
  assert type(found["images"]) is features.Images
