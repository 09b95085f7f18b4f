"""Lets one build at a time write a dataset.

On local file systems the kernel holds the lock (`flock`), and gives it up when
the process ends, however it ends. Where several machines share a folder, or there
are no such locks (object stores, some network drives), the owner gives a sign of
life now and then, and whoever comes next waits for one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import errno
import json
import os
import socket
import threading
import time
import uuid

from absl import logging
from etils import epath
import filelock

from tfds_plugins import errors
from tfds_plugins.conversion import remote
from tfds_plugins.sources import folders

_LOCK_FILENAME = "lock"
_OWNER_FILENAME = "owner.json"
FILENAMES = (_LOCK_FILENAME, _OWNER_FILENAME)
_BEAT_SECONDS = 15.0
# So long is waited for a sign of life, unless the last one is older than clocks of
# machines differ.
_WATCH_SECONDS = 40.0
_SILENCE_SECONDS = 3600.0
# Of two that write at the same time the later one wins; both have written by then.
_SETTLE_SECONDS = 1.0
# What file systems without locks answer.
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Owner:
  """Who builds.

  Attributes:
    host: name of the machine.
    process: number of the process.
    since: when it began, local time.
    alive: when it gave its last sign of life, in seconds since 1970.
    token: tells builds apart.
  """

  host: str
  process: int
  since: str
  alive: float
  token: str


class BuildLock(contextlib.AbstractContextManager):
  """Holds a folder while a build writes to it."""

  def __init__(self, folder: epath.Path):
    """Initializes a lock that is not held yet.

    Args:
      folder: exists; the lock's files are kept in it.
    """
    self._folder = folder
    self._stack = contextlib.ExitStack()
    self._owner = Owner(
      host=socket.gethostname(),
      process=os.getpid(),
      since=datetime.datetime.now().strftime("%Y-%m-%d %H:%M:%S"),
      alive=time.time(),
      token=uuid.uuid4().hex,
    )
    self._is_over = threading.Event()

  def __enter__(self) -> BuildLock:
    """Takes the lock.

    Raises:
      errors.ConversionError: another build has it.
    """
    with contextlib.ExitStack() as stack:
      has_kernel_lock = self._lock_locally(stack)
      other = _read_owner(self._folder)
      if other is not None and self._is_alive(other, has_kernel_lock):
        raise _make_error(self._folder, other)
      self._tell()
      if not has_kernel_lock:
        time.sleep(_SETTLE_SECONDS)
        winner = _read_owner(self._folder)
        if winner is not None and winner.token != self._owner.token:
          raise _make_error(self._folder, winner)
      beat = threading.Thread(target=self._beat, daemon=True)
      beat.start()
      stack.callback(beat.join)
      stack.callback(self._is_over.set)
      self._stack = stack.pop_all()
    return self

  def __exit__(self, *unused_args: object) -> None:
    """Gives the lock up. The folder may be gone."""
    self._stack.close()
    with contextlib.suppress(OSError):
      (self._folder / _OWNER_FILENAME).unlink(missing_ok=True)

  def _lock_locally(self, stack: contextlib.ExitStack) -> bool:
    """Takes the kernel's lock if there is one.

    Returns:
      Whether it was taken; False where there are no such locks.
    """
    if remote.is_remote(self._folder):
      return False
    path = self._folder / _LOCK_FILENAME
    lock = filelock.FileLock(os.fspath(path), timeout=0, thread_local=False)
    try:
      stack.enter_context(lock)
    except filelock.Timeout:
      raise _make_error(self._folder, _read_owner(self._folder)) from None
    except NotImplementedError:  # filelock's word for ENOSYS.
      return False
    except OSError as e:
      if e.errno in _NO_LOCKS:
        return False
      raise
    return True

  def _is_alive(self, owner: Owner, has_kernel_lock: bool) -> bool:
    """Whether the owner that is noted is still there."""
    is_here = owner.host == self._owner.host
    if is_here and (has_kernel_lock or not _is_running(owner.process)):
      return False
    if time.time() - owner.alive > _SILENCE_SECONDS:
      return False
    logging.warning(
      "Process %d on %s has been building this dataset (%s). Waiting %.0f seconds"
      " for a sign of life of it.",
      owner.process,
      owner.host,
      self._folder,
      _WATCH_SECONDS,
    )
    end = time.monotonic() + _WATCH_SECONDS
    while time.monotonic() < end:
      time.sleep(_WATCH_SECONDS / 40)
      current = _read_owner(self._folder)
      if current is not None and current != owner:
        return True
    return False

  def _tell(self) -> None:
    """Writes who has the lock, and that they are alive."""
    owner = dataclasses.replace(self._owner, alive=time.time())
    # Whole: half an owner would be taken for none.
    folders.write_whole(
      self._folder / _OWNER_FILENAME,
      json.dumps(dataclasses.asdict(owner)).encode(),
    )

  def _beat(self) -> None:
    while not self._is_over.wait(_BEAT_SECONDS):
      # The disk may be full, or the folder gone at the end of the build.
      with contextlib.suppress(OSError):
        self._tell()


def _read_owner(folder: epath.Path) -> Owner | None:
  try:
    owner = Owner(**json.loads((folder / _OWNER_FILENAME).read_text()))
    float(owner.alive)
  except (OSError, ValueError, TypeError):
    return None  # There is none, or it is being written.
  return owner


def _is_running(process: int) -> bool:
  try:
    os.kill(process, 0)
  except ProcessLookupError:
    return False
  except OSError:
    return True
  return True


def _make_error(
  folder: epath.Path, owner: Owner | None
) -> errors.ConversionError:
  found = "another process holds the lock"
  if owner is not None:
    found = (
      f"process {owner.process} on {owner.host} has been building it since"
      f" {owner.since}"
    )
  problem = errors.Problem(
    what="This dataset is being built already.",
    where=str(folder),
    expected="one build of a dataset at a time",
    found=found,
    to_do=(
      "Wait for it, or stop it; what it has converted is used by the next build."
    ),
  )
  return errors.ConversionError(str(problem))
