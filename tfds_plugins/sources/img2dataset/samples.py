"""The samples of a tar: what lies in it under one key.

A sample is `<key>.jpg` (or `.png`, `.webp`), `<key>.json` and maybe
`<key>.txt`, next to each other (rom1504/img2dataset, `img2dataset/writer.py`;
webdataset/webdataset, `src/webdataset/tariterators.py` for what belongs to a
sample).
"""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
from typing import cast

from etils import epath

from tfds_plugins import errors
from tfds_plugins.sources.img2dataset import json_rows
from tfds_plugins.sources.img2dataset import tar
from tfds_plugins.sources.rows import SourceShard
from tfds_plugins.sources.rows import SourceSlice

# A reason for skipping a row.
IMAGE_TOO_LARGE = "image_too_large"

# An encoded image above this is no photo; it would not fit into memory twice.
MAX_IMAGE_BYTES = 256 << 20

# Extensions say where the image is, never what codec it has.
_IMAGE_EXTENSIONS = frozenset(
  b"jpg jpeg png webp gif bmp tif tiff avif jp2 ico ppm".split()
)
_READ_EXTENSIONS = _IMAGE_EXTENSIONS | {b"json"}


@dataclasses.dataclass(slots=True)
class Sample:
  """What a tar holds under one key.

  Attributes:
    key: the members' common name, without folder and extension.
    offset: where the first member's header starts.
    extension: that of the image, lower-case; b'' if there is none.
    is_repeated: whether there are two such images: two samples in a row.
    image: the encoded image, if it was read. Valid until the next samples.
    json: the `.json` member, if it was read. Valid until the next samples.
    has_large_json: whether the `.json` member was too large to be read.
    is_cut: whether the tar ends inside the sample.
    problem: why the image cannot be had: reason and detail.
  """

  key: bytes
  offset: int
  extension: bytes = b""
  is_repeated: bool = False
  image: bytes | memoryview | None = None
  json: bytes | memoryview | None = None
  has_large_json: bool = False
  is_cut: bool = False
  problem: tuple[str, str] | None = None

  @property
  def name(self) -> str:
    """The key as text."""
    return self.key.decode("utf-8", "replace")


def check_tar(path: epath.Path) -> None:
  """Checks by its first block that a file is a tar.

  Args:
    path: the tar; one without any member is legal (every download failed).

  Raises:
    errors.SourceError: it is something else.
  """
  try:
    with path.open("rb") as f:
      start = cast(bytes, f.read(tar.BLOCK_BYTES))
  except OSError as e:
    start, found = b"", f"{type(e).__name__}: {e}"
  else:
    found = _describe_start(start)
  if start == bytes(tar.BLOCK_BYTES) or tar.parse_header(start):
    return
  problem = errors.Problem(
    what="This is not a tar archive.",
    where=str(path),
    expected="a tar as img2dataset writes it, uncompressed",
    found=found,
    to_do=(
      "Remove this shard (every file with its number), or have img2dataset"
      " write it again."
    ),
  )
  raise errors.SourceError(str(problem))


def _split_name(name: bytes) -> tuple[bytes, bytes, bytes]:
  """Splits a member's name into prefix, key and lower-case extension.

  `a/b/000012.seg.png` gives (`a/b/000012`, `000012`, `seg.png`).
  """
  start = name.rfind(b"/") + 1
  dot = name.find(b".", start)
  if dot < 0:
    return name, name[start:], b""
  return name[:dot], name[start:dot], name[dot + 1 :].lower()


def iter_samples(
  reader: tar.TarReader, source_slice: SourceSlice[SourceShard]
) -> Iterator[list[Sample]]:
  """Yields the samples that end in each window of the tar.

  The contents of samples outside the slice are left out. A first slice walks
  the whole tar, for it answers for the rows that have no sample; any other one
  stops where it ends.
  """
  # A sample's members belong to the slice in which its first header is. The
  # reader asks about the members of a whole window before it hands them on.
  asked_prefix: bytes | None = None
  asked_offset = 0

  def is_wanted(member: tar.Member) -> bool:
    nonlocal asked_prefix, asked_offset
    member.label = prefix, key, extension = _split_name(member.name)
    if not key:
      return False
    if prefix != asked_prefix:
      asked_prefix, asked_offset = prefix, member.offset
    if not source_slice.start <= asked_offset < source_slice.stop:
      return False
    if extension in _IMAGE_EXTENSIONS:
      return member.size_bytes <= MAX_IMAGE_BYTES
    return (
      extension == b"json" and member.size_bytes <= json_rows.MAX_JSON_BYTES
    )

  last_prefix: bytes | None = None
  sample: Sample | None = None
  for members in reader.iter_windows(is_wanted):
    complete: list[Sample] = []
    for member in members:
      prefix, key, extension = member.label
      if not key:  # A hidden file, such as macOS's `._000012.jpg`.
        continue
      if sample is None or prefix != last_prefix:
        if sample is not None:
          complete.append(sample)
        sample = Sample(key=key, offset=member.offset)
        last_prefix = prefix
      if member.is_cut or extension in _READ_EXTENSIONS:
        _add_member(sample, member, extension)
    if complete:
      yield complete
    if sample is not None:
      if sample.offset >= source_slice.stop and not source_slice.is_first:
        return
      _keep(sample)
  if sample is not None:
    yield [sample]


def _add_member(sample: Sample, member: tar.Member, extension: bytes) -> None:
  """Adds a member to its sample, or the reason why it cannot be."""
  sample.is_cut |= member.is_cut
  if member.is_cut and extension in _READ_EXTENSIONS:
    name = member.name.decode("utf-8", "replace")
    sample.problem = (
      tar.End.TRUNCATED.value,
      f"the tar ends inside {name}, which begins at byte {member.offset:,}",
    )
  elif extension == b"json":
    sample.json = member.data
    sample.has_large_json = member.size_bytes > json_rows.MAX_JSON_BYTES
  elif extension in _IMAGE_EXTENSIONS and sample.extension:
    sample.is_repeated |= extension == sample.extension
  elif extension in _IMAGE_EXTENSIONS:
    sample.extension = extension
    sample.image = member.data
    if member.size_bytes > MAX_IMAGE_BYTES:
      sample.problem = (
        IMAGE_TOO_LARGE,
        f"{member.size_bytes:,} bytes, more than {MAX_IMAGE_BYTES:,}",
      )


def _keep(sample: Sample) -> None:
  """Copies what lies in a window that is about to be overwritten."""
  if sample.image is not None:
    sample.image = bytes(sample.image)
  if sample.json is not None:
    sample.json = bytes(sample.json)


def _describe_start(start: bytes) -> str:
  """Says what a file that is no tar seems to be."""
  if not start:
    return "an empty file (0 bytes)"
  if start.lstrip()[:1] == b"<":
    return f"HTML or XML: {start.lstrip()[:60].decode('utf-8', 'replace')!r}"
  if start[:2] == b"\x1f\x8b":
    return "a gzip-compressed file; decompress it first"
  return f"a file that starts with {start[:16]!r}"
