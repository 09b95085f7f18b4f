"""Prepared datasets whose source has changed since."""

import collections
import os
import pathlib
import shutil
import subprocess
import sys

import builds
import pyarrow.parquet as pq
import pytest
import resume_test
import screens
import shards
import tensorflow_datasets as tfds

import tfds_plugins
from tfds_plugins.conversion import update
from tfds_plugins.laion400m import laion400m_dataset_builder

DUMMY_DATA = pathlib.Path(__file__).parents[2] / "dummy_data"


class _Corpus:
  """A corpus that an img2dataset run has not finished."""

  def __init__(self, folder: pathlib.Path):
    self.manual_dir = folder / "manual"
    self.data_dir = folder / "data"
    self.later = folder / "later"
    rows = shards.write_simple_shards(
      self.manual_dir, [3, 1, 4, 2, 5, 2, 3, 1, 2, 3, 4, 2]
    )
    self._counts = collections.Counter(
      f"{int(r['key']) // 10000:05d}" for r in rows
    )
    self.later.mkdir()
    # 2 comes after the others, and so do those of two digits.
    for name in ("00002", "00010", "00011"):
      self.move(name, self.manual_dir, self.later)
    self.num_examples = len(rows) - self.count("00002", "00010", "00011")

  def count(self, *names):
    """Returns how many examples some shards have."""
    return sum(self._counts[name] for name in names)

  def move(self, name, source, target):
    for path in source.glob(f"{name}*"):
      shutil.move(path, target / path.name)

  def arrive(self, *names):
    for name in names:
      self.move(name, self.later, self.manual_dir)

  def prepare(self, data_dir=None, update=None, **options):
    return builds.prepare_dataset(
      "laion400m/images",
      self.manual_dir,
      data_dir or self.data_dir,
      builder_options={"update": update},
      **options,
    )


@pytest.fixture
def corpus(tmp_path):
  found = _Corpus(tmp_path)
  found.prepare()
  return found


def read_logged(caplog):
  return "\n".join(record.getMessage() for record in caplog.records)


@pytest.fixture
def logged(caplog, monkeypatch):
  """Collects what absl logs."""
  import logging

  monkeypatch.setattr(logging.getLogger("absl"), "propagate", True)
  return caplog


def test_changes_are_told_and_change_nothing(corpus, logged, monkeypatch):
  before = resume_test.digest_all(corpus.prepare())
  assert "source shards" not in read_logged(logged)
  corpus.arrive("00002", "00010")
  (corpus.manual_dir / "00000.tar").unlink()
  resume_test.touch(corpus.manual_dir / "00005.tar")
  converted = resume_test.count_runs(monkeypatch)

  builder = corpus.prepare()

  assert converted == []
  assert resume_test.digest_all(builder) == before
  told = read_logged(logged)
  assert (
    "laion400m/images/2.0.0 is read as it was prepared, but source shards in"
    f" {corpus.manual_dir} differ since then:\n"
    "    2 new: 00002, 00010\n"
    "    1 removed: 00000\n"
    "    1 changed: 00005\n"
  ) in told
  assert "laion400m/images/update=add\n" in told
  assert "laion400m/images/update=sync\n" in told


def test_loading_tells_as_well(corpus, logged):
  corpus.arrive("00002")

  tfds.load("laion400m/images", data_dir=corpus.data_dir)

  assert read_logged(logged).count("    1 new: 00002\n") == 1


def test_loading_adds(corpus):
  corpus.arrive("00002")

  ds = tfds.load(
    "laion400m/images/update=add", data_dir=corpus.data_dir, split="train"
  )

  assert len(ds) == corpus.num_examples + corpus.count("00002")


def test_without_its_source_a_dataset_is_read_in_silence(corpus, logged):
  shutil.rmtree(corpus.manual_dir)

  assert len(builds.read_captions(corpus.prepare())) == corpus.num_examples

  assert read_logged(logged) == ""


