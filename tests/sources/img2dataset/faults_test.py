"""Tests of shards that are damaged, or hold rows that cannot be used."""

import dataclasses
import os
import tarfile

from etils import epath
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shards
from slices import make_slice
from slices import read

from tfds_plugins import errors
from tfds_plugins.sources.img2dataset import listing
from tfds_plugins.sources.img2dataset import samples
from tfds_plugins.sources.img2dataset import source
from tfds_plugins.sources.img2dataset import webdataset
from tfds_plugins.sources.img2dataset.shards import Format


def test_failed_rows_are_skipped_with_img2datasets_reason(tmp_path):
  rows = [
    shards.make_row(0, "000"),
    shards.failed_row(1, "001"),
    shards.failed_row(
      2, "002", status="failed_to_resize", error_message="Image decoding error"
    ),
    shards.failed_row(3, "003", status=None, error_message=None),
  ]
  shards.write_shard(tmp_path, "00000", rows, {"000": b"image"})

  examples, skipped = read(make_slice(tmp_path))

  assert list(examples) == ["000"]
  assert skipped == {
    "001": ("failed_to_download", "HTTP Error 404: Not Found"),
    "002": ("failed_to_resize", "Image decoding error"),
    "003": ("unknown_status", "status '': "),
  }


def test_a_success_without_sample_is_missing_from_the_tar(tmp_path):
  rows = [shards.make_row(i, f"00{i}") for i in range(3)]
  shards.write_shard(tmp_path, "00000", rows, {"000": b"0", "002": b"2"})

  examples, skipped = read(make_slice(tmp_path))

  assert sorted(examples) == ["000", "002"]
  assert skipped["001"][0] == "missing_sample"


def test_a_sample_without_any_metadata_is_skipped(tmp_path):
  shards.write_tar(
    tmp_path / "0.tar",
    [
      ("00.jpg", b"x"),
      ("01.jpg", b"y"),
      ("01.json", b"{not json"),
      ("02.txt", b""),
    ]
    + [("03.jpg", b"z"), ("03.json", b"[1]")],
  )

  examples, skipped = read(make_slice(tmp_path, "0", parquet=False))

  assert examples == {}
  assert {key: reason for key, (reason, _) in skipped.items()} == {
    "00": "no_metadata",
    "01": "no_metadata",
    "02": "no_image",
    "03": "no_metadata",
  }
  assert "object was expected, not list" in skipped["03"][1]


def test_an_image_beyond_the_limit_is_skipped(tmp_path, monkeypatch):
  monkeypatch.setattr(samples, "MAX_IMAGE_BYTES", 1000)
  rows = [shards.make_row(i, f"00{i}") for i in range(2)]
  shards.write_shard(
    tmp_path, "0", rows, {"000": bytes(1001), "001": bytes(1000)}
  )

  examples, skipped = read(make_slice(tmp_path, "0"))

  assert list(examples) == ["001"]
  assert skipped == {"000": ("image_too_large", "1,001 bytes, more than 1,000")}


def test_a_truncated_shard_keeps_what_lies_before_the_cut(tmp_path):
  rows = [shards.make_row(i, f"00{i}") for i in range(6)]
  images = {row["key"]: bytes([i]) * 2000 for i, row in enumerate(rows)}
  shards.write_shard(tmp_path, "00000", rows, images)
  path = tmp_path / "00000.tar"
  with tarfile.open(path) as tar:
    cut = tar.getmember("003.jpg").offset_data + 100
  path.write_bytes(path.read_bytes()[:cut])

  examples, skipped = read(make_slice(tmp_path))

  assert sorted(examples) == ["000", "001", "002"]
  assert {key: reason for key, (reason, _) in skipped.items()} == dict.fromkeys(
    ("003", "004", "005"), "truncated_shard"
  )


def test_a_truncated_shard_without_parquet_leaves_a_trace(tmp_path):
  rows = [shards.make_row(i, f"00{i}") for i in range(3)]
  images = {row["key"]: b"x" for row in rows}
  shards.write_shard(tmp_path, "0", rows, images, parquet=False)
  path = tmp_path / "0.tar"
  with tarfile.open(path) as tar:
    cut = tar.getmember("002.jpg").offset
  path.write_bytes(path.read_bytes()[:cut])

  examples, skipped = read(make_slice(tmp_path, "0", parquet=False))

  assert sorted(examples) == ["000", "001"]
  assert skipped[""][0] == "truncated_shard"


