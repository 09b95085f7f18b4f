"""Serializes columns as `tf.train.Example` records, without protobuf objects.

The wire format is written directly: the messages are
`tensorflow/core/example/{example,feature}.proto` (tensorflow/tensorflow), their
encoding https://protobuf.dev/programming-guides/encoding.

    Example     { Features features = 1; }
    Features    { map<string, Feature> feature = 1; }
    Feature     { oneof { BytesList 1; FloatList 2; Int64List 3; } }
    *List       { repeated value = 1; }   numbers packed

Every record is a row of pieces: what comes before a value (which depends on the
value's size alone) and the value. Arrow joins the pieces of a thousand rows in
one operation: 1.5 us for a record of 9 features and 2.4 kB, of which most is
copying; protobuf's own objects take some 50 us. Images are not joined here:
passing megabytes through memory once more would cost more than it saves.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import enum
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfds_plugins.encoding.records import Records
from tfds_plugins.sources import arrays

# The fields of the messages above, all length-delimited.
_FIELD_1 = b"\x0a"
_FIELD_2 = b"\x12"
_FIELD_3 = b"\x1a"
_UINT64_MASK = (1 << 64) - 1
_MAX_VARINT_BYTES = 10
# Set in every byte of a varint but the last.
_MORE = np.uint8(0x80)
# Sizes and most integers are below it.
_NUM_CACHED_NUMBERS = 1 << 16
# Batches are encoded at most so many bytes at a time: memory that the allocator
# still has at hand. Fresh pages cost three times the rest.
_ENCODED_BYTES = 8 << 20
# Values of this size are copied only when their record is written.
_LARGE_VALUE_BYTES = 8 << 10
# What the joining of a row costs beside its bytes, in terms of bytes.
_ROW_BYTES = 256
# About what a number in a list takes.
_LIST_VALUE_BYTES = 4

_NOTHING = arrays.make_scalar(b"")

# One value for each row, or one for all of them.
_Pieces: TypeAlias = "pa.Array | pa.Scalar"


class Kind(enum.Enum):
  """Which list of `tf.train.Feature` holds a feature's values."""

  BYTES = "bytes_list"
  FLOAT = "float_list"
  INT64 = "int64_list"


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureSpec:
  """How one feature is stored.

  Attributes:
    name: the feature's flattened name, the column to read.
    kind: the list that holds it. float64 is stored as float32, as TFDS does.
    is_list: whether an example has any number of values, of FLOAT or INT64, and
      not exactly one.
  """

  name: str
  kind: Kind
  is_list: bool = False


def varint(value: int) -> bytes:
  """Returns the base-128 encoding of an unsigned integer."""
  out = bytearray()
  while value > 0x7F:
    out.append((value & 0x7F) | 0x80)
    value >>= 7
  out.append(value)
  return bytes(out)


def _delimited(field: bytes, content: bytes) -> bytes:
  return field + varint(len(content)) + content


