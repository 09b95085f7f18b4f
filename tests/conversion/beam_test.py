"""The same tasks in Apache Beam pipelines."""

import collections
import contextlib
import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import apache_beam as beam
from apache_beam.options import pipeline_options
import builds
import pytest
import resume_test
import screens
import shards

import tfds_plugins
from tfds_plugins.conversion import beam_executor
from tfds_plugins.conversion import fingerprints
from tfds_plugins.conversion import task as task_lib

_IN_MEMORY = ["direct_running_mode=in_memory"]
_PROCESSES = [
  "runner=DirectRunner",
  "direct_running_mode=multi_processing",
  "direct_num_workers=2",
]
_NUM_SHARDS = 24
_NUM_WORKERS = 3


@pytest.fixture(scope="module")
def manual_dir(tmp_path_factory):
  """24 shards of unequal length."""
  folder = tmp_path_factory.mktemp("manual dir")
  shards.write_simple_shards(folder, [1 + i % 5 for i in range(_NUM_SHARDS)])
  return folder


@pytest.fixture(scope="module")
def local(manual_dir, tmp_path_factory):
  """What a process of this machine makes of them."""
  builder = builds.prepare(manual_dir, tmp_path_factory.mktemp("local"))
  return resume_test.digest_all(builder)


def make_options(flags):
  return pipeline_options.PipelineOptions([f"--{flag}" for flag in flags])


def prepare(manual_dir, data_dir, flags, **options):
  return builds.prepare(
    manual_dir, data_dir, beam_options=make_options(flags), **options
  )


@pytest.mark.parametrize("flags", [_IN_MEMORY, _PROCESSES])
def test_direct_runner(manual_dir, local, tmp_path, flags):
  builder = prepare(manual_dir, tmp_path, flags)

  assert resume_test.digest_all(builder) == local
  assert [p.name for p in builder.data_path.parent.iterdir()] == ["2.0.0"]


@pytest.mark.parametrize(
  "runner", ["DirectRunner", beam.runners.DirectRunner()]
)
def test_a_runner_without_options(manual_dir, local, tmp_path, runner):
  builder = builds.prepare(manual_dir, tmp_path, beam_runner=runner)

  assert resume_test.digest_all(builder) == local


def test_the_command_takes_options_for_beam(manual_dir, local, tmp_path):
  command = [
    os.path.join(os.path.dirname(sys.executable), "tfds"),
    *("build", "laion400m/images", "--imports=tfds_plugins"),
    f"--manual_dir={manual_dir}",
    f"--data_dir={tmp_path}",
    f"--beam_pipeline_options={','.join(_PROCESSES)}",
  ]

  result = subprocess.run(command, capture_output=True, text=True)

  assert result.returncode == 0, result.stderr
  folder = tmp_path / "laion400m/images/2.0.0"
  assert {p.name: p.read_bytes() for p in folder.iterdir()} == local


def test_splits_are_in_one_pipeline(tmp_path, monkeypatch):
  folder = tmp_path / screens.NAME
  screens.write_tars(folder, range(6))
  screens.write_splits(
    folder, [screens.make_row(i, i % 6, [(i + 1) % 6]) for i in range(9)]
  )
  runs = []
  run = beam.Pipeline.run
  monkeypatch.setattr(
    beam.Pipeline, "run", lambda *args: runs.append(1) or run(*args)
  )

  builder = screens.prepare(
    folder, tmp_path / "beam", beam_options=make_options(_IN_MEMORY)
  )

  assert runs == [1]
  other = screens.prepare(folder, tmp_path / "local")
  assert set(builder.info.splits) == {"train", "eval", "test"}
  assert resume_test.digest_all(builder) == resume_test.digest_all(other)


def test_the_graph_does_not_grow(manual_dir, tmp_path, monkeypatch):
  graphs = []

  class _Result:
    def wait_until_finish(self):
      raise RuntimeError("This is as far as it goes.")

  def run(pipeline):
    graphs.append(pipeline.to_runner_api())
    return _Result()

  monkeypatch.setattr(beam.Pipeline, "run", run)
  monkeypatch.setattr(beam_executor, "_MAX_ELEMENTS", 100)
  for num_shards in (100, 3000):
    with pytest.raises(tfds_plugins.ConversionError, match="as far as it goes"):
      prepare(manual_dir, tmp_path, _IN_MEMORY, num_shards=num_shards)

  small, large = graphs
  assert len(small.components.transforms) == len(large.components.transforms)
  assert abs(large.ByteSize() - small.ByteSize()) < 100
  assert large.ByteSize() < 100_000


