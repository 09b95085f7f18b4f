"""By what the content of a source shard is known again: sizes and times.

A state is a digest of name, size and time of the last change of every file, and of
all files in a folder, however deep. Whoever moves or copies a source keeps its states
if the times are kept (`cp --preserve`, `rsync --times`). Of folders on object stores
it is the names directly in them: epath tells no more without a request for each.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
import hashlib
import os
import posixpath
import stat

from etils import epath

from tfds_plugins.sources import folders

_NUM_CHARACTERS = 16


def describe(paths: Iterable[str]) -> str:
  """Returns the state of files and folders.

  Args:
    paths: local or remote; in an order that does not change. What is not there
      is a state, too: it is for the reader to say so.

  Returns:
    16 hexadecimal digits.
  """
  digest = hashlib.sha256()
  for path in paths:
    for name, identity in _iter_files(path):
      digest.update(f"{name!r} {identity}\n".encode())
  return digest.hexdigest()[:_NUM_CHARACTERS]


def _iter_files(path: str) -> Iterator[tuple[str, tuple[int, int] | None]]:
  """Yields name and identity of a file, or of every file in a folder."""
  name = posixpath.basename(path)
  try:
    if "://" not in path:
      # (A corpus has a hundred thousand files, of each of which epath makes objects.)
      status = os.stat(path)
      if stat.S_ISDIR(status.st_mode):
        yield from _walk(path, name)
      else:
        yield name, (status.st_size, status.st_mtime_ns)
      return
    place = epath.Path(path)
    if not place.is_dir():
      yield name, folders.get_identity(place)
      return
    children = folders.list_children(place)
    for child in sorted(child.name for child in children):
      yield f"{name}/{child}", None
  except OSError:
    yield name, None


def _walk(
  folder: str, name: str
) -> Iterator[tuple[str, tuple[int, int] | None]]:
  """Yields the files in a local folder; links are not followed."""
  with os.scandir(folder) as found:
    entries = sorted(found, key=lambda entry: entry.name)
  for entry in entries:
    if entry.is_dir(follow_symlinks=False):
      yield from _walk(entry.path, f"{name}/{entry.name}")
    else:
      status = entry.stat(follow_symlinks=False)
      yield f"{name}/{entry.name}", (status.st_size, status.st_mtime_ns)