class ExampleEncoder:
  """Serializes batches of rows, features in the order of their names.

  The bytes equal protobuf's deterministic serialization of the same message.
  """

  def __init__(self, specs: Sequence[FeatureSpec]):
    """Initializes an encoder for one dataset.

    Args:
      specs: the features, in any order.
    """
    # Map entries are sorted by key in protobuf's deterministic serialization.
    self._columns = [
      _ColumnEncoder(spec)
      for spec in sorted(specs, key=lambda spec: spec.name.encode())
    ]
    self._heads = _PieceCache(lambda size: _FIELD_1 + varint(size))

  def encode(self, batch: pa.RecordBatch) -> Iterator[Records]:
    """Yields the serialized `tf.train.Example`s of a batch, in order.

    Args:
      batch: has a column without nulls for each feature: binary or string for
        BYTES, a floating type for FLOAT, an integer type for INT64; a list of
        them where the feature is one.

    Yields:
      One record for each row, many at a time.
    """
    for part in self._cut(batch):
      pieces = [
        piece
        for column in self._columns
        for piece in column.encode(part.column(column.name))
      ]
      sizes = sum(_get_sizes(piece) for piece in pieces)
      heads = self._heads.get(np.broadcast_to(sizes, part.num_rows))
      yield Records(_join_small([heads, *pieces], part.num_rows))

  def _cut(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Cuts a batch into equal parts that are joined at once."""
    sizes = np.full(batch.num_rows, _ROW_BYTES, np.int64)
    for column in self._columns:
      if column.kind is Kind.BYTES:
        sizes += _get_sizes(batch.column(column.name))
      elif column.is_list:
        lengths = arrays.get_lengths(batch.column(column.name))
        sizes += lengths * _LIST_VALUE_BYTES
    ends = np.cumsum(sizes)
    num_parts = -(-int(ends[-1]) // _ENCODED_BYTES) if len(ends) else 0
    start = 0
    for i in range(1, num_parts + 1):
      limit = int(ends[-1]) * i // num_parts
      stop = int(np.searchsorted(ends, limit)) + 1
      if start < stop:  # A large value can be more than a part of its own.
        yield batch.slice(start, stop - start)
      start = max(start, stop)


class _PieceCache:
  """Makes pieces that depend on a number, those of small ones only once."""

  def __init__(self, make: Callable[[int], bytes]):
    self._make = make
    self._pieces: list[bytes] = []
    self._array = arrays.make_binary([])
    self._places = np.full(_NUM_CACHED_NUMBERS, -1, np.int32)

  def get(self, numbers: np.ndarray) -> _Pieces:
    """Returns the `binary` piece of each number, of which there is one."""
    low, high = int(numbers.min()), int(numbers.max())
    if low == high:
      return arrays.make_scalar(self._make(low))
    if low < 0 or high >= _NUM_CACHED_NUMBERS:
      return arrays.make_binary([self._make(n) for n in numbers.tolist()])
    places = self._places[numbers]
    if places.min() < 0:
      unknown = sorted(set(numbers[places < 0].tolist()))
      self._places[unknown] = len(self._pieces) + np.arange(len(unknown))
      self._pieces += map(self._make, unknown)
      self._array = arrays.make_binary(self._pieces)
      places = self._places[numbers]
    return self._array.take(arrays.from_numpy(places))


class _ColumnEncoder:
  """Makes the map entries of one feature."""

  def __init__(self, spec: FeatureSpec):
    self.name = spec.name
    self.kind = spec.kind
    self.is_list = spec.is_list
    self._key = _delimited(_FIELD_1, spec.name.encode("utf-8"))
    self._heads = _PieceCache(
      self._make_packed_head if spec.is_list else self._make_bytes_head
    )
    self._integers = _PieceCache(self._make_integer)
    # A float32 has a fixed size, so all but the value is the same in each row.
    head = self._make_entry(_FIELD_2, _delimited(_FIELD_1, bytes(4)))[:-4]
    self._float_head = arrays.make_scalar(head)
    # Nor does the size of an integer leave much choice.
    self._integer_heads = [b""] + [
      self._make_entry(_FIELD_3, _delimited(_FIELD_1, bytes(size)))[:-size]
      for size in range(1, _MAX_VARINT_BYTES + 1)
    ]

  def encode(self, column: pa.Array) -> list[_Pieces]:
    """Returns pieces: joined, those of a row are its map entry."""
    if column.null_count:
      raise ValueError(f"Column '{self.name}' has nulls.")
    if self.kind is Kind.BYTES:
      return [self._heads.get(_get_sizes(column)), pc.cast(column, pa.binary())]
    if self.is_list:
      packed = _pack(column, self.kind)
      return [self._heads.get(_get_sizes(packed)), packed]
    numbers = arrays.to_numpy(column)
    if self.kind is Kind.FLOAT:
      values = np.ascontiguousarray(numbers, "<f4")
      return [self._float_head, arrays.from_fixed_size(values, 4)]
    return [self._integers.get(numbers)]

  def _make_entry(self, list_field: bytes, content: bytes) -> bytes:
    """Returns a map entry: the feature's name, and its list of values."""
    feature = _delimited(list_field, content)
    return _delimited(_FIELD_1, self._key + _delimited(_FIELD_2, feature))

  def _make_integer(self, value: int) -> bytes:
    content = varint(value & _UINT64_MASK)
    return self._integer_heads[len(content)] + content

  def _make_bytes_head(self, size: int) -> bytes:
    """Returns all of a bytes entry that comes before a value of `size` bytes."""
    return self._make_head(_FIELD_1, _FIELD_1 + varint(size), size)

  def _make_packed_head(self, size: int) -> bytes:
    """Returns all of an entry that comes before `size` bytes of numbers."""
    list_field = _FIELD_2 if self.kind is Kind.FLOAT else _FIELD_3
    # A list without a value has no field for them.
    value_head = _FIELD_1 + varint(size) if size else b""
    return self._make_head(list_field, value_head, size)

  def _make_head(
    self, list_field: bytes, value_head: bytes, size: int
  ) -> bytes:
    list_head = list_field + varint(len(value_head) + size)
    feature_size = len(list_head) + len(value_head) + size
    feature_head = _FIELD_2 + varint(feature_size)
    entry_size = len(self._key) + len(feature_head) + feature_size
    return b"".join(
      (
        _FIELD_1,
        varint(entry_size),
        self._key,
        feature_head,
        list_head,
        value_head,
      )
    )


def _pack(column: pa.Array, kind: Kind) -> pa.Array:
  """Returns the numbers of each row of a list column, as protobuf packs them."""
  offsets, values = arrays.get_list(column)
  if kind is Kind.FLOAT:
    packed = np.ascontiguousarray(values, "<f4").view(np.uint8)
    return arrays.from_parts(packed, offsets * 4)
  numbers = values.astype(np.int64, copy=False).view(np.uint64)
  sizes = _get_varint_sizes(numbers)
  ends = np.concatenate([[0], np.cumsum(sizes)])
  packed = np.empty(ends[-1], np.uint8)
  places = ends[:-1]
  for i in range(int(sizes.max(initial=0))):
    is_last = sizes == i + 1
    left = ~is_last
    packed[places + i] = (numbers & 0x7F).astype(np.uint8) | left * _MORE
    numbers, sizes, places = numbers[left] >> 7, sizes[left], places[left]
  return arrays.from_parts(packed, ends[offsets])


def _get_varint_sizes(numbers: np.ndarray) -> np.ndarray:
  """Returns the encoded size of (n,) uint64 numbers in bytes."""
  sizes = np.ones(len(numbers), np.int64)
  rest = numbers >> 7
  while rest.any():
    sizes += rest != 0
    rest = rest >> 7
  return sizes


def _join_small(pieces: Sequence[_Pieces], num_rows: int) -> list[pa.Array]:
  """Joins neighbouring pieces, unless they are large."""
  joined: list[pa.Array] = []
  small: list[_Pieces] = []

  def join() -> None:
    if all(isinstance(piece, pa.Scalar) for piece in small):
      # One array at least, to give the length.
      value = b"".join(piece.as_py() for piece in small)
      joined.append(arrays.make_binary([value] * num_rows))
    else:
      joined.append(pc.binary_join_element_wise(*small, _NOTHING))
    small.clear()

  for piece in pieces:
    if (
      isinstance(piece, pa.Array)
      and piece.total_values_length > num_rows * _LARGE_VALUE_BYTES
    ):
      join()
      joined.append(piece)
    else:
      small.append(piece)
  if small:
    join()
  return joined


def _get_sizes(pieces: _Pieces) -> np.ndarray:
  """Returns the size of each piece in bytes: (num_rows,) or () integers."""
  if isinstance(pieces, pa.Scalar):
    return np.array(len(pieces.as_py()))
  return arrays.to_numpy(pc.binary_length(pieces))
