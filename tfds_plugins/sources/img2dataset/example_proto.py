"""Reads `tf.train.Example` messages, without protobuf objects and TensorFlow.

The messages are `tensorflow/core/example/{example,feature}.proto`
(tensorflow/tensorflow), their encoding
https://protobuf.dev/programming-guides/encoding. Importing TensorFlow would
cost every worker 400 MB.

    Example     { Features features = 1; }
    Features    { map<string, Feature> feature = 1; }
    Feature     { oneof { BytesList 1; FloatList 2; Int64List 3; } }
    *List       { repeated value = 1; }   numbers packed or not
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np

# The number of a field in Feature.
_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = 1, 2, 3
# Wire types.
_VARINT, _FIXED_64, _DELIMITED, _FIXED_32 = 0, 1, 2, 5
_FIXED_SIZES = {_FIXED_64: 8, _FIXED_32: 4}
_MAX_VARINT_BYTES = 10

# Where a feature's message starts and stops.
Span: TypeAlias = tuple[int, int]
Values: TypeAlias = list[bytes] | list[float] | list[int]


class MessageError(ValueError):
  """The bytes are no `tf.train.Example`."""


def iter_features(data: memoryview) -> Iterator[tuple[bytes, Span]]:
  """Yields the features of an Example as they come.

  Args:
    data: the serialized message.

  Yields:
    A feature's name, and the start and stop of its Feature message.

  Raises:
    MessageError: see there.
  """
  for number, wire_type, start, stop in _iter_fields(data, 0, len(data)):
    if number != 1 or wire_type != _DELIMITED:
      continue
    for number, wire_type, entry, end in _iter_fields(data, start, stop):
      if number != 1 or wire_type != _DELIMITED:
        continue
      name, span = b"", (end, end)
      for number, wire_type, first, last in _iter_fields(data, entry, end):
        if wire_type == _DELIMITED and number == 1:
          name = bytes(data[first:last])
        elif wire_type == _DELIMITED and number == 2:
          span = first, last
      yield name, span


def get_bytes(data: memoryview, span: Span) -> Span | None:
  """Returns where the first value of a bytes_list lies.

  Args:
    data: the serialized Example.
    span: of a feature.

  Returns:
    Start and stop; None if the feature has no such value.

  Raises:
    MessageError: see there.
  """
  for kind, wire_type, start, stop in _iter_fields(data, *span):
    if kind == _BYTES_LIST and wire_type == _DELIMITED:
      for number, wire_type, first, last in _iter_fields(data, start, stop):
        if number == 1 and wire_type == _DELIMITED:
          return first, last
  return None


def get_values(data: memoryview, span: Span) -> Values:
  """Returns the values of a feature, of whichever kind.

  Args:
    data: the serialized Example.
    span: of a feature.

  Raises:
    MessageError: see there.
  """
  values: list = []
  for kind, wire_type, start, stop in _iter_fields(data, *span):
    if wire_type != _DELIMITED:
      continue
    for number, wire_type, first, last in _iter_fields(data, start, stop):
      if number == 1:
        values += _read_values(data, kind, wire_type, first, last)
  return values


def _read_values(
  data: memoryview, kind: int, wire_type: int, start: int, stop: int
) -> Values:
  is_packed = wire_type == _DELIMITED
  if kind == _BYTES_LIST and is_packed:
    return [bytes(data[start:stop])]
  if kind == _FLOAT_LIST and (is_packed or wire_type == _FIXED_32):
    if (stop - start) % 4:
      raise MessageError("a list of floats is cut")
    return np.frombuffer(data[start:stop], "<f4").tolist()
  if kind == _INT64_LIST and (is_packed or wire_type == _VARINT):
    numbers = []
    while start < stop:
      number, start = _read_varint(data, start, stop)
      numbers.append(number - (1 << 64) if number >= 1 << 63 else number)
    return numbers
  return []


def _iter_fields(
  data: memoryview, position: int, stop: int
) -> Iterator[tuple[int, int, int, int]]:
  """Yields field number, wire type, start and stop of the content."""
  while position < stop:
    tag = data[position]
    position += 1
    if tag >= 0x80:
      tag, position = _read_varint(data, position - 1, stop)
    number, wire_type = tag >> 3, tag & 7
    start = position
    if wire_type == _DELIMITED:
      if start == stop:
        raise MessageError("a field has no size")
      size = data[start]
      start += 1
      if size >= 0x80:
        size, start = _read_varint(data, position, stop)
    elif wire_type == _VARINT:
      _, end = _read_varint(data, position, stop)
      size = end - position
    elif wire_type in _FIXED_SIZES:
      size = _FIXED_SIZES[wire_type]
    else:
      raise MessageError(f"wire type {wire_type}")
    position = start + size
    if position > stop:
      raise MessageError("a field is longer than its message")
    yield number, wire_type, start, position


def _read_varint(data: memoryview, position: int, stop: int) -> tuple[int, int]:
  """Returns a number below 2^64 and where it ends."""
  value = shift = 0
  for i in range(position, min(position + _MAX_VARINT_BYTES, stop)):
    byte = data[i]
    value |= (byte & 0x7F) << shift
    if byte < 0x80:
      return value & 0xFFFF_FFFF_FFFF_FFFF, i + 1
    shift += 7
  raise MessageError("a number is cut")
