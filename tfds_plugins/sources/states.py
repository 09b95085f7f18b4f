"""By what the content of a source shard is known again: sizes and times.

A state is a digest of name, size and time of the last change of every file. Of a
folder it is the time alone, which is that of the last file that came or went.
Whoever moves or copies a source keeps its states if the times are kept
(`cp --preserve`, `rsync --times`).
"""

from __future__ import annotations

from collections.abc import Iterable
import hashlib

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
  for path in map(epath.Path, paths):
    try:
      identity = folders.get_identity(path)
    except OSError:
      identity = None
    digest.update(f"{path.name!r} {identity}\n".encode())
  return digest.hexdigest()[:_NUM_CHARACTERS]