@pytest.mark.parametrize("flags", [_IN_MEMORY, _PROCESSES])
def test_a_stopped_build_goes_on(local, manual_dir, tmp_path, flags):
  """Every broken shard is named, and the others are not converted again."""
  source = tmp_path / "manual"
  shards.write_simple_shards(source, [1 + i % 5 for i in range(_NUM_SHARDS)])
  kept = {}
  for number in (4, 20):
    kept[number] = (source / f"{number:05d}.tar").read_bytes()
    resume_test.write_broken_shard(source, number)
  with pytest.raises(tfds_plugins.SourceError) as e:
    prepare(source, tmp_path, flags)
  assert str(source / "00004.tar") in str(e.value)
  assert str(source / "00020.tar") in str(e.value)
  left = tmp_path / "laion400m/images/2.0.0.unfinished"
  assert len(list(left.glob("*.receipt"))) == _NUM_SHARDS - 2
  files = {p.stat().st_ino for p in left.glob("*.records")}

  for number, content in kept.items():
    (source / f"{number:05d}.tar").write_bytes(content)
  builder = prepare(source, tmp_path, flags)

  found = resume_test.digest_all(builder)
  names = [name for name in local if "-of-" in name]
  assert len(names) == _NUM_SHARDS
  assert {n: found[n] for n in names} == {n: local[n] for n in names}
  data_path = pathlib.Path(builder.data_dir)
  made = {p.stat().st_ino for p in data_path.glob("*-of-*")}
  assert len(files) == len(made & files) == _NUM_SHARDS - 2


class DeadlyTasks(beam_executor._Tasks):
  def run(self, element):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_dead_process_of_direct_runner_is_an_error(tmp_path):
  """DirectRunner itself would wait for ever."""
  manual_dir = tmp_path / "manual"
  shards.write_simple_shards(manual_dir, [1] * 4)
  code = f"""
import beam_test
import tfds_plugins
beam_test.beam_executor._Tasks = beam_test.DeadlyTasks
try:
  beam_test.prepare({str(manual_dir)!r}, {str(tmp_path)!r}, {_PROCESSES!r})
except tfds_plugins.ConversionError as e:
  print("raised", e)
"""
  result = subprocess.run(
    [sys.executable, "-c", code],
    capture_output=True,
    text=True,
    timeout=120,
    env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
  )

  assert "raised The Beam pipeline did not run all tasks." in result.stdout
  assert "exited with return code" in result.stdout
  assert "source shards 00000, 00001, 00002, 00003" in result.stdout


def test_a_plan_of_another_build_is_not_run(tmp_path):
  path = tmp_path / "plan"
  path.write_bytes(b"not what was planned")

  with pytest.raises(tfds_plugins.ConversionError, match="is not the one of"):
    beam_executor._Tasks(str(path), "0" * 64, fingerprints.list_versions()).run(
      (0, 1)
    )


def test_workers_of_other_versions_convert_nothing(
  manual_dir, tmp_path, monkeypatch
):
  class _Other(beam_executor._Tasks):
    def __init__(self, path, digest, versions):
      super().__init__(path, digest, ["9.9.9", *versions[1:]])

  monkeypatch.setattr(beam_executor, "_Tasks", _Other)

  with pytest.raises(tfds_plugins.ConversionError, match=r"instead of 9\.9\.9"):
    prepare(manual_dir, tmp_path, _IN_MEMORY)

  assert not (tmp_path / "laion400m/images/2.0.0.unfinished").exists()


