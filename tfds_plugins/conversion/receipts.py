"""Receipts of tasks and the skip ledger: every source row accounted for.

Both lie beside `dataset_info.json` once a dataset is prepared:

`shard_receipts.jsonl`: one JSON object a line for each output shard, in order:
    split          string
    shard_index    integer, the output shard's number
    sources        list of {name, start, stop, length}: the parts of source
                   shards that the output shard is planned from, and how long
                   the whole shards are; bytes of a tar, rows of a parquet
    num_rows       integer, the source rows that were converted: all rows of
                   those parts, or fewer in the last output shard where
                   `max_examples_per_split` ends the conversion before their end
    num_examples   integer, the records in the output shard
    skipped        object, reason -> number of rows
    incomplete     object, reason -> how often something was left out of a row
                   that became an example
    num_bytes      integer, the size of all records
    file_bytes     integer, the size of the output shard's file
    fingerprint    string, stands for all that its bytes depend on, see
                   `fingerprints.py`
    missing_columns  list of strings, asked for and not in the source
`num_rows == num_examples + sum(skipped.values())` in every line.

`skipped_rows.parquet`: a row for each skipped row, in source order, with the
string columns `source_shard`, `key`, `reason`, `detail` and `split`, and the
boolean `is_skipped`: false where the row became an example that lacks something.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import dataclasses
import json
from typing import Any
from typing import cast

from etils import epath
import pyarrow as pa
import pyarrow.parquet as pq

from tfds_plugins import errors
from tfds_plugins.sources.rows import LedgerEntry
from tfds_plugins.sources.rows import SkippedRow
from tfds_plugins.sources.rows import SourceShard
from tfds_plugins.sources.rows import SourceSlice

RECEIPTS_FILENAME = "shard_receipts.jsonl"
LEDGER_FILENAME = "skipped_rows.parquet"

LEDGER_SCHEMA = pa.schema(
  [
    ("source_shard", pa.string()),
    ("key", pa.string()),
    ("reason", pa.string()),
    ("detail", pa.string()),
    ("split", pa.string()),
    ("is_skipped", pa.bool_()),
  ]
)
_LEDGER_GROUP_ROWS = 1 << 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardReceipt:
  """The result of a task. See the module's docstring for the fields."""

  split: str
  shard_index: int
  sources: Sequence[SourceSlice]
  num_rows: int
  num_examples: int
  skipped: Mapping[str, int]
  incomplete: Mapping[str, int] = dataclasses.field(default_factory=dict)
  num_bytes: int
  file_bytes: int
  fingerprint: str
  missing_columns: Sequence[str]

  @classmethod
  def from_json(cls, line: str) -> ShardReceipt:
    """Returns the receipt of a line that `to_json` made.

    Args:
      line: the line.

    Returns:
      The receipt; of its source shards it knows name and length alone.

    Raises:
      ValueError: the line is damaged.
    """
    try:
      record = json.loads(line)
      record["sources"] = [
        SourceSlice(
          shard=SourceShard(
            name=part["name"], length=part["length"], size_bytes=0
          ),
          start=part["start"],
          stop=part["stop"],
        )
        for part in record["sources"]
      ]
      return cls(**record)
    except (KeyError, TypeError) as e:
      raise ValueError(f"no receipt: {line[:100]}") from e

  @property
  def num_ledger_rows(self) -> int:
    """The number of its rows in the skip ledger."""
    return self.num_skipped + sum(self.incomplete.values())

  @property
  def num_skipped(self) -> int:
    """The number of skipped rows, whatever the reason."""
    return sum(self.skipped.values())

  @property
  def has_ledger(self) -> bool:
    """Whether there is anything for the skip ledger."""
    return self.num_ledger_rows > 0

  def check(self) -> None:
    """Checks that rows, examples and skipped rows agree.

    Raises:
      errors.ConversionError: they do not; a defect of this package.
    """
    if self.num_rows != self.num_examples + self.num_skipped:
      names = ", ".join(part.shard.name for part in self.sources)
      raise errors.ConversionError(
        f"Rows were lost in output shard {self.shard_index} (from {names}):"
        f" {self.num_rows:,} source rows, but {self.num_examples:,} examples"
        f" and {self.num_skipped:,} skipped rows. This is a defect of"
        " tfds_plugins; please report it with this message."
      )

  def to_json(self) -> str:
    """Returns the receipt as one line of JSON."""
    record = {
      field.name: getattr(self, field.name)
      for field in dataclasses.fields(self)
    }
    record["sources"] = [
      {
        "name": part.shard.name,
        "start": part.start,
        "stop": part.stop,
        "length": part.shard.length,
      }
      for part in self.sources
    ]
    return json.dumps(record)


class LedgerWriter:
  """Appends skipped rows to a parquet, holding one row group at most."""

  def __init__(self, path: epath.Path):
    """Initializes a writer; the file is made when it is closed at the latest.

    Args:
      path: the parquet to write.
    """
    self._stack = contextlib.ExitStack()
    file = self._stack.enter_context(path.open("wb"))
    self._writer = self._stack.enter_context(
      pq.ParquetWriter(cast(Any, file), LEDGER_SCHEMA)
    )
    self._batches: list[pa.RecordBatch] = []
    self._num_rows = 0

  def __enter__(self) -> LedgerWriter:
    return self

  def __exit__(self, *unused_args: object) -> None:
    self._flush()
    self._stack.close()

  def add(self, rows: Iterable[LedgerEntry], split: str) -> None:
    """Appends rows."""
    columns = [
      (
        *(row.source_shard, row.key, row.reason, row.detail, split),
        isinstance(row, SkippedRow),
      )
      for row in rows
    ]
    if columns:
      arrays = [
        pa.array(values, field.type)
        for values, field in zip(zip(*columns), LEDGER_SCHEMA)
      ]
      self.add_batch(pa.RecordBatch.from_arrays(arrays, schema=LEDGER_SCHEMA))

  def add_batch(self, batch: pa.RecordBatch) -> None:
    """Appends a batch that has the ledger's schema."""
    self._batches.append(batch)
    self._num_rows += batch.num_rows
    if self._num_rows >= _LEDGER_GROUP_ROWS:
      self._flush()

  def _flush(self) -> None:
    if self._batches:
      self._writer.write_table(pa.Table.from_batches(self._batches))
    self._batches = []
    self._num_rows = 0


def count_ledger_rows(path: epath.Path) -> int:
  """Returns the number of rows in a ledger."""
  with path.open("rb") as file:
    return pq.read_metadata(file).num_rows


def iter_ledger(path: epath.Path) -> Iterator[pa.RecordBatch]:
  """Yields the rows of a ledger a batch at a time."""
  with path.open("rb") as file:
    yield from pq.ParquetFile(file).iter_batches()