@pytest.mark.parametrize("mode", ["add", "sync"])
@pytest.mark.parametrize("num_workers", [1, 2])
def test_what_has_arrived_is_added(
  corpus, tmp_path, monkeypatch, capsys, mode, num_workers
):
  corpus.arrive("00002", "00010", "00011")
  converted = resume_test.count_runs(monkeypatch)

  builder = corpus.prepare(update=mode, num_workers=num_workers)

  if num_workers == 1:
    assert converted == ["00002", "00010", "00011"]
  printed = capsys.readouterr().out
  assert "9 of 12 output shards are taken" in printed
  assert f"Prepared in {corpus.data_dir}/laion400m/images/2.0.0\n" in printed
  other = corpus.prepare(tmp_path / "other")
  assert resume_test.digest_all(builder) == resume_test.digest_all(other)
  assert builds.read_captions(builder) == builds.read_captions(other)
  reread = tfds.builder("laion400m/images", data_dir=corpus.data_dir)
  assert reread.info.splits["train"].num_examples == (
    corpus.num_examples + corpus.count("00002", "00010", "00011")
  )
  folder = builder.data_path.parent
  assert [p.name for p in folder.iterdir()] == ["2.0.0"]


def test_adding_keeps_what_was_removed_or_has_changed(corpus, monkeypatch):
  before = builds.read_captions(corpus.prepare())
  corpus.arrive("00002")
  corpus.move("00000", corpus.manual_dir, corpus.later)
  corpus.move("00003", corpus.manual_dir, corpus.later)
  resume_test.touch(corpus.manual_dir / "00005.tar")
  converted = resume_test.count_runs(monkeypatch)

  builder = corpus.prepare(update="add")

  assert converted == ["00002"]
  captions = builds.read_captions(builder)
  start = corpus.count("00000", "00001")
  stop = start + corpus.count("00002")
  assert captions[:start] + captions[stop:] == before
  assert builder.info.splits["train"].shard_lengths == [
    corpus.count(f"{i:05d}") for i in range(10)
  ]


def test_what_was_told_is_still_told_after_adding(corpus, logged):
  corpus.arrive("00002")
  resume_test.touch(corpus.manual_dir / "00005.tar")
  corpus.prepare(update="add")

  corpus.prepare()

  told = read_logged(logged)
  assert "    1 changed: 00005\n" in told
  assert "new:" not in told


def test_sync_makes_what_a_build_of_the_source_would(
  corpus, tmp_path, monkeypatch
):
  corpus.arrive("00002")
  corpus.move("00000", corpus.manual_dir, corpus.later)
  resume_test.touch(corpus.manual_dir / "00005.tar")
  converted = resume_test.count_runs(monkeypatch)

  builder = corpus.prepare(update="sync")

  assert converted == ["00002", "00005"]
  other = corpus.prepare(tmp_path / "other")
  assert resume_test.digest_all(builder) == resume_test.digest_all(other)


def test_nothing_to_add(corpus, monkeypatch, capsys):
  corpus.move("00000", corpus.manual_dir, corpus.later)
  converted = resume_test.count_runs(monkeypatch)
  before = corpus.prepare().data_path.stat().mtime

  builder = corpus.prepare(update="add")

  assert converted == []
  printed = capsys.readouterr().out
  assert "    1 removed: 00000\n  None is new: nothing is added.\n" in printed
  assert builder.data_path.stat().mtime == before
  assert [p.name for p in builder.data_path.parent.iterdir()] == ["2.0.0"]


def test_a_failed_addition_leaves_the_dataset_as_it_was(corpus, monkeypatch):
  before = resume_test.digest_all(corpus.prepare())
  corpus.arrive("00002", "00010")
  kept = (corpus.manual_dir / "00010.tar").read_bytes()
  resume_test.write_broken_shard(corpus.manual_dir, 10)
  with pytest.raises(tfds_plugins.SourceError):
    corpus.prepare(update="add")
  assert resume_test.digest_all(corpus.prepare()) == before
  (corpus.manual_dir / "00010.tar").write_bytes(kept)
  converted = resume_test.count_runs(monkeypatch)

  builder = corpus.prepare(update="add")

  assert converted == ["00010"]
  assert len(builds.read_captions(builder)) == (
    corpus.num_examples + corpus.count("00002", "00010")
  )


