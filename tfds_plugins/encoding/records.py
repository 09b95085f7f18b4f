"""Serialized examples, many at a time."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses

import pyarrow as pa

from tfds_plugins.sources import arrays


@dataclasses.dataclass(frozen=True)
class Records:
  """Serialized examples.

  Attributes:
    pieces: `binary` arrays of one length, without nulls: record i is what their
      values i are together.
  """

  pieces: Sequence[pa.Array]

  def __len__(self) -> int:
    return len(self.pieces[0])

  @property
  def num_bytes(self) -> int:
    """The size of all records together."""
    return sum(piece.total_values_length for piece in self.pieces)

  @property
  def is_joined(self) -> bool:
    """Whether there is an array of the records, which needs no copy."""
    return len(self.pieces) == 1

  def join(self) -> pa.Array:
    """Returns the records as one `binary` array; less than 2 GiB of them."""
    if self.is_joined:
      return self.pieces[0]
    return arrays.join_values(*self.pieces)

  def iter_bytes(self) -> Iterator[bytes]:
    """Yields one record after the other."""
    return map(b"".join, zip(*map(arrays.get_views, self.pieces)))
