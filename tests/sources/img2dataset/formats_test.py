"""Tests that all formats of img2dataset give the same rows."""

import dataclasses
import shutil
import struct

from etils import epath
import formats
import pyarrow as pa
import pytest
import shards
from slices import read
import tensorflow as tf

from tfds_plugins import errors
from tfds_plugins.sources.img2dataset import listing
from tfds_plugins.sources.img2dataset import record_reader
from tfds_plugins.sources.img2dataset import samples
from tfds_plugins.sources.img2dataset import source
from tfds_plugins.sources.img2dataset.shards import Format

NUM_ROWS = 23
# Rows of which the parquet alone knows.
FAILED = {4, 9, 14, 19}


def make_rows():
  rows, images = [], {}
  for i in reversed(range(NUM_ROWS)):
    key = f"{i:09d}"
    if i in FAILED:
      rows.append(shards.failed_row(i, key))
    else:
      # float32 holds these values, for TFRecord has no other floats.
      rows.append(shards.make_row(i, key, similarity=0.25 + i / 256))
      images[key] = b"image %d" % i
  rows[3]["caption"] = None
  rows[5]["similarity"] = None
  return rows, images


def expected_examples(rows, images, caption=None):
  return {
    row["key"]: (
      images[row["key"]],
      caption if row["caption"] is None else row["caption"],
      row["similarity"],
    )
    for row in rows
    if row["key"] in images
  }


def read_all(source_slices):
  examples, skipped = {}, {}
  for source_slice in source_slices:
    some_examples, some_skipped = read(source_slice)
    assert not examples.keys() & some_examples.keys()
    assert not skipped.keys() & some_skipped.keys()
    examples |= some_examples
    skipped |= some_skipped
  return examples, skipped


@pytest.mark.parametrize("cuts", [[], [0.5], [0.1, 0.35, 0.9]])
@pytest.mark.parametrize("output_format", formats.FORMATS)
def test_all_formats_give_the_same_rows(tmp_path, output_format, cuts):
  rows, images = make_rows()
  formats.write_shard(output_format, tmp_path, "00000", rows, images)

  examples, skipped = read_all(formats.make_slices(tmp_path, cuts))

  assert examples == expected_examples(rows, images)
  assert skipped == {
    f"{i:09d}": ("failed_to_download", "HTTP Error 404: Not Found")
    for i in FAILED
  }


@pytest.mark.parametrize("output_format", ["webdataset", "files", "tfrecord"])
@pytest.mark.parametrize("cuts", [[], [0.5]])
def test_without_a_parquet_samples_have_their_own_metadata(
  tmp_path, output_format, cuts
):
  rows, images = make_rows()
  formats.write_shard(
    output_format, tmp_path, "00000", rows, images, parquet=False
  )

  examples, skipped = read_all(formats.make_slices(tmp_path, cuts))

  # TFRecord does not tell no text from an empty one.
  caption = "" if output_format == "tfrecord" else None
  assert examples == expected_examples(rows, images, caption)
  assert skipped == {}
  notes = source.check_source(listing.list_shards(epath.Path(tmp_path))).notes
  assert "(4 by the _stats.json files)" in notes[0]


@pytest.mark.parametrize("image_name", ["jpg", "png", "webp"])
@pytest.mark.parametrize("output_format", formats.FORMATS)
def test_all_encodings_and_six_digits(tmp_path, output_format, image_name):
  rows, images = make_rows()
  formats.write_shard(
    output_format, tmp_path, "000012", rows, images, image_name=image_name
  )

  (source_slice,) = formats.make_slices(tmp_path)
  examples, _ = read(source_slice)

  assert source_slice.shard.name == "000012"
  assert source_slice.shard.format is Format(output_format)
  assert examples == expected_examples(rows, images)


@pytest.mark.parametrize("output_format", formats.FORMATS)
def test_a_shard_in_which_everything_failed(tmp_path, output_format):
  rows = [shards.failed_row(i, f"{i:04d}") for i in range(3)]
  formats.write_shard(output_format, tmp_path, "00000", rows, {})

  examples, skipped = read_all(formats.make_slices(tmp_path))

  assert examples == {}
  assert len(skipped) == 3


