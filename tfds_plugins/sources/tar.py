"""A streaming reader of tar archives that says where and why it had to stop.

The standard library's `tarfile` takes some 50 us a member and treats a damaged
header like the end of the archive. This reader parses all headers of a window
of a few megabytes at once, verifies every checksum, gives out the contents
without copying them, and reports how the archive ended.

Format: POSIX.1-1988 ustar with the pax extension of POSIX.1-2001
(https://pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html, sections
"ustar Interchange Format" and "pax Header Block") and GNU tar's long names
(https://www.gnu.org/software/tar/manual/html_node/Standard.html).
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import dataclasses
import enum
from typing import Any

import numpy as np

from tfds_plugins.sources import raw_files
from tfds_plugins.sources import rows

BLOCK_BYTES = 512
WINDOW_BYTES = 16 << 20
_MAGIC = np.frombuffer(b"ustar", np.uint8)
_ZERO_BLOCK = bytes(BLOCK_BYTES)
# Zeros behind an archive are looked at so many at a time.
_BLANK_BYTES = 1 << 16
# Names and pax records are far below this; a larger one is a damaged header.
_MAX_EXTENSION_BYTES = 1 << 20
_MAX_DECIMAL_DIGITS = 18
_REGULAR_TYPES = b"0\x007"
_EXTENSION_TYPES = b"xLK"  # pax records, GNU long name, GNU long link
_PAX_KEYWORDS = (b" path=", b" size=", b" linkpath=")  # Those that are used.
_TYPES_WITHOUT_DATA = b"123456"
_HARD_LINK = ord("1")
_LINK_TYPES = b"12"
_LINK_FIELD = slice(157, 257)
# In fewer blocks, headers are parsed one by one.
_MIN_PARSED_BLOCKS = 32
_SIZE_POWERS = 8 ** np.arange(10, -1, -1, dtype=np.int64)
_CHECKSUM_POWERS = 8 ** np.arange(5, -1, -1, dtype=np.int64)


class End(enum.Enum):
  """How an archive ended.

  Attributes:
    MARKER: with zeros up to the end of the file, as a complete archive does.
    TRUNCATED: the file stopped before the marker or inside a member.
    CORRUPT: at a block that is no header.
  """

  MARKER = "complete"
  TRUNCATED = rows.TRUNCATED_SHARD
  CORRUPT = rows.CORRUPT_SHARD


@dataclasses.dataclass(slots=True)
class Member:
  """One regular file of an archive, or a link.

  Attributes:
    name: the full path inside the archive, as bytes.
    offset: the byte at which its first header (extensions included) starts.
    data_offset: the byte at which its content starts.
    size_bytes: the size of its content.
    data: its content, valid until the next window is read; None if it was not
      asked for, or is cut off.
    is_cut: whether the file ends before the content does.
    label: whatever `is_wanted` wishes to remember of it.
    link: what a link names: for a hard link, another member. None for a file.
    is_hard_link: whether it is a hard link.
  """

  name: bytes
  offset: int
  data_offset: int
  size_bytes: int
  data: memoryview | None = None
  is_cut: bool = False
  label: Any = None
  link: bytes | None = None
  is_hard_link: bool = False


# kind (the type flag), size of the content, path
_Header = tuple[int, int, bytes]


def parse_header(block: bytes) -> _Header | None:
  """Parses one header block, in every variant of its numeric fields.

  Args:
    block: 512 bytes.

  Returns:
    Type flag, size and path; None if the block is no header or its checksum is
    wrong.
  """
  if len(block) < BLOCK_BYTES:
    return None
  checksum = _parse_number(block[148:156])
  size = _parse_number(block[124:136])
  if checksum is None or size is None:
    return None
  # The sum of all bytes, with the checksum's own field taken as 8 spaces.
  if sum(block) - sum(block[148:156]) + 8 * 32 != checksum:
    return None
  name = block[:100].partition(b"\0")[0]
  if block[345] and block[257:263] == b"ustar\0":
    name = block[345:500].partition(b"\0")[0] + b"/" + name
  return block[156], size, name


def _parse_number(field: bytes) -> int | None:
  """Returns the value of a numeric field, or None if it is none.

  Args:
    field: octal digits, or GNU's base-256 (first bit set) for 8 GiB and more.
  """
  if field and field[0] & 0x80:
    return int.from_bytes(field[1:], "big") if field[0] == 0x80 else None
  digits = field.strip(b" \0")
  # (`int` itself would take signs and underscores too.)
  return int(digits or b"0", 8) if not digits.strip(b"01234567") else None


def _parse_pax(data: bytes) -> dict[bytes, bytes]:
  """Returns the records of a pax header; unreadable ones are left out."""
  records = {}
  while data:
    length, _, _ = data.partition(b" ")
    if not _is_decimal(length) or not len(length) < int(length) <= len(data):
      break
    keyword, _, value = data[len(length) + 1 : int(length) - 1].partition(b"=")
    records[keyword] = value
    data = data[int(length) :]
  return records


def _is_decimal(field: bytes) -> bool:
  """Whether a field is a number that a size can be, in decimal digits."""
  return field.isdigit() and len(field) <= _MAX_DECIMAL_DIGITS


def _parse_plain_headers(blocks: np.ndarray) -> dict[int, _Header]:
  """Parses all blocks that look like headers of the most usual form at once.

  Args:
    blocks: (num_blocks, 512) uint8.

  Returns:
    Headers by block number, checksums verified. Not all of them need be part
    of the archive: a member may itself be a tar.
  """
  candidates = np.flatnonzero((blocks[:, 257:262] == _MAGIC).all(axis=1))
  headers = blocks[candidates]
  size_digits = headers[:, 124:135].astype(np.int64) - ord("0")
  sum_digits = headers[:, 148:154].astype(np.int64) - ord("0")
  sums = headers.sum(axis=1, dtype=np.int64)
  sums += 8 * 32 - headers[:, 148:156].sum(axis=1, dtype=np.int64)
  is_plain = (
    ((size_digits >= 0) & (size_digits < 8)).all(axis=1)
    & ((sum_digits >= 0) & (sum_digits < 8)).all(axis=1)
    & (headers[:, 154] == 0)
    & (headers[:, 345] == 0)
    & (sum_digits @ _CHECKSUM_POWERS == sums)
  )
  sizes = size_digits @ _SIZE_POWERS
  names = np.ascontiguousarray(headers[:, :100]).view("S100").ravel()
  return {
    block: (kind, size, name.partition(b"\0")[0])
    for block, kind, size, name in zip(
      candidates[is_plain].tolist(),
      headers[is_plain, 156].tolist(),
      sizes[is_plain].tolist(),
      names[is_plain].tolist(),
    )
  }


class TarReader:
  """Reads the regular files of a tar archive, front to back.

  Attributes:
    end: how the archive ended; None until the iteration is over.
    end_offset: the byte at which it ended.
  """

  def __init__(
    self,
    file: Any,
    size_bytes: int,
    *,
    window_bytes: int = WINDOW_BYTES,
    with_links: bool = False,
  ):
    """Initializes a reader.

    Args:
      file: an open binary file at position 0. Read in order; `seek` is used to
        pass large contents that are not wanted.
      size_bytes: the size of the file.
      window_bytes: how much is read at a time, a multiple of 512.
      with_links: whether to yield links as well; they have no content.
    """
    self._with_links = with_links
    self._file = file
    self._size_bytes = size_bytes
    self._buffer = np.empty(window_bytes, np.uint8)
    self._base = 0  # The offset in the file of the buffer's first byte.
    self._num_bytes = 0  # How much of the buffer is filled.
    self._is_over = False  # Whether the file has nothing more to read.
    self.end: End | None = None
    self.end_offset = 0

  def iter_windows(
    self, is_wanted: Callable[[Member], bool]
  ) -> Iterator[list[Member]]:
    """Yields the regular files in order; folders and devices are passed.

    Args:
      is_wanted: called with every regular file, in order, before its content is
        there; whether it is to be read. Called again for one that did not fit
        into the window.

    Yields:
      The members that end in one window. Afterwards `end` says how the archive
      ended.
    """
    while self.end is None:
      self._fill()
      members, position = self._parse_window(is_wanted)
      if members:
        yield members
      self._advance(position)

  def _fill(self) -> None:
    """Reads until the buffer is full or the file is over."""
    view = self._buffer.data
    while self._num_bytes < len(view):
      count = raw_files.read_into(self._file, view[self._num_bytes :])
      self._is_over = not count
      if self._is_over:
        break
      self._num_bytes += count

  def _parse_window(
    self, is_wanted: Callable[[Member], bool]
  ) -> tuple[list[Member], int]:
    """Parses what is in the buffer.

    Returns:
      The members, and the position relative to the buffer where the parsing
      goes on: of a first header, or past the buffer's end.
    """
    num_blocks = self._num_bytes // BLOCK_BYTES
    blocks = self._buffer[: num_blocks * BLOCK_BYTES].reshape(-1, BLOCK_BYTES)
    plain_headers = {}
    if num_blocks >= _MIN_PARSED_BLOCKS:
      plain_headers = _parse_plain_headers(blocks)
    view = self._buffer.data
    members: list[Member] = []
    start = position = 0  # Of the member's first header, and of the next one.
    long_name: bytes | None = None
    long_link: bytes | None = None
    long_size: int | None = None
    while position + BLOCK_BYTES <= self._num_bytes:
      header = plain_headers.get(position // BLOCK_BYTES)
      if header is None:
        block = bytes(view[position : position + BLOCK_BYTES])
        if block == _ZERO_BLOCK:
          # Zeros in the middle are sectors that were never written, or another
          # archive follows: either way there are rows that nobody would miss.
          is_end = self._is_blank_from(position)
          end = End.MARKER if is_end else End.CORRUPT
          return members, self._stop(end, position)
        header = parse_header(block)
        if header is None:
          return members, self._stop(End.CORRUPT, position)
      kind, size, name = header
      if kind in _TYPES_WITHOUT_DATA:
        size = 0
      is_extension = kind in _EXTENSION_TYPES
      if is_extension and (
        size > _MAX_EXTENSION_BYTES or position - start > _MAX_EXTENSION_BYTES
      ):
        return members, self._stop(End.CORRUPT, position)
      if not is_extension and long_size is not None:
        size = long_size
      data_start = position + BLOCK_BYTES
      data_end = data_start + size
      next_position = data_start + -(-size // BLOCK_BYTES) * BLOCK_BYTES
      is_cut = self._base + data_end > self._size_bytes or (
        self._is_over and data_end > self._num_bytes
      )

      if is_extension:
        if is_cut:
          return members, self._stop(End.TRUNCATED, position)
        if data_end > self._num_bytes:
          self._make_room(data_end - start)
          return members, start
        data = bytes(view[data_start:data_end])
        if kind == ord("L"):
          long_name = data.rstrip(b"\0")
        elif kind == ord("K"):
          long_link = data.rstrip(b"\0")
        elif kind == ord("x") and any(each in data for each in _PAX_KEYWORDS):
          records = _parse_pax(data)
          long_name = records.get(b"path", long_name)
          long_link = records.get(b"linkpath", long_link)
          if b"size" in records:
            if not _is_decimal(records[b"size"]):
              return members, self._stop(End.CORRUPT, position)
            long_size = int(records[b"size"])
        position = next_position
        continue

      name = name if long_name is None else long_name
      # (Some old writers mark folders by their names.)
      if kind in _REGULAR_TYPES and not name.endswith(b"/"):
        member = Member(
          name,
          self._base + start,
          self._base + data_start,
          size,
          is_cut=is_cut,
        )
        if is_wanted(member) and not is_cut:
          if data_end > self._num_bytes:
            self._make_room(data_end - start)
            return members, start
          member.data = view[data_start:data_end]
        members.append(member)
      elif kind in _LINK_TYPES and self._with_links:
        link = bytes(view[position : position + BLOCK_BYTES])[_LINK_FIELD]
        members.append(
          Member(
            name,
            self._base + start,
            self._base + data_start,
            0,
            link=link.partition(b"\0")[0] if long_link is None else long_link,
            is_hard_link=kind == _HARD_LINK,
          )
        )
      if is_cut:
        return members, self._stop(End.TRUNCATED, position)
      start = position = next_position
      long_name = long_link = long_size = None
    # The next header is not in the buffer.
    if self._is_over:
      return members, self._stop(End.TRUNCATED, position)
    self._make_room(position + BLOCK_BYTES - start)
    return members, start

  def _is_blank_from(self, position: int) -> bool:
    """Whether there are only zeros from a position in the buffer on."""
    if self._buffer[position : self._num_bytes].any():
      return False
    # (The buffer still holds the contents of members.)
    rest = np.empty(_BLANK_BYTES, np.uint8)
    while count := raw_files.read_into(self._file, rest.data):
      if rest[:count].any():
        return False
    return True

  def _make_room(self, num_bytes: int) -> None:
    """Sees to it that a member of this size fits into the buffer."""
    if num_bytes > len(self._buffer):
      padded = -(-num_bytes // BLOCK_BYTES) * BLOCK_BYTES
      grown = np.empty(padded, np.uint8)
      grown[: self._num_bytes] = self._buffer[: self._num_bytes]
      self._buffer = grown

  def _advance(self, position: int) -> None:
    """Drops the buffer's content before `position`."""
    left = self._num_bytes - position
    if left >= 0:
      self._buffer[:left] = self._buffer[position : self._num_bytes].copy()
    else:
      self._file.seek(self._base + position)
      left = 0
    self._base += position
    self._num_bytes = left

  def _stop(self, end: End, position: int) -> int:
    self.end = end
    self.end_offset = self._base + position
    return position
