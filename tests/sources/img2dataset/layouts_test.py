"""Folders that are neither all well nor all wrong, whole builds of them."""

import io
import os
import tracemalloc

import builds
import formats
import numpy as np
from PIL import Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shards
import tensorflow as tf

from tfds_plugins import errors
from tfds_plugins.encoding import record_files
from tfds_plugins.encoding import records
from tfds_plugins.sources import folders
from tfds_plugins.sources import raw_files
from tfds_plugins.sources.img2dataset import image_parquet
from tfds_plugins.sources.img2dataset import keys
from tfds_plugins.sources.img2dataset import record_reader


def make_jpeg(i: int) -> bytes:
  out = io.BytesIO()
  Image.new("RGB", (8, 8), (i, 0, 0)).save(out, "JPEG")
  return out.getvalue()


def write_good(output_format, folder, stem, numbers):
  rows = [shards.make_row(i, f"{i:09d}") for i in numbers]
  images = {row["key"]: make_jpeg(i) for i, row in zip(numbers, rows)}
  formats.write_shard(output_format, folder, stem, rows, images)


def build(folder, tmp_path):
  return builds.prepare(folder, tmp_path / "data")


def count(builder):
  table = pq.read_table(builder.data_path / "skipped_rows.parquet")
  return builder.info.splits["train"].num_examples, table.num_rows


@pytest.mark.parametrize("output_format", formats.FORMATS)
def test_rows_of_a_shard_without_any_image_are_accounted_for(
  tmp_path, output_format, capsys
):
  folder = tmp_path / "manual"
  write_good(output_format, folder, "00000", range(4))
  failed = [shards.failed_row(i, f"{i:09d}") for i in range(10, 110)]
  formats.write_shard(output_format, folder, "00001", failed, {})
  builder = build(folder, tmp_path)
  assert count(builder) == (4, 100)
  assert "104 rows" in capsys.readouterr().out


@pytest.mark.parametrize("output_format", formats.FORMATS)
def test_shards_in_folders_directly_below(tmp_path, output_format):
  folder = tmp_path / "manual"
  write_good(output_format, folder, "00000", range(3))
  write_good(output_format, folder / "split_1", "00000", range(3, 6))
  write_good(output_format, folder / "split_2", "00007", range(6, 8))
  assert count(build(folder, tmp_path)) == (8, 0)


def test_a_stray_image_among_tars(tmp_path):
  folder = tmp_path / "manual"
  for i in range(2):
    write_good("webdataset", folder / f"split_{i}", "00000", [2 * i, 2 * i + 1])
    (folder / f"split_{i}" / "000000000.jpg").write_bytes(make_jpeg(9))
  assert count(build(folder, tmp_path)) == (4, 0)


@pytest.mark.parametrize("is_pipe", [True, False])
def test_what_is_no_file_among_files_is_a_skipped_row(tmp_path, is_pipe):
  folder = tmp_path / "manual"
  write_good("files", folder, "00000", range(3))
  path = folder / "00000" / "000000001.jpg"
  path.unlink()
  os.mkfifo(path) if is_pipe else path.mkdir()
  builder = build(folder, tmp_path)
  assert count(builder) == (2, 1)
  [row] = pq.read_table(builder.data_path / "skipped_rows.parquet").to_pylist()
  assert (row["key"], row["reason"]) == ("000000001", "no_image")
  assert "000000001.jpg" in row["detail"]


def test_a_damaged_shard_of_format_parquet_is_named(tmp_path):
  folder = tmp_path / "manual"
  write_good("parquet", folder, "00000", range(4))
  path = folder / "00000.parquet"
  path.write_bytes(path.read_bytes()[:-9])
  with pytest.raises(errors.SourceError, match=r"00000\.parquet"):
    build(folder, tmp_path)


def test_counts_that_are_no_counts(tmp_path):
  folder = tmp_path / "manual"
  write_good("webdataset", folder, "00000", range(2))
  (folder / "00000.parquet").unlink()
  (folder / "00000_stats.json").write_text(
    '{"count": Infinity, "successes": 1}'
  )
  assert count(build(folder, tmp_path)) == (2, 0)


def test_a_superscript_is_no_number():
  names = ["split_10", "split_2", "split_²", "²"]
  assert sorted(names, key=folders.natural_key)[:2] == ["split_2", "split_10"]


