"""Tests of who runs the tasks, and of what becomes of them."""

import os
import pathlib
import signal
import subprocess
import sys
import time

from builds import digest
from builds import prepare
import psutil
import pytest

import tfds_plugins
from tfds_plugins.conversion import executors
from tfds_plugins.conversion import task as task_lib


@pytest.mark.parametrize("num_workers", [2, 4])
def test_the_number_of_workers_changes_no_byte(
  source, prepared, tmp_path, num_workers
):
  other = prepare(source[0], tmp_path, num_workers=num_workers)

  expected = digest(prepared.data_dir)
  assert (
    len(expected) == 12 + 4
  )  # receipts, ledger, source shards, names of classes
  assert digest(other.data_dir) == expected


def kill_this_process(task):
  import os

  os.kill(os.getpid(), 9)


def test_a_dead_worker_is_an_error_that_names_the_shards(
  source, tmp_path, monkeypatch
):
  monkeypatch.setattr(task_lib, "run_task", kill_this_process)

  with pytest.raises(tfds_plugins.ConversionError) as e:
    prepare(source[0], tmp_path, num_workers=2)

  assert "A worker process died twice" in str(e.value)
  assert "source shard 00000\n" in str(e.value)
  assert "num_workers" in str(e.value)


def wait_for_ever(task):
  import os
  import pathlib
  import time

  folder = pathlib.Path(task.work_dir)
  (folder / f"worker.{os.getpid()}").touch()
  time.sleep(600)


def start_waiting_build(manual_dir, data_dir):
  """Starts a build whose workers never finish, and returns it and their ids."""
  code = f"""
import sys
sys.path[:0] = {sys.path!r}
import tensorflow_datasets as tfds
import tfds_plugins
from conversion import executors_test
from tfds_plugins.conversion import task
task.run_task = executors_test.wait_for_ever
executors_test.prepare({str(manual_dir)!r}, {str(data_dir)!r}, num_workers=2)
"""
  environment = os.environ | {
    "PYTHONPATH": str(pathlib.Path(__file__).parents[1])
  }
  process = subprocess.Popen(
    [sys.executable, "-c", code],
    stderr=subprocess.PIPE,
    text=True,
    env=environment,
  )
  for _ in range(600):
    found = [p.suffix for p in data_dir.rglob("worker.*")]
    if len(found) == 2:
      return process, [int(suffix[1:]) for suffix in found]
    time.sleep(0.1)
  process.kill()
  raise AssertionError(process.communicate()[1])


def wait_until_gone(pids):
  for _ in range(200):
    if not any(psutil.pid_exists(pid) for pid in pids):
      return True
    time.sleep(0.1)
  return False


def test_ctrl_c_leaves_neither_workers_nor_a_dataset(source, tmp_path):
  process, workers = start_waiting_build(source[0], tmp_path)

  process.send_signal(signal.SIGINT)
  _, printed = process.communicate(timeout=60)

  assert process.returncode != 0
  assert "KeyboardInterrupt" in printed
  assert wait_until_gone(workers)
  assert not list((tmp_path / "laion400m/images").iterdir())


def test_workers_end_with_a_killed_parent(source, tmp_path):
  process, workers = start_waiting_build(source[0], tmp_path)

  process.kill()
  process.communicate(timeout=60)

  assert wait_until_gone(workers)


def test_workers_import_neither_tensorflow_nor_pandas(
  source, tmp_path, monkeypatch
):
  monkeypatch.setattr(task_lib, "run_task", run_and_report_modules)
  with pytest.raises(tfds_plugins.SourceError) as e:
    prepare(source[0], tmp_path, num_workers=2)

  assert "heavy modules: []" in str(e.value)


def run_and_report_modules(task):
  import sys

  from tfds_plugins import errors
  from tfds_plugins.conversion import task as tasks

  tasks.run_task(task)
  heavy = ("tensorflow", "apache_beam", "pandas", "matplotlib")
  found = [m for m in heavy if sys.modules.get(m) is not None]
  raise errors.SourceError(f"heavy modules: {found}")


def test_one_worker_runs_in_this_process(monkeypatch):
  monkeypatch.setattr(executors, "_run_in_pool", None)  # A call would fail.

  assert list(executors.run_tasks([], executors.ConversionOptions())) == []


@pytest.mark.parametrize(
  ("min_bytes", "num_workers", "expected"),
  [(1 << 40, None, 1), (0, None, 3), (1 << 40, 2, 2), (0, 1, 1)],
)
def test_small_sources_are_converted_without_workers(
  source, tmp_path, monkeypatch, min_bytes, num_workers, expected
):
  monkeypatch.setattr(executors, "_MIN_POOL_BYTES", min_bytes)
  monkeypatch.setattr(executors.loky, "cpu_count", lambda: 3)
  started = [1]

  def run_in_pool(tasks, num_workers):
    started.append(num_workers)
    return map(task_lib.run_task, tasks)

  monkeypatch.setattr(executors, "_run_in_pool", run_in_pool)

  prepare(source[0], tmp_path, num_workers=num_workers)

  assert started[-1] == expected
