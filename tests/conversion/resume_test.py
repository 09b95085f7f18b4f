"""Builds that are stopped and started again."""

import errno
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import builds
from etils import epath
import numpy as np
import pytest
import shards
import tensorflow_datasets as tfds

import tfds_plugins
from tfds_plugins.conversion import task as task_lib
from tfds_plugins.conversion import work_dir
from tfds_plugins.laion400m import laion400m_dataset_builder

_UNFINISHED = "laion400m/images/2.0.0.unfinished"


def digest_all(builder):
  """Returns the content of every file of a dataset."""
  return {
    p.name: p.read_bytes() for p in pathlib.Path(builder.data_dir).iterdir()
  }


@pytest.fixture(scope="module")
def manual_dir(tmp_path_factory):
  """Ten shards with skipped rows in half of them."""
  folder = tmp_path_factory.mktemp("manual dir")
  for number, length in enumerate([3, 1, 4, 2, 5, 1, 2, 3, 1, 2]):
    keys = [f"{number:05d}{i:04d}" for i in range(length)]
    rows = [shards.make_row(i, key) for i, key in enumerate(keys)]
    images = {
      key: shards.picture(number * 10 + i) for i, key in enumerate(keys)
    }
    if number % 2:
      rows.append(shards.failed_row(length, f"{number:05d}{length:04d}"))
    shards.write_shard(folder, f"{number:05d}", rows, images)
  return folder


@pytest.fixture(scope="module")
def undisturbed(manual_dir, tmp_path_factory):
  builder = builds.prepare(manual_dir, tmp_path_factory.mktemp("undisturbed"))
  return digest_all(builder)


def count_runs(monkeypatch):
  """Returns a list that gets the names of source shards that are converted."""
  converted = []
  iter_records = task_lib._Converter.iter_records

  def note(self):
    converted.extend(part.shard.name for part in self._task.sources)
    return iter_records(self)

  monkeypatch.setattr(task_lib._Converter, "iter_records", note)
  return converted


# Kills its process at the n-th call of a function that changes a file system.
_KILLER = """
import os, sys
sys.path[:0] = {path!r}
countdown = {countdown}
def wrap(module, name):
  real = getattr(module, name)
  def call(*args, **kwargs):
    global countdown
    target = str(args[0]) if args else ""
    if {place!r} in target or {place!r} in str(args[1:2]):
      if not countdown:
        os.kill(os.getpid(), 9)
      countdown -= 1
    return real(*args, **kwargs)
  setattr(module, name, call)
import builtins, io, pathlib, shutil
for module, name in (
  (os, "replace"), (os, "rename"), (os, "unlink"), (os, "link"), (os, "mkdir"),
  (os, "makedirs"), (os, "rmdir"), (shutil, "rmtree"), (builtins, "open"),
  (io, "open"),
):
  wrap(module, name)
import builds
import tfds_plugins
builds.prepare({manual_dir!r}, {data_dir!r})
print("points left:", countdown)
"""
_NO_KILL = 10**9


