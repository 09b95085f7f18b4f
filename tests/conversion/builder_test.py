"""Tests of whole conversions of shards that are written here."""

import dataclasses
import json
import pathlib
import pickle

from builds import LENGTHS
from builds import prepare
from builds import read_captions
import numpy as np
import pyarrow.parquet as pq
import pytest
import shards
import tensorflow_datasets as tfds
from tensorflow_datasets.core import naming

import tfds_plugins
from tfds_plugins.conversion import finalize
from tfds_plugins.conversion import receipts
from tfds_plugins.conversion import task as task_lib
from tfds_plugins.sources.rows import SourceShard
from tfds_plugins.sources.rows import SourceSlice


def test_examples_come_in_the_order_of_the_source(source, prepared):
  assert read_captions(prepared) == source[1]
  assert prepared.info.splits["train"].num_examples == 63
  names = sorted(p.name for p in prepared.data_path.glob("*tfrecord*"))
  assert names[0] == "laion400m-train.tfrecord-00000-of-00012"
  assert len(names) == 12


@pytest.mark.parametrize(
  ("split", "picked"),
  [
    ("train[3:14]", slice(3, 14)),
    ("train[:10%]", slice(0, 6)),
    ("train[60:]", slice(60, None)),
    ("train[7:8]", slice(7, 8)),
  ],
)
def test_splits_are_cut_exactly(source, prepared, split, picked):
  assert read_captions(prepared, split) == source[1][picked]


@pytest.mark.parametrize("num_shards", [1, 5, 12, 40])
def test_num_shards_gives_that_many_files(source, tmp_path, num_shards):
  builder = prepare(source[0], tmp_path, num_shards=num_shards)

  assert builder.info.splits["train"].num_shards == num_shards
  assert len(list(builder.data_path.glob("*.tfrecord-*"))) == num_shards
  assert read_captions(builder) == source[1]


def test_max_shard_size_cuts_large_source_shards(tmp_path):
  rows = [shards.make_row(i, f"{i:03d}") for i in range(30)]
  image = shards.encode(shards.noise(0, 300, 300), quality=95)
  assert 100_000 < len(image) < 200_000
  manual_dir = tmp_path / "manual"
  shards.write_shard(manual_dir, "0", rows, {row["key"]: image for row in rows})

  builder = prepare(manual_dir, tmp_path / "data", max_shard_size=1 << 20)

  lengths = builder.info.splits["train"].shard_lengths
  assert len(lengths) == -(-(manual_dir / "0.tar").stat().st_size // (1 << 20))
  sizes = [
    p.stat().st_size for p in pathlib.Path(builder.data_dir).glob("*tfrecord*")
  ]
  assert max(sizes) < (1 << 20) + len(image)
  assert read_captions(builder) == [row["caption"] for row in rows]


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"num_shards": 0}, "num_shards must be at least 1, not 0"),
    ({"max_shard_size": 1000}, "max_shard_size must be at least 1,048,576"),
    ({"max_examples_per_split": -5}, "must not be negative: -5"),
  ],
)
def test_senseless_shardings_are_refused(source, tmp_path, options, message):
  with pytest.raises(tfds_plugins.OptionError, match=message):
    prepare(source[0], tmp_path, **options)


@pytest.mark.parametrize("limit", [1, 6, 17, 1000])
def test_max_examples_takes_the_first(source, tmp_path, limit):
  builder = prepare(source[0], tmp_path, max_examples_per_split=limit)

  assert read_captions(builder) == source[1][:limit]
  for line in (
    (builder.data_path / "shard_receipts.jsonl").read_text().splitlines()
  ):
    receipt = json.loads(line)
    assert receipt["num_rows"] == receipt["num_examples"] + sum(
      receipt["skipped"].values()
    )


