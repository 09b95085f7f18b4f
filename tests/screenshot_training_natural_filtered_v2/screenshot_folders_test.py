"""Folders as users have them: partial, extracted, of both kinds."""

import pathlib
import tarfile

import builds
import pytest
import screens

from tfds_plugins import errors
from tfds_plugins.screenshot_training_natural_filtered_v2 import (
  screenshot_training_natural_filtered_v2_dataset_builder as builder_lib,
)

DUMMY_DATA = pathlib.Path(__file__).parents[2] / "dummy_data"
FIXTURE = DUMMY_DATA / screens.NAME
CONFIGS = [config.name for config in builder_lib.Builder.BUILDER_CONFIGS]


def test_every_row_has_its_own_tiles(folder, tmp_path):
  builder = screens.prepare(folder, tmp_path)
  rows = screens.read_rows(builder)
  assert len(rows) == 24
  for row in rows:
    i = int(row["query"].decode().removeprefix("question ").rstrip("?"))
    assert row["image"] == screens.make_tile(i * 7 % 26)
    assert list(row["neg_images"]) == [
      screens.make_tile(i * 3 % 26),
      screens.make_tile((i * 5 + 1) % 26),
    ]
  # As they lie in the tars.
  paths = [row["chunk_path"] for row in rows]
  assert paths == sorted(paths)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_the_result_is_the_same_however_tiles_lie(
  folder, tmp_path, num_workers
):
  """Tars; extracted; some of both; and by one or more processes."""
  expected = builds.digest(
    screens.prepare(folder, tmp_path / "a", num_shards=5).data_dir
  )
  for number in ("003", "007"):
    path = folder / "image_shards" / f"shard_{number}.tar"
    with tarfile.open(path) as tar:
      tar.extractall(folder / "images", filter="data")
    path.unlink()
  options = {"num_shards": 5, "num_workers": num_workers}
  mixed = screens.prepare(folder, tmp_path / "b", **options)
  screens.extract(folder)
  extracted = screens.prepare(folder, tmp_path / "c", **options)
  for builder in (mixed, extracted):
    found = builds.digest(builder.data_dir)
    # What they were made of is not the same.
    for name in (
      "tile_index.arrow",
      "source_shards.json",
      "shard_receipts.jsonl",
    ):
      del found[name]
    assert found == {k: v for k, v in expected.items() if k in found}
    assert len(found) == 5 + 10 + 1  # train, eval and test, the skip ledger


def test_tiles_of_tars_and_of_folders(folder, tmp_path):
  paths = [screens.get_path(i) for i in range(26)]
  for path in sorted((folder / "image_shards").glob("*.tar"))[::2]:
    with tarfile.open(path) as tar:
      tar.extractall(folder / "images", filter="data")
    path.unlink()
  builder = screens.prepare(folder, tmp_path, "tiles")
  rows = screens.read_rows(builder)
  assert sorted(row["chunk_path"].decode() for row in rows) == paths
  for row in rows:
    number = paths.index(row["chunk_path"].decode())
    assert row["image"] == screens.make_tile(number)


def test_manual_dir_may_hold_the_folder(folder, tmp_path):
  builder = screens.prepare(folder.parent, tmp_path, "pairs")
  assert len(screens.read_rows(builder)) == 24


@pytest.mark.parametrize(
  ("config", "name"),
  [
    ("hard_negatives", "eval_hn.jsonl or eval.jsonl"),
    ("hard_negatives_with_answer", "train_hn_with_answer.jsonl"),
    ("lite_query", "lite-query-v2-full-filtered-hn-with-answer.jsonl"),
  ],
)
def test_files_that_a_config_needs(folder, tmp_path, config, name):
  (folder / "eval_hn.jsonl").unlink()
  with pytest.raises(errors.ManualDirError, match=name):
    screens.prepare(folder, tmp_path, config)


def test_a_folder_of_something_else(tmp_path):
  (tmp_path / "manual").mkdir()
  (tmp_path / "manual" / "00000.tar").write_bytes(b"")
  with pytest.raises(errors.ManualDirError, match="was not found"):
    screens.prepare(tmp_path / "manual", tmp_path)


def test_partial_copies(folder, tmp_path, capsys):
  for number in ("003", "011"):
    (folder / "image_shards" / f"shard_{number}.tar").unlink()
  builder = screens.prepare(folder, tmp_path)
  lost = {6, 7, 22, 23}
  expected = {}
  for i in range(24):
    if i * 7 % 26 not in lost:
      negatives = [i * 3 % 26, (i * 5 + 1) % 26]
      expected[i] = [number for number in negatives if number not in lost]
  found = {
    int(row["query"][9:-1]): list(row["neg_images"])
    for row in screens.read_rows(builder)
  }
  assert found.keys() == expected.keys()
  for i, numbers in expected.items():
    assert found[i] == list(map(screens.make_tile, numbers))
  num_skipped = 24 - len(expected)
  num_lost = sum(2 - len(numbers) for numbers in expected.values())
  printed = capsys.readouterr().out
  assert f"{num_skipped:>19,}  missing_tile" in printed
  assert f"{num_lost:>19,}  missing_negative" in printed
  assert "2 tars of tiles are not in" in printed
  assert "shard_003.tar, shard_011.tar" in printed


def test_refusing_partial_copies(folder, tmp_path):
  screens.prepare(folder, tmp_path / "a", "pairs", refuse_missing_tiles=True)
  (folder / "image_shards" / "shard_003.tar").unlink()
  with pytest.raises(errors.SourceError, match=r"shard_003\.tar") as caught:
    screens.prepare(folder, tmp_path / "b", refuse_missing_tiles=True)
  assert "refuse_missing_tiles" in str(caught.value)
  with pytest.raises(errors.OptionError, match="refuse_missing_tiles"):
    screens.prepare(folder, tmp_path, refuse_missing_tiles="yes")
