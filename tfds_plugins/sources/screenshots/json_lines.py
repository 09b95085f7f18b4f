"""The lines of a JSON Lines file, of any length, in little memory."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from typing import Any
from typing import NamedTuple

from tfds_plugins.sources import raw_files

_BOM = b"\xef\xbb\xbf"
# A question, an answer and three paths are some 500 bytes. What the parser makes
# of a line can take twenty times its size.
MAX_LINE_BYTES = 4 << 20
# Of lines that are parsed together.
MAX_CHUNK_BYTES = 8 << 20


class Line(NamedTuple):
  """One line.

  Attributes:
    number: of all lines, blank ones too; the first is 1.
    offset: the byte at which it starts.
    size_bytes: its size with its end.
    data: what it holds, without its end; None if it is longer than
      `MAX_LINE_BYTES`.
  """

  number: int
  offset: int
  size_bytes: int
  data: bytes | None


def iter_lines(file: Any) -> Iterator[Line]:
  """Yields the lines that are not blank.

  Args:
    file: an open binary file at position 0.
  """
  file = raw_files.buffer_lines(file)
  number = offset = 0
  while data := file.readline(MAX_LINE_BYTES + 1):
    number += 1
    size_bytes = len(data)
    is_long = size_bytes > MAX_LINE_BYTES
    while is_long and not data.endswith(b"\n"):
      data = file.readline(MAX_LINE_BYTES)
      if not data:
        break
      size_bytes += len(data)
    if is_long:
      yield Line(number, offset, size_bytes, None)
    elif content := strip(data):
      yield Line(number, offset, size_bytes, content)
    offset += size_bytes


def iter_chunks(lines: Iterable[Line], max_lines: int) -> Iterator[list[Line]]:
  """Yields lines, many at a time but no more than some megabytes.

  Args:
    lines: the lines.
    max_lines: the most lines at a time.
  """
  chunk: list[Line] = []
  num_bytes = 0
  for line in lines:
    chunk.append(line)
    num_bytes += len(line.data or b"")
    if len(chunk) >= max_lines or num_bytes >= MAX_CHUNK_BYTES:
      yield chunk
      chunk, num_bytes = [], 0
  if chunk:
    yield chunk


def strip(data: bytes) -> bytes:
  """Returns a line without its end, blanks around it, and a byte order mark."""
  return data.removeprefix(_BOM).strip()
