"""Two builds of the same dataset at once."""

import contextlib
import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
import time

import builds
from etils import epath
import executors_test
import pytest

import tfds_plugins
from tfds_plugins.conversion import build_lock


def test_a_second_build_says_who_runs_the_first(source, tmp_path):
  process, workers = executors_test.start_waiting_build(source[0], tmp_path)
  try:
    with pytest.raises(tfds_plugins.ConversionError) as e:
      builds.prepare(source[0], tmp_path)
  finally:
    process.kill()
    process.communicate(timeout=60)

  said = str(e.value)
  assert "This dataset is being built already." in said
  assert str(tmp_path / "laion400m/images/2.0.0.unfinished") in said
  assert f"process {process.pid} on {socket.gethostname()}" in said
  assert time.strftime("since %Y-") in said
  assert executors_test.wait_until_gone(workers)
  # A dead one is in nobody's way.
  builder = builds.prepare(source[0], tmp_path)
  assert builds.read_captions(builder) == source[1]


def write_owner(folder, **values):
  owner = {
    "host": "elsewhere",
    "process": 1,
    "since": "2026-01-02 03:04:05",
    "alive": time.time(),
    "token": "theirs",
    **values,
  }
  path = folder / "new"
  path.write_text(json.dumps(owner))
  path.replace(folder / "owner.json")


@contextlib.contextmanager
def another_owner(folder, **values):
  """Gives a sign of life again and again."""
  is_over = threading.Event()

  def beat():
    while not is_over.wait(0.05):
      write_owner(folder, alive=time.time(), **values)

  write_owner(folder, **values)
  thread = threading.Thread(target=beat)
  thread.start()
  yield
  is_over.set()
  thread.join()


@pytest.fixture
def _quick(monkeypatch):
  monkeypatch.setattr(build_lock, "_WATCH_SECONDS", 1.0)
  monkeypatch.setattr(build_lock, "_SETTLE_SECONDS", 0.5)
  monkeypatch.setattr(build_lock, "_BEAT_SECONDS", 0.2)


@pytest.fixture
def _no_kernel_locks(monkeypatch):
  """What a network drive without locks does."""

  def refuse(*unused_args):
    raise OSError(errno.ENOLCK, "No locks available")

  monkeypatch.setattr(fcntl, "flock", refuse)


def lock_briefly(folder):
  with build_lock.BuildLock(epath.Path(folder)):
    return json.loads((folder / "owner.json").read_text())


@pytest.mark.usefixtures("_quick")
def test_a_build_on_another_machine(tmp_path):
  with (
    another_owner(tmp_path),
    pytest.raises(tfds_plugins.ConversionError) as e,
  ):
    lock_briefly(tmp_path)

  assert (
    "process 1 on elsewhere has been building it since 2026-01-02 03:04:05"
    in str(e.value)
  )
  assert (tmp_path / "owner.json").exists()


@pytest.mark.usefixtures("_quick", "_no_kernel_locks")
@pytest.mark.parametrize(
  "process", [os.getppid(), os.getpid()], ids=["another", "this"]
)
def test_a_build_on_a_drive_without_locks(tmp_path, process):
  with (
    another_owner(tmp_path, host=socket.gethostname(), process=process),
    pytest.raises(tfds_plugins.ConversionError, match=f"process {process} on"),
  ):
    lock_briefly(tmp_path)


@pytest.mark.usefixtures("_quick", "_no_kernel_locks")
def test_of_two_at_the_same_time_one_goes_on(tmp_path):
  results = []

  def run():
    try:
      with build_lock.BuildLock(epath.Path(tmp_path)):
        time.sleep(2)
      results.append("built")
    except tfds_plugins.ConversionError:
      results.append("refused")

  threads = [threading.Thread(target=run) for _ in range(2)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()

  assert sorted(results) == ["built", "refused"]


def find_dead_process():
  process = subprocess.Popen([sys.executable, "-c", ""])
  process.wait()
  return process.pid


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize(
  "owner",
  [
    {},
    {"alive": time.time() - 10_000},
    {"host": socket.gethostname(), "process": os.getppid()},
    {"host": socket.gethostname(), "process": os.getpid()},
    {"alive": "no number"},
    {"unknown": 1},
  ],
)
def test_a_stale_lock_does_not_block(tmp_path, owner):
  write_owner(tmp_path, **owner)

  found = lock_briefly(tmp_path)

  assert found["host"] == socket.gethostname()
  assert found["process"] == os.getpid()
  assert not (tmp_path / "owner.json").exists()


@pytest.mark.usefixtures("_no_kernel_locks")
def test_a_dead_process_does_not_block_a_drive_without_locks(tmp_path):
  pid = find_dead_process()
  write_owner(tmp_path, host=socket.gethostname(), process=pid)

  assert lock_briefly(tmp_path)["process"] == os.getpid()


def test_an_owner_tells_that_it_is_alive(tmp_path, monkeypatch):
  monkeypatch.setattr(build_lock, "_BEAT_SECONDS", 0.01)
  with build_lock.BuildLock(epath.Path(tmp_path)):
    path = tmp_path / "owner.json"
    first = json.loads(path.read_text())["alive"]
    for _ in range(500):
      time.sleep(0.01)
      text = path.read_text()
      if text and json.loads(text)["alive"] > first:
        return
  pytest.fail("no sign of life")


def test_one_process_locks_once(tmp_path):
  lock = build_lock.BuildLock(epath.Path(tmp_path))
  with (
    lock,
    pytest.raises(tfds_plugins.ConversionError, match=f"{os.getpid()} on"),
    build_lock.BuildLock(epath.Path(tmp_path)),
  ):
    pass
  with build_lock.BuildLock(epath.Path(tmp_path)):
    pass
