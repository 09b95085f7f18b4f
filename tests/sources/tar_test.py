"""Tests of the tar reader, against Python's own `tarfile`."""

import io
import pathlib
import tarfile

from hypothesis import given
from hypothesis import strategies as st
import pytest
import shards

from tfds_plugins.sources import tar

CONTENT_SIZES = [0, 1, 511, 512, 513, 1024, 5000]


def read_all(data: bytes, window_bytes: int = 4096):
  """Returns {name: content} and how the archive ended."""
  reader = tar.TarReader(io.BytesIO(data), len(data), window_bytes=window_bytes)
  found = {}
  for members in reader.iter_windows(lambda member: True):
    for member in members:
      content = None if member.data is None else bytes(member.data)
      found[member.name.decode()] = content
  return found, reader.end


def make_tar(members, tar_format=tarfile.PAX_FORMAT) -> bytes:
  """Returns a tar with these members."""
  out = io.BytesIO()
  with tarfile.open(fileobj=out, mode="w", format=tar_format) as archive:
    for name, content in members:
      info = tarfile.TarInfo(name)
      info.size = len(content)
      info.mtime = 1.5 if tar_format == tarfile.PAX_FORMAT else 1
      archive.addfile(info, io.BytesIO(content))
  return out.getvalue()


names = st.text(
  st.characters(codec="utf-8", exclude_characters="\0"),
  min_size=1,
  max_size=180,
).filter(lambda name: not name.endswith("/"))


@given(
  members=st.dictionaries(names, st.sampled_from(CONTENT_SIZES), max_size=12),
  tar_format=st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
  window_bytes=st.sampled_from([512, 1024, 4096, 1 << 16]),
)
def test_reads_what_tarfile_wrote(members, tar_format, window_bytes):
  expected = {
    name: bytes([i % 251]) * size
    for i, (name, size) in enumerate(members.items())
  }
  data = make_tar(expected.items(), tar_format)

  found, end = read_all(data, window_bytes)

  assert found == expected
  assert end is tar.End.MARKER


def test_reads_img2datasets_own_tars(dummy_data):
  path = dummy_data / "laion400m/images/00001.tar"
  with tarfile.open(path) as archive:
    expected = {
      member.name: archive.extractfile(member).read() for member in archive
    }

  found, end = read_all(path.read_bytes())

  assert len(expected) == 11 * 3
  assert found == expected
  assert end is tar.End.MARKER


def test_every_cut_keeps_what_lies_before_it():
  contents = {f"{i:04d}.jpg": bytes([i]) * (300 * i) for i in range(5)}
  data = make_tar(contents.items())
  with tarfile.open(fileobj=io.BytesIO(data)) as archive:
    ends = {m.name: m.offset_data + m.size for m in archive}

  for size in range(0, max(ends.values()), 37):
    found, end = read_all(data[:size])
    complete = {
      name: contents[name] for name, stop in ends.items() if stop <= size
    }
    whole = {name: data for name, data in found.items() if data is not None}
    assert whole == complete, size
    assert end is tar.End.TRUNCATED, size


@pytest.mark.parametrize("offset", [0, 100, 124, 148, 156, 257, 345, 500])
def test_a_flipped_bit_in_a_header_ends_the_archive_there(offset):
  data = bytearray(
    make_tar([("a.jpg", b"1"), ("b.jpg", b"2"), ("c.jpg", b"3")])
  )
  second = (
    3 * 512 + 512 + 1024
  )  # a: pax, records, header, content; b: pax, records
  assert data[second : second + 5] == b"b.jpg"
  data[second + offset] ^= 1

  found, end = read_all(bytes(data))

  assert found == {"a.jpg": b"1"}
  assert end is tar.End.CORRUPT


def test_links_folders_and_sparse_members_are_passed():
  out = io.BytesIO()
  with tarfile.open(fileobj=out, mode="w") as archive:
    for kind in (
      tarfile.DIRTYPE,
      tarfile.SYMTYPE,
      tarfile.LNKTYPE,
      tarfile.CHRTYPE,
    ):
      info = tarfile.TarInfo(f"special{kind.decode()}.jpg")
      info.type = kind
      info.linkname = "/etc/passwd"
      archive.addfile(info)
    info = tarfile.TarInfo("real.jpg")
    info.size = 3
    archive.addfile(info, io.BytesIO(b"abc"))

  assert read_all(out.getvalue()) == ({"real.jpg": b"abc"}, tar.End.MARKER)


def test_a_tar_inside_a_member_is_content():
  inner = make_tar([("000000001.jpg", b"inner")])
  data = make_tar([("outer.bin", inner), ("last.jpg", b"x")])

  assert read_all(data)[0] == {"outer.bin": inner, "last.jpg": b"x"}


