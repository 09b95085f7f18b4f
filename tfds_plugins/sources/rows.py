"""What a source hands on: batches of rows, and the rows it had to skip."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Sequence
import dataclasses

import pyarrow as pa

# The columns that every source adds to the ones that a dataset asks for.
KEY_COLUMN = "key"  # string: the identity of the row within its source shard
IMAGE_COLUMN = "image"  # binary: the encoded image, as it lies in the source

# The most rows in a batch of nothing but skipped rows.
BATCH_ROWS = 2048


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SkippedRow:
  """A row of the source that does not become an example.

  Attributes:
    source_shard: the name of the source shard.
    key: the row's key; '' where the row cannot even be named.
    reason: one word for the class of reasons, e.g. `failed_to_download`.
    detail: what exactly was found.
  """

  source_shard: str
  key: str
  reason: str
  detail: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceBatch:
  """Some rows of a source shard, in source order.

  Attributes:
    rows: columns `key`, `image` (if the source has images), and those that the
      dataset asked for, with the types that it asked for; nulls where the
      source has none.
    skipped: rows that the source itself cannot give.
    num_rows: how many rows of the source this batch accounts for.
    missing_columns: columns that were asked for and that the source of these
      rows does not have at all.
  """

  rows: pa.RecordBatch
  skipped: Sequence[SkippedRow]
  num_rows: int
  missing_columns: Collection[str] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceSlice:
  """A part of a source shard, the unit that plans are made of.

  Attributes:
    name: the source shard's name: its path below the source folder without
      the extension, e.g. `split_0/00000`.
    path: the file that holds the rows.
    metadata_path: the parquet beside it; '' if there is none.
    start: the part's first byte in `path`.
    stop: the first byte after it.
    size_bytes: the size of `path`.
  """

  name: str
  path: str
  metadata_path: str
  start: int
  stop: int
  size_bytes: int

  @property
  def is_first(self) -> bool:
    """Whether this part answers for the shard's rows that have no sample."""
    return self.start == 0
