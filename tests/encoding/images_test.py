"""Tests of the images: both of TFDS's decoders must agree on what goes through."""

import os
import struct
import zlib

from decoders import decode_with_pillow
from decoders import decode_with_tensorflow
from faults import mutations
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
from PIL import Image
import pyarrow as pa
import pytest
import shards

from tfds_plugins.encoding import decoding
from tfds_plugins.encoding import images
from tfds_plugins.encoding import jpeg

encode = shards.encode
NOISE = shards.noise(0)


def assert_uniform(result, tolerance=4):
  """Checks that both decoders read a result alike, and returns its pixels."""
  assert isinstance(result, decoding.UniformImage), result
  first = decode_with_tensorflow(result.data)
  second = decode_with_pillow(result.data)
  assert first.shape == second.shape == (result.height, result.width, 3)
  assert first.dtype == second.dtype == np.uint8
  # JPEG decoders may round differently.
  assert np.abs(first.astype(int) - second.astype(int)).max() <= tolerance
  return second


def normalize(data):
  return images.ImageNormalizer().normalize(data)


def sixteen_bit_png() -> bytes:
  values = np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50
  return encode(Image.fromarray(values), "PNG")


def with_chunk(png: bytes, kind: bytes, content: bytes) -> bytes:
  """Inserts a chunk behind IHDR."""
  crc = struct.pack(">I", zlib.crc32(kind + content))
  chunk = struct.pack(">I", len(content)) + kind + content + crc
  return png[:33] + chunk + png[33:]


def make_png(header: bytes, rows: bytes) -> bytes:
  """Returns a PNG of these contents of IHDR and IDAT."""
  png = b"\x89PNG\r\n\x1a\n"
  for kind, content in (
    (b"IHDR", header),
    (b"IDAT", zlib.compress(rows)),
    (b"IEND", b""),
  ):
    crc = struct.pack(">I", zlib.crc32(kind + content))
    png += struct.pack(">I", len(content)) + kind + content + crc
  return png


INTERLACED = make_png(
  struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 1), b"\0\x09\x08\x07"
)

UNTOUCHED = {
  "jpeg": encode(NOISE),
  "jpeg 4:4:4": encode(NOISE, subsampling=0),
  "jpeg quality 10": encode(NOISE, quality=10),
  "jpeg optimized": encode(NOISE, optimize=True),
  "jpeg progressive": encode(NOISE, progressive=True),
  "jpeg grayscale": encode(NOISE.convert("L")),
  "jpeg stored as RGB": encode(NOISE, keep_rgb=True),
  "jpeg with restarts": encode(NOISE, restart_marker_blocks=2),
  "jpeg with exif": encode(
    NOISE, exif=b"Exif\0\0" + b"MM\0*\0\0\0\x08\0\0\0\0\0\0"
  ),
  "jpeg with junk behind": encode(NOISE) + b"junk",
  "png": encode(NOISE, "PNG"),
  "png grayscale": encode(NOISE.convert("L"), "PNG"),
  "png with transparent colour": encode(NOISE, "PNG", transparency=(1, 2, 3)),
  "png with gamma": with_chunk(encode(NOISE, "PNG"), b"gAMA", b"\0\1\0\0"),
  "bmp": encode(NOISE, "BMP"),
}

# Decoded elsewhere: by Pillow, in one step, to what a person would see.
CONVERTED = {
  "cmyk jpeg": (encode(NOISE.convert("CMYK")), None),
  "gif": (encode(NOISE.quantize(8), "GIF"), NOISE.quantize(8).convert("RGB")),
  "webp": (encode(NOISE, "WEBP", lossless=True), NOISE),
  "tiff": (encode(NOISE, "TIFF"), NOISE),
  "avif": (encode(NOISE, "AVIF"), None),
  "jpeg 2000": (encode(NOISE, "JPEG2000"), NOISE),
  "ppm": (encode(NOISE, "PPM"), NOISE),
  "interlaced png": (INTERLACED, Image.new("RGB", (1, 1), (9, 8, 7))),
  "png with an unknown critical chunk": (
    with_chunk(encode(NOISE, "PNG"), b"ABCD", b""),
    NOISE,
  ),
  "bmp with junk behind": (encode(NOISE, "BMP") + b"x", NOISE),
  "palette png": (
    encode(NOISE.quantize(8), "PNG"),
    NOISE.quantize(8).convert("RGB"),
  ),
  "1-bit png": (
    encode(NOISE.convert("1"), "PNG"),
    NOISE.convert("1").convert("RGB"),
  ),
  "1-bit bmp": (
    encode(NOISE.convert("1"), "BMP"),
    NOISE.convert("1").convert("RGB"),
  ),
  "png that ends early": (encode(NOISE, "PNG")[:-12], NOISE),
  "animated png": (
    encode(NOISE, "PNG", save_all=True, append_images=[shards.noise(1)]),
    NOISE,
  ),
}


