"""Reading into memory that is there already, from any kind of file."""

from __future__ import annotations

from typing import Any


def read_into(file: Any, view: memoryview) -> int:
  """Reads at most as much as there is room for.

  Args:
    file: an open binary file; maybe TensorFlow's GFile, which epath opens for
      remote paths, and which can only make bytes of its own.
    view: where to.

  Returns:
    The number of bytes, 0 at the end of the file.
  """
  if hasattr(file, "readinto"):
    return file.readinto(view) or 0
  data = file.read(len(view))
  view[: len(data)] = data
  return len(data)