def test_an_addition_that_dies_between_its_last_steps(corpus, monkeypatch):
  """The new dataset is complete, and the old one is out of its place."""
  corpus.arrive("00002")
  old = corpus.data_dir / "laion400m/images/2.0.0"
  corpus.prepare(update="add")
  expected = resume_test.digest_all(corpus.prepare())
  shutil.copytree(old, old.with_name("2.0.0.replaced"))
  old.rename(old.with_name("2.0.0.updated"))
  converted = resume_test.count_runs(monkeypatch)

  builder = corpus.prepare()

  assert converted == []
  assert resume_test.digest_all(builder) == expected
  assert len(builds.read_captions(builder)) == (
    corpus.num_examples + corpus.count("00002")
  )
  assert [p.name for p in old.parent.iterdir()] == ["2.0.0"]


def test_a_part_of_a_source_is_not_out_of_date(corpus, tmp_path, logged):
  corpus.prepare(tmp_path / "part", max_examples_per_split=5)

  corpus.prepare(tmp_path / "part")

  assert read_logged(logged) == ""
  with pytest.raises(tfds_plugins.OptionError, match="on purpose"):
    corpus.prepare(tmp_path / "part", update="add")


def test_options_that_make_no_sense(corpus):
  with pytest.raises(tfds_plugins.OptionError, match="add, sync, or None"):
    corpus.prepare(update="all")
  corpus.arrive("00002")
  with pytest.raises(tfds_plugins.OptionError, match="num_shards"):
    corpus.prepare(update="add", num_shards=3)


def test_the_command_adds(corpus, tmp_path):
  corpus.arrive("00002")
  command = [
    os.path.join(os.path.dirname(sys.executable), "tfds"),
    *("build", "laion400m/images/update=add", "--imports=tfds_plugins"),
    f"--manual_dir={corpus.manual_dir}",
    f"--data_dir={corpus.data_dir}",
  ]

  result = subprocess.run(command, capture_output=True, text=True)

  assert result.returncode == 0, result.stderr
  assert "9 of 10 output shards are taken" in result.stdout
  assert len(builds.read_captions(corpus.prepare())) == (
    corpus.num_examples + corpus.count("00002")
  )


def test_adding_to_shards_that_were_joined(tmp_path):
  """Parts of 00004 and of others lie in two output shards each."""
  corpus = _Corpus(tmp_path)
  before = builds.read_captions(corpus.prepare(num_shards=4))
  corpus.arrive("00002", "00011")

  builder = corpus.prepare(update="add")

  after = builds.read_captions(builder)
  assert [caption for caption in after if caption in set(before)] == before
  assert len(after) == len(before) + corpus.count("00002", "00011")


def test_sync_cuts_the_source_as_before(tmp_path):
  corpus = _Corpus(tmp_path)
  corpus.prepare(num_shards=4)
  corpus.arrive("00002")

  builder = corpus.prepare(update="sync")

  other = corpus.prepare(tmp_path / "other", num_shards=4)
  assert resume_test.digest_all(builder) == resume_test.digest_all(other)


def test_a_source_shard_without_rows_is_added_once(tmp_path):
  folder = tmp_path / "manual"
  folder.mkdir()
  (path, *_) = sorted((DUMMY_DATA / "coyo_700m/metadata").rglob("*.parquet"))
  table = pq.read_table(path)[:6]
  pq.write_table(table, folder / "part-00000.parquet")

  def prepare(update=None):
    return builds.prepare_dataset(
      "coyo_700m/metadata",
      folder,
      tmp_path,
      builder_options={"update": update},
    )

  prepare()
  pq.write_table(table[:0], folder / "part-00001.parquet")
  first = prepare("add").info.splits["train"].shard_lengths
  second = prepare("add").info.splits["train"].shard_lengths

  assert first == second == [6, 0]


