"""Reads examples out of TFRecord files, without TensorFlow and the package."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
import pathlib
import struct
from typing import Any

from google.protobuf import descriptor_pb2
from google.protobuf import descriptor_pool
from google.protobuf import message_factory


def read_records(path: str) -> Iterator[bytes]:
  """Yields the records of a TFRecord file that is whole."""
  data = pathlib.Path(path).read_bytes()
  offset = 0
  while offset < len(data):
    (length,) = struct.unpack_from("<Q", data, offset)
    yield data[offset + 12 : offset + 12 + length]
    offset += 16 + length


# `tf.train.Example` (tensorflow/tensorflow, `tensorflow/core/example`): message ->
# its fields in the order of their numbers. `*`: repeated.
_MESSAGES = {
  "BytesList": {"value": "*bytes"},
  "FloatList": {"value": "*float"},
  "Int64List": {"value": "*int64"},
  "Feature": {
    "bytes_list": "BytesList",
    "float_list": "FloatList",
    "int64_list": "Int64List",
  },
  "Entry": {"key": "string", "value": "Feature"},
  "Features": {"feature": "*Entry"},
  "Example": {"features": "Features"},
}


def _make_example_class() -> Any:
  """Makes `tf.train.Example` by its definition, without TensorFlow."""
  kinds = descriptor_pb2.FieldDescriptorProto
  file = descriptor_pb2.FileDescriptorProto(
    name="example.proto", package="faults", syntax="proto3"
  )
  for name, fields in _MESSAGES.items():
    message = file.message_type.add(name=name)
    for number, (field_name, kind) in enumerate(fields.items(), start=1):
      field = message.field.add(name=field_name, number=number)
      is_list = kind.startswith("*")
      field.label = kinds.LABEL_REPEATED if is_list else kinds.LABEL_OPTIONAL
      kind = kind.removeprefix("*")
      if kind in _MESSAGES:
        field.type = kinds.TYPE_MESSAGE
        field.type_name = f".faults.{kind}"
      else:
        field.type = getattr(kinds, f"TYPE_{kind.upper()}")
  pool = descriptor_pool.DescriptorPool()
  pool.Add(file)
  return message_factory.GetMessageClass(
    pool.FindMessageTypeByName("faults.Example")
  )


_EXAMPLE = _make_example_class()


def parse_example(record: bytes) -> Mapping[str, Any]:
  """Returns the values of each feature."""
  message = _EXAMPLE.FromString(record)
  example = {}
  for entry in message.features.feature:
    assert entry.key not in example
    example[entry.key] = [
      value for _, values in entry.value.ListFields() for value in values.value
    ]
  return example
