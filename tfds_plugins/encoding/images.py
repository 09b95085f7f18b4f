"""Makes the images of a batch uniform, or skips their rows.

What uniform means, and what becomes of an image that is not, is in
`decoding.py`; how decoding most JPEGs is spared, in `jpeg.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import itertools

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfds_plugins.encoding import decoding
from tfds_plugins.encoding import jpeg
from tfds_plugins.encoding import png
from tfds_plugins.sources import arrays
from tfds_plugins.sources.rows import IMAGE_COLUMN
from tfds_plugins.sources.rows import KEY_COLUMN
from tfds_plugins.sources.rows import IncompleteRow
from tfds_plugins.sources.rows import SkippedRow

# The columns that `make_uniform` adds: the image's own size in pixels, int32.
IMAGE_HEIGHT_COLUMN = "image_height"
IMAGE_WIDTH_COLUMN = "image_width"

# An encoder with fixed tables has one signature; optimized tables differ in
# every image, and are not worth remembering.
_MAX_REMEMBERED = 1024
_MAX_KNOWN_LENGTHS = 4
# Colour profiles may have some kilobytes; more is not worth remembering.
_MAX_KIND_BYTES = 1 << 16


@dataclasses.dataclass(frozen=True, slots=True)
class _KnownHeader:
  """The start of a JPEG that was found good, byte for byte."""

  height: int
  width: int
  scan_start: int


class ImageNormalizer:
  """Makes images uniform, and remembers which encoders it has met."""

  def __init__(self, *, trusts_png_checksums: bool = False) -> None:
    """Initializes a normalizer.

    Args:
      trusts_png_checksums: whether a PNG is good if its checksums are, and if
        one of its kind was good, and bad if they are not: for the pictures of
        one producer. What Pillow can make of a damaged one is taken otherwise.
    """
    self._signatures: set[bytes] = set()
    # Images of one encoder and one size start with the same bytes.
    self._known_headers: dict[bytes, _KnownHeader] = {}
    self._known_lengths: list[int] = []
    self._scratch = jpeg.make_scratch()
    self._trusts_png_checksums = trusts_png_checksums
    self._png_kinds: set[bytes] = set()

  def find_markers(self, data: memoryview) -> list[int]:
    """Finds the markers of any number of images, as `jpeg.find_markers`."""
    return jpeg.find_markers(np.frombuffer(data, np.uint8), self._scratch)

  def normalize(
    self,
    data: bytes | memoryview,
    markers: Sequence[int] | None = None,
    start: int = 0,
  ) -> decoding.UniformImage | decoding.RejectedImage:
    """Returns an image as both decoders read it, or why there is none.

    Args:
      data: an encoded image in any format, maybe damaged, maybe none at all.
      markers: from `find_markers`, maybe of more than this image; None to look
        for them here.
      start: where this image starts in what `markers` counts.

    Returns:
      With `data` itself where that goes through untouched.
    """
    view = memoryview(data)
    if view[: len(png.SIGNATURE)] == png.SIGNATURE:
      return self._examine_png(data)
    if markers is None:
      markers = self.find_markers(view)
    known = self._find_known(view, markers, start)
    if known is not None:
      return decoding.UniformImage(data, known.height, known.width)
    content = bytes(data)
    return _give_back(self._examine(content, markers, start), content, data)

  def _find_known(
    self, data: memoryview, markers: Sequence[int], start: int
  ) -> _KnownHeader | None:
    """Returns the header of an image that is certain to be decodable."""
    for length in self._known_lengths:
      known = self._known_headers.get(bytes(data[:length]))
      if known is not None:
        is_complete = jpeg.is_scan_complete(
          markers, start + known.scan_start, start + len(data)
        )
        is_good = is_complete and data[-1] == jpeg.END_OF_IMAGE
        return known if is_good else None
    return None

  def _examine(
    self, data: bytes, markers: Sequence[int], start: int
  ) -> decoding.UniformImage | decoding.RejectedImage:
    """Decodes an image unless one of the same encoder was decoded before."""
    header = jpeg.parse_header(data)
    is_simple = (
      header is not None
      and header.num_components in (1, 3)
      and header.height * header.width <= decoding.max_pixels()
      and jpeg.is_scan_complete(
        markers, start + header.scan_start, start + len(data)
      )
      and data[-1] == jpeg.END_OF_IMAGE
    )
    if header is None or not is_simple:
      return decoding.decode(data)
    if header.signature in self._signatures:
      result = decoding.UniformImage(data, header.height, header.width)
    else:
      result = decoding.decode(data)
    if isinstance(result, decoding.UniformImage):
      self._remember(header, data[: header.scan_start])
    return result

  def _examine_png(
    self, data: bytes | memoryview
  ) -> decoding.UniformImage | decoding.RejectedImage:
    """Decodes a PNG unless its kind is known and trusted."""
    header = png.parse_whole(data) if self._trusts_png_checksums else None
    if isinstance(header, png.DamagedPng):
      reason = decoding.TRUNCATED if header.is_cut else decoding.UNDECODABLE
      return decoding.RejectedImage(reason, header.detail)
    if (
      header is not None
      and header.kind in self._png_kinds
      and 0 < header.height * header.width <= decoding.max_pixels()
      and max(header.height, header.width) <= decoding.MAX_PNG_SIDE
    ):
      return decoding.UniformImage(data, header.height, header.width)
    content = bytes(data)
    result = decoding.decode(content)
    if (
      header is not None
      and isinstance(result, decoding.UniformImage)
      and result.data is content
      and len(self._png_kinds) < _MAX_REMEMBERED
      and len(header.kind) <= _MAX_KIND_BYTES
    ):
      self._png_kinds.add(header.kind)
    return _give_back(result, content, data)

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


def _give_back(
  result: decoding.UniformImage | decoding.RejectedImage,
  content: bytes,
  data: bytes | memoryview,
) -> decoding.UniformImage | decoding.RejectedImage:
  """Returns a result with `data` itself where it has gone through untouched."""
  if isinstance(result, decoding.UniformImage) and result.data is content:
    return dataclasses.replace(result, data=data)
  return result


@dataclasses.dataclass(frozen=True, slots=True)
class _Normalized:
  """The images of a column.

  Attributes:
    values: those that are left, binary or large_binary.
    kept: their places in the column.
    heights: their heights in pixels.
    widths: their widths in pixels.
    rejected: why the others are not, by their places.
  """

  values: pa.Array
  kept: pa.Array
  heights: list[int]
  widths: list[int]
  rejected: dict[int, decoding.RejectedImage]


def _normalize_all(
  column: pa.Array, normalizer: ImageNormalizer
) -> _Normalized:
  """Makes images uniform.

  Args:
    column: binary, without nulls. Not copied if all go through.
    normalizer: used for one source shard after another.
  """
  heights: list[int] = []
  widths: list[int] = []
  values: list[bytes | memoryview] = []
  kept: list[int] = []
  rejected: dict[int, decoding.RejectedImage] = {}
  is_changed = False
  offsets, buffer = arrays.get_values(column)
  # (They are looked for in JPEGs; other images would seem to be full of them.)
  is_jpeg = any(
    buffer[start : start + 2] == jpeg.START_OF_IMAGE for start in offsets[:-1]
  )
  markers = normalizer.find_markers(buffer) if is_jpeg else []
  for i, (start, stop) in enumerate(itertools.pairwise(offsets)):
    view = buffer[start:stop]
    result = normalizer.normalize(view, markers, start)
    if isinstance(result, decoding.RejectedImage):
      rejected[i] = result
      continue
    is_changed |= result.data is not view
    values.append(result.data)
    kept.append(i)
    heights.append(result.height)
    widths.append(result.width)
  places = arrays.from_numpy(np.array(kept, np.int64))
  if is_changed:
    # PNGs can be much larger than what they replace: more than 2 GiB a batch
    # is unlikely, but would overflow the offsets of `binary`.
    column = arrays.make_binary(values, is_large=True)
  elif rejected:
    column = column.take(places)
  return _Normalized(column, places, heights, widths, rejected)


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
  found = _normalize_all(batch.column(IMAGE_COLUMN), normalizer)
  skipped = [
    SkippedRow(
      source_shard=source_shard,
      key=batch.column(KEY_COLUMN)[i].as_py(),
      reason=rejected.reason,
      detail=rejected.detail,
    )
    for i, rejected in found.rejected.items()
  ]
  index = batch.schema.get_field_index(IMAGE_COLUMN)
  others = batch.remove_column(index)
  if skipped:
    others = others.take(found.kept)
  return pa.RecordBatch.from_arrays(
    [
      *others.columns,
      found.values,
      pa.array(found.heights, pa.int32()),
      pa.array(found.widths, pa.int32()),
    ],
    names=[
      *others.schema.names,
      *(IMAGE_COLUMN, IMAGE_HEIGHT_COLUMN, IMAGE_WIDTH_COLUMN),
    ],
  ), skipped


def make_lists_uniform(
  batch: pa.RecordBatch,
  normalizer: ImageNormalizer,
  source_shard: str,
  column: str,
  others: Sequence[str],
) -> tuple[pa.RecordBatch, list[IncompleteRow]]:
  """Makes the images of lists uniform and drops the rejected from their lists.

  Args:
    batch: has the column `key` (string), the column of images (list of binary)
      and the others (lists); no nulls.
    normalizer: used for one source shard after another.
    source_shard: name of the shard, for what rows lack.
    column: the column of images.
    others: columns whose lists have a value for each image.

  Returns:
    The batch, and what its rows lack.
  """
  lists = batch.column(column)
  found = _normalize_all(lists.flatten(), normalizer)
  offsets = arrays.get_list_offsets(lists)
  flat = {name: batch.column(name).flatten() for name in others}
  lacking = [
    IncompleteRow(
      source_shard=source_shard,
      key=batch.column(KEY_COLUMN)[row].as_py(),
      reason=rejected.reason,
      detail=": ".join(
        [*(str(flat[name][i]) for name in others), rejected.detail]
      ),
    )
    for i, rejected in found.rejected.items()
    for row in [int(np.searchsorted(offsets, i, "right")) - 1]
  ]
  # Where the lists end once the rejected are gone.
  kept = arrays.to_numpy(found.kept)
  ends = arrays.from_numpy(np.searchsorted(kept, offsets).astype(np.int32))
  changed = {column: found.values}
  if lacking:
    changed |= {name: values.take(found.kept) for name, values in flat.items()}
  for name, values in changed.items():
    index = batch.schema.get_field_index(name)
    made = pa.ListArray.from_arrays(ends, values)
    batch = batch.set_column(index, name, made)
  return batch, lacking


def get_original_size(batch: pa.RecordBatch) -> tuple[pa.Array, pa.Array]:
  """Returns the size of the images before img2dataset resized them.

  Args:
    batch: from `make_uniform`, with `original_width` and `original_height`.

  Returns:
    Width and height in pixels, int32; where img2dataset does not know them (it
    was told not to look into images), those of the image that there is.
  """
  width = pc.coalesce(
    batch.column("original_width"), batch.column(IMAGE_WIDTH_COLUMN)
  )
  height = pc.coalesce(
    batch.column("original_height"), batch.column(IMAGE_HEIGHT_COLUMN)
  )
  return width, height
