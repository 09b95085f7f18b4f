"""The folder of a build that is not finished: what a next build goes on with.

It lies beside the dataset, `2.0.0.unfinished` beside `2.0.0`, and holds the files
of all tasks that have been run (`task.py`) under the names of their fingerprints,
the lock of the build that is running, and what a builder needs while it runs. TFDS
deletes its own temporary folder, `incomplete.*_2.0.0`, after every failure; that
one gets links to the files as the last step of a build.

When the dataset is there, the folder is removed.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import json
import os
import shlex
import uuid

from etils import epath
from tensorflow_datasets.core import constants

from tfds_plugins import errors
from tfds_plugins.conversion import build_lock
from tfds_plugins.conversion import remote
from tfds_plugins.conversion import task as task_lib
from tfds_plugins.conversion.receipts import ShardReceipt
from tfds_plugins.sources import checking
from tfds_plugins.sources import folders

_SUFFIX = ".unfinished"
# A dataset that will take the place of the one that is there, and that one when
# its place is taken.
_UPDATED_SUFFIX = ".updated"
_REPLACED_SUFFIX = ".replaced"
_NUM_THREADS = 16
_MOVED_PREFIX = "moved-"
_NOTE_FILENAME = "README.txt"
_NOTE = """\
A build of a dataset by tfds_plugins is running here, or was stopped. What it has
converted lies in this folder; the same build, started again, goes on with it.
This folder may be deleted whenever no build is running: the next one starts over.
"""


class WorkDir:
  """The unfinished build of a dataset."""

  def __init__(self, data_path: epath.Path):
    """Initializes a folder that may not be there.

    Args:
      data_path: where the dataset is going to be, `data_dir/name/config/version`.
    """
    self._data_path = data_path
    self.path = data_path.with_name(data_path.name + _SUFFIX)
    self.updated_path = data_path.with_name(data_path.name + _UPDATED_SUFFIX)
    self._replaced_path = data_path.with_name(data_path.name + _REPLACED_SUFFIX)

  @contextlib.contextmanager
  def claim(self) -> Iterator[None]:
    """Makes the folder, and keeps other builds away.

    Clears away what dead builds have left but no build can use. If nothing has
    been converted when the block ends, the folder is removed.

    Raises:
      errors.ConversionError: another build is running, or the folder cannot be
        written.
    """
    with contextlib.ExitStack() as stack:
      try:
        self.path.mkdir(parents=True, exist_ok=True)
        stack.enter_context(build_lock.BuildLock(self.path))
        (self.path / _NOTE_FILENAME).write_text(_NOTE)
        self._clear_away()
      except OSError as e:
        raise _cannot_write(self.path, e) from e
      try:
        yield
      finally:
        if self.path.exists():
          self._remove_leftovers()
          if not self.count_receipts():
            self.remove()

  def clear(self) -> None:
    """Forgets what has been converted, to start over."""
    for name in self.list_names():
      if _is_task_file(name):
        (self.path / name).unlink()

  def remove(self) -> None:
    """Removes the folder: the dataset is there, or nothing is worth keeping."""
    for name in self.list_names():
      if name not in build_lock.FILENAMES:
        (self.path / name).unlink(missing_ok=True)
    # The lock as the last: nobody who waits for it may find a folder half empty. A
    # sign of life may come in between; then the folder stays, without content.
    with contextlib.suppress(OSError):
      self.path.rmtree()

  def count_receipts(self) -> int:
    """Returns how many tasks have been run."""
    suffix = f".{task_lib.RECEIPT_SUFFIX}"
    return sum(name.endswith(suffix) for name in self.list_names())

  def list_names(self) -> set[str]:
    """Returns the names of the files in the folder, those of workers as well."""
    self.notice_workers()
    return {path.name for path in folders.list_children(self.path)}

  def notice_workers(self) -> None:
    """Makes the files that other processes have written known in this one.

    fsspec remembers what it has listed on an object store until it writes there
    itself.
    """
    if remote.is_remote(self.path):
      (self.path / _NOTE_FILENAME).write_text(_NOTE)

  def find_receipts(
    self, tasks: Sequence[task_lib.Task]
  ) -> list[ShardReceipt | None]:
    """Returns the receipts of tasks that have been run, None for others."""
    names = self.list_names()
    return checking.map_all(
      lambda task: (
        task_lib.find_receipt(task) if task.receipt_path.name in names else None
      ),
      tasks,
      num_threads=_NUM_THREADS,
    )

  def take_back(self) -> None:
    """Takes back the files that a build that failed or died has given away.

    Of a dataset that is complete nothing is taken.
    """
    is_complete = remote.has_dataset(self._data_path)
    for name in self.list_names():
      if not name.startswith(_MOVED_PREFIX) or task_lib.is_leftover(name):
        continue
      for own, given in json.loads((self.path / name).read_text()):
        source, target = self.path / own, epath.Path(given)
        is_kept = is_complete and target.parent == self._data_path
        if not is_kept and target.exists() and not source.exists():
          target.replace(source)
      (self.path / name).unlink()

  def replace_dataset(self) -> None:
    """Puts the updated dataset in the place of the one that is there."""
    self._data_path.rename(self._replaced_path)
    self.updated_path.rename(self._data_path)
    self._replaced_path.rmtree()

  def _clear_away(self) -> None:
    """Removes what dead builds were writing, and finishes what they finished."""
    if not self._data_path.exists() and self._replaced_path.exists():
      # Died between the two renames.
      done = self.updated_path.exists()
      (self.updated_path if done else self._replaced_path).rename(
        self._data_path
      )
    self.take_back()
    for path in (self.updated_path, self._replaced_path):
      if path.exists():
        path.rmtree()
    self._remove_leftovers()
    # TFDS's temporary folders: no build but this one is running.
    prefix = constants.INCOMPLETE_PREFIX
    for name in (self._data_path.name, self.updated_path.name):
      for path in list(self.path.parent.glob(f"{prefix}*_{name}")):
        path.rmtree()

  def _remove_leftovers(self) -> None:
    """Removes what killed workers were writing: on a full disk it is in the way."""
    for name in self.list_names():
      if task_lib.is_leftover(name):
        (self.path / name).unlink(missing_ok=True)

  def describe(self, num_tasks: int | None) -> str:
    """Says what is there, how to go on, and how to delete it.

    Args:
      num_tasks: how many tasks there are; None if that is not known.
    """
    num_done = self.count_receipts()
    total = f" of {num_tasks:,}" if num_tasks is not None else ""
    return (
      f"{num_done:,}{total} output shards have been converted and are kept in"
      f" {self.path}\n"
      "  To go on, build again. To start over, build with --overwrite. To delete"
      f" them: rm -r {shlex.quote(str(self.path))}"
    )


def give(source: epath.Path, target: epath.Path) -> None:
  """Gives a file to another folder, and keeps it if that costs nothing."""
  if not _link(source, target):
    source.replace(target)


def give_all(pairs: Sequence[tuple[epath.Path, epath.Path]]) -> None:
  """Gives the files of the folder of a build to that of its dataset.

  With the links that are left behind, a build that dies now loses nothing. Without
  links (object stores, some network drives) files move: copies would take the time
  and the space of the dataset once more. It is noted where they go, for the next
  build to take them back.

  Args:
    pairs: the files, all of one folder, and what they are to be called.
  """
  for i, (source, target) in enumerate(pairs):
    if _link(source, target):
      continue
    rest = pairs[i:]
    note = source.with_name(f"{_MOVED_PREFIX}{uuid.uuid4().hex}")
    content = json.dumps([[s.name, str(t)] for s, t in rest])
    folders.write_whole(note, content.encode())
    for source, target in rest:
      source.replace(target)
    return


def lend(source: epath.Path, target: epath.Path) -> None:
  """Makes a file known in another folder as well, by a copy if it must be."""
  if target.exists():
    target.unlink()
  if not _link(source, target):
    source.copy(target)


def _link(source: epath.Path, target: epath.Path) -> bool:
  if remote.is_remote(source) or remote.is_remote(target):
    return False
  try:
    os.link(source, target)
  except OSError:
    # No links here. If it is something else, the next step says so.
    return False
  return True


def _is_task_file(name: str) -> bool:
  stem, _, suffix = name.rpartition(".")
  return bool(stem) and (
    suffix in task_lib.SUFFIXES or task_lib.is_leftover(name)
  )


def _cannot_write(path: epath.Path, error: OSError) -> errors.ConversionError:
  problem = errors.Problem(
    what="data_dir cannot be written to.",
    where=str(path),
    expected="a folder in which a dataset can be prepared",
    found=f"{type(error).__name__}: {error}",
    to_do="Name another one with --data_dir or data_dir=..., or see to its permissions.",
  )
  return errors.ConversionError(str(problem))
