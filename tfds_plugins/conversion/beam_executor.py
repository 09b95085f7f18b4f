"""Runs tasks in an Apache Beam pipeline.

The pipeline is `Create | Reshuffle | Map` for any number of tasks and splits. Its
elements are at most 1,000 pairs of numbers: which tasks of a plan to run. The plan
is a file in the folder of the build, which all workers share, and so are the
results: a task writes its receipt there, and all of them are looked for when the
pipeline is over, for a runner may say that it is done when it is not (DaskRunner
does when its scheduler dies).

That shape is what all runners spread. DaskRunner makes partitions in `Create`
alone, repeats elements where `ParDo`s follow each other in one process, and runs
no branch but the last (apache/beam, `sdks/python/apache_beam/runners/dask`).
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
import concurrent.futures
import contextlib
import functools
import hashlib
import importlib
import pickle
import shlex
import sys
import threading
import time
from typing import Any

from etils import epath

from tfds_plugins import errors
from tfds_plugins.conversion import fingerprints
from tfds_plugins.conversion import task as task_lib
from tfds_plugins.conversion.receipts import ShardReceipt
from tfds_plugins.conversion.task import Task
from tfds_plugins.conversion.work_dir import WorkDir
from tfds_plugins.sources import folders

_PLAN_FILENAME = "plan"
_MAX_ELEMENTS = 1000
# How often the folder is looked at for new receipts: listing 41,455 of them takes
# a tenth of a second on a local disk, and a few on an object store.
_POLL_SECONDS = 2.0
_NUM_LAST_LOOKS = 3
# How long a pipeline that is no longer wanted has to end.
_END_SECONDS = 20.0
_DASK_RUNNER = "apache_beam.runners.dask.dask_runner.DaskRunner"
# All names of Beam's runner on one machine; '' is the default.
_DIRECT_RUNNERS = (
  *("", "DirectRunner", "SwitchingDirectRunner"),
  *("BundleBasedDirectRunner", "FnApiRunner"),
)
# The name of the threads in which DirectRunner waits for its processes
# (apache/beam, `runners/portability/fn_api_runner/worker_handlers.py`).
_WORKER_THREAD = "run_worker"


def run_tasks(
  tasks: Sequence[Task], work: WorkDir, runner: Any, options: Any
) -> Iterator[ShardReceipt]:
  """Runs tasks and yields their receipts as they arrive.

  Args:
    tasks: the tasks; independent of each other.
    work: their folder. All workers can read and write it, and read the source.
    runner: `DownloadConfig.beam_runner`; None for what the options say.
    options: `DownloadConfig.beam_options`; None for Beam's defaults.

  Yields:
    A receipt for each task.

  Raises:
    errors.OptionError: the runner cannot be used like this.
    errors.SourceError: of all tasks that failed for their source.
    errors.ConversionError: the pipeline failed.
  """
  if not tasks:
    return
  runner, options, num_elements = _prepare(runner, options, len(tasks))
  plan = pickle.dumps(list(tasks))
  plan_path = work.path / _PLAN_FILENAME
  folders.write_whole(plan_path, plan)
  done: concurrent.futures.Future[None] = concurrent.futures.Future()
  running: list[Any] = []
  run = functools.partial(
    _run_pipeline,
    runner,
    options,
    num_elements,
    _Tasks(
      str(plan_path),
      hashlib.sha256(plan).hexdigest(),
      fingerprints.list_versions(),
    ),
    running,
  )
  missing = {task.receipt_path.name: task for task in tasks}
  problem: BaseException | None = None
  with _Thread(run, done, running):
    num_looks = 0
    while num_looks < _NUM_LAST_LOOKS:
      concurrent.futures.wait([done], _POLL_SECONDS)
      if done.done():
        problem = done.exception()
        # A network drive may show late what others have written.
        num_looks = num_looks + 1 if missing else _NUM_LAST_LOOKS
        if num_looks > 1:
          time.sleep(_POLL_SECONDS)
      names = missing.keys() if num_looks > 1 else work.list_names()
      for name in missing.keys() & names:
        receipt = task_lib.find_receipt(missing[name])
        if receipt is not None:
          del missing[name]
          yield receipt
  if missing:
    raise _make_error(list(missing.values()), problem)


class _Tasks:
  """The tasks of a plan, as a worker runs them. Picklable: it is sent there."""

  def __init__(self, plan_path: str, digest: str, versions: list[str]):
    """Initializes the tasks of a plan.

    Args:
      plan_path: the file.
      digest: its SHA-256. It came with the pipeline: nothing else is unpickled.
      versions: `fingerprints.list_versions` of the process that made the plan.
    """
    self._plan_path = plan_path
    self._digest = digest
    self._versions = versions

  def run(self, element: tuple[int, int]) -> None:
    """Runs every `step`-th task from the `start`-th on.

    Args:
      element: start and step.
    """
    start, step = element
    versions = fingerprints.list_versions()
    if versions != self._versions:
      raise errors.ConversionError(
        "A worker has other versions of tfds-plugins, Pillow and pyarrow than the"
        f" process that started the build: {', '.join(versions)} instead of"
        f" {', '.join(self._versions)}."
      )
    for task in _load_plan(self._plan_path, self._digest)[start::step]:
      try:
        task_lib.run_task(task)
      except errors.SourceError as e:
        # Another try would find the same. Beam would report the first alone, and
        # from another process no more than its traceback.
        task.problem_path.write_text(str(e))


@functools.lru_cache(maxsize=1)
def _load_plan(path: str, digest: str) -> list[Task]:
  content = epath.Path(path).read_bytes()
  if hashlib.sha256(content).hexdigest() != digest:
    raise errors.ConversionError(
      f"The plan {path} is not the one of this build: is another one running?"
    )
  return pickle.loads(content)


class _Thread:
  """Runs a pipeline in the background.

  DirectRunner waits for ever if one of its processes is killed: the thread that
  notices dies of an exception, and that is all. Here, the pipeline fails by it.
  """

  def __init__(
    self, run: Any, done: concurrent.futures.Future[None], running: list[Any]
  ):
    """Initializes a thread.

    Args:
      run: runs the pipeline.
      done: gets the outcome.
      running: gets the pipeline's result as soon as there is one.
    """
    self._run = run
    self._done = done
    self._running = running
    self._previous_hook = threading.excepthook

  def __enter__(self) -> None:
    threading.excepthook = self._note
    # A daemon: a pipeline that hangs does not keep the program from ending.
    threading.Thread(target=self._work, daemon=True).start()

  def __exit__(self, *unused_args: object) -> None:
    if not self._done.done():
      # After Ctrl-C: workers are not to write to a folder that is given up.
      for result in self._running:
        with contextlib.suppress(Exception):  # Not every runner can.
          result.cancel()
      concurrent.futures.wait([self._done], _END_SECONDS)
    threading.excepthook = self._previous_hook

  def _work(self) -> None:
    try:
      self._run()
    except BaseException as e:  # pylint: disable=broad-except
      self._end(e)
    else:
      self._end(None)

  def _note(self, args: threading.ExceptHookArgs) -> None:
    if args.thread is not None and args.thread.name == _WORKER_THREAD:
      self._end(args.exc_value)
    else:
      self._previous_hook(args)

  def _end(self, error: BaseException | None) -> None:
    try:
      if error is None:
        self._done.set_result(None)
      else:
        self._done.set_exception(error)
    except concurrent.futures.InvalidStateError:
      pass  # It has ended before.


def _prepare(runner: Any, options: Any, num_tasks: int) -> tuple[Any, Any, int]:
  """Returns runner, options, and the number of the pipeline's elements."""
  from apache_beam.options import pipeline_options  # pylint: disable=g-import-not-at-top

  options = options or pipeline_options.PipelineOptions()
  standard = options.view_as(pipeline_options.StandardOptions)
  num_elements = min(num_tasks, _MAX_ELEMENTS)
  name = runner if isinstance(runner, str) else type(runner).__name__
  if runner is None:
    name = standard.runner or ""
  if name.rpartition(".")[2] == "DaskRunner":
    if runner is None or isinstance(runner, str):
      runner = _DASK_RUNNER  # Beam does not know the short name.
    _set_dask_options(options, num_elements)
  elif name.rpartition(".")[2] in _DIRECT_RUNNERS:
    runner = _make_direct_runner(options) or runner
  # Without this, DirectRunner downloads another runner from the internet, which
  # ignores how many processes were asked for (apache/beam, `direct_runner.py`).
  options.view_as(pipeline_options.TypeOptions).allow_unsafe_triggers = True
  return runner, options, num_elements


