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
one operation, when they are written; protobuf's own objects take some 50 us a
record. Images are not joined at all: passing megabytes through memory once more
would cost more than it saves.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import enum
import functools
import itertools
import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfds_plugins.encoding import records as records_lib
from tfds_plugins.encoding import varints
from tfds_plugins.sources import arrays

# The fields of the messages above, all length-delimited.
_FIELD_1 = b"\x0a"
_FIELD_2 = b"\x12"
_FIELD_3 = b"\x1a"
# Most sizes and integers are below it.
_NUM_TABLED_PIECES = 1 << 12
# So many bytes are joined at most at a time: memory that the allocator still has
# at hand. Fresh pages cost three times the rest.
_JOINED_BYTES = 8 << 20
# The offsets of a column reach 2 GiB.
_PART_BYTES = 1 << 30
# What the joining of a row costs beside its bytes, in terms of bytes.
_ROW_BYTES = 256
# About what a number in a list takes.
_LIST_VALUE_BYTES = 4


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
    is_list: whether an example has any number of values, and not exactly one.
  """

  name: str
  kind: Kind
  is_list: bool = False


def _delimited(field: bytes, content: bytes) -> bytes:
  return field + varints.encode_one(len(content)) + content


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
    self._specs = sorted(specs, key=lambda spec: spec.name.encode())
    self._entries: list[_Floats | _Integers | _Values] = []
    for kind, group in itertools.groupby(
      self._specs, lambda spec: Kind.BYTES if spec.is_list else spec.kind
    ):
      if kind is Kind.FLOAT:
        self._entries.append(_Floats(list(group)))
      elif kind is Kind.INT64:
        self._entries += map(_Integers, group)
      else:
        self._entries += map(_Values, group)
    self._heads = _PieceTable(
      lambda sizes: [arrays.make_scalar(_FIELD_1), varints.encode(sizes)]
    )

  def encode(self, batch: pa.RecordBatch) -> Iterator[records_lib.Records]:
    """Yields the serialized `tf.train.Example`s of a batch, in order.

    Args:
      batch: has a column without nulls for each feature: binary or string for
        BYTES, a floating type for FLOAT, an integer type for INT64; a list of
        them where the feature is one (lists of BYTES: less than 2 GiB).

    Yields:
      One record for each row, many at a time; valid until the next ones are
      asked for.
    """
    for spec in self._specs:
      column = batch.column(spec.name)
      if column.null_count or (spec.is_list and column.flatten().null_count):
        raise ValueError(f"Column '{spec.name}' has nulls.")
    for part in self._cut(batch):
      pieces = [
        piece for entry in self._entries for piece in entry.encode(part)
      ]
      sizes = sum(arrays.get_sizes(piece) for piece in pieces)
      sizes = np.broadcast_to(np.asarray(sizes), part.num_rows)
      yield records_lib.Records([*self._heads.get(sizes), *pieces])

  def _cut(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Cuts a batch into parts, of which about as much has to be joined."""
    joined = np.full(batch.num_rows, _ROW_BYTES, np.int64)
    total = np.zeros(batch.num_rows, np.int64)
    for spec in self._specs:
      column = batch.column(spec.name)
      if spec.kind is Kind.BYTES:
        value_sizes = _get_value_sizes(column, is_list=spec.is_list)
        total += value_sizes
        if not records_lib.is_large(int(value_sizes.sum()), batch.num_rows):
          joined += value_sizes
      elif spec.is_list:
        joined += arrays.get_lengths(column) * _LIST_VALUE_BYTES
    ends = np.cumsum(joined / _JOINED_BYTES + total / _PART_BYTES)
    num_parts = math.ceil(ends[-1]) if len(ends) else 0
    start = 0
    for i in range(1, num_parts + 1):
      stop = int(np.searchsorted(ends, ends[-1] * i / num_parts)) + 1
      if start < stop:  # A large value can be more than a part of its own.
        yield batch.slice(start, stop - start)
      start = max(start, stop)