def test_max_examples_zero_prepares_nothing(source, tmp_path):
  builder = prepare(source[0], tmp_path, max_examples_per_split=0)

  assert not list(builder.data_path.glob("*tfrecord*"))


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record", "parquet"])
def test_every_file_format_holds_the_same_examples(
  source, tmp_path, file_format
):
  builder = prepare(source[0], tmp_path, file_format=file_format)

  if file_format == "array_record":
    examples = builder.as_data_source(split="train")
    assert len(examples) == 63
  else:
    examples = list(tfds.as_numpy(builder.as_dataset(split="train")))
  captions = [e["caption"] for e in examples]
  assert [c if isinstance(c, str) else c.decode() for c in captions] == source[
    1
  ]
  assert examples[20]["image"].shape == (16, 24, 3)
  number = int(source[1][20].split()[1])
  colour = np.array([number, 255 - number, 7 * number % 256])
  assert np.abs(examples[20]["image"].astype(int) - colour).max() <= 3


def test_shards_without_examples_are_kept_and_read(tmp_path):
  manual_dir = tmp_path / "manual"
  failed = [shards.failed_row(i, f"{i:03d}") for i in range(3)]
  good = shards.make_row(7, "007")
  for i, rows in enumerate([failed, [good], failed]):
    images = {"007": shards.picture(7)} if rows == [good] else {}
    shards.write_shard(manual_dir, str(i), rows, images)

  for file_format in ("tfrecord", "array_record", "parquet"):
    builder = prepare(
      manual_dir, tmp_path / file_format, file_format=file_format
    )
    assert builder.info.splits["train"].shard_lengths == [0, 1, 0]
    if file_format == "array_record":
      (example,) = builder.as_data_source(split="train")
    else:
      (example,) = tfds.as_numpy(builder.as_dataset(split="train"))
    assert example["original_width"] == 107


def test_receipts_and_ledger_account_for_every_row(source, prepared):
  data_path = pathlib.Path(prepared.data_dir)
  lines = (data_path / "shard_receipts.jsonl").read_text().splitlines()
  found = [json.loads(line) for line in lines]

  assert [r["num_rows"] for r in found] == LENGTHS
  assert sum(r["num_examples"] for r in found) == 63
  assert sum(r["skipped"].get("failed_to_download", 0) for r in found) == 15
  assert found[9]["sources"][0]["name"] == "00009"
  assert (
    sum(r["num_bytes"] for r in found)
    == prepared.info.splits["train"].num_bytes
  )
  table = pq.read_table(data_path / "skipped_rows.parquet")
  assert table.schema == receipts.LEDGER_SCHEMA
  assert table.num_rows == 15
  assert table.slice(0, 1).to_pylist() == [
    {
      "source_shard": "00000",
      "key": "000000002",  # Row 4, the fifth of seven that are counted down.
      "reason": "failed_to_download",
      "detail": "HTTP Error 404: Not Found",
      "split": "train",
      "is_skipped": True,
    }
  ]


def test_a_summary_by_reason_is_printed(tmp_path, capsys):
  manual_dir = tmp_path / "manual"
  rows = [shards.make_row(i, f"00{i}") for i in range(4)]
  rows.append(shards.failed_row(4, "004"))
  images = {
    "000": shards.picture(0),
    "001": b"<html>",
    "002": shards.picture(2)[:-2],
    "003": b"",
  }
  schema = shards.SCHEMA.remove(shards.SCHEMA.get_field_index("LICENSE"))
  shards.write_shard(manual_dir, "0", rows, images, schema=schema)
  shards.write_shard(manual_dir, "1", rows, images, stats=False)

  prepare(manual_dir, tmp_path / "data")

  text = capsys.readouterr().out
  assert f"laion400m/images/2.0.0: 5 rows in {manual_dir}" in text
  for count, reason in [
    (1, "examples in 1 shard"),
    (4, "skipped"),
    (1, "failed_to_download"),
    (1, "not_an_image"),
    (1, "truncated_image"),
    (1, "empty_image"),
  ]:
    assert f" {count}  {reason}\n" in text
  assert "no column 'LICENSE' in 1 of 1 shards" in text
  assert "1 shards were left out" in text


def test_nothing_is_left_of_a_refused_build(tmp_path):
  manual_dir = tmp_path / "manual"
  rows = [shards.failed_row(i, f"00{i}") for i in range(3)]
  shards.write_shard(manual_dir, "0", rows, {})

  with pytest.raises(tfds_plugins.ConversionError) as e:
    prepare(manual_dir, tmp_path / "data")

  assert "Not one row of the source became an example" in str(e.value)
  assert (
    "      3 failed_to_download, such as\n"
    "          source shard 0, key '000': HTTP Error 404: Not Found\n"
    "          source shard 0, key '001': HTTP Error 404: Not Found\n"
  ) in str(e.value)
  left = [p for p in (tmp_path / "data").rglob("*") if p.is_file()]
  assert [p.name for p in left] == [
    "metadata.json"
  ]  # Names the default config.
  assert not (tmp_path / "data/laion400m/images/2.0.0").exists()


