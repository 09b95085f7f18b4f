"""Tests of finding img2dataset's shards."""

import gzip

from etils import epath
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shards

from tfds_plugins import errors
from tfds_plugins.sources.img2dataset import listing
from tfds_plugins.sources.img2dataset import source as img2dataset


def find(manual_dir, **options):
  options = {
    "dataset": "laion400m",
    "config": "images",
    "other_datasets": {"coyo_700m"},
    "instructions": "INSTRUCTIONS",
  } | options
  found = listing.find_shards(epath.Path(manual_dir), **options)
  return img2dataset.check_source(found)


def write(folder, stem, *, stats=True):
  row = shards.make_row(0, "000")
  shards.write_shard(folder, stem, [row], {"000": b"x"}, stats=stats)


@pytest.mark.parametrize(
  "places",
  [
    ["laion400m/images", "images", "laion400m", "."],
    ["images", "laion400m", "."],
    ["laion400m", "."],
    ["."],
  ],
)
def test_the_first_folder_with_shards_is_taken(tmp_path, places):
  for folder in ("laion400m/images", "images", "laion400m"):
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
  for place in places:
    write(tmp_path / place, "00003")

  source = find(tmp_path)

  assert source.source_dir == str(tmp_path / places[0])
  assert "00003" in [shard.name for shard in source.shards]


def test_shards_are_sorted_by_number_in_sub_folders_too(tmp_path):
  for stem in ("10", "9", "000002", "00011"):
    write(tmp_path, stem)
  for folder in ("split_10", "split_2"):
    write(tmp_path / folder, "00001")
    write(tmp_path / folder, "00000")

  names = [shard.name for shard in find(tmp_path).shards]

  assert names == ["000002", "9", "10", "00011"] + [
    "split_2/00000",
    "split_2/00001",
    "split_10/00000",
    "split_10/00001",
  ]


def test_folders_of_other_datasets_and_temporary_ones_are_left_alone(tmp_path):
  write(tmp_path, "00000")
  for folder in ("coyo_700m", "_tmp", ".hidden"):
    write(tmp_path / folder, "00001")
  (tmp_path / "notes.tar").write_bytes(b"not a shard")
  (tmp_path / "00009.parquet").write_bytes(b"")

  assert [shard.name for shard in find(tmp_path).shards] == ["00000"]


def test_unfinished_shards_are_left_out_loudly(tmp_path):
  write(tmp_path, "00000")
  write(tmp_path, "00001", stats=False)
  write(tmp_path / "old", "00002", stats=False)  # An era without any stats.

  source = find(tmp_path)

  assert [shard.name for shard in source.shards] == ["00000", "old/00002"]
  nested, unfinished = source.notes
  assert nested == "1 of the shards lie in sub-folders (old)."
  assert "1 shards were left out" in unfinished
  assert "(00001)" in unfinished


def test_metadata_without_images_is_noted(tmp_path):
  write(tmp_path, "00000")
  write(tmp_path, "00001")
  (tmp_path / "00001.tar").unlink()

  assert find(tmp_path).notes == [
    "1 shards have metadata but no images, and were left out (00001)."
  ]


def test_failures_that_only_the_stats_know_of_are_noted(tmp_path):
  write(tmp_path, "00000")
  write(tmp_path, "00001")
  (tmp_path / "00001.parquet").unlink()
  (tmp_path / "00001_stats.json").write_text('{"count": 9, "successes": 2}')

  (note,) = find(tmp_path).notes

  assert "1 shards have no parquet" in note
  assert "(7 by the _stats.json files) are not in the counts (00001)" in note


@pytest.mark.parametrize(
  ("names", "hint"),
  [
    (["00000.tar.gz"], "Decompress the tars"),
    (["00000.parquet", "00000_stats.json"], "metadata without images"),
    (["part-00000-5b54c5d5.snappy.parquet"], "the list of URLs"),
    (["readme.txt"], "Fetch the data like this"),
  ],
)
def test_what_is_no_shard_is_recognized(tmp_path, names, hint):
  folder = tmp_path / "images"
  folder.mkdir()
  for name in names:
    if name.endswith(".parquet"):
      pq.write_table(pa.table({"url": ["x"]}), folder / name)
    else:
      (folder / name).write_bytes(b"")

  with pytest.raises(errors.ManualDirError) as e:
    find(tmp_path)

  assert hint in str(e.value)
  assert f"in {folder}: " in str(e.value)