def start(manual_dir, data_dir, countdown):
  """Starts a build that kills itself at a point."""
  code = _KILLER.format(
    path=[p for p in sys.path if p],
    countdown=countdown,
    place=str(data_dir),
    manual_dir=str(manual_dir),
    data_dir=str(data_dir),
  )
  return subprocess.Popen(
    [sys.executable, "-c", code],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def build_and_die(manual_dir, data_dir, countdown):
  """Runs such a build; returns the points it passed, None if it died."""
  process = start(manual_dir, data_dir, countdown)
  printed, logged = process.communicate(timeout=300)
  if process.returncode == -signal.SIGKILL:
    return None
  assert process.returncode == 0, logged
  left = re.search(r"points left: (\d+)", printed)
  return countdown - int(left[1])


def check_after_kill(manual_dir, data_dir, undisturbed, when):
  builder = builds.prepare(manual_dir, data_dir)
  assert digest_all(builder) == undisturbed, when
  left = sorted(p.name for p in builder.data_path.parent.iterdir())
  # (After the last rename the dataset is there; what is left is documented.)
  assert left in (["2.0.0"], ["2.0.0", "2.0.0.unfinished"]), when


def check_kill_at(manual_dir, data_dir, undisturbed, countdown):
  assert build_and_die(manual_dir, data_dir, countdown) is None, countdown
  check_after_kill(manual_dir, data_dir, undisturbed, countdown)


def test_a_killed_build_goes_on(manual_dir, undisturbed, tmp_path):
  num_points = build_and_die(manual_dir, tmp_path / "all", _NO_KILL)
  assert num_points > 40

  for i in range(4):
    countdown = num_points * (2 * i + 1) // 8
    check_after_kill(manual_dir, tmp_path / f"data {i}", undisturbed, countdown)


@pytest.mark.slow
def test_a_build_that_is_killed_at_every_point(
  manual_dir, undisturbed, tmp_path
):
  num_points = build_and_die(manual_dir, tmp_path / "all", _NO_KILL)
  assert num_points >= 100

  for countdown in range(num_points):
    data_dir = tmp_path / "data"
    check_kill_at(manual_dir, data_dir, undisturbed, countdown)
    shutil.rmtree(data_dir)


@pytest.mark.slow
def test_a_build_that_is_killed_at_any_time(manual_dir, undisturbed, tmp_path):
  """Between the writes of a file as well, and more than once."""
  random = np.random.default_rng(0)
  num_killed = 0
  for i in range(30):
    data_dir = tmp_path / f"{i}"
    for _ in range(2):
      process = start(manual_dir, data_dir, _NO_KILL)
      try:
        # (With everything converted, a build is over before it is noticed.)
        while not (data_dir / _UNFINISHED).exists() and process.poll() is None:
          time.sleep(0.001)
        time.sleep(random.uniform(0, 0.4))
      finally:
        process.kill()
        process.communicate()
        num_killed += process.returncode == -signal.SIGKILL
    check_after_kill(manual_dir, data_dir, undisturbed, i)
  assert num_killed > 30


def write_broken_shard(folder, number):
  """Writes a shard that ends a build."""
  row = shards.make_row(0, "000000000")
  twice = shards.sample_members(row, shards.picture(0)) * 2
  shards.write_tar(folder / f"{number:05d}.tar", twice)
  (folder / f"{number:05d}_stats.json").write_text("{}")


@pytest.fixture
def stopped(tmp_path):
  """A build of six shards that stopped at the fifth, and its folders."""
  manual_dir, data_dir = tmp_path / "manual", tmp_path / "data"
  shards.write_simple_shards(manual_dir, [3, 1, 4, 2, 5, 2])
  kept = (manual_dir / "00004.tar").read_bytes()
  write_broken_shard(manual_dir, 4)
  with pytest.raises(tfds_plugins.SourceError):
    builds.prepare(manual_dir, data_dir)
  (manual_dir / "00004.tar").write_bytes(kept)
  return manual_dir, data_dir


def test_what_was_converted_is_not_converted_again(
  stopped, tmp_path, monkeypatch, capsys
):
  manual_dir, data_dir = stopped
  converted = count_runs(monkeypatch)

  builder = builds.prepare(manual_dir, data_dir)

  assert converted == ["00004", "00005"]
  printed = capsys.readouterr().out
  assert "4 of 6 output shards are taken as they were converted" in printed
  assert not (data_dir / _UNFINISHED).exists()
  other = builds.prepare(manual_dir, tmp_path / "other")
  assert digest_all(builder) == digest_all(other)


def test_a_stopped_build_says_where_it_has_left_what(tmp_path, capsys):
  manual_dir, data_dir = tmp_path / "manual", tmp_path / "my data"
  shards.write_simple_shards(manual_dir, [3, 1])
  write_broken_shard(manual_dir, 2)

  with pytest.raises(tfds_plugins.SourceError):
    builds.prepare(manual_dir, data_dir)

  left = data_dir / _UNFINISHED
  assert capsys.readouterr().out.splitlines()[-2:] == [
    f"2 of 3 output shards have been converted and are kept in {left}",
    "  To go on, build again. To start over, build with --overwrite. To delete"
    f" them: rm -r '{left}'",
  ]
  assert "may be deleted" in (left / "README.txt").read_text()


def touch(path):
  os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


def test_what_has_changed_is_converted_again(stopped, monkeypatch):
  manual_dir, data_dir = stopped
  touch(manual_dir / "00001.tar")
  touch(manual_dir / "00002.parquet")
  (manual_dir / "00003.parquet").unlink()
  converted = count_runs(monkeypatch)

  builds.prepare(manual_dir, data_dir)

  assert converted == ["00001", "00002", "00003", "00004", "00005"]


def test_a_source_that_was_moved_is_the_same(stopped, tmp_path, monkeypatch):
  manual_dir, data_dir = stopped
  shutil.move(manual_dir, tmp_path / "elsewhere")
  converted = count_runs(monkeypatch)

  builds.prepare(tmp_path / "elsewhere", data_dir)

  assert converted == ["00004", "00005"]


def all_names():
  return [f"{i:05d}" for i in range(6)]


@pytest.mark.parametrize("change", ["version", "format", "overwrite"])
def test_another_build_starts_over(stopped, monkeypatch, change):
  manual_dir, data_dir = stopped
  options = {}
  if change == "version":
    monkeypatch.setattr(tfds_plugins, "__version__", "0.1.1")
  elif change == "format":
    options["file_format"] = "array_record"
  else:
    options["download_mode"] = tfds.GenerateMode.REUSE_CACHE_IF_EXISTS
  converted = count_runs(monkeypatch)

  builds.prepare(manual_dir, data_dir, **options)

  assert converted == all_names()


def test_other_shards_cut_otherwise_are_not_mixed_up(stopped, tmp_path):
  manual_dir, data_dir = stopped

  builder = builds.prepare(manual_dir, data_dir, num_shards=4)

  other = builds.prepare(manual_dir, tmp_path / "other", num_shards=4)
  assert digest_all(builder) == digest_all(other)


@pytest.mark.parametrize("suffix", ["records", "skipped", "receipt"])
@pytest.mark.parametrize("damage", ["cut", "empty", "gone"])
def test_damaged_leftovers_are_not_taken(
  manual_dir, undisturbed, tmp_path, suffix, damage
):
  source = tmp_path / "manual"
  shutil.copytree(manual_dir, source)
  write_broken_shard(source, 10)
  with pytest.raises(tfds_plugins.SourceError):
    builds.prepare(source, tmp_path)
  for path in (tmp_path / _UNFINISHED).glob(f"*.{suffix}"):
    data = path.read_bytes()
    path.unlink()
    if damage != "gone":
      path.write_bytes(data[:-1] if damage == "cut" else b"")
  (source / "00010.tar").unlink()
  (source / "00010_stats.json").unlink()

  found = digest_all(builds.prepare(source, tmp_path))

  # (Of the source it says where it is.)
  del found["source_shards.json"]
  assert found.items() < undisturbed.items()
  assert len(found) == len(undisturbed) - 1


def test_a_trial_leaves_what_a_build_of_everything_has_done(
  stopped, monkeypatch
):
  manual_dir, data_dir = stopped

  builder = builds.prepare(manual_dir, data_dir, max_examples_per_split=7)

  assert len(builds.read_captions(builder)) == 7
  converted = count_runs(monkeypatch)
  shutil.rmtree(builder.data_dir)
  builds.prepare(manual_dir, data_dir)
  assert converted == ["00004", "00005"]


@pytest.mark.parametrize("is_killed", [False, True])
def test_without_links_what_was_moved_is_taken_back(
  manual_dir, undisturbed, tmp_path, monkeypatch, is_killed
):
  """A file system without hard links, and an end in the middle of the moves."""

  def refuse(*unused_args):
    raise OSError(errno.EPERM, "no links")

  class Killed(BaseException):
    pass

  replace = epath.Path("/").__class__.replace
  moved = []

  def move(self, target):
    if self.name.endswith(".records"):
      moved.append(self)
      if len(moved) == 6:
        raise Killed
    return replace(self, target)

  monkeypatch.setattr(os, "link", refuse)
  with monkeypatch.context() as m:
    m.setattr(epath.Path("/").__class__, "replace", move)
    if is_killed:  # Nobody cleans up.
      m.setattr(work_dir.WorkDir, "take_back", lambda self: None)
      m.setattr(epath.Path("/").__class__, "rmtree", lambda *_, **__: None)
    with pytest.raises(Killed):
      builds.prepare(manual_dir, tmp_path)
  converted = count_runs(monkeypatch)

  builder = builds.prepare(manual_dir, tmp_path)

  assert len(moved) == 6
  assert converted == []
  assert digest_all(builder) == undisturbed


def test_examples_of_none_are_not_kept(tmp_path):
  manual_dir = tmp_path / "manual"
  shards.write_shard(manual_dir, "00000", [shards.failed_row(0, "0")], {})

  with pytest.raises(tfds_plugins.ConversionError, match="Not one row"):
    builds.prepare(manual_dir, tmp_path)

  assert not (tmp_path / _UNFINISHED).exists()


def test_a_shard_that_changes_while_it_is_converted(tmp_path, monkeypatch):
  manual_dir = tmp_path / "manual"
  shards.write_simple_shards(manual_dir, [3, 1, 2])
  iter_records = task_lib._Converter.iter_records

  def change(self):
    if self._task.shard_index == 1:
      touch(manual_dir / "00001.tar")
    return iter_records(self)

  monkeypatch.setattr(task_lib._Converter, "iter_records", change)

  with pytest.raises(tfds_plugins.SourceError) as e:
    builds.prepare(manual_dir, tmp_path)

  assert "A source shard has changed while it was converted" in str(e.value)
  assert "source shard 00001: " in str(e.value)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_shard_that_vanishes(tmp_path, monkeypatch, num_workers):
  manual_dir = tmp_path / "manual"
  shards.write_simple_shards(manual_dir, [3, 1, 2])
  check = laion400m_dataset_builder.img2dataset.check_source

  def vanish(listing):
    found = check(listing)
    (manual_dir / "00001.tar").unlink()
    return found

  monkeypatch.setattr(
    laion400m_dataset_builder.img2dataset, "check_source", vanish
  )

  with pytest.raises(tfds_plugins.ConversionError) as e:
    builds.prepare(manual_dir, tmp_path, num_workers=num_workers)

  assert "no longer there" in str(e.value)
  assert "source shard 00001," in str(e.value)
  assert str(manual_dir / "00001.tar") in str(e.value)


def test_a_full_disk_names_the_shard_and_keeps_the_others(
  manual_dir, undisturbed, tmp_path, monkeypatch
):
  with monkeypatch.context() as m:
    write_records = task_lib.record_files.write_records

    def fill(path, file_format, records):
      write_records(path, file_format, records)
      if next(full) == 2:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    full = iter(range(5))
    m.setattr(task_lib.record_files, "write_records", fill)
    with pytest.raises(tfds_plugins.ConversionError) as e:
      builds.prepare(manual_dir, tmp_path)
  assert "The disk is full." in str(e.value)
  assert "source shard 00002," in str(e.value)
  names = [p.name for p in (tmp_path / _UNFINISHED).iterdir()]
  assert not [name for name in names if "incomplete" in name]
  assert len([name for name in names if name.endswith(".receipt")]) == 2

  assert digest_all(builds.prepare(manual_dir, tmp_path)) == undisturbed


def test_a_data_dir_that_cannot_be_written(manual_dir, tmp_path):
  (tmp_path / "laion400m").write_text("")

  with pytest.raises(tfds_plugins.ConversionError, match="cannot be written"):
    builds.prepare(manual_dir, tmp_path)


def test_what_tfds_has_left_of_a_killed_build_is_removed(
  manual_dir, undisturbed, tmp_path
):
  orphan = tmp_path / "laion400m/images/incomplete.ABC123_2.0.0"
  other = tmp_path / "laion400m/images/incomplete.ABC123_1.0.0"
  for folder in (orphan, other):
    folder.mkdir(parents=True)
    (folder / "file").write_text("x")

  builder = builds.prepare(manual_dir, tmp_path)

  assert digest_all(builder) == undisturbed
  assert not orphan.exists()
  assert other.exists()