def _make_direct_runner(options: Any) -> Any:
  """Returns a runner whose processes start where Python's path has spaces.

  Beam 2.77 gives the path to a shell as it is (apache/beam, `fn_runner.py`).

  Args:
    options: the pipeline's; the running mode is taken out of them.

  Returns:
    The runner; None where Beam's own does.
  """
  quoted = shlex.quote(sys.executable)
  from apache_beam.options import pipeline_options  # pylint: disable=g-import-not-at-top

  direct = options.view_as(pipeline_options.DirectOptions)
  is_subprocess = direct.direct_running_mode == "multi_processing"
  if not is_subprocess or quoted == sys.executable:
    return None
  from apache_beam.runners.portability.fn_api_runner import fn_runner  # pylint: disable=g-import-not-at-top
  from apache_beam.transforms import environments  # pylint: disable=g-import-not-at-top

  # (With its own value, the runner would make the environment once more.)
  direct.direct_running_mode = "subprocess"
  environment = environments.SubprocessSDKEnvironment.from_command_string(
    f"{quoted} -m apache_beam.runners.worker.sdk_worker_main"
  )
  return fn_runner.FnApiRunner(environment)


def _set_dask_options(options: Any, num_elements: int) -> None:
  try:
    dask_runner = importlib.import_module(_DASK_RUNNER.rpartition(".")[0])
  except ImportError as e:
    raise errors.OptionError(
      "DaskRunner needs dask.distributed: python -m pip install"
      ' "tfds-plugins[dask]"'
    ) from e
  dask = options.view_as(dask_runner.DaskOptions)
  if not (dask.address or dask.scheduler_file):
    raise errors.OptionError(
      "DaskRunner needs the address of a scheduler that workers are connected"
      " to: --beam_pipeline_options=runner=DaskRunner,"
      "dask_client_address=tcp://HOST:8786"
    )
  if dask.npartitions is None and dask.partition_size is None:
    # One for each element: by default, 128 elements go to the same worker.
    dask.npartitions = num_elements


