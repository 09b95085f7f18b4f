"""Who runs the tasks: this process, or a pool of worker processes."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
import concurrent.futures
import multiprocessing
import os
import sys
import threading
import time

from absl import logging
import loky
from loky import process_executor
import pyarrow as pa

from tfds_plugins import errors
from tfds_plugins.conversion import task as task_lib
from tfds_plugins.conversion.options import ConversionOptions
from tfds_plugins.conversion.receipts import ShardReceipt

# Tasks that wait in the pool, for each worker: enough to keep it busy, few
# enough that 41,455 of them need no memory.
_TASKS_PER_WORKER = 2
_WATCH_SECONDS = 1.0
# Two workers take 0.6 s to start, in which one process converts this much.
_MIN_POOL_BYTES = 128 << 20


def run_tasks(
  tasks: Sequence[task_lib.Task], options: ConversionOptions
) -> Iterator[ShardReceipt]:
  """Runs tasks and yields their receipts in the order of completion.

  Args:
    tasks: the tasks; independent of each other.
    options: says how many workers.

  Yields:
    A receipt for each task.

  Raises:
    errors.SourceError: of all tasks that were running when the first failed.
    errors.ConversionError: a file could not be read or written, or a worker
      process died, and once more when it was run alone.
  """
  num_workers = min(options.num_workers or _choose_workers(tasks), len(tasks))
  if multiprocessing.current_process().daemon and num_workers > 1:
    # The workers of `tfds build --num-processes` may not have children.
    logging.info("A daemonic process has no workers: converting in it.")
    num_workers = 1
  if num_workers <= 1:
    return map(task_lib.run_task, tasks)
  return _run_in_pool(tasks, num_workers)


def _choose_workers(tasks: Sequence[task_lib.Task]) -> int:
  size_bytes = sum(part.size_bytes for task in tasks for part in task.sources)
  return loky.cpu_count() if size_bytes >= _MIN_POOL_BYTES else 1


def run_until(
  tasks: Sequence[task_lib.Task], max_examples: int
) -> Iterator[ShardReceipt]:
  """Runs tasks in this process, one by one, until there are enough examples.

  Args:
    tasks: the tasks, in the order in which their examples count.
    max_examples: how many examples are wanted, at least 1.

  Yields:
    The receipts of the tasks that were run.
  """
  for task in tasks:
    receipt = task_lib.run_task(task_lib.limit(task, max_examples))
    yield receipt
    max_examples -= receipt.num_examples
    if not max_examples:
      return


def _run_in_pool(
  tasks: Sequence[task_lib.Task], num_workers: int
) -> Iterator[ShardReceipt]:
  """Runs tasks in processes that import neither TensorFlow nor `__main__`.

  When a worker is killed, by the system for want of memory as a rule, the tasks
  that were running are run again, one by one: there is more memory for one, and
  a task that is the cause of it can be named.
  """
  pending = iter(tasks)
  while True:
    suspects: list[task_lib.Task] = []
    yield from _run_together(pending, num_workers, suspects)
    if not suspects:
      return
    logging.warning(
      "A worker process died. The source shards that were being converted (%s)"
      " are converted again, one by one.",
      task_lib.describe_sources(suspects),
    )
    for task in sorted(suspects, key=lambda task: task.shard_index):
      still_suspect: list[task_lib.Task] = []
      yield from _run_together(iter([task]), 1, still_suspect)
      if still_suspect:
        raise _worker_died(task)


def _run_together(
  pending: Iterator[task_lib.Task],
  num_workers: int,
  suspects: list[task_lib.Task],
) -> Iterator[ShardReceipt]:
  """Runs tasks until there are none, or a worker dies.

  Args:
    pending: the tasks.
    num_workers: how many workers.
    suspects: gets the tasks that were running when a worker died.

  Yields:
    The receipts.
  """
  pool = loky.ProcessPoolExecutor(
    num_workers, initializer=_start_worker, initargs=(os.getpid(),)
  )
  running: dict[concurrent.futures.Future, task_lib.Task] = {}
  problems: list[str] = []
  try:
    while True:
      room = num_workers * _TASKS_PER_WORKER
      while not problems and not suspects and len(running) < room:
        task = next(pending, None)
        if task is None:
          break
        try:
          running[pool.submit(task_lib.run_task, task)] = task
        except process_executor.BrokenProcessPool:
          suspects.append(task)
          break
      if not running:
        break
      done, _ = concurrent.futures.wait(
        running, return_when=concurrent.futures.FIRST_COMPLETED
      )
      for future in done:
        try:
          receipt = future.result()
        except errors.SourceError as e:
          problems.append(str(e))
        except process_executor.BrokenProcessPool:
          suspects.append(running[future])
        else:
          yield receipt
        del running[future]
  finally:
    # All results are here; or after an error or Ctrl-C, nobody wants them.
    pool.shutdown(wait=True, kill_workers=True)
  if problems:
    raise errors.SourceError(errors.describe(problems))


def _end_with(parent: int) -> None:
  """Ends this process when its parent is gone: killed, it could not say so."""
  while os.getppid() == parent:
    time.sleep(_WATCH_SECONDS)
  os._exit(1)


class _WithoutPandas:
  """An import hook for worker processes, in which there is no pandas."""

  def find_spec(self, name: str, *unused_args: object) -> None:
    """Refuses pandas and leaves every other module to the next finder."""
    if name == "pandas":
      raise ModuleNotFoundError("workers do without pandas", name=name)


def _start_worker(parent: int) -> None:
  """Makes a worker small, for it is one of many, and mortal.

  Arrow's own threads would only compete with the other workers, and it imports
  pandas (0.2 s, 50 MB) at the first list that it turns into an array, unless
  there is none.
  """
  sys.meta_path.insert(0, _WithoutPandas())
  watch = threading.Thread(target=_end_with, args=(parent,), daemon=True)
  watch.start()
  pa.set_cpu_count(1)
  pa.set_io_thread_count(1)


def _worker_died(task: task_lib.Task) -> errors.ConversionError:
  problem = errors.Problem(
    what="A worker process died twice while it converted the same shard.",
    where=f"source shard {task_lib.describe_sources([task])}",
    expected="a worker that returns a receipt or an error",
    found="the process was gone, the second time with no other beside it",
    to_do=(
      "The system kills what takes too much memory: look into its log (dmesg),"
      " and close what else takes memory. num_workers=1 converts without"
      " workers. What has been converted is kept."
    ),
  )
  return errors.ConversionError(str(problem))
