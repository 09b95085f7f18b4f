"""Tests of the records, against protobuf and TFDS's own serializer."""

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core import example_serializer
from tensorflow_datasets.proto import tf_example_pb2

from tfds_plugins import errors
from tfds_plugins.conversion import feature_specs
from tfds_plugins.encoding import tf_example

FEATURES = tfds.features.FeaturesDict(
  {
    "image": tfds.features.Image(),
    "caption": tfds.features.Text(),
    "ä/nested": {"label": tfds.features.ClassLabel(names=["a", "b", "c"])},
    "similarity": tfds.features.Scalar(np.float64),
    "score": tfds.features.Scalar(np.float32),
    "width": tfds.features.Scalar(np.int32),
    "id": tfds.features.Scalar(np.int64),
    "labels": tfds.features.Sequence(
      tfds.features.ClassLabel(num_classes=2**40)
    ),
    "numbers": tfds.features.Sequence(np.int64),
    "probs": tfds.features.Sequence(np.float32),
    "paths": tfds.features.Sequence(tfds.features.Text()),
    "pictures": tfds.features.Sequence(
      tfds.features.Tensor(shape=(), dtype=np.object_)
    ),
  }
)
LABEL = "ä/nested/label"

rows = st.fixed_dictionaries(
  {
    "image": st.binary(max_size=70_000) | st.sampled_from([b"", b"x" * 20_000]),
    "caption": st.text(max_size=300),
    LABEL: st.integers(0, 2),
    "similarity": st.floats(width=32) | st.sampled_from([0.1, 6016.0, -1.0]),
    "score": st.floats(width=32),
    "width": st.integers(-(2**31), 2**31 - 1),
    "id": st.integers(-(2**63), 2**63 - 1),
    "labels": st.lists(st.integers(0, 2**40 - 1), max_size=60),
    "numbers": st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3),
    "probs": st.lists(st.floats(width=32), max_size=60),
    "paths": st.lists(st.text(max_size=200), max_size=4),
    "pictures": st.lists(
      st.binary(max_size=300) | st.sampled_from([b"", b"x" * 20_000]),
      max_size=3,
    ),
  }
)


def encode(examples):
  schema = pa.schema(
    [
      ("image", pa.binary()),
      ("caption", pa.string()),
      (LABEL, pa.int32()),
      ("similarity", pa.float64()),
      ("score", pa.float32()),
      ("width", pa.int32()),
      ("id", pa.int64()),
      ("labels", pa.list_(pa.int64())),
      ("numbers", pa.large_list(pa.int64())),
      ("probs", pa.list_(pa.float64())),
      ("paths", pa.list_(pa.string())),
      ("pictures", pa.large_list(pa.binary())),
    ]
  )
  batch = pa.RecordBatch.from_pylist(examples, schema=schema)
  specs = feature_specs.make_feature_specs(FEATURES)
  return encode_batch(specs, batch)


def encode_batch(specs, batch):
  encoder = tf_example.ExampleEncoder(specs)
  found = []
  for records in encoder.encode(batch):
    found += records.iter_bytes()
    # Both ways of getting at them agree.
    assert records.join().to_pylist() == found[-len(records) :]
    assert records.num_bytes == sum(map(len, found[-len(records) :]))
  return found


@given(examples=st.lists(rows, max_size=4))
def test_records_equal_those_of_tfds(examples):
  serializer = example_serializer.ExampleSerializer(
    FEATURES.get_serialized_info()
  )

  records = encode(examples)

  assert len(records) == len(examples)
  for example, record in zip(examples, records, strict=True):
    nested = {k: v for k, v in example.items() if k != LABEL}
    nested["ä/nested"] = {"label": example[LABEL]}
    # Text is encoded here, for TFDS's Text would do it by itself.
    expected = serializer.get_tf_example(FEATURES.encode_example(nested))
    assert record == expected.SerializeToString(deterministic=True)
    parsed = tf_example_pb2.Example.FromString(record)
    assert parsed.features.feature["id"].int64_list.value[0] == example["id"]
    assert (
      parsed.features.feature["image"].bytes_list.value[0] == example["image"]
    )


