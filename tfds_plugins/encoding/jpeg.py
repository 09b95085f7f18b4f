"""Tells in some 10 us that a JPEG can be decoded, when that can be known.

Decoding a 256 x 256 JPEG to see whether it can be decoded takes 500 us: ten
times everything else in a conversion. It is needed only once for each way of
writing JPEGs: what may make a decoder give up lies in the segments before the
entropy-coded data (tables, sampling, colour transform), and an encoder such as
img2dataset's writes the same ones into every image. Once an image with some
segments has been decoded, another one with the same segments, whatever its size
and comments, can be decoded as well, if its entropy-coded data holds no marker but restarts and
runs up to the end-of-image marker that ends the file. (A decoder answers wrong
bits inside the entropy-coded data with wrong pixels, never with an error.)

Format: ITU-T T.81 (https://www.w3.org/Graphics/JPEG/itu-t81.pdf), annex B.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
import dataclasses

import numpy as np

START_OF_IMAGE = b"\xff\xd8"
_BASELINE_FRAMES = (0xC0, 0xC1)  # SOF0, SOF1: sequential, Huffman-coded
_PLAIN_FRAMES = (0xC0, 0xC1, 0xC2)  # and SOF2: progressive
_START_OF_SCAN = 0xDA
_COMMENT = 0xFE
# DHT, DQT, DRI, APP0 to APP15, COM
_TABLES_AND_COMMENTS = (0xC4, 0xDB, 0xDD, *range(0xE0, 0xF0), _COMMENT)
_MAX_SIDE = 65500  # libjpeg's JPEG_MAX_DIMENSION
_RESTART_MARKERS = 0xD0  # RST0 to RST7, by their upper five bits
END_OF_IMAGE = 0xD9
# So much is scanned at a time that all intermediate results stay in the cache.
_SCANNED_BYTES = 1 << 20
_EIGHT = np.arange(8)


@dataclasses.dataclass(frozen=True, slots=True)
class JpegHeader:
  """What the segments before the first scan say.

  Attributes:
    height: pixels.
    width: pixels.
    num_components: 1 (grayscale), 3 (RGB or YCbCr) or 4 (CMYK or YCCK).
    signature: the segments that a decoder needs, without height and width.
    scan_start: the byte at which the entropy-coded data begins.
  """

  height: int
  width: int
  num_components: int
  signature: bytes
  scan_start: int


def parse_header(data: bytes) -> JpegHeader | None:
  """Reads a baseline JPEG's segments up to its scan.

  Args:
    data: an encoded image.

  Returns:
    The header; None if this is no JPEG, or one whose fate cannot be told from
    its header: progressive, lossless, arithmetic-coded, or malformed.
  """
  if data[:2] != START_OF_IMAGE:
    return None
  parts = []
  height = width = num_components = 0
  offset = 2
  size = len(data)
  while True:
    if offset + 4 > size or data[offset] != 0xFF:
      return None
    marker = data[offset + 1]
    length = (data[offset + 2] << 8) | data[offset + 3]
    end = offset + 2 + length
    if length < 2 or end > size or not 0xC0 <= marker <= _COMMENT:
      return None
    if 0xD0 <= marker <= END_OF_IMAGE:
      return None
    if marker in _BASELINE_FRAMES:
      if length < 8 or num_components:
        return None
      height = (data[offset + 5] << 8) | data[offset + 6]
      width = (data[offset + 7] << 8) | data[offset + 8]
      num_components = data[offset + 9]
      parts.append(data[offset : offset + 5] + data[offset + 9 : end])
    elif 0xC0 <= marker <= 0xCF and marker != 0xC4:
      return None
    elif marker != _COMMENT:  # The one segment that no decoder looks into.
      parts.append(data[offset:end])
    offset = end
    if marker == _START_OF_SCAN:
      break
  if not (0 < height <= _MAX_SIDE and 0 < width <= _MAX_SIDE):
    return None
  return JpegHeader(
    height=height,
    width=width,
    num_components=num_components,
    signature=b"".join(parts),
    scan_start=offset,
  )


def find_markers(
  data: np.ndarray, scratch: np.ndarray | None = None
) -> list[int]:
  """Finds where a decoder of entropy-coded data would see a marker.

  Args:
    data: (num_bytes,) uint8, any number of images one after the other.
    scratch: from `make_scratch`, for who comes often: fresh memory costs four
      times as much as the search.

  Returns:
    The ascending positions of every 0xFF that is followed by anything but a
    stuffed zero or a restart marker.
  """
  markers: list[int] = []
  size = len(data) - 1
  if scratch is None:
    scratch = make_scratch(size)
  for start in range(0, size, len(scratch)):
    first = data[start : min(start + len(scratch), size)]
    second = data[start + 1 : start + 1 + len(first)]
    is_candidate = scratch[: len(first)]
    np.equal(first, 0xFF, out=is_candidate)
    ones = is_candidate.view(np.uint8)
    np.minimum(ones, second, out=ones)  # 0 where a zero follows.
    # Candidates are rare: eight bytes without any are passed over at once.
    num_whole = len(ones) & ~7
    words = ones[:num_whole].view(np.uint64)
    found = (np.flatnonzero(words != 0)[:, None] * 8 + _EIGHT).ravel()
    found = np.append(found, np.arange(num_whole, len(ones)))
    found = found[is_candidate[found]]
    # (Restarts are rarer still.)
    found = found[(second[found] & 0xF8) != _RESTART_MARKERS]
    markers += (found + start).tolist()
  return markers


def make_scratch(size: int = _SCANNED_BYTES) -> np.ndarray:
  """Returns memory for `find_markers` to work in."""
  return np.empty(max(1, min(size, _SCANNED_BYTES)), np.bool_)


def is_scan_complete(
  markers: Sequence[int], scan_start: int, stop: int
) -> bool:
  """Whether entropy-coded data runs up to a marker that ends the image.

  Args:
    markers: from `find_markers`.
    scan_start: the position of the first byte of the entropy-coded data.
    stop: the position behind the last byte of the image.

  Returns:
    Whether the only marker in between is in the last two bytes.
  """
  i = bisect.bisect_left(markers, scan_start)
  return i < len(markers) and markers[i] == stop - 2


def is_plain(data: bytes) -> bool:
  """Whether every decoder reads a JPEG that one decoder has read.

  Decoders differ in what they forgive: Pillow passes over stray markers where
  TensorFlow gives up. Plain is a sequence of whole segments and scans up to an
  end-of-image marker, baseline, extended or progressive, Huffman-coded.

  Args:
    data: a JPEG; what follows its end-of-image marker does not matter.
  """
  markers = find_markers(np.frombuffer(data, np.uint8))
  offset = 2
  has_frame = has_scan = False
  while offset + 2 <= len(data) and data[offset] == 0xFF:
    marker = data[offset + 1]
    if marker == 0xFF:  # Fill bytes may stand before any marker.
      offset += 1
      continue
    if marker == END_OF_IMAGE:
      return has_scan
    is_frame = marker in _PLAIN_FRAMES and not has_frame
    is_scan = marker == _START_OF_SCAN and has_frame
    if not (is_frame or is_scan or marker in _TABLES_AND_COMMENTS):
      return False
    has_frame |= is_frame
    has_scan |= is_scan
    offset += 2 + int.from_bytes(data[offset + 2 : offset + 4], "big")
    if is_scan:
      i = bisect.bisect_left(markers, offset)
      if i == len(markers):
        return False
      offset = markers[i]
  return False