def test_every_reason_is_shown_if_all_rows_are_skipped(tmp_path):
  """The first three rows of each, from whichever shards they are in."""
  manual_dir = tmp_path / "manual"
  long = "x" * 5000
  for shard, details in enumerate([["a", long], [], ["b", "c", "d"]]):
    rows = [
      shards.failed_row(i, f"{shard}{i}", error_message=detail)
      for i, detail in enumerate(details)
    ]
    rows.append(shards.make_row(9, f"{shard}9"))
    images = {f"{shard}9": b"<html>"} if shard != 1 else {}
    shards.write_shard(manual_dir, str(shard), rows, images)

  with pytest.raises(tfds_plugins.ConversionError) as e:
    prepare(manual_dir, tmp_path / "data")

  found = str(e.value).partition("found:    ")[2].partition("\n    to do:")[0]
  assert [line.strip() for line in found.splitlines()] == [
    "skipped rows alone",
    "5 failed_to_download, such as",
    "source shard 0, key '00': a",
    f"source shard 0, key '01': {long[:300]}...",
    "source shard 2, key '20': b",
    "2 not_an_image, such as",
    "source shard 0, key '09': the bytes start with b'<html>'",
    "source shard 2, key '29': the bytes start with b'<html>'",
    "1 missing_sample, such as",
    "source shard 1, key '19': a success by the parquet, without a sample",
  ]


def make_task(folder, split, shard_index, piece):
  """Returns a task that has been run."""
  task = task_lib.Task(
    recipe=None,
    sources=[piece],
    split=split,
    shard_index=shard_index,
    fingerprint=f"{shard_index}",
    work_dir=str(folder),
    file_format="tfrecord",
  )
  task.output_path.write_bytes(b"")
  return task


def test_parts_of_the_source_that_no_receipt_has_are_an_error(tmp_path):
  pieces = [
    SourceSlice(
      shard=SourceShard(name=name, length=10, size_bytes=100), start=0, stop=10
    )
    for name in "ab"
  ]
  tasks, done = [], []
  for i, piece in enumerate(pieces):
    tasks.append(make_task(tmp_path, "train", i, piece))
    done.append(make_receipt(i, [piece]))
  template = naming.ShardedFileTemplate(
    data_dir=tmp_path,
    dataset_name="x",
    split="train",
    filetype_suffix="tfrecord",
  )

  def finalize_split(tasks, receipts):
    return finalize.finalize_split(
      tasks, receipts, template, [piece.shard for piece in pieces]
    )

  with pytest.raises(tfds_plugins.ConversionError, match="b are not all of it"):
    finalize_split(tasks[:1], done[:1])
  with pytest.raises(tfds_plugins.ConversionError, match="for other parts of"):
    finalize_split(tasks, [done[0], make_receipt(1, [pieces[0]])])
  assert finalize_split(tasks, done).shard_lengths == [10, 10]


def test_a_split_without_examples_is_accounted_for_as_well(tmp_path):
  shard = SourceShard(name="a", length=10, size_bytes=100)
  piece = SourceSlice(shard=shard, start=0, stop=10)
  task = make_task(tmp_path, "test", 0, piece)
  template = naming.ShardedFileTemplate(
    data_dir=tmp_path,
    dataset_name="x",
    split="test",
    filetype_suffix="tfrecord",
  )
  skipped = {"failed_to_download": 10}
  receipt = dataclasses.replace(
    make_receipt(0, [piece]), num_examples=0, skipped=skipped
  )

  with pytest.raises(tfds_plugins.ConversionError, match="Rows were lost"):
    finalize.finalize_split(
      [task],
      [dataclasses.replace(receipt, skipped={"failed_to_download": 9})],
      template,
      [shard],
      may_be_empty=True,
    )
  assert (
    finalize.finalize_split(
      [task], [receipt], template, [shard], may_be_empty=True
    )
    is None
  )
  assert [path.name for path in tmp_path.iterdir()] == ["test-0.records"]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_broken_shard_stops_the_build_with_its_name(tmp_path, num_workers):
  manual_dir = tmp_path / "manual"
  shards.write_simple_shards(manual_dir, [3] * 6)
  row = shards.make_row(0, "000000000")
  twice = (
    shards.sample_members(row, shards.picture(0)) * 2
  )  # next to each other
  shards.write_tar(manual_dir / "00004.tar", twice)

  with pytest.raises(tfds_plugins.SourceError) as e:
    prepare(manual_dir, tmp_path / "data", num_workers=num_workers)

  assert "A key occurs more than once in the shard" in str(e.value)
  assert str(manual_dir / "00004.tar") in str(e.value)
  (left,) = (tmp_path / "data/laion400m/images").iterdir()
  assert left.name == "2.0.0.unfinished"


