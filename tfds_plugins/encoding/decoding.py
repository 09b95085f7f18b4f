"""Decodes an image, and says what both of TFDS's decoders make of it.

`tfds.features.Image()` has two decoders: TensorFlow's `tf.image.decode_image`
(`tfds.load`) and Pillow (`tfds.data_source`, NumPy). They agree on RGB and
grayscale PNG of 8 bits, on plain BMP, and but for rounding (some levels) on
grayscale and RGB JPEG. On others they differ in shape (CMYK, transparency), in
values (palettes, 16 bits), or TensorFlow fails (GIF, WebP, TIFF). What both
decode alike goes through untouched; the rest becomes an RGB PNG; what cannot be
decoded is rejected now, not when a training run meets it.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import struct
import warnings
import zlib

import numpy as np
from PIL import Image
from PIL import UnidentifiedImageError

from tfds_plugins.encoding import jpeg
from tfds_plugins.encoding import png

# Reasons for skipping a row.
EMPTY = "empty_image"
NOT_AN_IMAGE = "not_an_image"
TRUNCATED = "truncated_image"
UNDECODABLE = "undecodable_image"
BOMB = "decompression_bomb"

# What Pillow may open. Left out are formats that run other programs (EPS) or
# whose readers are rarely looked after.
_FORMATS = (
  "JPEG",
  "PNG",
  "GIF",
  "WEBP",
  "BMP",
  "TIFF",
  "AVIF",
  "JPEG2000",
  "ICO",
  "PPM",
)
# What Pillow's decoders raise on malformed input.
_DECODE_ERRORS = (
  OSError,
  ValueError,
  TypeError,
  SyntaxError,
  EOFError,
  IndexError,
  KeyError,
  OverflowError,
  MemoryError,
  AttributeError,
  AssertionError,
  RuntimeError,  # AVIF
  ZeroDivisionError,
  struct.error,
  zlib.error,
)
_MODES_WITH_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")
MAX_PNG_SIDE = 1_000_000  # libpng's own limit, which TensorFlow leaves as it is
# What decoding an image may take in memory. A damaged header can claim any size,
# and decoders believe it: Pillow's own limit, 179 million pixels, lets an
# animated WebP of some hundred bytes take 2.7 GB.
_MAX_DECODING_BYTES = 800_000_000
# Bytes a pixel, measured: of Pillow's own pixels; with the coefficients that a
# progressive JPEG keeps of all of them; of all copies that are made of an image
# that is converted (palette, transparency, canvases of an animation).
_PIXEL_BYTES = 4
_PROGRESSIVE_PIXEL_BYTES = 8
_CONVERTED_PIXEL_BYTES = 20
# offset of the pixels, size of the header, width, height, bits, compression
_BMP_HEADER = struct.Struct("<10xIIii2xHI")


@dataclasses.dataclass(frozen=True, slots=True)
class UniformImage:
  """An image that both decoders read alike.

  Attributes:
    data: JPEG, PNG or BMP bytes of 1 or 3 channels of 8 bits.
    height: pixels.
    width: pixels.
  """

  data: bytes | memoryview
  height: int
  width: int


@dataclasses.dataclass(frozen=True, slots=True)
class RejectedImage:
  """An image that cannot become part of a dataset.

  Attributes:
    reason: one of this module's reasons.
    detail: what the decoder said.
  """

  reason: str
  detail: str


def max_pixels() -> int:
  """The number of pixels above which Pillow refuses to decode."""
  limit = Image.MAX_IMAGE_PIXELS
  return 2 * limit if limit is not None else 1 << 62


def decode(data: bytes) -> UniformImage | RejectedImage:
  """Decodes an image for its pixels, and re-encodes it where needed."""
  if not data:
    return RejectedImage(EMPTY, "0 bytes")
  try:
    with warnings.catch_warnings():
      # Above half its limit Pillow warns; what counts here is the limit.
      warnings.simplefilter("ignore")
      with Image.open(io.BytesIO(data), formats=_list_formats()) as image:
        rejected = _find_excess(image, _get_pixel_bytes(image))
        if rejected is not None:
          return rejected
        image.load()
        if _is_read_alike(data, image):
          return UniformImage(data, image.height, image.width)
        rejected = _find_excess(image, _CONVERTED_PIXEL_BYTES)
        return _to_rgb_png(image) if rejected is None else rejected
  except Image.DecompressionBombError as e:
    return RejectedImage(BOMB, str(e))
  except UnidentifiedImageError:
    return RejectedImage(NOT_AN_IMAGE, f"the bytes start with {data[:16]!r}")
  except _DECODE_ERRORS as e:
    reason = TRUNCATED if "truncated" in str(e).lower() else UNDECODABLE
    return RejectedImage(reason, f"{type(e).__name__}: {e}")


def _find_excess(image: Image.Image, pixel_bytes: int) -> RejectedImage | None:
  """Rejects an image of which every pixel would take so much memory."""
  limit = _MAX_DECODING_BYTES // pixel_bytes
  if image.height * image.width <= limit:
    return None
  return RejectedImage(
    BOMB,
    f"{image.width:,} x {image.height:,} pixels; of a {image.format} of mode"
    f" {image.mode} like this one, {limit:,} fit into memory",
  )


def _get_pixel_bytes(image: Image.Image) -> int:
  """Returns what a pixel takes in memory until an image is uniform.

  Args:
    image: opened, and not loaded yet.
  """
  is_jpeg = image.format in ("JPEG", "MPO")
  if image.mode not in ("RGB", "L") or not (
    is_jpeg or image.format in ("PNG", "BMP")
  ):
    return _CONVERTED_PIXEL_BYTES
  if "transparency" in image.info or "interlace" in image.info:
    return _CONVERTED_PIXEL_BYTES
  is_progressive = is_jpeg and "progressive" in image.info
  return _PROGRESSIVE_PIXEL_BYTES if is_progressive else _PIXEL_BYTES


def _is_read_alike(data: bytes, image: Image.Image) -> bool:
  """Whether TensorFlow reads the bytes as Pillow does."""
  if image.mode not in ("RGB", "L"):
    return False
  if image.format in ("JPEG", "MPO"):
    return jpeg.is_plain(data)
  if image.format == "PNG":
    return _is_plain_png(data) and not getattr(image, "is_animated", False)
  if image.format == "BMP":
    return _is_plain_bmp(data)
  return False


def _is_plain_png(data: bytes) -> bool:
  """Whether a PNG has 8 bits, 1 or 3 channels, and nothing to be forgiven.

  Pillow forgives a missing end, missing rows and unknown chunks; TensorFlow
  does not. Format: https://www.w3.org/TR/png-3/.
  """
  width, height, depth, colour, *methods = png.HEADER.unpack_from(
    data, len(png.SIGNATURE) + 8
  )
  is_plain = depth == 8 and colour in (0, 2) and methods == [0, 0, 0]
  if not is_plain or max(width, height) > MAX_PNG_SIDE:
    return False
  # Each row is preceded by the number of its filter.
  num_bytes = height * (1 + width * (1 if colour == 0 else 3))
  inflater = zlib.decompressobj()
  offset = len(png.SIGNATURE)
  kinds = []
  while offset + 12 <= len(data):
    kind = data[offset + 4 : offset + 8]
    end = offset + 12 + int.from_bytes(data[offset : offset + 4], "big")
    content = data[offset + 8 : end - 4]
    crc = int.from_bytes(data[end - 4 : end], "big")
    if end > len(data) or crc != zlib.crc32(kind + content):
      return False
    if kind == b"IDAT":
      # (One byte more than there should be is enough to know.)
      num_bytes -= len(inflater.decompress(content, num_bytes + 1))
      if num_bytes < 0:
        return False
    if kind == b"IEND":
      return inflater.eof and num_bytes == 0 and kinds.count(b"IHDR") == 1
    # Lower-case chunks are ancillary.
    if kind[:1].isupper() and kind not in (b"IHDR", b"PLTE", b"IDAT"):
      return False
    kinds.append(kind)
    offset = end
  return False


def _is_plain_bmp(data: bytes) -> bool:
  """Whether a BMP is of the one kind that is beyond doubt.

  24 bits a pixel, not compressed, rows from the bottom up, a header of 40 bytes
  (https://learn.microsoft.com/windows/win32/api/wingdi/ns-wingdi-bitmapinfoheader),
  and not a byte more or less: TensorFlow insists on that.
  """
  if len(data) < _BMP_HEADER.size:
    return False
  start, header_bytes, width, height, bits, compression = (
    _BMP_HEADER.unpack_from(data)
  )
  row_bytes = -(-width * 3 // 4) * 4  # Rows are padded to 4 bytes.
  return (
    (start, header_bytes, bits, compression) == (54, 40, 24, 0)
    and width > 0
    and height > 0
    and len(data) == start + row_bytes * height
  )


def _to_rgb_png(image: Image.Image) -> UniformImage | RejectedImage:
  """Returns an RGB PNG of a loaded image, of its first frame if it has many.

  Transparent parts become white, as img2dataset makes them
  (rom1504/img2dataset, `img2dataset/resizer.py`) and a browser shows them.
  """
  if max(image.size) > MAX_PNG_SIDE:
    return RejectedImage(BOMB, f"a side of more than {MAX_PNG_SIDE:,} pixels")
  if image.mode.startswith("I;16") or image.mode == "I":
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 0xFFFF:
      return RejectedImage(UNDECODABLE, "integers beyond 16 bits a pixel")
    image = Image.fromarray((values.astype(np.uint16) >> 8).astype(np.uint8))
  elif image.mode == "F":
    return RejectedImage(UNDECODABLE, "floating-point pixels have no range")
  if image.mode in _MODES_WITH_ALPHA or "transparency" in image.info:
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    image = Image.alpha_composite(white, image)
  image = image.convert("RGB")
  out = io.BytesIO()
  image.save(out, "PNG")
  return UniformImage(out.getvalue(), image.height, image.width)


@functools.cache
def _list_formats() -> list[str]:
  """Returns those of our formats that this Pillow was built with."""
  Image.init()
  return [name for name in _FORMATS if name in Image.OPEN]