class _PieceTable:
  """Makes pieces that depend on a number, those of small ones only once."""

  def __init__(self, make: Callable[[np.ndarray], list[records_lib.Pieces]]):
    """Initializes a table.

    Args:
      make: returns the pieces of (n,) int64 numbers.
    """
    self._make = make

  @functools.cached_property
  def _table(self) -> pa.Array:
    return arrays.join_values(*self._make(np.arange(_NUM_TABLED_PIECES)))

  def get(self, numbers: np.ndarray) -> list[records_lib.Pieces]:
    """Returns the pieces of each number, at least one of them an array.

    Args:
      numbers: (n,) integers.
    """
    if (
      len(numbers) and 0 <= numbers.min() <= numbers.max() < _NUM_TABLED_PIECES
    ):
      places = np.ascontiguousarray(numbers, np.int32)
      return [self._table.take(arrays.from_numpy(places))]
    return self._make(numbers)


class _Floats:
  """Makes the map entries of features whose names follow each other.

  A float32 has a fixed size: all but the values is the same in each row.
  """

  def __init__(self, specs: Sequence[FeatureSpec]):
    self._names = [spec.name for spec in specs]
    entries = [_make_float_entry(spec.name) for spec in specs]
    ends = np.cumsum(list(map(len, entries)))
    self._dtype = np.dtype(
      {
        "names": self._names,
        "formats": ["<f4"] * len(specs),
        "offsets": (ends - 4).tolist(),
        "itemsize": int(ends[-1]),
      }
    )
    self._entries = np.frombuffer(b"".join(entries), np.uint8)

  def encode(self, batch: pa.RecordBatch) -> list[records_lib.Pieces]:
    """Returns one piece."""
    data = np.empty((batch.num_rows, self._dtype.itemsize), np.uint8)
    data[:] = self._entries
    values = data.view(self._dtype)[:, 0]
    for name in self._names:
      values[name] = _to_float32(arrays.to_numpy(batch.column(name)))
    return [arrays.from_fixed_size(data, self._dtype.itemsize)]


class _Integers:
  """Makes the map entries of a feature of one integer an example."""

  def __init__(self, spec: FeatureSpec):
    self._name = spec.name
    # All that comes before an integer, by the size of its varint.
    self._heads = arrays.make_binary(
      [b"", *(_make_integer_head(spec.name, i) for i in range(1, 11))]
    )
    self._table = _PieceTable(self._make)

  def encode(self, batch: pa.RecordBatch) -> list[records_lib.Pieces]:
    """Returns the pieces of the entries."""
    return self._table.get(arrays.to_numpy(batch.column(self._name)))

  def _make(self, numbers: np.ndarray) -> list[records_lib.Pieces]:
    packed = varints.encode(numbers)
    sizes = arrays.from_numpy(arrays.get_sizes(packed))
    return [self._heads.take(sizes), packed]