@contextlib.contextmanager
def start_cluster(folder):
  """Starts a scheduler and three workers, processes of this machine.

  Yields:
    The address, the workers, and the folder in which they note what they run.
  """
  notes = folder / "tasks run"
  notes.mkdir()
  file = folder / "scheduler.json"
  environment = os.environ | {
    "TASKS_RUN_DIR": str(notes),
    "DASK_LOGGING__DISTRIBUTED": "warning",
  }
  log = (folder / "log").open("w")

  def start(name, *arguments):
    return subprocess.Popen(
      [sys.executable, "-m", f"distributed.cli.{name}", *arguments]
      + ["--host", "127.0.0.1", "--no-dashboard"],
      env=environment,
      stdout=log,
      stderr=log,
      start_new_session=True,
    )

  processes = [
    start("dask_scheduler", "--port", "0", "--scheduler-file", str(file))
  ]
  try:
    for _ in range(600):
      with contextlib.suppress(OSError, ValueError):
        address = json.loads(file.read_text())["address"]
        break
      time.sleep(0.1)
    for i in range(_NUM_WORKERS):
      processes.append(
        start(
          *("dask_worker", address, "--nthreads", "1", "--no-nanny"),
          *("--local-directory", str(folder / f"worker {i}")),
          *(
            "--preload",
            str(pathlib.Path(__file__).parent / "watched_worker.py"),
          ),
        )
      )
    yield address, processes[1:], notes
  finally:
    for process in reversed(processes):
      with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
      process.wait()
    log.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
  with start_cluster(tmp_path_factory.mktemp("cluster")) as found:
    yield found


def read_notes(notes):
  """Returns the shard numbers that each process has run, with repetitions."""
  runs = collections.defaultdict(list)
  for path in notes.iterdir():
    shard_index, process, _ = path.name.split("-")
    runs[int(process)].append(int(shard_index))
  return runs


def test_dask(manual_dir, local, tmp_path, cluster):
  address, workers, notes = cluster
  flags = ["runner=DaskRunner", f"dask_client_address={address}"]

  builder = prepare(manual_dir, tmp_path, flags)

  assert resume_test.digest_all(builder) == local
  runs = read_notes(notes)
  assert set(runs) <= {worker.pid for worker in workers}
  assert len(runs) > 1
  assert sorted(itertools.chain(*runs.values())) == list(range(_NUM_SHARDS))


def test_broken_shards_on_dask(tmp_path, cluster):
  manual_dir = tmp_path / "manual"
  shards.write_simple_shards(manual_dir, [1] * 4)
  for number in (1, 3):
    resume_test.write_broken_shard(manual_dir, number)
  flags = ["runner=DaskRunner", f"dask_client_address={cluster[0]}"]

  with pytest.raises(tfds_plugins.SourceError) as e:
    prepare(manual_dir, tmp_path, flags)

  assert str(manual_dir / "00001.tar") in str(e.value)
  assert str(manual_dir / "00003.tar") in str(e.value)


def test_loss_of_a_dask_worker(manual_dir, local, tmp_path):
  with start_cluster(tmp_path) as (address, workers, notes):
    flags = ["runner=DaskRunner", f"dask_client_address={address}"]

    def kill():
      while len(list(notes.iterdir())) < _NUM_SHARDS // 3:
        time.sleep(0.01)
      victims = [w for w in workers if w.pid in read_notes(notes)]
      victims[0].kill()
      killed.append(victims[0].pid)

    killed = []
    thread = threading.Thread(target=kill)
    thread.start()
    builder = prepare(manual_dir, tmp_path / "data", flags)
    thread.join()
    runs = read_notes(notes)

  assert resume_test.digest_all(builder) == local
  assert killed[0] in runs
  assert len(runs) > 1
  assert set(itertools.chain(*runs.values())) == set(range(_NUM_SHARDS))


def test_dask_without_a_scheduler(manual_dir, tmp_path):
  with pytest.raises(tfds_plugins.OptionError, match="address of a scheduler"):
    prepare(manual_dir, tmp_path, ["runner=DaskRunner"])


def test_dask_that_is_not_installed(manual_dir, tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "apache_beam.runners.dask.dask_runner", None)

  with pytest.raises(tfds_plugins.OptionError, match=r"tfds-plugins\[dask\]"):
    prepare(manual_dir, tmp_path, ["runner=DaskRunner"])


def test_a_runner_that_says_done_when_it_is_not(
  manual_dir, tmp_path, monkeypatch
):
  run_task = task_lib.run_task
  monkeypatch.setattr(
    task_lib, "run_task", lambda t: t.shard_index != 7 and run_task(t)
  )

  with pytest.raises(tfds_plugins.ConversionError) as e:
    prepare(manual_dir, tmp_path, _IN_MEMORY)

  assert "1 tasks, of the source shards 00007" in str(e.value)
