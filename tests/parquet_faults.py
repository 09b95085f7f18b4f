"""Reads parquets in whose footers a bit is wrong, in a process that may die.

    python parquet_faults.py FOLDER FIRST LAST KIND ...

writes sources of some kinds into the folder, flips LAST - FIRST bits of each,
one after the other, and prints how often what became of the rows: `right`,
`refused`, `without a column` (its name was hit), or what should not have been.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
import dataclasses
import pathlib
import random
import sys
from typing import Any

from etils import epath
import partitions
import pyarrow as pa
import pyarrow.parquet as pq
import shards

from tfds_plugins import errors
from tfds_plugins.conversion import plan
from tfds_plugins.sources import tables
from tfds_plugins.sources.clip_retrieval import embeddings
from tfds_plugins.sources.clip_retrieval import partition_check
from tfds_plugins.sources.clip_retrieval import partitions as partitions_lib
from tfds_plugins.sources.img2dataset import listing
from tfds_plugins.sources.img2dataset import source as img2dataset

WANTED = pa.schema(
  [
    ("caption", pa.string()),
    ("similarity", pa.float64()),
    ("original_width", pa.int32()),
  ]
)
_NUM_ROWS = 60
# Three row groups, and no copies of the schema in another format: footers of
# nothing but what is read.
_OPTIONS = {"row_group_size": 20, "store_schema": False}

_Rows = list[dict[str, Any]]


def main(kind: str, folder: pathlib.Path, first: int, last: int) -> None:
  path, read = KINDS[kind](folder)
  expected = read()
  assert len(expected) == _NUM_ROWS
  content = path.read_bytes()
  counts: collections.Counter[str] = collections.Counter()
  for i in range(first, last):
    print(
      f"{kind}, bit {i}", file=sys.stderr, flush=True
    )  # The last line, if it dies.
    path.write_bytes(flip_bit(content, i))
    try:
      outcome = compare(read(), expected)
    except errors.SourceError as e:
      outcome = "refused" if str(path) in str(e) else f"no name in: {e}"
    if outcome not in ("right", "refused", "without a column"):
      outcome = f"bit {i}: {outcome}"
    counts[outcome] += 1
  for outcome, count in sorted(counts.items()):
    print(kind, count, outcome)


def flip_bit(content: bytes, number: int) -> bytes:
  """Flips one bit of a parquet's footer, by chance or by its number."""
  footer_bytes = int.from_bytes(content[-8:-4], "little") + 8
  rng = random.Random(number)
  changed = bytearray(content)
  changed[-1 - rng.randrange(footer_bytes)] ^= 1 << rng.randrange(8)
  return bytes(changed)


def compare(found: _Rows, expected: _Rows) -> str:
  if found == expected:
    return "right"
  if len(found) != len(expected):
    return f"{len(found)} rows"
  names = [
    name
    for name in expected[0]
    if any(
      row.get(name, ...) != other[name] for row, other in zip(found, expected)
    )
  ]
  if all(row.get(name, ...) is None for row in found for name in names):
    return "without a column"
  return f"other values of {names}"


def read_rows(source, iter_batches) -> _Rows:
  """Returns all rows: one task for each shard reads what seven tasks read."""
  found = []
  for num_shards in (None, 7):
    parts = plan.plan_output_shards(
      source.shards, num_shards=num_shards, max_shard_bytes=1 << 20
    )
    assert len(parts) <= 7, parts
    batches = [
      batch
      for part in parts
      for piece in part
      for batch in iter_batches(piece, WANTED)
    ]
    assert not any(batch.skipped for batch in batches)
    found.append([row for batch in batches for row in batch.rows.to_pylist()])
  assert found[0] == found[1]
  return found[0]


def make_partition(folder: pathlib.Path) -> tuple[pathlib.Path, Callable]:
  metadata = partitions.make_metadata(3, _NUM_ROWS)
  vectors = partitions.make_vectors(3, _NUM_ROWS, 8)
  partitions.write_partition(folder, 3, metadata, vectors)
  path = folder / "metadata" / "metadata_3.parquet"
  write(metadata, path)

  def read():
    found = partitions_lib.find_partitions([epath.Path(folder)])
    assert found is not None
    source = partition_check.check_source(
      found, dim=8, wanted=WANTED, advise_dim=str
    )
    return read_rows(source, embeddings.iter_batches)

  return path, read


def make_table(folder: pathlib.Path) -> tuple[pathlib.Path, Callable]:
  path = folder / "part-00000.parquet"
  metadata = partitions.make_metadata(3, _NUM_ROWS)
  write(metadata.drop(columns="status"), path)

  def read():
    source = tables.check_source(
      tables.list_tables(
        epath.Path(folder),
        dataset="dataset",
        config="config",
        instructions="",
      ),
      WANTED,
      ["caption"],
    )
    return read_rows(source, tables.iter_batches)

  return path, read


def make_images(folder: pathlib.Path) -> tuple[pathlib.Path, Callable]:
  """A shard of img2dataset's format parquet, beside one that stays as it is."""
  schema = shards.SCHEMA.append(pa.field("jpg", pa.binary()))
  rows = [
    {**shards.make_row(i, f"{i:03d}"), "jpg": b"%03d" % i}
    for i in range(_NUM_ROWS)
  ]
  table = pa.Table.from_pylist(rows, schema=schema)
  paths = [folder / f"{i:05d}.parquet" for i in range(2)]
  for path in paths:
    pq.write_table(table, path, **_OPTIONS)

  def read():
    found = listing.find_shards(
      epath.Path(folder), dataset="dataset", config="config", instructions=""
    )
    source = img2dataset.check_source(found)
    changed = dataclasses.replace(source, shards=source.shards[1:])
    return read_rows(changed, img2dataset.iter_batches)

  return paths[1], read


def write(metadata: Any, path: pathlib.Path) -> None:
  table = pa.Table.from_pandas(metadata, preserve_index=False)
  pq.write_table(table.replace_schema_metadata(None), path, **_OPTIONS)


KINDS: dict[str, Callable] = {
  "partition": make_partition,
  "table": make_table,
  "images": make_images,
}

if __name__ == "__main__":
  _, root, start, stop, *kinds = sys.argv
  for chosen in kinds:
    home = pathlib.Path(root, chosen)
    home.mkdir()
    main(chosen, home, int(start), int(stop))
