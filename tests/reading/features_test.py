"""Which features are decoded by batches, and which are not."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from tfds_plugins.reading.features import make_batch_decoder

f = tfds.features
SKIP = tfds.decode.SkipDecoding()


class Shouting(f.Text):
  """Its `decode_example` is not that of its base class."""

  def decode_example(self, example):
    return tf.strings.upper(example)


class Skipping(tfds.decode.SkipDecoding):
  def decode_example(self, serialized):
    return serialized[:1]


def can_decode(feature, decoder=None) -> bool:
  decoders = None if decoder is None else {"feature": decoder}
  features = f.FeaturesDict({"row": np.int64, "feature": feature})
  return make_batch_decoder(features, decoders) is not None


@pytest.mark.parametrize(
  "feature",
  [
    f.Image(),
    f.LabeledImage(labels=2, shape=(None, None, 1)),
    f.Audio(shape=(None,)),
    f.Tensor(shape=(None, None), dtype=np.int32, encoding="bytes"),
    Shouting(),
  ],
  ids=lambda feature: type(feature).__name__,
)
def test_skipping_makes_a_feature_batchable(feature):
  assert not can_decode(feature)
  assert can_decode(feature, SKIP)


@pytest.mark.parametrize(
  "feature",
  [
    # Ragged.
    f.Sequence(f.Sequence(np.int32)),
    f.Sequence({"a": f.Sequence(np.int32, length=2)}),
    f.Dataset({"a": np.int32}),
    # Strings of unequal lengths.
    f.Tensor(shape=(None, 2), dtype=np.int32, encoding="bytes"),
    f.Sequence(f.Tensor(shape=(2,), dtype=np.int32, encoding="bytes")),
    # Padded along another axis than the first.
    f.Tensor(shape=(2, None), dtype=np.int32),
    f.Sequence(f.Tensor(shape=(None,), dtype=np.int32), length=2),
    # Padded with another value than 0.
    f.Sequence(f.Scalar(np.int32, optional=True)),
    # Nothing there.
    f.Tensor(shape=(0,), dtype=np.int32),
    f.FeaturesDict({}),
    # Not known to `tf.io.decode_raw`.
    f.Tensor(shape=(2,), dtype=np.uint32, encoding="bytes"),
    f.Tensor(shape=(2,), dtype=np.int32, encoding="bytes", optional=True),
    f.Video(shape=(None, 2, 2, 3)),
  ],
  ids=str,
)
def test_what_is_left_to_tfds(feature):
  assert not can_decode(feature)


def test_a_video_is_skipped_by_frames():
  assert can_decode(f.Video(shape=(None, 2, 2, 3)), SKIP)


@pytest.mark.parametrize(
  "decoder",
  [Skipping(), {"a": SKIP}, [SKIP], object()],
  ids=lambda decoder: type(decoder).__name__,
)
def test_other_decoders_are_left_to_tfds(decoder):
  assert not can_decode(f.FeaturesDict({"b": f.Text()}), decoder)
  assert not can_decode(f.Text(), decoder)


def test_a_top_level_sequence_is_left_to_tfds():
  assert make_batch_decoder(f.Sequence({"a": np.int32}), None) is None
  assert make_batch_decoder(None, None) is None


def serialize(**features) -> bytes:
  return tf.train.Example(
    features=tf.train.Features(feature=features)
  ).SerializeToString()


def of_bytes(*values):
  return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def of_ints(*values):
  return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


@pytest.mark.parametrize(
  "second",
  [
    {},
    {"e": of_bytes(b"12345678")},
    {"n": of_ints(1)},
    {"e": of_bytes(b"12345678"), "n": of_ints(1, 2)},
    {"e": of_bytes(b"12345678"), "n": of_bytes(b"1")},
    {"e": of_bytes(b"1234"), "n": of_ints(1)},
    {"e": of_bytes(b"123456789"), "n": of_ints(1)},
    {"e": of_bytes(b"1234567890123456"), "n": of_ints(1)},
    {"e": of_bytes(b""), "n": of_ints(1)},
  ],
  ids=str,
)
@pytest.mark.parametrize("is_alone", [False, True])
def test_records_that_do_not_fit_fail_as_with_tfds(second, is_alone):
  features = f.FeaturesDict(
    {
      "e": f.Tensor(shape=(4,), dtype=np.float16, encoding="bytes"),
      "n": np.int32,
    }
  )
  good = serialize(e=of_bytes(b"12345678"), n=of_ints(1))
  bad = serialize(**second)
  batch = [bad] * 2 if is_alone else [good, bad]
  decode = make_batch_decoder(features, None)
  ours = tf.data.Dataset.from_tensor_slices(batch).batch(2).map(decode)
  theirs = tf.data.Dataset.from_tensor_slices(batch)
  theirs = theirs.map(features.deserialize_example).batch(2)
  for ds in (theirs, ours):
    with pytest.raises(tf.errors.InvalidArgumentError):
      list(ds)


def test_features_and_values_that_are_missing_or_too_many():
  """An unknown feature of a record is passed over, an empty one is missing."""
  features = f.FeaturesDict(
    {"n": f.Sequence(np.int32), "o": f.Scalar(np.int32, optional=True)}
  )
  batch = [
    serialize(n=of_ints(1, 2), o=of_ints(3), x=of_ints(4)),
    serialize(n=of_ints()),
    serialize(o=tf.train.Feature()),
  ]
  decoded = make_batch_decoder(features, None)(tf.constant(batch))
  assert decoded["n"].numpy().tolist() == [[1, 2], [0, 0], [0, 0]]
  missing = np.iinfo(np.int32).min
  assert decoded["o"].numpy().tolist() == [3, missing, missing]
