"""Serializes columns as `tf.train.Example` records, without protobuf objects.

The wire format is written directly: the messages are
`tensorflow/core/example/{example,feature}.proto` (tensorflow/tensorflow), their
encoding https://protobuf.dev/programming-guides/encoding. An `Example` of 8
features with a 25 kB image takes 10 us; filling protobuf's own objects and
serializing them takes several times as long and copies the image twice more.

    Example     { Features features = 1; }
    Features    { map<string, Feature> feature = 1; }
    Feature     { oneof { BytesList 1; FloatList 2; Int64List 3; } }
    *List       { repeated value = 1; }   numbers packed
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import enum
import itertools

import pyarrow as pa

from tfds_plugins.sources import arrow_bytes

# The fields of the messages above, all length-delimited.
_FIELD_1 = b"\x0a"
_FIELD_2 = b"\x12"
_FIELD_3 = b"\x1a"
_UINT64_MASK = (1 << 64) - 1
# Entries of the same number are made once, up to this many.
_MAX_CACHED_ENTRIES = 1 << 16

Piece = bytes | memoryview


class Kind(enum.Enum):
  """Which list of `tf.train.Feature` holds a feature's values."""

  BYTES = "bytes_list"
  FLOAT = "float_list"
  INT64 = "int64_list"


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureSpec:
  """How one feature is stored: a single value an example.

  Attributes:
    name: the feature's flattened name, the column to read.
    kind: the list that holds it. float64 is stored as float32, as TFDS does.
  """

  name: str
  kind: Kind


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

  def encode(self, batch: pa.RecordBatch) -> Iterator[bytes]:
    """Yields one serialized `tf.train.Example` for each row.

    Args:
      batch: has a column without nulls for each feature: binary or string for
        BYTES, a floating type for FLOAT, an integer type for INT64.
    """
    pieces = [
      part
      for column in self._columns
      for part in column.encode(batch.column(column.name))
    ]
    for row in zip(*pieces):
      yield b"".join((_FIELD_1, varint(sum(map(len, row))), *row))


class _ColumnEncoder:
  """Makes the map entries of one feature."""

  def __init__(self, spec: FeatureSpec):
    self.name = spec.name
    self._key = _delimited(_FIELD_1, spec.name.encode("utf-8"))
    self._kind = spec.kind
    self._entries: dict[int, bytes] = {}
    self._heads: dict[int, bytes] = {}

  def encode(self, column: pa.Array) -> list[list[Piece]]:
    """Returns lists of len(column) pieces: joined, a row's are its map entry."""
    if column.null_count:
      raise ValueError(f"Column '{self.name}' has nulls.")
    if self._kind is Kind.BYTES:
      return self._encode_bytes(column)
    if self._kind is Kind.FLOAT:
      return self._encode_floats(column)
    return self._encode_integers(column)

  def _entry(self, list_field: bytes, content: bytes) -> bytes:
    """Returns a map entry: the feature's name, and its list of values."""
    feature = _delimited(list_field, content)
    return _delimited(_FIELD_1, self._key + _delimited(_FIELD_2, feature))

  def _encode_bytes(self, column: pa.Array) -> list[list[Piece]]:
    """Values are not copied: an entry is a head and a view of the column."""
    offsets, data = arrow_bytes.get_values(column)
    heads: list[Piece] = []
    for start, stop in itertools.pairwise(offsets):
      head = self._heads.get(stop - start)
      if head is None:
        head = self._make_head(stop - start)
        if len(self._heads) < _MAX_CACHED_ENTRIES:
          self._heads[stop - start] = head
      heads.append(head)
    views: list[Piece] = [
      data[start:stop] for start, stop in itertools.pairwise(offsets)
    ]
    return [heads, views]

  def _make_head(self, size: int) -> bytes:
    """Returns all of a bytes entry that comes before a value of `size` bytes."""
    value_head = _FIELD_1 + varint(size)
    list_head = _FIELD_1 + varint(len(value_head) + size)
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

  def _encode_floats(self, column: pa.Array) -> list[list[Piece]]:
    values = column.to_numpy(zero_copy_only=False).astype("<f4").tobytes()
    # A float32 has a fixed size, so all but the value is the same in each row.
    head = self._entry(_FIELD_2, _delimited(_FIELD_1, bytes(4)))[:-4]
    parts: list[Piece] = [values[i : i + 4] for i in range(0, len(values), 4)]
    return [[head] * len(parts), parts]

  def _encode_integers(self, column: pa.Array) -> list[list[Piece]]:
    entries: list[Piece] = []
    for value in column.to_numpy(zero_copy_only=False).tolist():
      entry = self._entries.get(value)
      if entry is None:
        packed = _delimited(_FIELD_1, varint(value & _UINT64_MASK))
        entry = self._entry(_FIELD_3, packed)
        if len(self._entries) < _MAX_CACHED_ENTRIES:
          self._entries[value] = entry
      entries.append(entry)
    return [entries]