@pytest.mark.parametrize("output_format", formats.FORMATS)
def test_lists_and_their_nulls(tmp_path, output_format):
  schema = shards.SCHEMA.append(pa.field("labels", pa.list_(pa.int32())))
  schema = schema.append(pa.field("probs", pa.list_(pa.float32())))
  labels = [[3, 300, 70_000], None, [5], [-1]]
  probs = [[0.5, 0.25], None, [0.125], [1.0]]
  rows = [
    shards.make_row(i, f"{i}", labels=labels[i], probs=probs[i])
    for i in range(4)
  ]
  images = {f"{i}": b"x" for i in range(4)}
  wanted = pa.schema(
    [("labels", pa.list_(pa.int64())), ("probs", pa.list_(pa.float32()))]
  )
  formats.write_shard(output_format, tmp_path, "0", rows, images, schema=schema)
  (source_slice,) = formats.make_slices(tmp_path)
  found = [source_slice]
  if output_format != "parquet":
    shard = dataclasses.replace(source_slice.shard, parquet_path="")
    found.append(dataclasses.replace(source_slice, shard=shard))

  for each in found:
    batches = [batch.rows for batch in source.iter_batches(each, wanted)]
    table = pa.Table.from_batches(batches)
    assert table.schema.field("labels").type == pa.list_(pa.int64())
    assert sorted(
      (row["key"], row["labels"], row["probs"]) for row in table.to_pylist()
    ) == [(f"{i}", labels[i], probs[i]) for i in range(4)]


def test_two_formats_in_a_folder_are_refused(tmp_path):
  rows, images = make_rows()
  formats.write_shard("webdataset", tmp_path, "00000", rows, images)
  formats.write_shard("tfrecord", tmp_path, "00001", rows, images)

  with pytest.raises(errors.ManualDirError) as e:
    listing.find_shards(
      epath.Path(tmp_path), dataset="d", config="c", instructions=""
    )

  assert "more than one format" in str(e.value)
  assert "output_format=webdataset (00000)" in str(e.value)
  assert "output_format=tfrecord (00001)" in str(e.value)


def test_a_tar_and_the_folder_it_was_extracted_to_are_refused(tmp_path):
  rows, images = make_rows()
  formats.write_shard("files", tmp_path, "00000", rows, images)
  formats.write_shard("webdataset", tmp_path / "other", "00000", rows, images)
  (tmp_path / "other" / "00000.tar").rename(tmp_path / "00000.tar")

  with pytest.raises(errors.ManualDirError, match="more than one format"):
    listing.find_shards(
      epath.Path(tmp_path), dataset="d", config="c", instructions=""
    )


def test_parquets_with_images_beside_tars_are_refused(tmp_path):
  rows, images = make_rows()
  formats.write_shard("webdataset", tmp_path, "00000", rows, images)
  formats.write_shard("parquet", tmp_path, "00001", rows, images)

  with pytest.raises(errors.ManualDirError, match="output_format=parquet"):
    listing.find_shards(
      epath.Path(tmp_path), dataset="d", config="c", instructions=""
    )


@pytest.mark.parametrize("output_format", formats.FORMATS)
def test_shards_without_stats_are_left_out(tmp_path, output_format):
  rows, images = make_rows()
  for stem in ("00000", "00001"):
    formats.write_shard(output_format, tmp_path, stem, rows, images)
  (tmp_path / "00001_stats.json").unlink()

  found = listing.list_shards(epath.Path(tmp_path))

  assert [shard.name for shard in found.shards] == ["00000"]
  assert found.unfinished == ["00001"]


@pytest.mark.parametrize("output_format", formats.FORMATS)
def test_a_success_without_sample_is_missing(tmp_path, output_format):
  rows, images = make_rows()
  key = f"{7:09d}"
  del images[key]
  formats.write_shard(output_format, tmp_path, "00000", rows, images)

  examples, skipped = read_all(formats.make_slices(tmp_path))

  assert len(examples) == NUM_ROWS - len(FAILED) - 1
  reason = "no_image" if output_format == "parquet" else "missing_sample"
  assert skipped[key][0] == reason


@pytest.mark.parametrize("output_format", formats.FORMATS)
def test_images_beyond_the_limit_are_skipped(
  tmp_path, monkeypatch, output_format
):
  monkeypatch.setattr(samples, "MAX_IMAGE_BYTES", 1000)
  rows = [shards.make_row(i, f"{i}") for i in range(3)]
  images = {"0": b"a" * 1000, "1": b"b" * 1001, "2": b"c"}
  formats.write_shard(output_format, tmp_path, "0", rows, images)

  examples, skipped = read_all(formats.make_slices(tmp_path))

  assert sorted(examples) == ["0", "2"]
  assert skipped["1"][0] == "image_too_large"