def test_headers_without_magic_are_read():
  header = bytearray(512)
  header[:5] = b"a.jpg"
  header[100:108] = b"0000444\0"
  header[124:136] = b"00000000003\0"
  header[148:156] = b" " * 8
  header[148:156] = b"%06o\0 " % sum(header)
  data = bytes(header) + b"abc".ljust(512, b"\0") + bytes(1024)

  assert read_all(data) == ({"a.jpg": b"abc"}, tar.End.MARKER)


def test_base_256_sizes_are_read():
  content = b"y" * 700
  data = bytearray(make_tar([("a.jpg", content)], tarfile.USTAR_FORMAT))
  data[124:136] = b"\x80" + (700).to_bytes(11, "big")
  data[148:156] = b" " * 8
  data[148:156] = b"%06o\0 " % sum(data[:512])

  assert read_all(bytes(data)) == ({"a.jpg": content}, tar.End.MARKER)


@pytest.mark.parametrize(
  "size", [b"-0000001000\0", b"0000_000010\0", b"0o000000010\0"]
)
def test_numbers_with_signs_are_no_numbers(size):
  data = bytearray(make_tar([("a.jpg", b"abc")], tarfile.USTAR_FORMAT))
  data[124:136] = size
  data[148:156] = b" " * 8
  data[148:156] = b"%06o\0 " % sum(data[:512])

  assert read_all(bytes(data)) == ({}, tar.End.CORRUPT)


@pytest.mark.parametrize(
  "record", [b"9" * 5000 + b" size=1\n", b"5030 size=" + b"9" * 5019 + b"\n"]
)
def test_absurd_pax_records_end_the_archive(record):
  out = io.BytesIO()
  with tarfile.open(
    fileobj=out, mode="w", format=tarfile.USTAR_FORMAT
  ) as archive:
    info = tarfile.TarInfo("pax")
    info.type = tarfile.XHDTYPE
    info.size = len(record)
    archive.addfile(info, io.BytesIO(record))
    archive.addfile(tarfile.TarInfo("a.jpg"))

  found, end = read_all(out.getvalue(), window_bytes=1 << 16)

  assert (found, end) in (
    ({"a.jpg": b""}, tar.End.MARKER),
    ({}, tar.End.CORRUPT),
  )


def test_endless_extension_headers_do_not_hang():
  info = tarfile.TarInfo("a" * 150)
  one = info.tobuf(tarfile.GNU_FORMAT)[:1024]
  found, end = read_all(one * 3000, window_bytes=1 << 16)

  assert found == {}
  assert end is tar.End.CORRUPT


def test_a_file_that_shrinks_while_it_is_read_is_truncated():
  data = make_tar([("a.jpg", b"1" * 9000), ("b.jpg", b"2" * 9000)])
  reader = tar.TarReader(io.BytesIO(data[:13000]), len(data), window_bytes=4096)

  found = [
    m for window in reader.iter_windows(lambda member: True) for m in window
  ]

  assert [(m.name, m.is_cut) for m in found] == [
    (b"a.jpg", False),
    (b"b.jpg", True),
  ]
  assert reader.end is tar.End.TRUNCATED


def test_unwanted_members_are_passed_without_reading(tmp_path: pathlib.Path):
  big = b"z" * (3 << 20)
  shards.write_tar(tmp_path / "0.tar", [("a.bin", big), ("b.jpg", b"image")])
  reads = []

  class File(io.FileIO):
    def readinto(self, buffer):
      count = super().readinto(buffer)
      reads.append(count)
      return count

  path = tmp_path / "0.tar"
  with File(str(path)) as file:
    reader = tar.TarReader(file, path.stat().st_size, window_bytes=4096)
    windows = reader.iter_windows(lambda m: m.name.endswith(b".jpg"))
    found = {m.name: m.data and bytes(m.data) for w in windows for m in w}

  assert found == {b"a.bin": None, b"b.jpg": b"image"}
  assert sum(reads) < 1 << 16


@pytest.mark.parametrize("num_blocks", [1, 2, 200])
def test_zeros_are_no_end_if_anything_follows(num_blocks):
  """Sectors that were lost look like the end marker, and hide what follows."""
  data = make_tar([(f"{i}.jpg", b"1" * 600) for i in range(300)])
  start = data.index(b"7.jpg") // 512 * 512
  stop = start + num_blocks * 512

  found, end = read_all(data[:start] + bytes(stop - start) + data[stop:])

  assert list(found) == [f"{i}.jpg" for i in range(7)]
  assert end is tar.End.CORRUPT


def test_an_archive_behind_another_is_not_passed_over_in_silence():
  first, second = (make_tar([(f"{i}.jpg", b"1")]) for i in range(2))

  assert read_all(first + second) == ({"0.jpg": b"1"}, tar.End.CORRUPT)
  assert read_all(first + bytes(1 << 17)) == ({"0.jpg": b"1"}, tar.End.MARKER)
