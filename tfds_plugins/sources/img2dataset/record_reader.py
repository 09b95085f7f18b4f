"""Reads TFRecord files a few megabytes at a time, and says where they break off.

Format: tensorflow/tensorflow, `tensorflow/core/lib/io/record_writer.h`: length
(uint64), its checksum, the record, its checksum; all little-endian.
"""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
import struct
from typing import Any

import numpy as np

from tfds_plugins.sources import masked_crc
from tfds_plugins.sources import raw_files
from tfds_plugins.sources.img2dataset import samples
from tfds_plugins.sources.rows import CORRUPT_SHARD
from tfds_plugins.sources.rows import TRUNCATED_SHARD

_LENGTH = struct.Struct("<Q")
HEAD = struct.Struct("<QI")
_FOOT = struct.Struct("<I")
_WINDOW_BYTES = 16 << 20
# A record is an image and its metadata.
_MAX_RECORD_BYTES = samples.MAX_IMAGE_BYTES + (16 << 20)


@dataclasses.dataclass(slots=True)
class Record:
  """One record of a file.

  Attributes:
    position: the byte at which its length starts.
    size_bytes: its size.
    data: what it holds, valid until the next window is read; None if it was
      not read, because it is too large, or differs from its checksum.
  """

  position: int
  size_bytes: int
  data: memoryview | None = None

  @property
  def is_large(self) -> bool:
    """Whether it is too large to be read."""
    return self.size_bytes > _MAX_RECORD_BYTES


def parse_head(head: bytes | memoryview) -> int | None:
  """Returns the length of a record, or None if this is no head.

  Args:
    head: the first 12 bytes of a record, maybe fewer.
  """
  if len(head) < HEAD.size:
    return None
  length, checksum = HEAD.unpack(head)
  is_good = masked_crc.compute(bytes(head[: _LENGTH.size])) == checksum
  return length if is_good else None


class RecordReader:
  """Walks a file.

  Attributes:
    damage: how the file ended if not well: reason and detail.
  """

  def __init__(self, file: Any, size_bytes: int):
    """Starts at the first byte.

    Args:
      file: a binary file that can seek.
      size_bytes: the size of the file.
    """
    self.damage: tuple[str, str] | None = None
    self._file = file
    self._size_bytes = size_bytes
    # One buffer for all windows: fresh memory costs more than reading.
    self._buffer = np.empty(_WINDOW_BYTES, np.uint8)

  def iter_windows(self, start: int, stop: int) -> Iterator[list[Record]]:
    """Yields the records that start in a part of the file.

    Args:
      start: the first byte of the part; records before it are passed over.
      stop: the byte behind the part.
    """
    position = self._pass_over(start)
    self._file.seek(position)
    base, size = position, 0  # Where the buffer's content starts; its size.
    num_wanted = 0
    while position < min(stop, self._size_bytes) and not self.damage:
      left = self._buffer[position - base : size].copy()
      self._make_room(len(left) + num_wanted)
      self._buffer[: len(left)] = left
      base, size = position, len(left)
      num_read = raw_files.read_into(self._file, self._buffer.data[size:])
      if not num_read:  # The file has become shorter.
        self._stop(TRUNCATED_SHARD, position)
        return
      size += num_read
      records, position, num_wanted = self._parse_window(base, size, stop)
      if position - base > size:  # A large record is passed over.
        self._file.seek(position)
        base, size = position, 0
      if records:
        yield records

  def _make_room(self, num_bytes: int) -> None:
    """Sees to it that so many bytes fit into the buffer."""
    if num_bytes > len(self._buffer):
      self._buffer = np.empty(num_bytes, np.uint8)

  def _pass_over(self, start: int) -> int:
    """Returns where the first record from `start` on starts."""
    position = 0
    while position < start and not self.damage:
      self._file.seek(position)
      length = self._parse(self._file.read(HEAD.size), position)
      if length is not None:
        position += HEAD.size + length + _FOOT.size
    return position

  def _parse_window(
    self, base: int, size: int, stop: int
  ) -> tuple[list[Record], int, int]:
    """Parses the complete records in the buffer.

    Returns:
      The records, where the next one starts in the file, and how many bytes of
      it are missing.
    """
    records: list[Record] = []
    window = self._buffer.data[:size]
    position = base
    while position < stop:
      first = position - base + HEAD.size
      if first > size and base + first <= self._size_bytes:
        return records, position, first - size
      length = self._parse(window[first - HEAD.size : first], position)
      if length is None:
        break
      last = first + length
      end = last + _FOOT.size
      if length > _MAX_RECORD_BYTES:
        records.append(Record(position, length))
      elif end > size:
        return records, position, end - size
      else:
        (checksum,) = _FOOT.unpack_from(window, last)
        is_good = masked_crc.compute(self._buffer[first:last]) == checksum
        data = window[first:last] if is_good else None
        records.append(Record(position, length, data))
      position = base + end
      if end > size:
        break
    return records, position, 0

  def _parse(self, head: bytes | memoryview, position: int) -> int | None:
    """Returns the length of the record at a position, or notes the damage."""
    length = parse_head(head)
    if length is None and len(head) == HEAD.size:
      self._stop(CORRUPT_SHARD, position)
    elif (
      length is None
      or position + HEAD.size + length + _FOOT.size > self._size_bytes
    ):
      self._stop(TRUNCATED_SHARD, position)
      length = None
    return length

  def _stop(self, reason: str, position: int) -> None:
    self.damage = (
      reason,
      f"the file cannot be read from byte {position:,} on",
    )