def test_a_cut_in_what_is_not_read_leaves_a_trace_too(tmp_path):
  """The sample of the .txt in which the tar ends is whole, the next are lost."""
  rows = [shards.make_row(i, f"00{i}") for i in range(3)]
  images = {row["key"]: b"x" for row in rows}
  shards.write_shard(tmp_path, "0", rows, images, parquet=False)
  path = tmp_path / "0.tar"
  with tarfile.open(path) as tar:
    cut = tar.getmember("001.txt").offset_data + 3
  path.write_bytes(path.read_bytes()[:cut])

  examples, skipped = read(make_slice(tmp_path, "0", parquet=False))

  assert sorted(examples) == ["000", "001"]
  assert skipped[""][0] == "truncated_shard"


def test_a_shard_of_failures_alone_is_legal(tmp_path):
  rows = [shards.failed_row(i, f"00{i}") for i in range(3)]
  shards.write_shard(tmp_path, "0", rows, {})

  examples, skipped = read(make_slice(tmp_path, "0"))

  assert examples == {}
  assert sorted(skipped) == ["000", "001", "002"]


def test_keys_that_repeat_in_the_parquet_are_refused(tmp_path):
  rows = [shards.make_row(0, "000"), shards.make_row(1, "000")]
  shards.write_shard(tmp_path, "0", rows, {})

  with pytest.raises(errors.SourceError, match="more than once") as e:
    read(make_slice(tmp_path, "0"))

  assert "0.parquet" in str(e.value)
  assert "1 repeated, such as 000" in str(e.value)


@pytest.mark.parametrize("parquet", [True, False])
def test_keys_that_repeat_in_the_tar_are_refused(tmp_path, parquet):
  rows = [shards.make_row(i, f"00{i}") for i in range(2)]
  shards.write_shard(tmp_path, "0", rows, {"000": b"", "001": b""})
  members = [m for i in (0, 1, 0) for m in shards.sample_members(rows[i], b"x")]
  shards.write_tar(tmp_path / "0.tar", members)

  with pytest.raises(
    errors.SourceError, match="more than once in the shard"
  ) as e:
    read(make_slice(tmp_path, "0", parquet=parquet))

  assert "repeated 000" in str(e.value)


def test_bytes_that_are_no_utf8_are_replaced(tmp_path):
  rows = [shards.make_row(0, "000")]
  shards.write_shard(tmp_path, "0", rows, {"000": b""})
  table = pq.read_table(tmp_path / "0.parquet")
  index = table.schema.get_field_index("caption")
  broken = pa.Array.from_buffers(
    pa.string(), 1, pa.array([b"caf\xe9"]).buffers()
  )
  pq.write_table(
    table.set_column(index, "caption", broken), tmp_path / "0.parquet"
  )

  assert read(make_slice(tmp_path, "0"))[0]["000"][1] == "caf\ufffd"


@pytest.mark.parametrize("parquet", [True, False])
def test_a_value_of_another_kind_skips_its_row(tmp_path, parquet):
  rows = [shards.make_row(i, f"00{i}") for i in range(4)]
  for row, value in zip(rows, ["high", "0.25", "", None], strict=True):
    row["similarity"] = value
  schema = pa.schema(
    [
      pa.field("similarity", pa.string()) if f.name == "similarity" else f
      for f in shards.SCHEMA
    ]
  )
  images = {row["key"]: b"x" for row in rows}
  shards.write_shard(
    tmp_path, "0", rows, images, schema=schema, parquet=parquet
  )

  examples, skipped = read(make_slice(tmp_path, "0", parquet=parquet))

  similarities = {key: row[2] for key, row in examples.items()}
  assert similarities == {"001": 0.25, "002": None, "003": None}
  assert skipped == {
    "000": ("bad_metadata", "column 'similarity': 'high' is no double")
  }


def test_the_parquet_of_another_tar_of_the_old_era_is_refused(tmp_path):
  rows = [shards.make_row(i, f"{i:09d}") for i in range(2)]
  shards.write_shard(tmp_path, "0", rows, {row["key"]: b"x" for row in rows})
  others = pa.table(
    {
      "key": pa.array([0, 1], pa.int64()),
      "status": ["success"] * 2,
      "url": ["http://example.com/1000.jpg", "http://example.com/1001.jpg"],
    }
  )
  pq.write_table(others, tmp_path / "0.parquet")
  wanted = pa.schema([("url", pa.string())])

  with pytest.raises(errors.SourceError, match="belongs to another shard") as e:
    list(webdataset.iter_batches(make_slice(tmp_path, "0"), wanted))

  assert "http://example.com/0.jpg" in str(e.value)
  assert "http://example.com/1000.jpg" in str(e.value)


