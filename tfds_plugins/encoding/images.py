"""Makes encoded images uniform: every one decodes alike, or is skipped.

`tfds.features.Image()` has two decoders: TensorFlow's `tf.image.decode_image`
(`tfds.load`) and Pillow (`tfds.data_source`, NumPy). They agree on RGB and
grayscale PNG of 8 bits, on plain BMP, and but for rounding (some levels) on
grayscale and RGB JPEG. On others they differ in shape (CMYK, transparency), in
values (palettes, 16 bits), or TensorFlow fails (GIF, WebP, TIFF). What both
decode alike goes through untouched; the rest becomes an RGB PNG; what cannot be
decoded is rejected now, not when a training run meets it.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import functools
import io
import itertools
import struct
import warnings
import zlib

import numpy as np
from PIL import Image
from PIL import UnidentifiedImageError
import pyarrow as pa

from tfds_plugins.encoding import jpeg
from tfds_plugins.sources import arrow_bytes
from tfds_plugins.sources.rows import IMAGE_COLUMN
from tfds_plugins.sources.rows import KEY_COLUMN
from tfds_plugins.sources.rows import SkippedRow

# The columns that `make_uniform` adds: the image's own size in pixels, int32.
IMAGE_HEIGHT_COLUMN = "image_height"
IMAGE_WIDTH_COLUMN = "image_width"

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
_MAX_PNG_SIDE = (
  1_000_000  # libpng's own limit, which TensorFlow leaves as it is
)
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# width, height, bit depth, colour type, methods: compression, filter, interlace
_PNG_HEADER = struct.Struct(">IIBBBBB")
# offset of the pixels, size of the header, width, height, bits, compression
_BMP_HEADER = struct.Struct("<10xIIii2xHI")
# An encoder with fixed tables has one signature; optimized tables differ in
# every image, and are not worth remembering.
_MAX_REMEMBERED = 1024
_MAX_KNOWN_LENGTHS = 4


@dataclasses.dataclass(frozen=True, slots=True)
class UniformImage:
  """An image that both decoders read alike.

  Attributes:
    data: JPEG, PNG or BMP bytes of 1 or 3 channels of 8 bits.
    height: pixels.
    width: pixels.
  """

  data: bytes
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


@dataclasses.dataclass(frozen=True, slots=True)
class _KnownHeader:
  """The start of a JPEG that was found good, byte for byte."""

  height: int
  width: int
  scan_start: int


class ImageNormalizer:
  """Makes images uniform, and remembers which JPEG encoders it has met."""

  def __init__(self) -> None:
    self._signatures: set[bytes] = set()
    # Images of one encoder and one size start with the same bytes.
    self._known_headers: dict[bytes, _KnownHeader] = {}
    self._known_lengths: list[int] = []

  def normalize(self, data: bytes) -> UniformImage | RejectedImage:
    """Returns an image as both decoders read it, or why there is none.

    Args:
      data: an encoded image in any format, maybe damaged, maybe none at all.
    """
    markers = jpeg.find_markers(np.frombuffer(data, np.uint8))
    known = self.find_known(memoryview(data), markers, 0)
    if known is not None:
      return UniformImage(data, known.height, known.width)
    return self.examine(data, markers, 0)

  def find_known(
    self, data: memoryview, markers: Sequence[int], start: int
  ) -> _KnownHeader | None:
    """Returns the header of an image that is certain to be decodable.

    Args:
      data: the encoded image.
      markers: from `jpeg.find_markers`, maybe of more than this image.
      start: where this image starts in what `markers` counts.
    """
    for length in self._known_lengths:
      known = self._known_headers.get(bytes(data[:length]))
      if known is not None:
        is_complete = jpeg.is_scan_complete(
          markers, start + known.scan_start, start + len(data)
        )
        is_good = is_complete and data[-1] == jpeg.END_OF_IMAGE
        return known if is_good else None
    return None

  def examine(
    self, data: bytes, markers: Sequence[int], start: int
  ) -> UniformImage | RejectedImage:
    """Decodes an image unless one of the same encoder was decoded before.

    Args:
      data: the encoded image.
      markers: as for `find_known`.
      start: as for `find_known`.
    """
    header = jpeg.parse_header(data)
    is_simple = (
      header is not None
      and header.num_components in (1, 3)
      and header.height * header.width <= _max_pixels()
      and jpeg.is_scan_complete(
        markers, start + header.scan_start, start + len(data)
      )
      and data[-1] == jpeg.END_OF_IMAGE
    )
    if header is None or not is_simple:
      return _decode(data)
    if header.signature in self._signatures:
      result = UniformImage(data, header.height, header.width)
    else:
      result = _decode(data)
    if isinstance(result, UniformImage):
      self._remember(header, data[: header.scan_start])
    return result

  def _remember(self, header: jpeg.JpegHeader, start: bytes) -> None:
    if len(self._signatures) < _MAX_REMEMBERED:
      self._signatures.add(header.signature)
    if len(self._known_headers) >= _MAX_REMEMBERED:
      return
    is_new_length = len(start) not in self._known_lengths
    if is_new_length and len(self._known_lengths) >= _MAX_KNOWN_LENGTHS:
      return
    if is_new_length:
      self._known_lengths.append(len(start))
    self._known_headers[start] = _KnownHeader(
      header.height, header.width, header.scan_start
    )


def make_uniform(
  batch: pa.RecordBatch, normalizer: ImageNormalizer, source_shard: str
) -> tuple[pa.RecordBatch, list[SkippedRow]]:
  """Makes the images of a batch uniform and drops the rows of the rejected.

  Args:
    batch: has the columns `key` (string) and `image` (binary, no nulls).
    normalizer: used for one source shard after another.
    source_shard: name of the shard, for the skipped rows.

  Returns:
    The batch of the rows that are left, with `image_height` and `image_width`
    (int32, pixels) added; and the skipped rows.
  """
  heights: list[int] = []
  widths: list[int] = []
  kept: list[int] = []
  replaced: dict[int, bytes] = {}
  skipped: list[SkippedRow] = []
  offsets, buffer = arrow_bytes.get_values(batch.column(IMAGE_COLUMN))
  markers = jpeg.find_markers(np.frombuffer(buffer, np.uint8))
  for i, (start, stop) in enumerate(itertools.pairwise(offsets)):
    view = buffer[start:stop]
    result = normalizer.find_known(view, markers, start)
    if result is None:
      data = bytes(view)
      result = normalizer.examine(data, markers, start)
      if isinstance(result, RejectedImage):
        skipped.append(
          SkippedRow(
            source_shard=source_shard,
            key=batch.column(KEY_COLUMN)[i].as_py(),
            reason=result.reason,
            detail=result.detail,
          )
        )
        continue
      if result.data is not data:
        replaced[i] = result.data
    kept.append(i)
    heights.append(result.height)
    widths.append(result.width)
  if replaced:
    # PNGs can be much larger than what they replace: more than 2 GiB a batch
    # is unlikely, but would overflow the offsets of `binary`.
    values = [
      replaced.get(i, buffer[start:stop])
      for i, (start, stop) in enumerate(itertools.pairwise(offsets))
    ]
    index = batch.schema.get_field_index(IMAGE_COLUMN)
    column = arrow_bytes.make_array(values, is_large=True)
    batch = batch.set_column(index, IMAGE_COLUMN, column)
  if skipped:
    batch = batch.take(pa.array(kept, pa.int64()))
  batch = batch.append_column(
    IMAGE_HEIGHT_COLUMN, pa.array(heights, pa.int32())
  )
  batch = batch.append_column(IMAGE_WIDTH_COLUMN, pa.array(widths, pa.int32()))
  return batch, skipped


@functools.cache
def _list_formats() -> list[str]:
  """Returns those of our formats that this Pillow was built with."""
  Image.init()
  return [name for name in _FORMATS if name in Image.OPEN]


def _max_pixels() -> int:
  """The number of pixels above which Pillow refuses to decode."""
  limit = Image.MAX_IMAGE_PIXELS
  return 2 * limit if limit is not None else 1 << 62


def _decode(data: bytes) -> UniformImage | RejectedImage:
  """Decodes an image for its pixels, and re-encodes it where needed."""
  if not data:
    return RejectedImage(EMPTY, "0 bytes")
  try:
    with warnings.catch_warnings():
      # Above half its limit Pillow warns; what counts here is the limit.
      warnings.simplefilter("ignore")
      with Image.open(io.BytesIO(data), formats=_list_formats()) as image:
        image.load()
        if _is_read_alike(data, image):
          return UniformImage(data, image.height, image.width)
        return _to_rgb_png(image)
  except Image.DecompressionBombError as e:
    return RejectedImage(BOMB, str(e))
  except UnidentifiedImageError:
    return RejectedImage(NOT_AN_IMAGE, f"the bytes start with {data[:16]!r}")
  except _DECODE_ERRORS as e:
    reason = TRUNCATED if "truncated" in str(e).lower() else UNDECODABLE
    return RejectedImage(reason, f"{type(e).__name__}: {e}")


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
  width, height, depth, colour, *methods = _PNG_HEADER.unpack_from(
    data, len(_PNG_SIGNATURE) + 8
  )
  is_plain = depth == 8 and colour in (0, 2) and methods == [0, 0, 0]
  if not is_plain or max(width, height) > _MAX_PNG_SIDE:
    return False
  # Each row is preceded by the number of its filter.
  num_bytes = height * (1 + width * (1 if colour == 0 else 3))
  inflater = zlib.decompressobj()
  offset = len(_PNG_SIGNATURE)
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
  if max(image.size) > _MAX_PNG_SIDE:
    return RejectedImage(BOMB, f"a side of more than {_MAX_PNG_SIDE:,} pixels")
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
