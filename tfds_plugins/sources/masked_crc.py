"""The checksums of TFRecord files: masked CRC-32C.

Source: tensorflow/tensorflow, `tensorflow/core/lib/io/record_writer.h` and
`tensorflow/core/lib/hash/crc32c.h`.
"""

from __future__ import annotations

import functools
import struct
from typing import Any

import google_crc32c


def compute(data: Any) -> int:
  """Returns the checksum of a record.

  Args:
    data: bytes or (n,) contiguous uint8; google_crc32c takes no memoryview.
  """
  return mask(google_crc32c.value(data))


@functools.lru_cache(1 << 16)
def compute_of_length(length: int) -> int:
  """Returns the checksum of the eight bytes that hold a record's length."""
  return compute(struct.pack("<Q", length))


def mask(crc: Any) -> Any:
  """Masks a CRC, as the format asks for; or (n,) uint64 of them."""
  return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