def test_a_record_by_hand():
  """The bytes of one small message, written down from the specification."""
  spec = tf_example.FeatureSpec(name="a", kind=tf_example.Kind.INT64)
  batch = pa.RecordBatch.from_pydict({"a": pa.array([300], pa.int64())})

  (record,) = encode_batch([spec], batch)

  packed = b"\x0a\x02\xac\x02"  # Int64List.value, packed, 300
  feature = b"\x1a\x04" + packed  # Feature.int64_list
  entry = b"\x0a\x01a" + b"\x12\x06" + feature  # key, value
  features = b"\x0a\x0b" + entry
  assert record == b"\x0a\x0d" + features


def test_slices_of_columns_are_read_at_their_offset():
  batch = pa.RecordBatch.from_pydict(
    {"a": pa.array([b"0", b"11", b"222"], pa.large_binary())}
  )
  spec = tf_example.FeatureSpec(name="a", kind=tf_example.Kind.BYTES)

  records = encode_batch([spec], batch.slice(1))

  parsed = [tf.train.Example.FromString(r) for r in records]
  values = [e.features.feature["a"].bytes_list.value[0] for e in parsed]
  assert values == [b"11", b"222"]


def test_slices_of_lists_are_read_at_their_offset():
  batch = pa.RecordBatch.from_pydict(
    {
      "a": pa.array([[1, 2], [], [300, -1, 21840]], pa.list_(pa.int32())),
      "b": pa.array([[0.5], [], [0.25, 1.0, 2.0]], pa.list_(pa.float32())),
      "c": pa.array([["x"], [], ["", "yz"]]),
    }
  )
  specs = [
    tf_example.FeatureSpec(name="a", kind=tf_example.Kind.INT64, is_list=True),
    tf_example.FeatureSpec(name="b", kind=tf_example.Kind.FLOAT, is_list=True),
    tf_example.FeatureSpec(name="c", kind=tf_example.Kind.BYTES, is_list=True),
  ]

  records = encode_batch(specs, batch.slice(1))

  parsed = [tf.train.Example.FromString(r).features.feature for r in records]
  assert [list(f["a"].int64_list.value) for f in parsed] == [
    [],
    [300, -1, 21840],
  ]
  assert [list(f["b"].float_list.value) for f in parsed] == [
    [],
    [0.25, 1.0, 2.0],
  ]
  assert [list(f["c"].bytes_list.value) for f in parsed] == [[], [b"", b"yz"]]


@pytest.mark.parametrize(
  "feature",
  [
    tfds.features.Sequence(tfds.features.Tensor(shape=(2,), dtype=np.int64)),
    tfds.features.Tensor(shape=(2, 2), dtype=np.float32),
  ],
)
def test_features_of_other_shapes_are_refused(feature):
  with pytest.raises(errors.ConversionError, match="lists of them"):
    feature_specs.make_feature_specs(tfds.features.FeaturesDict({"a": feature}))


def test_nulls_are_refused():
  batch = pa.RecordBatch.from_pydict({"a": pa.array([None], pa.int64())})
  spec = tf_example.FeatureSpec(name="a", kind=tf_example.Kind.INT64)

  with pytest.raises(ValueError, match="'a' has nulls"):
    encode_batch([spec], batch)


