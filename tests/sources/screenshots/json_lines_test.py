"""Lines, compared with what Python's own splitting gives."""

import io
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from tfds_plugins.sources.screenshots import json_lines


@given(st.lists(st.sampled_from([b"", b" ", b"{}", b"a b", b"\xef\xbb\xbf1"])))
def test_lines_are_where_they_are_said_to_be(lines):
  data = b"\n".join(lines)
  found = list(json_lines.iter_lines(io.BytesIO(data)))
  expected = [
    (number, line.removeprefix(b"\xef\xbb\xbf").strip())
    for number, line in enumerate(data.split(b"\n"), start=1)
    if line.strip()
  ]
  assert [(line.number, line.data) for line in found] == expected
  for line in found:
    assert (
      json_lines.strip(data[line.offset : line.offset + line.size_bytes])
      == line.data
    )


class _LongLine(io.RawIOBase):
  """A line of 400 MB between two short ones, made while it is read."""

  def __init__(self):
    self._parts = iter([b'{"a": 1}\n', *[b"x" * (1 << 20)] * 400, b"\n2\n"])
    self._left = b""

  def readable(self):
    return True

  def readinto(self, buffer):
    self._left = self._left or next(self._parts, b"")
    count = min(len(buffer), len(self._left))
    buffer[:count] = self._left[:count]
    self._left = self._left[count:]
    return count


def test_a_long_line_does_not_take_its_size_in_memory():
  tracemalloc.start()
  lines = list(json_lines.iter_lines(io.BufferedReader(_LongLine())))
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert [(line.number, line.data) for line in lines] == [
    (1, b'{"a": 1}'),
    (2, None),
    (3, b"2"),
  ]
  assert lines[2].offset == 9 + (400 << 20) + 1
  assert 4 << 20 < peak < 32 << 20