@pytest.mark.parametrize(
  ("name", "what", "found"),
  [
    ("nowhere", "manual_dir is not a folder", "found:    nothing there"),
    ("file", "manual_dir is not a folder", "found:    a file"),
    ("empty", "No img2dataset shard was found", "empty: nothing"),
  ],
)
def test_no_manual_dir(tmp_path, name, what, found):
  (tmp_path / "file").write_text("")
  (tmp_path / "empty").mkdir()

  with pytest.raises(tfds_plugins.ManualDirError) as e:
    prepare(tmp_path / name, tmp_path / "data")

  assert what in str(e.value)
  assert found in str(e.value)
  assert "img2dataset --url_list" in str(e.value)
  assert e.value.__cause__ is None


def test_a_full_disk_is_an_error_that_names_the_shard(
  source, tmp_path, monkeypatch
):
  def write(*unused_args):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(task_lib.record_files, "write_records", write)

  with pytest.raises(tfds_plugins.ConversionError) as e:
    prepare(source[0], tmp_path)

  assert "source shard 00000" in str(e.value)
  assert "No space left on device" in str(e.value)


def test_damaged_tars_are_named_in_the_summary(tmp_path, capsys):
  manual_dir = tmp_path / "manual"
  shards.write_simple_shards(manual_dir, [6, 6])
  path = manual_dir / "00001.tar"
  path.write_bytes(path.read_bytes()[:7000])

  prepare(manual_dir, tmp_path / "data")

  assert "rows were lost to damaged shards: 00001." in capsys.readouterr().out


@pytest.mark.parametrize("value", [0, -1, 1.5, "2", True])
def test_bad_numbers_of_workers_are_refused(value):
  with pytest.raises(tfds_plugins.OptionError, match="num_workers must be"):
    tfds.builder("laion400m", num_workers=value)


def test_builders_keep_their_options_when_pickled(tmp_path):
  builder = tfds.builder(
    "laion400m/images",
    data_dir=tmp_path,
    file_format="array_record",
    num_workers=3,
  )

  copy = pickle.loads(pickle.dumps(builder))

  assert copy.info.file_format == tfds.core.FileFormat.ARRAY_RECORD
  assert copy._options.num_workers == 3
  assert copy.data_dir == builder.data_dir


@pytest.mark.parametrize(
  "cls", [tfds_plugins.SourceError, tfds_plugins.OptionError]
)
def test_errors_survive_the_way_back_from_a_worker(cls):
  error = pickle.loads(pickle.dumps(cls("what\n    where: here")))

  assert type(error) is cls
  assert str(error) == "what\n    where: here"


def make_receipt(shard_index, sources, **counts):
  return receipts.ShardReceipt(
    split="train",
    shard_index=shard_index,
    sources=sources,
    **{
      "num_rows": 10,
      "num_examples": 10,
      "skipped": {},
      "num_bytes": 0,
      "file_bytes": 0,
      "fingerprint": f"{shard_index}",
      "missing_columns": [],
      **counts,
    },
  )


def test_a_receipt_whose_counts_disagree_is_refused():
  receipt = make_receipt(3, [], num_examples=8, skipped={"empty_image": 1})

  with pytest.raises(tfds_plugins.ConversionError, match="Rows were lost") as e:
    receipt.check()

  assert "10 source rows, but 8 examples and 1 skipped rows" in str(e.value)