@pytest.mark.parametrize("name", UNTOUCHED)
def test_what_both_decoders_read_alike_goes_through_untouched(name):
  result = normalize(UNTOUCHED[name])

  assert_uniform(result)
  assert result.data == UNTOUCHED[name]
  assert (result.height, result.width) == (30, 40)


@pytest.mark.parametrize("name", CONVERTED)
def test_the_rest_becomes_rgb_png(name):
  data, expected = CONVERTED[name]

  pixels = assert_uniform(normalize(data), tolerance=0)

  if expected is not None:
    assert np.array_equal(pixels, np.asarray(expected))


def test_cmyk_keeps_its_colours():
  image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))  # red

  pixels = assert_uniform(normalize(encode(image, quality=100)), tolerance=0)

  assert np.abs(pixels.astype(int) - [255, 0, 0]).max() <= 3


def test_sixteen_bits_become_the_upper_eight():
  pixels = assert_uniform(normalize(sixteen_bit_png()), tolerance=0)

  expected = (np.arange(1200).reshape(30, 40) * 50) // 256
  assert np.array_equal(pixels[..., 0], expected)
  assert np.array_equal(pixels[..., 2], expected)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_become_white(mode):
  image = Image.new("RGBA", (2, 1))
  image.putpixel((0, 0), (200, 200, 200, 255))
  image.putpixel((1, 0), (0, 0, 0, 0))
  if mode == "P":
    data = encode(image.quantize(4), "PNG")
  else:
    data = encode(image.convert(mode), "PNG")

  pixels = assert_uniform(normalize(data), tolerance=0)

  assert pixels.tolist() == [[[200] * 3, [255] * 3]]


def test_half_transparent_colours_are_blended():
  image = Image.new("RGBA", (1, 1), (255, 0, 0, 128))

  pixels = assert_uniform(normalize(encode(image, "PNG")), tolerance=0)

  assert pixels.tolist() == [[[255, 127, 127]]]


GOOD = encode(NOISE)
REJECTED = {
  "nothing": (b"", "empty_image"),
  "html": (b"<html>404</html>", "not_an_image"),
  "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not_an_image"),
  "postscript": (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "not_an_image",
  ),
  "half a jpeg": (GOOD[: len(GOOD) // 2], "truncated_image"),
  "jpeg without its end": (GOOD[:-2], "truncated_image"),
  "jpeg header alone": (GOOD[:300], "truncated_image"),
  "half a png": (encode(NOISE, "PNG")[:2000], "truncated_image"),
  "half a progressive jpeg": (
    encode(NOISE, progressive=True)[:700],
    "truncated_image",
  ),
  "a png of a million and one columns": (
    make_png(
      struct.pack(">IIBBBBB", 1_000_001, 1, 8, 0, 0, 0, 0), bytes(1_000_002)
    ),
    "decompression_bomb",
  ),
  "half an avif": (encode(NOISE, "AVIF")[:200], "not_an_image"),
  "half a webp": (encode(NOISE, "WEBP")[:500], "undecodable_image"),
}


@pytest.mark.parametrize("name", REJECTED)
def test_what_cannot_be_decoded_is_rejected(name):
  data, reason = REJECTED[name]

  result = normalize(data)

  assert isinstance(result, decoding.RejectedImage)
  assert result.reason == reason
  assert result.detail


def test_a_flipped_bit_in_a_png_is_rejected():
  data = bytearray(encode(NOISE, "PNG"))
  data[1000] ^= 1

  assert normalize(bytes(data)).reason == "undecodable_image"


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "GIF"])
def test_decompression_bombs_are_rejected(monkeypatch, image_format):
  data = encode(Image.new("L", (100, 100)), image_format)
  normalizer = images.ImageNormalizer()
  assert isinstance(normalizer.normalize(data), decoding.UniformImage)

  monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4999)

  assert images.ImageNormalizer().normalize(data).reason == "decompression_bomb"


