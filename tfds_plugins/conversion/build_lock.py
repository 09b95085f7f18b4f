"""Lets one build at a time write a dataset.

On local file systems the kernel holds the lock (`flock`), and gives it up when
the process ends, however it ends. Where several machines share a folder, or there
are no such locks (object stores), the owner tells every half a minute that it is
alive.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import os
import socket
import threading
import time

from etils import epath
import filelock

from tfds_plugins import errors
from tfds_plugins.conversion import remote

_LOCK_FILENAME = "lock"
_OWNER_FILENAME = "owner.json"
_BEAT_SECONDS = 30.0
# Of an owner on another machine so much silence is the end. Clocks of machines
# differ less.
_SILENCE_SECONDS = 150.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Owner:
  """Who builds.

  Attributes:
    host: name of the machine.
    process: number of the process.
    since: when it began, local time.
    alive: when it last said that it is alive, in seconds since 1970.
  """

  host: str
  process: int
  since: str
  alive: float


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
    except NotImplementedError:
      return False
    return True

  def _is_alive(self, owner: Owner, has_kernel_lock: bool) -> bool:
    """Whether the owner that is noted is still there."""
    if owner.host == self._owner.host:
      return not has_kernel_lock and _is_running(owner.process)
    return time.time() - owner.alive < _SILENCE_SECONDS

  def _tell(self) -> None:
    """Writes who has the lock, and that they are alive."""
    owner = dataclasses.replace(self._owner, alive=time.time())
    path = self._folder / _OWNER_FILENAME
    path.write_text(json.dumps(dataclasses.asdict(owner)))

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
  if process == os.getpid():
    return False  # The number of a process that is gone has come again.
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
      f"process {owner.process} on {owner.host} builds it since {owner.since}"
      f" (last seen {max(0.0, time.time() - owner.alive):,.0f} seconds ago)"
    )
  problem = errors.Problem(
    what="This dataset is being built already.",
    where=str(folder),
    expected="one build of a dataset at a time",
    found=found,
    to_do=(
      "Wait for it, or stop it; what it has converted is used by the next build."
      " A build that has died on another machine is forgotten after"
      f" {_SILENCE_SECONDS:.0f} seconds."
    ),
  )
  return errors.ConversionError(str(problem))