# files


def test_files_without_a_parquet_beside_are_found(tmp_path):
  """Not even `_stats.json` says that the folder is a shard."""
  rows, images = make_rows()
  formats.write_shard("files", tmp_path, "00000", rows, images, parquet=False)
  (tmp_path / "00000_stats.json").unlink()

  examples, _ = read_all(formats.make_slices(tmp_path))

  assert examples == expected_examples(rows, images)


def test_files_hidden_ones_and_text_are_no_samples(tmp_path):
  rows, images = make_rows()
  formats.write_shard("files", tmp_path, "00000", rows, images)
  (tmp_path / "00000" / "._000000001.jpg").write_bytes(b"macOS")
  (tmp_path / "00000" / "Thumbs.db").write_bytes(b"Windows")

  examples, _ = read_all(formats.make_slices(tmp_path))

  assert examples == expected_examples(rows, images)


# parquet


def test_two_image_columns_are_refused(tmp_path):
  rows, images = make_rows()
  schema = shards.SCHEMA.append(pa.field("png", pa.binary()))
  formats.write_shard("parquet", tmp_path, "00000", rows, images, schema=schema)

  with pytest.raises(errors.SourceError, match="not clear which column"):
    formats.make_slices(tmp_path)


def test_a_damaged_parquet_among_others_is_named(tmp_path):
  rows, images = make_rows()
  for stem in ("00000", "00001", "00002"):
    formats.write_shard("parquet", tmp_path, stem, rows, images)
  (tmp_path / "00000.parquet").write_bytes(b"PAR1 and nothing else")

  with pytest.raises(errors.SourceError, match=r"00000\.parquet"):
    source.check_source(listing.list_shards(epath.Path(tmp_path)))


# tfrecord


def write_records(path, records):
  with tf.io.TFRecordWriter(str(path)) as writer:
    for record in records:
      writer.write(record)


def test_renamed_by_the_recipe_of_coyo(tmp_path):
  """Shard 00001 is missing: the files are numbered anew, the parquets not."""
  for number in (0, 2, 10):
    rows = [shards.make_row(number, f"{number:05d}0000")]
    images = {rows[0]["key"]: b"image %d" % number}
    formats.write_shard("tfrecord", tmp_path, f"{number:05d}", rows, images)
  for i, number in enumerate((0, 2, 10)):
    (tmp_path / f"{number:05d}.tfrecord").rename(
      tmp_path / f"CoyoLabeled300m-train.tfrecord-{i:05d}-of-00003"
    )
  (tmp_path / "dataset_info.json").write_text("{}")

  found = source.check_source(listing.list_shards(epath.Path(tmp_path)))

  assert [shard.name[-14:] for shard in found.shards] == [
    "00000-of-00003",
    "00001-of-00003",
    "00002-of-00003",
  ]
  for shard, number in zip(found.shards, (0, 2, 10), strict=True):
    assert shard.parquet_path.endswith(f"{number:05d}.parquet")


@pytest.mark.parametrize("parquet", [True, False])
def test_a_cut_tfrecord_keeps_what_lies_before(tmp_path, parquet):
  rows, images = make_rows()
  formats.write_shard(
    "tfrecord", tmp_path / "whole", "0", rows, images, parquet=parquet
  )
  whole = (tmp_path / "whole" / "0.tfrecord").read_bytes()
  good = [row["key"] for row in rows if row["key"] in images]
  ends = [0]
  while ends[-1] < len(whole):
    (length,) = struct.unpack_from("<Q", whole, ends[-1])
    ends.append(ends[-1] + 16 + length)
  shutil.copytree(tmp_path / "whole", tmp_path / "cut")

  for size in range(12, len(whole), 97):
    (tmp_path / "cut" / "0.tfrecord").write_bytes(whole[:size])
    num_whole = sum(end <= size for end in ends[1:])

    examples, skipped = read_all(formats.make_slices(tmp_path / "cut"))

    assert list(examples) == good[:num_whole]
    if parquet:
      assert len(examples) + len(skipped) == NUM_ROWS
      lost = [skipped[key][0] for key in good[num_whole:]]
      is_cut = size not in ends
      reason = "truncated_shard" if is_cut else "missing_sample"
      assert lost == [reason] * len(lost)
    elif size not in ends:
      assert [reason for reason, _ in skipped.values()] == ["truncated_shard"]