def test_a_list_and_a_download_in_one_folder(tmp_path, dummy_data):
  folder = tmp_path / "manual"
  folder.mkdir()
  for path in (dummy_data / "coyo_700m" / "metadata" / "data").iterdir():
    (folder / path.name).write_bytes(path.read_bytes())
  for path in (dummy_data / "coyo_700m" / "images").glob("*.parquet"):
    (folder / path.name).write_bytes(path.read_bytes())
  builder = builds.prepare_dataset(
    "coyo_700m/metadata", folder, tmp_path / "data"
  )
  assert builder.info.splits["train"].num_examples == 18


# A TFRecord whose records cannot be read, and rows of which there is none.


@pytest.mark.parametrize("num_lost", [0, 2])
def test_lost_records_are_told_from_corrupt_ones(tmp_path, num_lost):
  folder = tmp_path / "manual"
  rows = [shards.make_row(i, f"{i:09d}") for i in range(6)]
  images = {
    row["key"]: make_jpeg(i) for i, row in enumerate(rows[: 6 - num_lost])
  }
  formats.write_shard("tfrecord", folder, "00000", rows, images)
  path = folder / "00000.tfrecord"
  data = bytearray(path.read_bytes())
  lengths = [
    len(record.numpy()) for record in tf.data.TFRecordDataset(str(path))
  ]
  starts = np.cumsum([0, *(length + 16 for length in lengths)])
  for i in (1, 3):
    data[starts[i] + 12 + 5] ^= 1
  path.write_bytes(bytes(data))
  builder = build(folder, tmp_path)
  assert count(builder) == (4 - num_lost, 2 + num_lost)
  table = pq.read_table(builder.data_path / "skipped_rows.parquet")
  reasons = table.column("reason").to_pylist()
  expected = "missing_sample" if num_lost else "corrupt_record"
  assert reasons == [expected] * (2 + num_lost)
  detail = table.column("detail")[0].as_py()
  assert "checksum" in detail
  assert ("of 4 such rows, 2 may be" in detail) == bool(num_lost)


# Memory.


def test_one_long_key_does_not_take_a_thousand_times_its_size():
  index = keys.KeyIndex(pa.array([f"k{i}" for i in range(100)]), where="x")
  wanted = [b"k%d" % i for i in range(8000)] + [b"k" * (1 << 20), b""]
  tracemalloc.start()
  found = index.find(wanted)
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert found.tolist() == [*range(100)] + [-1] * 7902
  assert 50_000 < peak < 100 << 20  # (NumPy's arrays are seen.)


def test_batches_of_a_parquet_are_as_small_as_its_images_are_large(tmp_path):
  rows = [shards.make_row(i, f"{i}") for i in range(40)]
  images = {f"{i}": os.urandom(1 << 20) for i in range(40)}
  formats.write_shard("parquet", tmp_path, "00000", rows, images)
  (source_slice,) = formats.make_slices(tmp_path)
  batches = list(
    image_parquet.iter_batches(source_slice, pa.schema([("url", pa.string())]))
  )
  assert sum(batch.num_rows for batch in batches) == 40
  assert max(batch.num_rows for batch in batches) <= 8


# TensorFlow's files, which epath opens for remote paths.


def test_tensorflows_files_are_read_and_written(tmp_path):
  path = str(tmp_path / "file")
  with tf.io.gfile.GFile(path, "wb") as file:
    for value in (b"abc", b"x" * 20_000):
      some = records.Records([pa.array([value, value], pa.binary())])
      if some.has_large_pieces:
        record_files._write_vector(file, record_files._frame_pieces(some))
      else:
        record_files._write(file, record_files._frame(some))
  found = list(tf.data.TFRecordDataset(path).as_numpy_iterator())
  assert found == [b"abc"] * 2 + [b"x" * 20_000] * 2
  size = os.path.getsize(path)
  with tf.io.gfile.GFile(path, "rb") as file:
    reader = record_reader.RecordReader(file, size)
    read = [
      bytes(record.data)
      for window in reader.iter_windows(0, size)
      for record in window
    ]
  assert read == found
  buffer = bytearray(9)
  with tf.io.gfile.GFile(path, "rb") as file:
    assert raw_files.read_into(file, memoryview(buffer)) == 9
  with open(path, "rb") as file:
    assert file.read(9) == bytes(buffer)