def test_unknown_statuses_are_quoted(tmp_path):
  rows = [shards.failed_row(0, "000", status="200", error_message="odd")]
  shards.write_shard(tmp_path, "0", rows, {})

  assert read(make_slice(tmp_path, "0"))[1] == {
    "000": ("unknown_status", "status '200': odd")
  }


def test_a_parquet_with_repeated_columns_is_refused(tmp_path):
  rows = [shards.make_row(0, "000")]
  shards.write_shard(tmp_path, "0", rows, {"000": b"x"})
  table = pq.read_table(tmp_path / "0.parquet")
  pq.write_table(
    table.append_column("url", table["url"]), tmp_path / "0.parquet"
  )

  with pytest.raises(errors.SourceError, match="same name"):
    read(make_slice(tmp_path, "0"))


@pytest.mark.parametrize("fault", ["name", "pipe"])
@pytest.mark.parametrize("output_format", ["webdataset", "parquet"])
def test_a_parquet_that_cannot_be_read_is_named(tmp_path, output_format, fault):
  """Of images, and beside a tar: before the first row is read."""
  rows = [shards.make_row(i, f"00{i}") for i in range(3)]
  for stem in ("00000", "00001"):
    shards.write_shard(tmp_path, stem, rows, {"000": b"image"})
  path = tmp_path / "00001.parquet"
  if output_format == "parquet":
    table = pa.Table.from_pylist([{**row, "jpg": b"image"} for row in rows])
    pq.write_table(table, path, store_schema=False)
  content = path.read_bytes()
  if fault == "pipe":
    path.unlink()
    os.mkfifo(path)
  else:
    # The name in the schema: the first in the footer.
    place = content.index(
      b"LICENSE", len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    )
    path.write_bytes(content[:place] + b"\xef" + content[place + 1 :])

  is_tar = output_format == "webdataset"
  found = listing.Listing(
    source_dir=epath.Path(tmp_path),
    shards=[
      make_slice(tmp_path, "00000").shard,
      dataclasses.replace(
        make_slice(tmp_path, "00000").shard,
        name="00001",
        format=Format(output_format),
        path=str(tmp_path / "00001.tar") if is_tar else str(path),
        parquet_path=str(path) if is_tar else "",
      ),
    ],
    unfinished=[],
    without_images=[],
  )
  with pytest.raises(errors.SourceError) as e:
    source.check_source(found)

  assert "The parquet cannot be read" in str(e.value)
  assert str(path) in str(e.value)
  assert {"name": "UnicodeDecodeError", "pipe": "a pipe, socket"}[fault] in str(
    e.value
  )


def test_a_damaged_page_beside_a_tar_is_an_error_of_ours(tmp_path):
  """Rows by key, of a column that is read only when its rows are."""
  rows = [shards.make_row(i, f"00{i}") for i in range(4)]
  shards.write_shard(tmp_path, "0", rows, {row["key"]: b"x" for row in rows})
  path = tmp_path / "0.parquet"
  content = bytearray(path.read_bytes())
  index = shards.SCHEMA.get_field_index("caption")
  column = pq.read_metadata(path).row_group(0).column(index)
  start = column.dictionary_page_offset
  content[start : start + column.total_compressed_size] = bytes(
    column.total_compressed_size
  )
  path.write_bytes(bytes(content))

  with pytest.raises(errors.SourceError, match="cannot be read") as e:
    read(make_slice(tmp_path, "0"))

  assert str(path) in str(e.value)


def test_a_tar_of_which_the_parquet_knows_nothing_is_refused(tmp_path):
  rows = [shards.make_row(i, f"00{i}") for i in range(2)]
  others = [shards.make_row(i, f"10{i}") for i in range(2)]
  shards.write_shard(
    tmp_path, "0", others, {row["key"]: b"x" for row in others}
  )
  shards.write_shard(
    tmp_path / "b", "0", rows, {row["key"]: b"x" for row in rows}
  )
  (tmp_path / "b/0.tar").rename(tmp_path / "0.tar")

  with pytest.raises(errors.SourceError, match="belongs to another shard"):
    read(make_slice(tmp_path, "0"))