def _run_pipeline(
  runner: Any,
  options: Any,
  num_elements: int,
  tasks: _Tasks,
  running: list[Any],
) -> None:
  import apache_beam as beam  # pylint: disable=g-import-not-at-top

  pipeline = beam.Pipeline(runner=runner, options=options)
  elements = [(i, num_elements) for i in range(num_elements)]
  _ = (
    pipeline
    | "Plan" >> beam.Create(elements)
    | "Spread" >> beam.Reshuffle()
    | "Convert" >> beam.Map(tasks.run)
  )
  result = pipeline.run()
  running.append(result)
  try:
    result.wait_until_finish()
  finally:
    client = getattr(result, "client", None)
    if client is not None:  # Dask's; Beam leaves it open.
      client.close()


def _make_error(
  missing: Sequence[Task], problem: BaseException | None
) -> errors.TfdsPluginsError:
  """Says why tasks have no receipt."""
  problems = []
  for task in missing:
    try:
      problems.append(task.problem_path.read_text())
    except OSError:
      continue
  if len(problems) == len(missing):
    return errors.SourceError(errors.describe(problems))
  names = task_lib.describe_sources(missing)
  text = errors.Problem(
    what="The Beam pipeline did not run all tasks.",
    where=f"{len(missing):,} tasks, of the source shards {names}",
    expected="a receipt of each",
    found="\n".join(
      [
        f"{type(problem).__name__}: {problem}" if problem else "nothing",
        *problems,
      ]
    ),
    to_do=(
      "Look into the logs of runner and workers, and build again: what has been"
      " converted is kept. Workers need tfds_plugins installed, and both data_dir"
      " and manual_dir under the paths that they have here."
    ),
  )
  return errors.ConversionError(str(text))
