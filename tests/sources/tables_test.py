"""Tests of published metadata: finding its files, checking and reading them."""

import os

from etils import epath
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tfds_plugins import errors
from tfds_plugins.sources import tables
from tfds_plugins.sources.rows import SourceSlice

WANTED = pa.schema([("id", pa.int64()), ("labels", pa.list_(pa.int64()))])


def write(folder, number, ids, **columns):
  folder.mkdir(parents=True, exist_ok=True)
  path = folder / f"part-{number:05d}.snappy.parquet"
  pq.write_table(pa.table({"id": ids, **columns}), path, row_group_size=4)
  return path


def find(folder):
  return tables.check_source(
    tables.list_tables(
      epath.Path(folder),
      dataset="dataset",
      config="config",
      instructions="Fetch it.",
    ),
    WANTED,
    ["id"],
  )


def refused(folder):
  with pytest.raises(errors.SourceError) as e:
    find(folder)
  return str(e.value)


def test_files_in_the_order_of_their_numbers(tmp_path):
  for number in (100, 9, 10):
    write(tmp_path / "dataset" / "data", number, [number] * (number % 7))

  source = find(tmp_path)

  assert source.source_dir == str(tmp_path / "dataset" / "data")
  assert [(shard.name, shard.length) for shard in source.shards] == [
    ("part-00009.snappy", 2),
    ("part-00010.snappy", 3),
    ("part-00100.snappy", 2),
  ]


@pytest.mark.parametrize(("start", "stop"), [(0, 11), (3, 9), (10, 11), (4, 4)])
def test_rows_have_their_own_keys_whatever_the_part(tmp_path, start, stop):
  ids = [10 * i for i in range(11)]
  labels = [[i] * (i % 3) if i != 6 else None for i in range(11)]
  write(tmp_path, 0, ids, labels=labels)
  (shard,) = find(tmp_path).shards

  batches = tables.iter_batches(
    SourceSlice(shard=shard, start=start, stop=stop), WANTED
  )

  assert [row for batch in batches for row in batch.rows.to_pylist()] == [
    {"key": str(i), "id": ids[i], "labels": labels[i]}
    for i in range(start, stop)
  ]


def test_values_of_another_kind_are_skipped_rows(tmp_path):
  labels = pa.array([["1"], ["x"], None, ["2", "3"]])
  write(tmp_path, 0, ["5", "6", "seven", None], labels=labels)
  (shard,) = find(tmp_path).shards

  (batch,) = tables.iter_batches(
    SourceSlice(shard=shard, start=0, stop=4), WANTED
  )

  assert batch.num_rows == 4
  assert batch.rows.to_pylist() == [
    {"key": "0", "id": 5, "labels": [1]},
    {"key": "3", "id": None, "labels": [2, 3]},
  ]
  assert [(row.key, row.reason, row.detail) for row in batch.skipped] == [
    ("1", "bad_metadata", "column 'labels': [\"x\"] is no list<item: int64>"),
    ("2", "bad_metadata", "column 'id': 'seven' is no int64"),
  ]


def test_all_files_that_cannot_be_read_are_named(tmp_path):
  write(tmp_path, 0, [1, 2])
  os.mkfifo(tmp_path / "part-00001.parquet")
  (tmp_path / "part-00002.parquet").mkdir()
  (tmp_path / "part-00003.parquet").write_bytes(b"PAR1")
  path = write(tmp_path, 4, [1])
  content = path.read_bytes()
  # The name in the schema: the first behind the rows.
  place = content.index(b"id", len(content) - 1000)
  path.write_bytes(content[:place] + b"\xef" + content[place + 1 :])
  pq.write_table(pa.table({"url": ["u"]}), tmp_path / "part-00005.parquet")

  message = refused(tmp_path)

  assert message.startswith("5 problems:")
  for number, found in [
    (1, "this is a pipe, socket or device, not a file"),
    (2, "this is a folder, not a file"),
    (3, "Parquet"),
    (4, "UnicodeDecodeError"),
    (5, "columns url"),
  ]:
    (problem,) = [
      text for text in message.split("where:") if f"part-0000{number}" in text
    ]
    assert found in problem


def test_sizes_are_those_of_the_records(tmp_path):
  """Within some percents, whatever the file has beside."""
  write(
    tmp_path,
    0,
    list(range(3000)),
    labels=pa.array([list(range(40))] * 3000),
    url=["unwanted " * 50] * 3000,
  )

  (shard,) = find(tmp_path).shards

  # Names and sizes; an integer; forty integers and an offset.
  assert shard.size_bytes == pytest.approx(
    3000 * (2 + 12 + 6 + 12 + 8 + 40 * 8 + 4), rel=0.03
  )