@pytest.mark.parametrize(
  ("image_format", "options", "width", "limit"),
  [
    ("JPEG", {"progressive": True}, 13_000, "100,000,000"),
    # (Stray bytes before the end: TensorFlow gives up, it would be converted.)
    ("JPEG", {}, 7000, "40,000,000"),
    ("GIF", {}, 6400, "40,000,000"),
    ("GIF", {"transparency": 1}, 6400, "40,000,000"),
    ("WEBP", {"save_all": True, "append_images": [NOISE]}, 6400, "40,000,000"),
  ],
)
def test_a_header_that_claims_too_much_takes_no_memory(
  image_format, options, width, limit
):
  """Up to 2.7 GB, for an image of a kilobyte with a few wrong bits."""
  image = shards.noise(1)
  data = encode(image.quantize(8), "GIF", **options)
  if image_format != "GIF":
    data = encode(image, image_format, **options)
  if not options and image_format == "JPEG":
    data = data[:-2] + b"\xff\x01" + data[-2:]
  assert isinstance(normalize(data), decoding.UniformImage)

  result = normalize(mutations.claim_size(data, width, width))

  assert result.reason == "decompression_bomb"
  assert f"{limit} fit into memory" in result.detail


def test_a_remembered_encoder_does_not_open_the_door_to_bombs(monkeypatch):
  normalizer = images.ImageNormalizer()
  normalizer.normalize(encode(Image.new("RGB", (30, 30))))
  monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4999)

  result = normalizer.normalize(encode(Image.new("RGB", (100, 100))))

  assert result.reason == "decompression_bomb"


def test_an_encoder_is_decoded_once(monkeypatch):
  normalizer = images.ImageNormalizer()
  normalizer.normalize(encode(shards.noise(1, 64, 48)))
  monkeypatch.setattr(decoding, "decode", None)  # A call would fail.

  for seed, width, height in ((2, 64, 48), (3, 64, 48), (4, 33, 17)):
    data = encode(shards.noise(seed, width, height))
    result = normalizer.normalize(data)
    assert result == decoding.UniformImage(data, height, width)


@pytest.mark.parametrize(
  "segment",
  [
    b"\xff\xe2\0\x0eICC_PROFILE\0",
    b"\xff\xed\0\x14Photoshop 3.0\x008BIM",
    b"\xff\xe1\0\x08Exif\0\0",
  ],
)
def test_what_was_seen_before_does_not_decide(segment):
  """Pillow looks into segments that libjpeg passes over."""
  good = encode(shards.noise(3))
  strange = good[:20] + segment + good[20:]
  experienced = images.ImageNormalizer()
  experienced.normalize(good)

  assert experienced.normalize(strange) == normalize(strange)


def mutate(data: bytes, draw) -> bytes:
  """Damages an image in one of the ways that disks and networks know."""
  changed = bytearray(data)
  kinds = ["flip", "set", "cut", "delete", "insert", "repeat", "segment"]
  kind = draw(st.sampled_from(kinds))
  start = draw(st.integers(0, len(data) - 1))
  length = draw(st.sampled_from([1, 2, 7, 64, 700]))
  if kind == "flip":
    changed[start] ^= 1 << draw(st.integers(0, 7))
  elif kind == "set":
    changed[start] = draw(st.sampled_from([0, 0xFF, 0xD8, 0xD9, 0xDA, 0xC4]))
  elif kind == "cut":
    del changed[start:]
  elif kind == "delete":
    del changed[start : start + length]
  elif kind == "insert":
    changed[start:start] = draw(st.binary(min_size=1, max_size=8))
  elif kind == "segment":  # Of a JPEG, behind its start or anywhere.
    marker = draw(
      st.sampled_from([0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xFE, 0xDD, 0xFF])
    )
    head = draw(st.sampled_from(SEGMENT_HEADS))
    content = head + draw(st.binary(max_size=12))
    segment = (
      bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content
    )
    at = draw(st.sampled_from([2, start]))
    changed[at:at] = segment
  else:
    changed[start:start] = changed[start : start + length]
  return bytes(changed)