def test_a_relative_manual_dir_is_found_again(corpus, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  shutil.rmtree(corpus.data_dir)
  builds.prepare("manual", corpus.data_dir)
  corpus.arrive("00002")
  (tmp_path / "elsewhere/manual").mkdir(parents=True)
  monkeypatch.chdir(tmp_path / "elsewhere")

  ds = tfds.load(
    "laion400m/images/update=sync", data_dir=corpus.data_dir, split="train"
  )

  assert len(ds) == corpus.num_examples + corpus.count("00002")


def test_a_source_that_may_not_be_read_is_no_hindrance(corpus, monkeypatch):
  def refuse(*unused_args, **unused_kwargs):
    raise PermissionError("not for you")

  monkeypatch.setattr(laion400m_dataset_builder.Builder, "_list_shards", refuse)

  ds = tfds.load("laion400m/images", data_dir=corpus.data_dir, split="train")

  assert len(ds) == corpus.num_examples


def test_a_source_that_has_moved_is_looked_at_there(corpus, logged):
  moved = corpus.manual_dir.rename(corpus.manual_dir.with_name("moved"))
  corpus.manual_dir = moved
  corpus.arrive("00002")
  builder = tfds.builder("laion400m/images", data_dir=corpus.data_dir)
  assert builder.is_prepared()

  builder.download_and_prepare(
    download_config=tfds.download.DownloadConfig(manual_dir=moved)
  )

  assert read_logged(logged).count("    1 new: 00002\n") == 1


def test_space_for_what_is_there_already_is_not_asked_for(corpus, monkeypatch):
  corpus.arrive("00002")
  monkeypatch.setattr(
    shutil, "disk_usage", lambda _: type("Usage", (), {"free": 100})()
  )

  builder = corpus.prepare(update="add")

  assert "00002" in (builder.data_path / "shard_receipts.jsonl").read_text()


@pytest.mark.parametrize(
  "name", ["laion400m-train.tfrecord-00003-of-00009", "shard_receipts.jsonl"]
)
def test_a_damaged_dataset_is_not_updated(corpus, name):
  path = corpus.data_dir / "laion400m/images/2.0.0" / name
  path.write_bytes(path.read_bytes()[:-5])
  corpus.arrive("00002")

  with pytest.raises(tfds_plugins.ConversionError, match=name):
    corpus.prepare(update="add")

  assert path.exists()


def test_another_format_is_no_update(corpus):
  corpus.arrive("00002")
  builder = tfds.builder(
    "laion400m/images", data_dir=corpus.data_dir, update="add"
  )

  with pytest.raises(tfds_plugins.OptionError, match="keeps the format"):
    builder.download_and_prepare(file_format="array_record")


@pytest.mark.parametrize("config", ["pairs", "tiles"])
def test_screenshots_are_synced(tmp_path, logged, config):
  folder = tmp_path / screens.NAME
  screens.write_tars(folder, range(6))
  rows = [screens.make_row(i, i % 8, [(i + 1) % 8]) for i in range(9)]
  screens.write_splits(folder, rows)
  screens.prepare(folder, tmp_path / "data", config)
  screens.write_tars(folder, [6, 7])

  def update(mode):
    return builds.prepare_dataset(
      f"{screens.NAME}/{config}",
      folder,
      tmp_path / "data",
      builder_options={"update": mode},
    )

  screens.prepare(folder, tmp_path / "data", config)
  assert "update=sync" in read_logged(logged)
  assert "update=add" not in read_logged(logged)
  with pytest.raises(tfds_plugins.OptionError, match="Use update=sync"):
    update("add")
  builder = update("sync")
  other = screens.prepare(folder, tmp_path / "other", config)
  assert resume_test.digest_all(builder) == resume_test.digest_all(other)


def make_named(names):
  """Returns tasks whose source shards have these names."""

  class _Named:
    def __init__(self, letters):
      self.sources = [
        type("Slice", (), {"shard": type("Shard", (), {"name": name})()})()
        for name in letters
      ]

  return [_Named(name) for name in names]


@pytest.mark.parametrize(
  ("kept", "new", "order", "expected"),
  [
    ("acd", "b", "abcd", "abcd"),
    ("acd", "be", "abe", "abecd"),
    ("bc", "a", "abc", "abc"),
    ("", "ab", "ab", "ab"),
    ("aab", "c", "acb", "aacb"),
    ("xay", "b", "ab", "xaby"),
    # Output shards of several source shards, and of parts of them.
    (["ab", "bd", "e"], "c", "abcde", ["ab", "bd", "c", "e"]),
    (["ab", "c"], ["d"], "abcd", ["ab", "c", "d"]),
    (["a", "", "c"], "b", "abc", ["a", "b", "", "c"]),
  ],
)
def test_where_new_shards_go(monkeypatch, kept, new, order, expected):
  monkeypatch.setattr(update.dataclasses, "replace", lambda task, **_: task)

  merged = update.merge(make_named(kept), make_named(new), list(order))

  found = ["".join(part.shard.name for part in t.sources) for t in merged]
  assert found == list(expected)