@pytest.mark.parametrize("parquet", [True, False])
def test_any_flipped_byte_of_a_tfrecord_is_noticed(tmp_path, parquet):
  rows, images = make_rows()
  formats.write_shard("tfrecord", tmp_path, "0", rows, images, parquet=parquet)
  (source_slice,) = formats.make_slices(tmp_path)
  path = tmp_path / "0.tfrecord"
  whole = path.read_bytes()
  expected = expected_examples(rows, images, None if parquet else "")

  for i in range(0, len(whole), 41):
    path.write_bytes(whole[:i] + bytes([whole[i] ^ 0x10]) + whole[i + 1 :])

    examples, skipped = read(source_slice)

    assert len(examples) < len(expected)
    assert examples.items() <= expected.items()
    reasons = {reason for reason, _ in skipped.values()}
    assert reasons & {"corrupt_record", "corrupt_shard"}
    if parquet:
      assert len(examples) + len(skipped) == NUM_ROWS


def test_what_is_no_example_is_skipped(tmp_path):
  row = shards.make_row(0, "00")
  without_key = {k: v for k, v in row.items() if k != "key"}
  write_records(
    tmp_path / "0.tfrecord",
    [
      b"\xff\xff\xff",
      b"",
      formats.make_record(without_key, b"image"),
      formats.make_record(row, b"image"),
    ],
  )

  skipped = []
  (source_slice,) = formats.make_slices(tmp_path)
  batches = list(source.iter_batches(source_slice, pa.schema([])))
  for batch in batches:
    skipped += [(s.key, s.reason, s.detail) for s in batch.skipped]

  assert [k for b in batches for k in b.rows.column("key").to_pylist()] == [
    "00"
  ]
  assert [reason for _, reason, _ in skipped] == ["corrupt_record"] * 3
  assert "is no tf.train.Example" in skipped[0][2]
  assert "has no key" in skipped[1][2]


def test_a_file_that_is_no_tfrecord_is_refused(tmp_path):
  (tmp_path / "00000.tfrecord").write_bytes(b"\x1f\x8b compressed, maybe")

  with pytest.raises(errors.SourceError, match="not a TFRecord file") as e:
    formats.make_slices(tmp_path)

  assert "00000.tfrecord" in str(e.value)


def test_records_larger_than_a_window(tmp_path, monkeypatch):
  monkeypatch.setattr(record_reader, "_WINDOW_BYTES", 1000)
  rows = [shards.make_row(i, f"{i}") for i in range(6)]
  images = {f"{i}": bytes([i]) * (i * 700) for i in range(6)}
  formats.write_shard("tfrecord", tmp_path, "0", rows, images)

  examples, skipped = read_all(formats.make_slices(tmp_path, [0.3, 0.6]))

  assert {key: image for key, (image, *_) in examples.items()} == images
  assert skipped == {}


def test_records_too_large_to_be_read_are_passed_over(tmp_path, monkeypatch):
  monkeypatch.setattr(record_reader, "_WINDOW_BYTES", 1000)
  monkeypatch.setattr(record_reader, "_MAX_RECORD_BYTES", 5000)
  rows = [shards.make_row(i, f"{i}") for i in range(4)]
  images = {"0": b"a", "1": b"b" * 6000, "2": b"c", "3": b"d" * 20_000}
  formats.write_shard("tfrecord", tmp_path, "0", rows, images)

  examples, skipped = read_all(formats.make_slices(tmp_path))

  assert sorted(examples) == ["0", "2"]
  assert {key: reason for key, (reason, _) in skipped.items()} == {
    "1": "image_too_large",
    "3": "image_too_large",
  }


def test_a_key_that_occurs_twice_is_refused(tmp_path):
  row = shards.make_row(0, "00")
  write_records(
    tmp_path / "0.tfrecord", [formats.make_record(row, b"image")] * 2
  )

  with pytest.raises(errors.SourceError, match="more than once"):
    read_all(formats.make_slices(tmp_path))