SEGMENT_HEADS = [
  b"",
  b"JFIF\0",
  b"Exif\0\0II*\0",
  b"ICC_PROFILE\0",
  b"Photoshop 3.0\x008BIM\x04\x04",
  b"Adobe\0",
  b"MPF\0",
  b"http://ns.adobe.com/xap/1.0/\0",
]
BASES = [*UNTOUCHED.values(), *(data for data, _ in CONVERTED.values())]


@settings(max_examples=int(os.environ.get("FUZZ", "600")))
@given(data=st.data())
def test_whatever_goes_through_can_be_decoded_by_both(data):
  """The promise of the dataset, kept for images damaged anyhow.

  The same normalizer first sees a good image of the encoder, so that what it
  remembers is put to the test as well.
  """
  base = data.draw(st.sampled_from(BASES))
  damaged = base
  for _ in range(data.draw(st.integers(1, 3))):
    if damaged:
      damaged = mutate(damaged, data.draw)
  experienced = images.ImageNormalizer()
  experienced.normalize(base)

  result = experienced.normalize(damaged)

  assert result == normalize(damaged)  # What was seen before changes nothing.
  if isinstance(result, decoding.UniformImage):
    tensorflow = decode_with_tensorflow(result.data)
    assert tensorflow.shape == (result.height, result.width, 3)
    assert decode_with_pillow(result.data).shape == tensorflow.shape


@given(
  data=st.lists(
    st.sampled_from([0, 1, 0xCF, 0xD0, 0xD7, 0xD8, 0xD9, 0xFF])
  ).map(bytes)
)
def test_markers_are_found_where_a_loop_finds_them(data):
  expected = [
    i
    for i in range(len(data) - 1)
    if data[i] == 0xFF and data[i + 1] != 0 and not 0xD0 <= data[i + 1] <= 0xD7
  ]

  assert jpeg.find_markers(np.frombuffer(data, np.uint8)) == expected


def test_markers_across_the_borders_of_the_scanned_pieces():
  data = np.zeros(3 * jpeg._SCANNED_BYTES, np.uint8)
  for border in (1, 2):
    data[
      border * jpeg._SCANNED_BYTES - 1 : border * jpeg._SCANNED_BYTES + 1
    ] = (
      0xFF,
      0xD9,
    )

  assert jpeg.find_markers(data) == [
    jpeg._SCANNED_BYTES - 1,
    2 * jpeg._SCANNED_BYTES - 1,
  ]


def test_a_batch_keeps_rows_and_images_together():
  webp = encode(shards.noise(5, 12, 10), "WEBP", lossless=True)
  values = [
    encode(shards.noise(1)),
    b"<html>",
    webp,
    encode(shards.noise(2, 9, 8)),
  ]
  batch = pa.RecordBatch.from_pydict(
    {"key": ["a", "b", "c", "d"], "image": pa.array(values, pa.binary())}
  )

  result, skipped = images.make_uniform(
    batch, images.ImageNormalizer(), "00007"
  )

  assert result.column("key").to_pylist() == ["a", "c", "d"]
  assert result.column("image_height").to_pylist() == [30, 10, 8]
  assert result.column("image_width").to_pylist() == [40, 12, 9]
  found = result.column("image").to_pylist()
  assert (found[0], found[2]) == (values[0], values[3])
  assert np.array_equal(
    decode_with_pillow(found[1]), np.asarray(shards.noise(5, 12, 10))
  )
  assert [(s.source_shard, s.key, s.reason) for s in skipped] == [
    ("00007", "b", "not_an_image")
  ]
