"""The checksums of TFRecord files: masked CRC-32C.

Source: tensorflow/tensorflow, `tensorflow/core/lib/io/record_writer.h` and
`tensorflow/core/lib/hash/crc32c.h`.
"""

from __future__ import annotations

import functools
import struct
from typing import Any

import google_crc32c
import numpy as np


def compute(data: Any) -> int:
  """Returns the checksum of a record.

  Args:
    data: bytes or (n,) contiguous uint8; google_crc32c takes no memoryview.
  """
  return mask(google_crc32c.value(data))


def compute_of_lengths(lengths: np.ndarray) -> np.ndarray:
  """Returns the checksums of the eight bytes that hold each record's length.

  Args:
    lengths: (n,) integers.

  Returns:
    (n,) uint64.
  """
  rest = lengths.astype(np.uint64)
  table = _get_length_table()
  checksums = np.full(len(rest), google_crc32c.value(bytes(8)), np.uint64)
  for changes in table:
    checksums ^= changes[rest & 0xFF]
    rest >>= np.uint64(8)
    if not rest.any():
      break
  return mask(checksums)


@functools.cache
def _get_length_table() -> np.ndarray:
  """Returns what each value of each of eight bytes changes in their CRC.

  A CRC of so many bytes is an affine function of their bits: what the bytes
  change is the exclusive or of what each of them does.
  """
  zeros = google_crc32c.value(bytes(8))
  table = [
    [
      zeros ^ google_crc32c.value(struct.pack("<Q", byte << 8 * i))
      for byte in range(256)
    ]
    for i in range(8)
  ]
  return np.array(table, np.uint64)


def mask(crc: Any) -> Any:
  """Masks a CRC, as the format asks for; or (n,) uint64 of them."""
  return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
