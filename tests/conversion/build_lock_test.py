"""Two builds of the same dataset at once."""

import json
import os
import socket
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
    **values,
  }
  (folder / "owner.json").write_text(json.dumps(owner))


def test_a_build_on_another_machine(tmp_path):
  write_owner(tmp_path, alive=time.time() - 20)

  with (
    pytest.raises(tfds_plugins.ConversionError) as e,
    build_lock.BuildLock(epath.Path(tmp_path)),
  ):
    pass

  assert (
    "process 1 on elsewhere builds it since 2026-01-02 03:04:05 (last seen 20"
    in str(e.value)
  )
  assert (tmp_path / "owner.json").exists()


@pytest.mark.parametrize(
  "owner",
  [
    {"alive": time.time() - 1000},
    {"host": socket.gethostname(), "process": os.getppid()},
    {"host": socket.gethostname(), "process": os.getpid()},
    {"alive": "no number"},
    {"unknown": 1},
  ],
)
def test_a_stale_lock_does_not_block(tmp_path, owner):
  write_owner(tmp_path, **owner)

  with build_lock.BuildLock(epath.Path(tmp_path)):
    found = json.loads((tmp_path / "owner.json").read_text())
    assert found["host"] == socket.gethostname()
    assert found["process"] == os.getpid()

  assert not (tmp_path / "owner.json").exists()


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