class _Values:
  """Makes the map entries of a feature of any size: bytes, or a list.

  Numbers are packed: a list of them is one field, as a single value is. Of bytes,
  every value is a field of its own.
  """

  def __init__(self, spec: FeatureSpec):
    self._spec = spec
    self._has_own_fields = spec.is_list and spec.kind is Kind.BYTES
    self._memory = arrays.BinaryBuffer()
    self._value_heads = _PieceTable(
      lambda sizes: [arrays.make_scalar(_FIELD_1), varints.encode(sizes)]
    )
    self._field, self._list_field, self._key = map(
      arrays.make_scalar,
      (
        _FIELD_1,
        _LIST_FIELDS[spec.kind],
        _delimited(_FIELD_1, spec.name.encode()) + _FIELD_2,
      ),
    )
    self._heads = _PieceTable(self._make_heads)

  def encode(self, batch: pa.RecordBatch) -> list[records_lib.Pieces]:
    """Returns the pieces of the entries."""
    column = batch.column(self._spec.name)
    if self._has_own_fields:
      values = self._join_fields(column)
    elif self._spec.is_list:
      values = _pack(column, self._spec.kind)
    else:
      values = arrays.to_binary(column)
    return [*self._heads.get(arrays.get_sizes(values)), values]

  def _join_fields(self, column: pa.Array) -> pa.Array:
    """Returns the fields of each row's values, one after the other."""
    values = arrays.to_binary(column.flatten())
    sizes = arrays.get_sizes(values)
    heads = self._value_heads.get(sizes)
    if records_lib.is_large(int(sizes.sum()), len(sizes)):
      # Into memory that is at hand: images are megabytes.
      parts = [
        arrays.get_views(arrays.join_values(*heads)),
        arrays.get_views(values),
      ]
      parts = list(itertools.chain.from_iterable(zip(*parts)))
      fields = self._memory.make_binary(parts)
      ends = arrays.get_offsets(fields)[::2]
    else:
      fields = arrays.join_values(*heads, values)
      ends = arrays.get_offsets(fields)
    data = np.frombuffer(fields.buffers()[2], np.uint8)
    return arrays.from_parts(data, ends[arrays.get_list_offsets(column)])

  def _make_heads(self, sizes: np.ndarray) -> list[records_lib.Pieces]:
    """Returns all of an entry that comes before values of these sizes."""
    sizes = np.ascontiguousarray(sizes, np.int64)
    if self._has_own_fields:
      value_heads = arrays.make_scalar(b"")
    else:
      value_heads = arrays.join_values(self._field, varints.encode(sizes))
      if self._spec.is_list:  # One without a value has no values at all.
        has_values = pc.not_equal(arrays.from_numpy(sizes), 0)
        nothing = arrays.make_scalar(b"")
        value_heads = pc.if_else(has_values, value_heads, nothing)
    lists = arrays.get_sizes(value_heads) + sizes
    list_sizes = varints.encode(lists)
    features = 1 + arrays.get_sizes(list_sizes) + lists
    feature_sizes = varints.encode(features)
    entries = (
      features + arrays.get_sizes(feature_sizes) + len(self._key.as_py())
    )
    return [
      *(self._field, varints.encode(entries)),
      *(self._key, feature_sizes),
      *(self._list_field, list_sizes),
      value_heads,
    ]


def _make_entry(name: str, list_field: bytes, content: bytes) -> bytes:
  """Returns a map entry: the feature's name, and its list of values."""
  feature = _delimited(list_field, _delimited(_FIELD_1, content))
  key = _delimited(_FIELD_1, name.encode())
  return _delimited(_FIELD_1, key + _delimited(_FIELD_2, feature))


def _make_float_entry(name: str) -> bytes:
  return _make_entry(name, _LIST_FIELDS[Kind.FLOAT], bytes(4))


def _make_integer_head(name: str, size: int) -> bytes:
  return _make_entry(name, _LIST_FIELDS[Kind.INT64], bytes(size))[:-size]


def _pack(column: pa.Array, kind: Kind) -> pa.Array:
  """Returns the numbers of each row of a list column, as protobuf packs them."""
  offsets, values = arrays.get_list(column)
  if kind is Kind.FLOAT:
    packed = _to_float32(values).view(np.uint8)
    return arrays.from_parts(packed, offsets * 4)
  return varints.encode(values, offsets)


def _to_float32(numbers: np.ndarray) -> np.ndarray:
  """Returns (n,) numbers as protobuf stores them; large ones become infinite."""
  with np.errstate(over="ignore"):
    return np.ascontiguousarray(numbers, "<f4")


def _get_value_sizes(column: pa.Array, *, is_list: bool) -> np.ndarray:
  """Returns the bytes of each row of a column of bytes, or of lists of them."""
  if not is_list:
    return arrays.get_sizes(column)
  sizes = arrays.get_sizes(column.flatten())
  ends = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
  return np.diff(ends[arrays.get_list_offsets(column)])
