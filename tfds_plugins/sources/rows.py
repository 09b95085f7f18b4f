"""What a source hands on: batches of rows, and the rows it had to skip."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Sequence
import dataclasses
from typing import Generic
from typing import TypeVar

import pyarrow as pa

from tfds_plugins.sources import states

# The columns that every source adds to the ones that a dataset asks for.
KEY_COLUMN = "key"  # string: the identity of the row within its source shard
IMAGE_COLUMN = "image"  # binary: the encoded image, as it lies in the source

# Reasons for skipping a row that every source may have.
BAD_METADATA = "bad_metadata"
TRUNCATED_SHARD = "truncated_shard"
CORRUPT_SHARD = "corrupt_shard"
CORRUPT_RECORD = "corrupt_record"

# The most rows in a batch of nothing but skipped rows.
BATCH_ROWS = 2048


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LedgerEntry:
  """What the skip ledger says of a row.

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


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SkippedRow(LedgerEntry):
  """A row of the source that does not become an example."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class IncompleteRow(LedgerEntry):
  """Something that a row lacks which becomes an example all the same."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceBatch:
  """Some rows of a source shard, in source order.

  Attributes:
    rows: columns `key`, `image` (if the source has images; valid until the next
      batch is asked for), and those that the dataset asked for, with the types
      that it asked for; nulls where the source has none.
    skipped: rows that the source itself cannot give.
    num_rows: how many rows of the source this batch accounts for.
    incomplete: what some of `rows` lack.
    missing_columns: columns that were asked for and that the source of these
      rows does not have at all.
  """

  rows: pa.RecordBatch
  skipped: Sequence[SkippedRow]
  num_rows: int
  incomplete: Sequence[IncompleteRow] = ()
  missing_columns: Collection[str] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceShard:
  """One file or partition of a source. Every format adds its paths.

  Attributes:
    name: how the user knows it: its path below the source folder without the
      extension, e.g. `split_0/00000`.
    length: how far the positions in it go at which it may be cut: the bytes of
      a tar, the rows of an embedding partition.
    size_bytes: about what its examples will take; what plans are balanced by.
    state: by what its content is known again, see `states.py`; '' where it was
      not looked at.
    selection: what else decides which of its content is converted, as a digest.
  """

  name: str
  length: int
  size_bytes: int
  state: str = ""
  selection: str = ""

  @property
  def place(self) -> str:
    """What stays the same if another file is used in its stead."""
    return self.name

  def list_paths(self) -> Sequence[str]:
    """Returns the files and folders that it is read from."""
    return ()

  def has_changed(self) -> bool:
    """Whether it is in another state than it was when it was looked at."""
    return bool(self.state) and states.describe(self.list_paths()) != self.state


ShardT = TypeVar("ShardT", bound=SourceShard, covariant=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceSlice(Generic[ShardT]):
  """A part of a source shard, the unit that plans are made of.

  Attributes:
    shard: what it is a part of.
    start: the part's first position.
    stop: the first position after it.
  """

  shard: ShardT
  start: int
  stop: int

  @property
  def size_bytes(self) -> int:
    """About what its examples will take."""
    shard = self.shard
    return shard.size_bytes * (self.stop - self.start) // max(1, shard.length)

  @property
  def is_first(self) -> bool:
    """Whether this part answers for what has no position in the shard."""
    return self.start == 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source(Generic[ShardT]):
  """A source folder.

  Attributes:
    source_dir: where the shards are, for people.
    shards: whole shards, in order; at least one.
    notes: what the user should know: shards that were left out, and why.
    empty: shards that have nothing to be converted.

  `list_*` functions find one, `check_*` ones make it ready to be converted.
  """

  source_dir: str
  shards: Sequence[ShardT]
  notes: Sequence[str]
  empty: Sequence[ShardT] = ()
