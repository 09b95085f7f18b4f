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
import functools
from typing import NamedTuple
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
# Set in every byte of a varint but the last.
_MORE = np.uint8(0x80)
# Most sizes and integers are below it, and many of them equal.
_NUM_CACHED_NUMBERS = 1 << 12
# Labels are below it.
_NUM_TABLED_VARINTS = 1 << 16
# Batches are encoded at most so many bytes at a time: memory that the allocator
# still has at hand. Fresh pages cost three times the rest.
_ENCODED_BYTES = 8 << 20
# Values of this size are copied only when their record is written.
_LARGE_VALUE_BYTES = 8 << 10
# What the joining of a row costs beside its bytes, in terms of bytes.
_ROW_BYTES = 256
# About what a number in a list takes.
_LIST_VALUE_BYTES = 4

# One value for each row, or one for all of them.
_Pieces: TypeAlias = "pa.Array | pa.Scalar"


class Kind(enum.Enum):
  """Which list of `tf.train.Feature` holds a feature's values."""

  BYTES = "bytes_list"
  FLOAT = "float_list"
  INT64 = "int64_list"


_LIST_FIELDS = {
  Kind.BYTES: _FIELD_1,
  Kind.FLOAT: _FIELD_2,
  Kind.INT64: _FIELD_3,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureSpec:
  """How one feature is stored.

  Attributes:
    name: the feature's flattened name, the column to read.
    kind: the list that holds it. float64 is stored as float32, as TFDS does:
      what is beyond its range (3.4e38) is infinite in the dataset.
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
    self._field = arrays.make_scalar(_FIELD_1)

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
      sizes = np.broadcast_to(sizes, part.num_rows)
      if self._heads.can_hold(sizes):
        heads = [self._heads.get(sizes)]
      else:
        heads = [self._field, _pack_integers(sizes)]
      yield Records(_join_small([*heads, *pieces], part.num_rows))

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

  @staticmethod
  def can_hold(numbers: np.ndarray) -> bool:
    """Whether all of the numbers are small."""
    return numbers.min() >= 0 and numbers.max() < _NUM_CACHED_NUMBERS

  def get(self, numbers: np.ndarray) -> _Pieces:
    """Returns the `binary` piece of each number.

    Args:
      numbers: (n,) integers, at least one, for which `can_hold` is true.
    """
    low, high = int(numbers.min()), int(numbers.max())
    if low == high:
      return arrays.make_scalar(self._make(low))
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
    self._list_field = _LIST_FIELDS[spec.kind]
    self._heads = _PieceCache(self._make_head)
    self._head_parts = [
      arrays.make_scalar(part)
      for part in (_FIELD_1, self._key + _FIELD_2, self._list_field)
    ]
    self._integers = _PieceCache(self._make_integer)
    # A float32 has a fixed size, so all but the value is the same in each row.
    head = self._make_entry(_FIELD_2, _delimited(_FIELD_1, bytes(4)))[:-4]
    self._float_head = arrays.make_scalar(head)
    # Nor does the size of an integer leave much choice.
    self._integer_heads = _PieceCache(self._make_integer_head)

  def encode(self, column: pa.Array) -> list[_Pieces]:
    """Returns pieces: joined, those of a row are its map entry."""
    if column.null_count or (self.is_list and column.flatten().null_count):
      raise ValueError(f"Column '{self.name}' has nulls.")
    if self.kind is Kind.BYTES:
      heads = self._get_heads(_get_sizes(column))
      return [*heads, pc.cast(column, pa.binary())]
    if self.is_list:
      packed = _pack(column, self.kind)
      return [*self._get_heads(_get_sizes(packed)), packed]
    numbers = arrays.to_numpy(column)
    if self.kind is Kind.FLOAT:
      return [self._float_head, arrays.from_fixed_size(_to_float32(numbers), 4)]
    if self._integers.can_hold(numbers):
      return [self._integers.get(numbers)]
    packed = _pack_integers(numbers)
    return [self._integer_heads.get(_get_sizes(packed)), packed]

  def _get_heads(self, sizes: np.ndarray) -> list[_Pieces]:
    """Returns what comes before values of these sizes, in pieces."""
    if self._heads.can_hold(sizes):
      return [self._heads.get(sizes)]
    if not sizes.min():  # Zero has a head of another form.
      return [arrays.make_binary(list(map(self._make_head, sizes.tolist())))]
    # As `_make_head` does it, for all of them.
    value_sizes = _pack_integers(sizes)
    lists = 1 + _get_sizes(value_sizes) + sizes
    list_sizes = _pack_integers(lists)
    features = 1 + _get_sizes(list_sizes) + lists
    feature_sizes = _pack_integers(features)
    entries = len(self._key) + 1 + _get_sizes(feature_sizes) + features
    field, key, list_field = self._head_parts
    return [
      *(field, _pack_integers(entries)),
      *(key, feature_sizes),
      *(list_field, list_sizes),
      *(field, value_sizes),
    ]

  def _make_entry(self, list_field: bytes, content: bytes) -> bytes:
    """Returns a map entry: the feature's name, and its list of values."""
    feature = _delimited(list_field, content)
    return _delimited(_FIELD_1, self._key + _delimited(_FIELD_2, feature))

  def _make_integer_head(self, size: int) -> bytes:
    content = _delimited(_FIELD_1, bytes(size))
    return self._make_entry(_FIELD_3, content)[:-size]

  def _make_integer(self, value: int) -> bytes:
    return self._make_entry(_FIELD_3, _delimited(_FIELD_1, varint(value)))

  def _make_head(self, size: int) -> bytes:
    """Returns all of an entry that comes before values of `size` bytes."""
    value_head = _FIELD_1 + varint(size)
    if self.is_list and not size:  # A list without a value.
      value_head = b""
    list_head = self._list_field + varint(len(value_head) + size)
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
    packed = _to_float32(values).view(np.uint8)
    return arrays.from_parts(packed, offsets * 4)
  return _pack_integers(values, offsets)


def _pack_integers(
  values: np.ndarray, offsets: np.ndarray | None = None
) -> pa.Array:
  """Returns the varints of each row.

  Args:
    values: (n,) integers; negative ones are encoded as 64 bits.
    offsets: (num_rows + 1,) integers: the values of row i are
      `values[offsets[i] : offsets[i + 1]]`. None for one in each row.

  Returns:
    A `binary` array of num_rows values.
  """
  numbers = values.astype(np.int64, copy=False).view(np.uint64)
  if len(numbers) and numbers.max() < _NUM_TABLED_VARINTS:
    table = _get_varint_table()
    sizes = table.sizes[numbers]
    is_used = table.is_used[numbers].view(np.bool_)
    packed = table.data[numbers].view(np.uint8)[is_used]
  else:
    packed, sizes = _encode_varints(numbers)
  ends = np.zeros(len(numbers) + 1, np.int64)
  np.cumsum(sizes, out=ends[1:])
  return arrays.from_parts(packed, ends if offsets is None else ends[offsets])


def _encode_varints(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Encodes (n,) uint64 numbers, and returns the bytes and the sizes."""
  sizes = np.ones(len(numbers), np.int64)
  rest = numbers >> 7
  while rest.any():
    sizes += rest != 0
    rest = rest >> 7
  places = np.cumsum(sizes) - sizes
  packed = np.empty(int(sizes.sum()), np.uint8)
  left_sizes = sizes
  for i in range(int(sizes.max(initial=0))):
    left = left_sizes > i + 1
    packed[places + i] = (numbers & 0x7F).astype(np.uint8) | left * _MORE
    numbers, left_sizes, places = (
      numbers[left] >> 7,
      left_sizes[left],
      places[left],
    )
  return packed, sizes


class _VarintTable(NamedTuple):
  """The varints of small numbers, by number.

  Attributes:
    data: (_NUM_TABLED_VARINTS,) uint32: the bytes, filled up with zeros.
    is_used: (_NUM_TABLED_VARINTS,) uint32: a byte of 1 for each that is used.
    sizes: (_NUM_TABLED_VARINTS,) uint8.
  """

  data: np.ndarray
  is_used: np.ndarray
  sizes: np.ndarray


@functools.cache
def _get_varint_table() -> _VarintTable:
  packed, sizes = _encode_varints(
    np.arange(_NUM_TABLED_VARINTS, dtype=np.uint64)
  )
  is_used = np.arange(4) < sizes[:, None]
  data = np.zeros((_NUM_TABLED_VARINTS, 4), np.uint8)
  data[is_used] = packed
  return _VarintTable(
    data.view(np.uint32)[:, 0],
    is_used.view(np.uint32)[:, 0],
    sizes.astype(np.uint8),
  )


def _to_float32(numbers: np.ndarray) -> np.ndarray:
  """Returns (n,) numbers as protobuf stores them; large ones become infinite."""
  with np.errstate(over="ignore"):
    return np.ascontiguousarray(numbers, "<f4")


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
      joined.append(arrays.join_values(*small))
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