def test_nulls_in_lists_are_refused():
  column = pa.array([[1], [2, None]], pa.list_(pa.int64()))
  batch = pa.RecordBatch.from_pydict({"a": column})
  spec = tf_example.FeatureSpec(
    name="a", kind=tf_example.Kind.INT64, is_list=True
  )

  assert len(encode_batch([spec], batch.slice(0, 1))) == 1
  with pytest.raises(ValueError, match="'a' has nulls"):
    encode_batch([spec], batch)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_floats_beyond_32_bits_are_infinite_as_in_tfds():
  values = [1e300, -1e300, 3.5e38, 3.4e38, np.inf, np.nan, 0.1]
  batch = pa.RecordBatch.from_pydict(
    {"a": pa.array(values), "b": pa.array([values] * len(values))}
  )
  specs = [
    tf_example.FeatureSpec(name="a", kind=tf_example.Kind.FLOAT),
    tf_example.FeatureSpec(name="b", kind=tf_example.Kind.FLOAT, is_list=True),
  ]

  records = encode_batch(specs, batch)

  parsed = [tf.train.Example.FromString(r).features.feature for r in records]
  with np.errstate(over="ignore"):
    expected = np.array(values, np.float32)
  found = np.array([f["a"].float_list.value[0] for f in parsed], np.float32)
  assert found.tobytes() == expected.tobytes()
  assert np.isinf(found).tolist() == [True] * 3 + [False, True, False, False]
  for feature in parsed:
    listed = np.array(feature["b"].float_list.value, np.float32)
    assert listed.tobytes() == expected.tobytes()


def test_large_batches_are_joined_a_few_mebibytes_at_a_time():
  values = [b"%05d" % i * 800 for i in range(5000)] + [b"x" * (5 << 20), b""]
  batch = pa.RecordBatch.from_pydict({"a": pa.array(values, pa.binary())})
  spec = tf_example.FeatureSpec(name="a", kind=tf_example.Kind.BYTES)

  encoder = tf_example.ExampleEncoder([spec])
  parts = list(encoder.encode(batch))

  assert len(parts) == 4  # 25 MiB and what the joining costs, 8 at a time.
  assert not any(records.has_large_pieces for records in parts[:-1])
  assert max(records.num_bytes for records in parts) < 9 << 20
  parsed = [
    tf.train.Example.FromString(r)
    for records in parts
    for r in records.iter_bytes()
  ]
  assert [e.features.feature["a"].bytes_list.value[0] for e in parsed] == values


def test_large_values_are_not_copied():
  values = [b"x" * 10_000, b"y" * 30_000]
  column = pa.array(values, pa.binary())
  batch = pa.RecordBatch.from_pydict({"a": column, "b": pa.array(["1", "2"])})
  specs = [
    tf_example.FeatureSpec(name=name, kind=tf_example.Kind.BYTES)
    for name in "ab"
  ]

  (records,) = tf_example.ExampleEncoder(specs).encode(batch)

  assert records.has_large_pieces
  before, values, after = records.join_small()
  assert values.buffers()[2].address == column.buffers()[2].address
  assert all(piece.total_values_length < 200 for piece in (before, after))


def test_a_batch_of_more_bytes_than_offsets_reach():
  size, num_rows = 100 << 20, 30
  # (Memory that nobody writes to or reads takes no room.)
  data = pa.py_buffer(np.zeros(size * num_rows, np.uint8))
  offsets = pa.py_buffer(np.arange(num_rows + 1) * size)
  images = pa.Array.from_buffers(
    pa.large_binary(), num_rows, [None, offsets, data]
  )
  spec = tf_example.FeatureSpec(name="image", kind=tf_example.Kind.BYTES)

  parts = list(
    tf_example.ExampleEncoder([spec]).encode(
      pa.RecordBatch.from_pydict({"image": images})
    )
  )

  assert sum(map(len, parts)) == num_rows
  assert all(part.num_bytes < 2**31 for part in parts)
  value = tf.train.BytesList(value=[bytes(size)])
  feature = {"image": tf.train.Feature(bytes_list=value)}
  expected = tf.train.Example(features=tf.train.Features(feature=feature))
  assert {int(s) for part in parts for s in part.sizes} == {expected.ByteSize()}
