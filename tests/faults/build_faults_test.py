"""Whole builds of damaged sources, by two worker processes."""

import json
import pathlib

from builds import LENGTHS
from builds import prepare
import fault_sources
import mutations
import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import screens
import shards
import tensorflow_datasets as tfds

import tfds_plugins


def damage(path, kind, number):
  content = path.read_bytes()
  path.write_bytes(mutations.Mutation(kind, number).apply(content))


def read_numbers(builder):
  """Returns the numbers of the examples, each of one row as a whole."""
  numbers = []
  for example in tfds.as_numpy(builder.as_dataset(split="train")):
    number = int(example["caption"].decode().removeprefix("caption "))
    assert example["url"].decode() == f"http://example.com/{number}.jpg"
    colour = [number % 256, (255 - number) % 256, 7 * number % 256]
    assert np.abs(example["image"].astype(int) - colour).max() <= 4
    numbers.append(number)
  assert len(set(numbers)) == len(numbers)
  return set(numbers)


def read_accounts(builder):
  """Returns the number of rows, and how many were skipped for which reason."""
  lines = (builder.data_path / "shard_receipts.jsonl").read_text().splitlines()
  receipts = list(map(json.loads, lines))
  for receipt in receipts:
    num_skipped = sum(receipt["skipped"].values())
    assert receipt["num_rows"] == receipt["num_examples"] + num_skipped
  ledger = pq.read_table(builder.data_path / "skipped_rows.parquet").to_pylist()
  return sum(r["num_rows"] for r in receipts), {
    (row["source_shard"], row["key"]): row["reason"]
    for row in ledger
    if row["reason"] != "failed_to_download"
  }


def refuse(manual_dir, data_dir, name, **options):
  """Checks that a build is refused with a name, and leaves no dataset behind."""
  with pytest.raises(tfds_plugins.TfdsPluginsError) as e:
    prepare(manual_dir, data_dir, num_workers=2, **options)
  assert name in str(e.value)
  left = (pathlib.Path(data_dir) / "laion400m/images").iterdir()
  assert {path.name for path in left} <= {"2.0.0.unfinished"}
  # (A resource tracker of loky's own stays.)
  assert not [
    process
    for process in psutil.Process().children(recursive=True)
    if "LokyProcess" in " ".join(process.cmdline())
  ]


@pytest.fixture
def source(tmp_path):
  """Returns a folder of twelve shards, and the numbers of the rows of each."""
  folder = tmp_path / "manual dir"
  rows = shards.write_simple_shards(folder, LENGTHS)
  numbers = {f"{i:05d}": set() for i in range(len(LENGTHS))}
  for row in rows:
    number = int(row["caption"].removeprefix("caption "))
    numbers[f"{int(row['key']) // 10000:05d}"].add(number)
  return folder, numbers


def test_a_tar_that_is_cut_and_one_with_lost_sectors(source, tmp_path):
  folder, numbers = source
  cut, lost = "00002", "00009"
  damage(folder / f"{cut}.tar", "truncate", 20_000)
  path = folder / f"{lost}.tar"
  content = path.read_bytes()
  # The header of the third image, as after a power failure.
  start = (
    content.index(b".jpg", content.index(b".jpg", 9000) + 512) // 512 * 512
  )
  path.write_bytes(content[:start] + bytes(4096) + content[start + 4096 :])

  builder = prepare(folder, tmp_path / "data", num_workers=2)

  num_rows, skipped = read_accounts(builder)
  assert num_rows == sum(LENGTHS)
  found = read_numbers(builder)
  for stem, expected in numbers.items():
    missing = expected - found
    reasons = {reason for (name, _), reason in skipped.items() if name == stem}
    if stem == cut:
      assert 0 < len(missing) < len(expected)
      assert reasons == {"truncated_shard"}
    elif stem == lost:
      assert 0 < len(missing) < len(expected)
      assert reasons == {"corrupt_shard"}
    else:
      assert not missing
      assert not reasons


def test_records_that_differ_from_their_checksums(tmp_path):
  folder = tmp_path / "manual dir"
  case = fault_sources.make_tfrecord(folder)
  fault_sources.make_tfrecord(folder / "more")
  path = folder / "00000.tfrecord"
  place = path.read_bytes().index(case.images[4][100:])
  damage(path, "flip", 8 * place)

  builder = prepare(folder, tmp_path / "data", num_workers=2)

  num_rows, skipped = read_accounts(builder)
  assert num_rows == 2 * case.num_rows
  assert skipped == {("00000", "000000004"): "corrupt_record"}
  (split,) = builder.info.splits.values()
  assert split.num_examples == 2 * len(case.images) - 1


def test_a_page_that_only_a_worker_meets(source, tmp_path):
  """Behind an intact footer."""
  folder, _ = source
  path = folder / "00007.parquet"
  metadata = pq.read_metadata(path)
  index = metadata.schema.names.index("caption")
  start = metadata.row_group(1).column(index).data_page_offset
  content = path.read_bytes()
  path.write_bytes(content[:start] + b"\xff" * 40 + content[start + 40 :])

  refuse(folder, tmp_path / "data", str(path))


@pytest.mark.parametrize("suffix", [".tar", ".parquet"])
def test_a_file_that_is_found_out_before_the_first_task(
  source, tmp_path, suffix
):
  folder, _ = source
  path = folder / f"00011{suffix}"
  damage(path, "truncate", 300)

  refuse(folder, tmp_path / "data", str(path))


def test_tiles_of_a_tar_that_is_cut(tmp_path):
  folder = tmp_path / "manual dir"
  folder.mkdir()
  fault_sources.make_screens(folder, "tars")
  damage(folder / "image_shards/shard_001.tar", "truncate", 1700)

  builder = screens.prepare(folder, tmp_path / "data", num_workers=2)

  num_rows, skipped = read_accounts(builder)
  assert num_rows == 6
  assert set(skipped.values()) == {
    *("unreadable_tile", "missing_tile", "missing_negative")
  }
  for split in builder.info.splits:
    for row in screens.read_rows(builder, split):
      number = int(row["query"].split()[1])
      assert row["image"] == fault_sources.make_tile(number)
