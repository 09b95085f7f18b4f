"""Prepared datasets whose source has changed since."""

import collections
import os
import pathlib
import shutil
import subprocess
import sys

import builds
import pytest
import resume_test
import shards
import tensorflow_datasets as tfds

import tfds_plugins
from tfds_plugins.conversion import update


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
  assert "there is nothing to add" in capsys.readouterr().out
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


def test_an_addition_that_dies_between_its_last_steps(corpus, tmp_path):
  """The new dataset is complete, and the old one is out of its place."""
  corpus.arrive("00002")
  old = corpus.data_dir / "laion400m/images/2.0.0"
  shutil.copytree(old, old.with_name("2.0.0.replaced"))
  corpus.prepare(update="add")
  expected = resume_test.digest_all(corpus.prepare())
  old.rename(old.with_name("2.0.0.updated"))

  builder = corpus.prepare()

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


def make_named(names):
  """Returns tasks whose source shards have these names."""

  class _Named:
    def __init__(self, name):
      shard = type("Shard", (), {"name": name})()
      self.sources = [type("Slice", (), {"shard": shard})()]

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
  ],
)
def test_where_new_shards_go(monkeypatch, kept, new, order, expected):
  monkeypatch.setattr(update.dataclasses, "replace", lambda task, **_: task)

  merged = update.merge(make_named(kept), make_named(new), list(order))

  assert "".join(t.sources[0].shard.name for t in merged) == expected
