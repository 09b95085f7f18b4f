"""PNGs that are trusted for their checksums."""

import io
import struct
import zlib

import numpy as np
from PIL import Image
import pyarrow as pa
import pytest

from tfds_plugins.encoding import decoding
from tfds_plugins.encoding import images
from tfds_plugins.encoding import png


def make_png(width=20, height=10, mode="RGB", value=7, **options) -> bytes:
  rng = np.random.default_rng(value)
  pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
  out = io.BytesIO()
  Image.fromarray(pixels).convert(mode).save(out, "PNG", **options)
  return out.getvalue()


def make_chunk(kind: bytes, content: bytes) -> bytes:
  checksum = zlib.crc32(kind + content)
  return (
    struct.pack(">I", len(content))
    + kind
    + content
    + struct.pack(">I", checksum)
  )


@pytest.fixture
def decoded(monkeypatch):
  """Notes what is decoded."""
  found = []
  real = decoding.decode

  def spy(data):
    found.append(bytes(data))
    return real(data)

  monkeypatch.setattr(decoding, "decode", spy)
  return found


def test_one_of_a_kind_is_decoded(decoded):
  normalizer = images.ImageNormalizer(trusts_png_checksums=True)
  first, second = make_png(), make_png(33, 44, value=8)
  gray = make_png(mode="L")
  for data in (first, second, first, gray, gray):
    result = normalizer.normalize(data)
    assert result.data is data
  assert (result.height, result.width) == (10, 20)
  assert normalizer.normalize(second).height == 44
  assert decoded == [first, gray]


def test_who_does_not_trust_decodes_all(decoded):
  normalizer = images.ImageNormalizer()
  data = make_png()
  for _ in range(3):
    assert normalizer.normalize(data).data is data
  assert len(decoded) == 3


@pytest.mark.parametrize("mode", ["RGBA", "P", "1", "LA"])
def test_other_kinds_become_rgb_each_time(decoded, mode):
  normalizer = images.ImageNormalizer(trusts_png_checksums=True)
  data = make_png(mode=mode)
  for _ in range(2):
    with Image.open(io.BytesIO(normalizer.normalize(data).data)) as image:
      assert image.mode == "RGB"
  assert len(decoded) == 2


def test_every_flipped_bit_is_found():
  normalizer = images.ImageNormalizer(trusts_png_checksums=True)
  data = make_png()
  normalizer.normalize(data)
  for position in range(8, len(data)):
    damaged = bytearray(data)
    damaged[position] ^= 1 << (position % 8)
    result = normalizer.normalize(bytes(damaged))
    assert isinstance(result, decoding.RejectedImage), position


def test_every_truncation_is_found():
  normalizer = images.ImageNormalizer(trusts_png_checksums=True)
  data = make_png()
  normalizer.normalize(data)
  for size in range(len(data)):
    result = normalizer.normalize(data[:size])
    assert isinstance(result, decoding.RejectedImage)
    if size >= 8:
      assert result.reason == decoding.TRUNCATED


def test_more_than_pixels_and_texts_makes_another_kind(decoded):
  normalizer = images.ImageNormalizer(trusts_png_checksums=True)
  data = make_png()
  end = data.index(b"IEND") - 4
  start = data.index(b"IDAT") - 4
  text = make_chunk(b"tEXt", b"a\0b")
  gamma = make_chunk(b"gAMA", struct.pack(">I", 45455))
  unknown = make_chunk(b"ABCD", b"critical, and known to nobody")
  cases = {
    "plain": data,
    "text": data[:end] + text + data[end:],
    "gamma": data[:start] + gamma + data[start:],
    "unknown": data[:start] + unknown + data[start:],
  }
  results = {name: normalizer.normalize(each) for name, each in cases.items()}
  assert decoded == [cases[name] for name in ("plain", "gamma", "unknown")]
  assert results["text"].data is cases["text"]
  # What both decoders are not known to read is written anew.
  assert getattr(results["unknown"], "data", None) is not cases["unknown"]


@pytest.mark.parametrize(
  ("chunks", "found"),
  [
    ([], "truncated"),
    ([make_chunk(b"IEND", b"")], "starts with"),
    ([make_chunk(b"IHDR", bytes(12))], "starts with"),
    (
      [make_chunk(b"IHDR", bytes(13)), make_chunk(b"IEND", b"")],
      "no pixels",
    ),
  ],
)
def test_what_is_no_picture(chunks, found):
  data = png.SIGNATURE + b"".join(chunks)
  result = png.parse_whole(data)
  assert isinstance(result, png.DamagedPng)
  assert found in result.detail


def test_lists_lose_what_is_no_image():
  good = [make_png(value=i) for i in range(4)]
  lists = [[good[0]], [], [b"bad", good[1], b""], [good[2], good[3]]]
  names = [["a"], [], ["b", "c", "d"], ["e", "f"]]
  batch = pa.RecordBatch.from_pydict(
    {
      "key": ["0", "1", "2", "3"],
      "pictures": pa.array(lists, pa.list_(pa.binary())),
      "names": pa.array(names),
    }
  )
  normalizer = images.ImageNormalizer()
  found, lacking = images.make_lists_uniform(
    batch.slice(1), normalizer, "shard", "pictures", ["names"]
  )
  assert found.column("pictures").to_pylist() == [
    [],
    [good[1]],
    [good[2], good[3]],
  ]
  assert found.column("names").to_pylist() == [[], ["c"], ["e", "f"]]
  assert [(row.key, row.reason) for row in lacking] == [
    ("2", decoding.NOT_AN_IMAGE),
    ("2", decoding.EMPTY),
  ]
  assert lacking[0].detail.startswith("b: ")
  untouched, lacking = images.make_lists_uniform(
    batch.slice(3), normalizer, "shard", "pictures", ["names"]
  )
  assert untouched.column("pictures").to_pylist() == [[good[2], good[3]]]
  assert not lacking
