"""Serialized examples, many at a time."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import functools
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from tfds_plugins.sources import arrays

# `binary`: one value for each record, or one for all of them.
Pieces: TypeAlias = "pa.Array | pa.Scalar"

# Values of this size are copied only when their record is written.
_LARGE_VALUE_BYTES = 8 << 10


def is_large(num_bytes: int, num_records: int) -> bool:
  """Whether values of so many bytes together should be copied once only."""
  return num_bytes > num_records * _LARGE_VALUE_BYTES


@dataclasses.dataclass(frozen=True)
class Records:
  """Serialized examples, not yet put together.

  Attributes:
    pieces: what record i is made of: the values i of the arrays and the scalars,
      one after the other. At least one is an array; all are of one length and
      without nulls.
  """

  pieces: Sequence[Pieces]

  def __len__(self) -> int:
    return len(self.sizes)

  @functools.cached_property
  def sizes(self) -> np.ndarray:
    """The size of each record in bytes: (num_records,) int64."""
    sizes = sum(arrays.get_sizes(piece) for piece in self.pieces)
    return np.asarray(sizes, np.int64)

  @property
  def num_bytes(self) -> int:
    """The size of all records together."""
    return int(self.sizes.sum())

  @property
  def has_large_pieces(self) -> bool:
    """Whether joining would pass megabytes through memory once more."""
    return any(map(self._is_large, self.pieces))

  def join(
    self, before: Sequence[Pieces] = (), after: Sequence[Pieces] = ()
  ) -> pa.Array:
    """Returns the records as one `binary` array; less than 2 GiB of them.

    Args:
      before: what comes before each record.
      after: what comes after it.
    """
    pieces = [*before, *self.pieces, *after]
    if len(pieces) == 1:
      return pieces[0]
    return arrays.join_values(*pieces)

  def join_small(self) -> list[pa.Array]:
    """Joins neighbouring pieces that are not large.

    Returns:
      The pieces that are left, all of them arrays.
    """
    joined: list[pa.Array] = []
    small: list[Pieces] = []
    for piece in self.pieces:
      if not self._is_large(piece):
        small.append(piece)
        continue
      if small:
        joined.append(self._join_neighbours(small))
        small = []
      joined.append(piece)
    if small:
      joined.append(self._join_neighbours(small))
    return joined

  def iter_bytes(self) -> Iterator[bytes]:
    """Yields one record after the other."""
    return map(b"".join, zip(*map(arrays.get_views, self.join_small())))

  def _is_large(self, piece: Pieces) -> bool:
    return isinstance(piece, pa.Array) and is_large(
      piece.total_values_length, len(self)
    )

  def _join_neighbours(self, pieces: Sequence[Pieces]) -> pa.Array:
    if len(pieces) == 1 and isinstance(pieces[0], pa.Array):
      return pieces[0]
    if any(isinstance(piece, pa.Array) for piece in pieces):
      return arrays.join_values(*pieces)
    value = b"".join(piece.as_py() for piece in pieces)
    return arrays.make_binary([value] * len(self))