def test_no_folder(tmp_path):
  with pytest.raises(errors.ManualDirError) as e:
    find(tmp_path / "nowhere")

  assert "manual_dir is not a folder" in str(e.value)
  assert "nowhere" in str(e.value)
  assert "INSTRUCTIONS" in str(e.value)


def test_an_empty_folder(tmp_path):
  with pytest.raises(errors.ManualDirError, match=r"in .*: nothing"):
    find(tmp_path)


def test_a_folder_without_shards_lists_what_is_there(tmp_path):
  (tmp_path / "laion400m").mkdir()
  (tmp_path / "laion400m" / "part-00000.snappy.parquet").write_bytes(b"x")
  (tmp_path / "readme.txt").write_text("hello")

  with pytest.raises(errors.ManualDirError) as e:
    find(tmp_path)

  assert f"in {tmp_path}/laion400m: part-00000.snappy.parquet" in str(e.value)
  assert f"in {tmp_path}: laion400m, readme.txt" in str(e.value)
  assert "INSTRUCTIONS" in str(e.value)


def test_nothing_but_unfinished_shards(tmp_path):
  write(tmp_path, "00000", stats=False)
  (tmp_path / "_tmp").mkdir()  # img2dataset is at work.

  with pytest.raises(errors.ManualDirError) as e:
    find(tmp_path)

  assert "Not one shard is finished" in str(e.value)
  assert "unfinished shards 00000" in str(e.value)


def test_what_cannot_be_opened_is_named(tmp_path):
  write(tmp_path, "00000")
  (tmp_path / "00001.tar").symlink_to(tmp_path / "gone.tar")
  (tmp_path / "00001_stats.json").write_text("{}")
  (tmp_path / "00002.tar").mkdir()
  (tmp_path / "00002_stats.json").write_text("{}")

  with pytest.raises(errors.SourceError) as e:
    find(tmp_path)

  assert "2 problems:" in str(e.value)
  assert "FileNotFoundError" in str(e.value)
  assert "IsADirectoryError" in str(e.value)


@pytest.mark.parametrize(
  ("content", "found"),
  [
    (b"", "an empty file (0 bytes)"),
    (
      b"<!DOCTYPE html><title>404</title>" * 40,
      "HTML or XML: '<!DOCTYPE html>",
    ),
    (gzip.compress(bytes(2000), mtime=0), "a gzip-compressed file"),
    (b"garbage" * 100, "a file that starts with b'garbage"),
  ],
)
def test_what_is_no_tar_is_refused_before_any_work(tmp_path, content, found):
  write(tmp_path, "00000")
  write(tmp_path, "00001")
  (tmp_path / "00001.tar").write_bytes(content)

  with pytest.raises(errors.SourceError) as e:
    find(tmp_path)

  assert "not a tar archive" in str(e.value)
  assert str(tmp_path / "00001.tar") in str(e.value)
  assert found in str(e.value)


def test_a_list_of_urls_instead_of_the_output_is_refused(tmp_path):
  write(tmp_path, "00000")
  urls = pa.table({"URL": ["u"], "TEXT": ["t"]})
  pq.write_table(urls, tmp_path / "00000.parquet")

  with pytest.raises(errors.SourceError) as e:
    find(tmp_path)

  assert "no column key, status, url" in str(e.value)
  assert "columns URL, TEXT" in str(e.value)


def test_all_broken_shards_are_reported_together(tmp_path):
  for i in range(30):
    write(tmp_path, f"{i:05d}")
    (tmp_path / f"{i:05d}.parquet").write_bytes(b"PAR1 cut off")

  with pytest.raises(errors.SourceError) as e:
    find(tmp_path)

  assert "30 problems:" in str(e.value)
  assert "1. The parquet cannot be read." in str(e.value)
  assert "... and 10 more." in str(e.value)


def test_a_tar_in_which_everything_failed_is_accepted(tmp_path):
  shards.write_shard(tmp_path, "0", [shards.failed_row(0, "000")], {})

  assert len(find(tmp_path).shards) == 1
