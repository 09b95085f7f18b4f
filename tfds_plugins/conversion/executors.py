"""Who runs the tasks: this process, or a pool of worker processes."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
import concurrent.futures
import dataclasses
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
    errors.ConversionError: a worker process died.
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
    receipt = task_lib.run_task(
      dataclasses.replace(task, max_examples=max_examples)
    )
    yield receipt
    max_examples -= receipt.num_examples
    if not max_examples:
      return


def _run_in_pool(
  tasks: Sequence[task_lib.Task], num_workers: int
) -> Iterator[ShardReceipt]:
  """Runs tasks in processes that import neither TensorFlow nor `__main__`."""
  pool = loky.ProcessPoolExecutor(
    num_workers, initializer=_start_worker, initargs=(os.getpid(),)
  )
  running: dict[concurrent.futures.Future, task_lib.Task] = {}
  pending = iter(tasks)
  problems: list[str] = []
  try:
    while True:
      while not problems and len(running) < num_workers * _TASKS_PER_WORKER:
        task = next(pending, None)
        if task is None:
          break
        running[pool.submit(task_lib.run_task, task)] = task
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
        except process_executor.BrokenProcessPool as e:
          raise _worker_died(list(running.values()), e) from e
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


def _worker_died(
  tasks: Sequence[task_lib.Task], error: BaseException
) -> errors.ConversionError:
  names = sorted({part.shard.name for task in tasks for part in task.sources})
  problem = errors.Problem(
    what="A worker process died.",
    where=f"while converting one of the source shards {', '.join(names)}",
    expected="a worker that returns a receipt or an error",
    found=str(error).splitlines()[0],
    to_do=(
      "If the system ran out of memory, use fewer workers"
      " (num_workers=...). The first of these shards that fails with"
      " num_workers=1 as well is the cause."
    ),
  )
  return errors.ConversionError(str(problem))
