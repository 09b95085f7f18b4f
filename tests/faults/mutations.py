"""Damages the bytes of a file: reproducibly, by a kind of damage and a number.

`make_mutations` plans them, `Mutation.apply` does one of them. What a failed
test prints (`flip 1234`, `swap 17`) is all that is needed to do it again.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import random
import re
import struct
import zlib

import google_crc32c

# Tars, disks and file systems know blocks of this size.
_BLOCK_BYTES = 512
# What a length, an offset or a count may be at worst.
_EXTREMES = [
  *(0, 1, -1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 13_000, 65_500),
  *(0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 40, 1 << 62, (1 << 63) - 1),
]
_EXTREME_TEXTS = [
  *(b"77777777777", b"00000000000", b"-1", b"1e999", b"99999999999999999999"),
  *(
    b"\x80\xff\xff\xff\xff\xff\xff\xff",
    b"null",
    b"NaN",
    b"[" * 3000,
    b"\0" * 9,
  ),
]


@dataclasses.dataclass(frozen=True)
class Mutation:
  """One damage.

  Attributes:
    kind: one of `KINDS`.
    number: for `truncate` the length that is left, for `flip` the number of the
      bit, for the others the seed.
  """

  kind: str
  number: int

  def __str__(self) -> str:
    return f"{self.kind} {self.number}"

  @property
  def is_forged(self) -> bool:
    """Whether checksums may hold all the same."""
    return self.kind in ("sealed", "resized", "several")

  def apply(self, data: bytes) -> bytes:
    """Returns the damaged bytes."""
    return KINDS[self.kind](data, self.number)


def make_mutations(
  data: bytes, *, truncations: int, flips: int, randoms: int, seed: int = 0
) -> list[Mutation]:
  """Plans the damages of a file.

  Args:
    data: what it holds.
    truncations: the most lengths to which it is cut: all there are, or else all
      near both ends and a sample of the others.
    flips: the most bits that are flipped, one at a time, likewise.
    randoms: the number of random damages.
    seed: chooses the samples and the random ones.
  """
  rng = random.Random(f"plan {seed} {len(data)}")
  planned = [
    Mutation("truncate", n) for n in _sample(len(data), truncations, rng)
  ]
  # (A byte at a time, and any bit of it.)
  planned += [
    Mutation("flip", 8 * n + rng.randrange(8))
    for n in _sample(len(data), flips, rng)
  ]
  kinds = [kind for kind in KINDS if kind not in ("truncate", "flip")]
  planned += [
    Mutation(kinds[i % len(kinds)], seed * 1_000_000 + i)
    for i in range(randoms)
  ]
  return planned


def _sample(size: int, count: int, rng: random.Random) -> list[int]:
  """Returns `count` of the numbers below `size`, with those at both ends."""
  if count >= size:
    return list(range(size))
  num_ends = count // 8
  inside = range(num_ends, size - num_ends)
  chosen = rng.sample(inside, count - 2 * num_ends)
  ends = [*range(num_ends), *range(size - num_ends, size)]
  return sorted([*ends, *chosen])


def _flip(data: bytes, number: int) -> bytes:
  changed = bytearray(data)
  changed[number // 8] ^= 1 << number % 8
  return bytes(changed)


def _choose_span(
  size: int, rng: random.Random, is_aligned: bool | None = None
) -> tuple[int, int]:
  """Returns where a block starts and stops, often at multiples of 512."""
  if is_aligned is None:
    is_aligned = rng.random() < 0.4
  if is_aligned and size > _BLOCK_BYTES:
    num_blocks = size // _BLOCK_BYTES
    start = rng.randrange(num_blocks)
    stop = start + min(num_blocks - start, rng.choice([1, 1, 2, 3, 8]))
    return start * _BLOCK_BYTES, stop * _BLOCK_BYTES
  length = rng.choice([1, 2, 4, 8, rng.randint(1, 64), rng.randint(1, 2000)])
  start = rng.randrange(max(1, size))
  return start, min(size, start + length)


def _insert(data: bytes, seed: int) -> bytes:
  rng = random.Random(f"insert {seed}")
  start, stop = _choose_span(len(data), rng)
  return data[:start] + rng.randbytes(stop - start) + data[start:]


def _delete(data: bytes, seed: int) -> bytes:
  start, stop = _choose_span(len(data), random.Random(f"delete {seed}"))
  return data[:start] + data[stop:]


def _duplicate(data: bytes, seed: int) -> bytes:
  start, stop = _choose_span(len(data), random.Random(f"duplicate {seed}"))
  return data[:stop] + data[start:stop] + data[stop:]


def _overwrite(data: bytes, seed: int) -> bytes:
  """Random bytes in place of a block."""
  rng = random.Random(f"overwrite {seed}")
  start, stop = _choose_span(len(data), rng)
  return data[:start] + rng.randbytes(stop - start) + data[stop:]


def _zero(data: bytes, seed: int) -> bytes:
  start, stop = _choose_span(len(data), random.Random(f"zero {seed}"))
  return data[:start] + bytes(stop - start) + data[stop:]


def _splice(data: bytes, seed: int) -> bytes:
  """Another part of the same file in place of a block, of another length."""
  rng = random.Random(f"splice {seed}")
  start, stop = _choose_span(len(data), rng)
  first, last = _choose_span(len(data), rng)
  return data[:start] + data[first:last] + data[stop:]


def _swap(data: bytes, seed: int) -> bytes:
  rng = random.Random(f"swap {seed}")
  is_aligned = rng.random() < 0.5
  spans = sorted(_choose_span(len(data), rng, is_aligned) for _ in range(2))
  (start, stop), (first, last) = spans
  stop = min(stop, first)
  middle = data[stop:first]
  return (
    data[:start] + data[first:last] + middle + data[start:stop] + data[last:]
  )


def _extreme(data: bytes, seed: int) -> bytes:
  """An extreme number, in binary or in digits, anywhere."""
  rng = random.Random(f"extreme {seed}")
  start = rng.randrange(max(1, len(data)))
  if rng.random() < 0.3:
    value = rng.choice(_EXTREME_TEXTS)
  else:
    size = rng.choice([2, 4, 8])
    number = rng.choice(_EXTREMES) & ((1 << 8 * size) - 1)
    value = number.to_bytes(size, rng.choice(["little", "big"]))
  return data[:start] + value + data[start + len(value) :]


def _several(data: bytes, seed: int) -> bytes:
  rng = random.Random(f"several {seed}")
  for _ in range(rng.randint(2, 5)):
    kind = rng.choice(list(_RANDOM_KINDS))
    data = _RANDOM_KINDS[kind](data, rng.getrandbits(32)) or b"\0"
  return data


def _sealed(data: bytes, seed: int) -> bytes:
  """A change in what a checksum covers, and the checksum of what is there now.

  Of the headers of tars, records of TFRecord files and chunks of PNGs; of
  others, a change alone.
  """
  rng = random.Random(f"sealed {seed}")
  spans = [span for find in _SEALS for span in find(data)]
  if not spans:
    return _extreme(data, rng.getrandbits(32))
  start, stop, seal = rng.choice(spans)
  part = data[start:stop]
  change = rng.choice([_extreme, _zero, _overwrite, _flip_any])
  changed = change(part, rng.getrandbits(32))[: len(part)]
  return data[:start] + seal(changed) + data[stop:]


# Headers are shorter.
_MIN_IMAGE_BYTES = 40
# Sizes that headers claim: about the most that Pillow takes, the most that fits
# into 16 bits one way or the other, and a little wrong.
_CLAIMED = [
  *((13_000, 13_000), (65_500, 2_700), (16_383, 10_000), (6_300, 6_300)),
  *((0, 0), (1, 1), (65_535, 65_535), (13, 10), (26, 18), (12, 300), (700, 9)),
]


def _resized(data: bytes, seed: int) -> bytes:
  """An image that claims another size than it has; of other files, any change."""
  rng = random.Random(f"resized {seed}")
  claimed = claim_size(data, *rng.choice(_CLAIMED))
  return _extreme(data, seed) if claimed == data else claimed


def claim_size(data: bytes, width: int, height: int) -> bytes:
  """Returns a file in which the first image claims to have another size.

  Args:
    data: an encoded JPEG, PNG, GIF, WebP (below 2^14 pixels a side) or BMP, or
      a file that has a JPEG in it.
    width: pixels.
    height: pixels.
  """
  changed = bytearray(data)
  if len(data) < _MIN_IMAGE_BYTES:
    return data
  frame = re.search(
    rb"\xff\xd8\xff[\xe0-\xef].*?\xff[\xc0-\xc2]\0[\x0b\x11]\x08", data, re.S
  )
  if data.startswith(b"\x89PNG"):
    struct.pack_into(">II", changed, 16, width, height)
    changed[12:33] = _seal_with_crc32(bytes(changed[12:33]))
  elif data.startswith(b"GIF8"):
    struct.pack_into("<HH", changed, 6, width, height)
  elif data.startswith(b"BM"):
    struct.pack_into("<II", changed, 18, width, height)
  elif data[8:16] == b"WEBPVP8X":
    sides = max(0, width - 1) | max(0, height - 1) << 24
    changed[24:30] = sides.to_bytes(6, "little")
  elif data[8:16] == b"WEBPVP8L":
    sides = (max(0, width - 1) & 0x3FFF) | (max(0, height - 1) & 0x3FFF) << 14
    changed[21:25] = (sides | changed[24] >> 4 << 28).to_bytes(4, "little")
  elif data[8:16] == b"WEBPVP8 ":
    struct.pack_into("<HH", changed, 26, width & 0x3FFF, height & 0x3FFF)
  elif frame is not None:
    changed[frame.end() : frame.end() + 4] = struct.pack(">HH", height, width)
  return bytes(changed)


def _flip_any(data: bytes, seed: int) -> bytes:
  return _flip(data, seed % (8 * len(data))) if data else data


Seal = Callable[[bytes], bytes]
Spans = list[tuple[int, int, Seal]]


def _find_tar_headers(data: bytes) -> Spans:
  return [
    (match.start() - 257, match.start() + 255, seal_tar_header)
    for match in re.finditer(rb"ustar", data)
    if match.start() % _BLOCK_BYTES == 257
  ]


def seal_tar_header(block: bytes) -> bytes:
  """Returns a tar header with the checksum of what it holds."""
  total = sum(block[:148]) + 8 * 32 + sum(block[156:])
  return block[:148] + b"%06o\0 " % total + block[156:]


def _find_records(data: bytes) -> Spans:
  """Returns the lengths and the contents of TFRecord files."""
  spans: Spans = []
  offset = 0
  while offset + 16 <= len(data):
    length, checksum = struct.unpack_from("<QI", data, offset)
    if _mask(data[offset : offset + 8]) != checksum:
      return spans
    spans.append((offset, offset + 12, _seal_with_crc32c))
    spans.append((offset + 12, offset + 16 + length, _seal_with_crc32c))
    offset += 16 + length
  return spans


def _seal_with_crc32c(part: bytes) -> bytes:
  return part[:-4] + struct.pack("<I", _mask(part[:-4]))


def _mask(data: bytes) -> int:
  crc = google_crc32c.value(data)
  return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _find_chunks(data: bytes) -> Spans:
  """Returns kinds, contents and checksums of the chunks of a PNG."""
  spans: Spans = []
  if not data.startswith(b"\x89PNG\r\n\x1a\n"):
    return spans
  offset = 8
  while offset + 12 <= len(data):
    end = offset + 12 + int.from_bytes(data[offset : offset + 4], "big")
    spans.append((offset + 4, end, _seal_with_crc32))
    offset = end
  return spans


def _seal_with_crc32(part: bytes) -> bytes:
  return part[:-4] + struct.pack(">I", zlib.crc32(part[:-4]))


_SEALS = [_find_tar_headers, _find_records, _find_chunks]
_RANDOM_KINDS: Mapping[str, Callable[[bytes, int], bytes]] = {
  "insert": _insert,
  "delete": _delete,
  "duplicate": _duplicate,
  "overwrite": _overwrite,
  "zero": _zero,
  "splice": _splice,
  "swap": _swap,
  "extreme": _extreme,
  "sealed": _sealed,
  "resized": _resized,
}
KINDS: Mapping[str, Callable[[bytes, int], bytes]] = {
  "truncate": lambda data, number: data[:number],
  "flip": _flip,
  **_RANDOM_KINDS,
  "several": _several,
}
