"""Where in the user's folder a dataset may lie, and words about folders."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
import os
import re
import stat
import uuid

from etils import epath

from tfds_plugins import errors

_MAX_LISTED_NAMES = 12
# In the names of files that are being written.
INCOMPLETE_INFIX = ".incomplete."
# The time of the last change of a file of which it is not told.
UNKNOWN_TIME = 0


def list_candidate_dirs(
  manual_dir: epath.Path,
  dataset: str,
  configs: Iterable[str],
  *,
  expected: str,
  instructions: str,
) -> list[epath.Path]:
  """Lists the folders that may hold a dataset's source, the likeliest first.

  Args:
    manual_dir: the folder that the user named.
    dataset: name of the dataset, a possible sub-folder.
    configs: names of the builder config, each a possible sub-folder.
    expected: what should lie there, for the error.
    instructions: how to get the data, for the error.

  Returns:
    Those of `dataset/config`, `config`, `dataset` and `manual_dir` itself that
    exist.

  Raises:
    errors.ManualDirError: `manual_dir` is not a folder.
  """
  if not manual_dir.is_dir():
    problem = errors.Problem(
      what="manual_dir is not a folder.",
      where=str(manual_dir),
      expected=expected,
      found="a file" if manual_dir.exists() else "nothing there",
      to_do=(
        "Name the folder with --manual_dir or DownloadConfig(manual_dir=...)."
        f" If the data is not there yet:\n{instructions}"
      ),
    )
    raise errors.ManualDirError(str(problem))
  configs = list(dict.fromkeys(configs))
  candidates = [
    *(manual_dir / dataset / config for config in configs),
    *(manual_dir / config for config in configs),
    manual_dir / dataset,
    manual_dir,
  ]
  return [path for path in candidates if path.is_dir()]


def list_children(folder: epath.Path) -> list[epath.Path]:
  """Returns what lies in a folder, in no particular order.

  The console of an object store makes a folder by an empty object of its name,
  and fsspec lists that among what is in it: the folder would be its own
  sub-folder, and everything in it there twice.

  Args:
    folder: local or remote.

  Raises:
    OSError: there is none.
  """
  return [path for path in folder.iterdir() if path != folder]


def natural_key(name: str) -> list[tuple[int, str]]:
  """Sorts `split_2` before `split_10`."""
  return [
    # (`isdigit` alone is true of superscripts.)
    (int(part), part) if part.isascii() and part.isdigit() else (-1, part)
    for part in re.split(r"(\d+)", name)
  ]


def shorten(names: Sequence[str]) -> str:
  """Returns the first names, and how many more there are."""
  shown = ", ".join(names[:_MAX_LISTED_NAMES])
  more = len(names) - _MAX_LISTED_NAMES
  return f"{shown} and {more:,} more" if more > 0 else shown


def check_regular(path: epath.Path) -> None:
  """Checks that what has the name of a file is one, before it is opened.

  To open a named pipe is to wait, maybe for ever, for someone to write to it.

  Args:
    path: a local or remote file; links are followed.

  Raises:
    OSError: there is nothing, or something else, as after opening it.
  """
  status = path.stat()
  if status.is_directory:
    raise IsADirectoryError("this is a folder, not a file")
  # Remote files have no mode.
  if status.mode is not None and not stat.S_ISREG(status.mode):
    raise OSError("this is a pipe, socket or device, not a file")


def write_whole(path: epath.Path, content: bytes) -> None:
  """Writes a file that others may be reading: they see the old or the new one."""
  if "://" in str(path):  # An object appears when it is complete.
    path.write_bytes(content)
    return
  sibling = path.with_name(f"{path.name}{INCOMPLETE_INFIX}{uuid.uuid4().hex}")
  try:
    sibling.write_bytes(content)
    sibling.replace(path)
  finally:
    sibling.unlink(missing_ok=True)


def get_size(path: epath.Path) -> int:
  """Returns a file's size; 0 for what is no file, to be refused when opened."""
  try:
    return get_identity(path)[0]
  except OSError:
    return 0


def get_identity(path: epath.Path) -> tuple[int, int]:
  """Returns by what a file is known again.

  Returns:
    Its size in bytes and the time of its last change: nanoseconds since 1970
    where it is a local file, else of whole seconds; `UNKNOWN_TIME` where epath
    does not tell, as for s3:// (`epath/backend.py` looks for `mtime`, which
    s3fs calls `LastModified`).
  """
  if "://" in str(path):
    status = path.stat()
    return status.length, int(status.mtime) * 1_000_000_000
  local = os.stat(path)
  return local.st_size, local.st_mtime_ns
