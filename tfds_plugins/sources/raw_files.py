"""What local files can do, from any kind of file that epath opens."""

from __future__ import annotations

import io
from typing import Any

_LINE_BUFFER_BYTES = 1 << 20


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


def without_read_ahead(file: Any) -> Any:
  """Returns a file of which nothing is fetched but what is asked for.

  fsspec fetches 50 MB from wherever a file in S3 is read (s3fs 2026.9.0,
  `default_block_size`), and keeps them while it is open. That suits those who
  read from front to back; whoever reads here and there would fetch a file many
  times over.

  Args:
    file: an open binary file; fsspec's are changed, others are left alone.
  """
  if hasattr(file, "_fetch_range"):
    from fsspec import caching  # Imported already: the file is fsspec's.

    file.cache = caching.BaseCache(
      file.blocksize, file._fetch_range, file.size or 0
    )
  return file


def buffer_lines(file: Any) -> io.BufferedIOBase:
  """Returns a file whose `readline` takes a limit, and reads no more than that.

  Neither fsspec's files nor TensorFlow's GFile have such a `readline`; fsspec's
  copies a block of 50 MB for every line.

  Args:
    file: an open binary file, which stays open and whose position is no longer
      of use.
  """
  if isinstance(file, io.BufferedIOBase):
    return file
  return io.BufferedReader(_RawFile(file), _LINE_BUFFER_BYTES)


class _RawFile(io.RawIOBase):
  """What `io.BufferedReader` needs of a file."""

  def __init__(self, file: Any):
    self._file = file

  def readable(self) -> bool:
    return True

  def readinto(self, buffer: Any) -> int:
    return read_into(self._file, memoryview(buffer))
