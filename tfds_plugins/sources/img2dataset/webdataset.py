"""Samples of img2dataset's webdataset output: a tar.

A sample is `<key>.jpg` (or `.png`, `.webp`), `<key>.json` and maybe
`<key>.txt`, next to each other (rom1504/img2dataset, `img2dataset/writer.py`;
webdataset/webdataset, `src/webdataset/tariterators.py` for what belongs to a
sample).
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import dataclasses
from typing import Any
from typing import cast

from etils import epath
import pyarrow as pa

from tfds_plugins import errors
from tfds_plugins.sources import folders
from tfds_plugins.sources import tar
from tfds_plugins.sources.img2dataset import json_rows
from tfds_plugins.sources.img2dataset import pairing
from tfds_plugins.sources.img2dataset import samples as samples_lib
from tfds_plugins.sources.img2dataset.samples import Sample
from tfds_plugins.sources.img2dataset.shards import ImageShard
from tfds_plugins.sources.rows import SourceBatch
from tfds_plugins.sources.rows import SourceSlice

_IMAGE_EXTENSIONS = frozenset(
  name.encode() for name in samples_lib.IMAGE_EXTENSIONS
)
_READ_EXTENSIONS = _IMAGE_EXTENSIONS | {b"json"}


@dataclasses.dataclass(slots=True)
class _TarSample(Sample):
  """A sample of a tar; `row` is the `.json` member, if it was read.

  Attributes:
    extension: that of the image, lower-case; b'' if there is none.
    has_large_json: whether the `.json` member was too large to be read.
  """

  extension: bytes = b""
  has_large_json: bool = False


def iter_batches(
  source_slice: SourceSlice[ImageShard], wanted: pa.Schema
) -> Iterator[SourceBatch]:
  """Yields the rows of a slice in the order of the tar; see `pairing`.

  A sample belongs to the slice in which its first header starts.
  """
  shard = source_slice.shard
  with contextlib.ExitStack() as stack:
    file = stack.enter_context(epath.Path(shard.path).open("rb"))
    reader = _TarSamples(tar.TarReader(file, shard.length), source_slice)
    yield from pairing.iter_batches(reader, source_slice, wanted)


def check(shard: ImageShard) -> ImageShard:
  """Checks by its first block that a shard is a tar.

  Args:
    shard: the shard; a tar without any member is legal (every download failed).

  Returns:
    The shard.

  Raises:
    errors.SourceError: it is something else.
  """
  path = epath.Path(shard.path)
  try:
    folders.check_regular(path)
    with path.open("rb") as f:
      start = cast(bytes, f.read(tar.BLOCK_BYTES))
  except OSError as e:
    start, found = b"", f"{type(e).__name__}: {e}"
  else:
    found = _describe_start(start)
  if start == bytes(tar.BLOCK_BYTES) or tar.parse_header(start):
    return shard
  problem = errors.Problem(
    what="This is not a tar archive.",
    where=shard.path,
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


class _TarSamples:
  """Reads the samples of a slice of a tar."""

  def __init__(
    self, reader: tar.TarReader, source_slice: SourceSlice[ImageShard]
  ):
    self._reader = reader
    self._slice = source_slice

  def iter_samples(self) -> Iterator[list[Sample]]:
    """Yields the samples that end in each window of the tar."""
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
      if not self._slice.start <= asked_offset < self._slice.stop:
        return False
      if extension in _IMAGE_EXTENSIONS:
        return member.size_bytes <= samples_lib.MAX_IMAGE_BYTES
      return (
        extension == b"json" and member.size_bytes <= json_rows.MAX_JSON_BYTES
      )

    last_prefix: bytes | None = None
    sample: _TarSample | None = None
    for members in self._reader.iter_windows(is_wanted):
      complete: list[Sample] = []
      for member in members:
        prefix, key, extension = member.label
        if not key:  # A hidden file, such as macOS's `._000012.jpg`.
          continue
        if sample is None or prefix != last_prefix:
          if sample is not None:
            complete.append(sample)
          sample = _TarSample(key=key, position=member.offset)
          last_prefix = prefix
        if extension in _READ_EXTENSIONS:
          _add_member(sample, member, extension)
      if complete:
        yield complete
      if sample is not None:
        if sample.position >= self._slice.stop and not self._slice.is_first:
          return
        _keep(sample)
    if sample is not None:
      yield [sample]

  def read_row(self, sample: Sample) -> Mapping[str, Any] | str:
    """Parses the `.json` member."""
    if cast(_TarSample, sample).has_large_json:
      return (
        f"the .json member has more than {json_rows.MAX_JSON_BYTES:,} bytes"
      )
    if sample.row is None:
      return "neither a row in a parquet nor a .json member in the tar"
    return json_rows.parse_row(bytes(sample.row))

  def find_damage(self) -> tuple[str, str] | None:
    """Returns where the tar broke off, if it did."""
    end = self._reader.end
    if end is None or end is tar.End.MARKER:
      return None
    offset = self._reader.end_offset
    return end.value, f"the tar cannot be read from byte {offset:,} on"


def _add_member(
  sample: _TarSample, member: tar.Member, extension: bytes
) -> None:
  """Adds a member to its sample, or the reason why it cannot be."""
  # (Cut off in what is not read, such as .txt, it is whole, and no trace of the
  # samples that are missing behind it.)
  if member.is_cut and extension in _READ_EXTENSIONS:
    sample.is_cut = True
    name = member.name.decode("utf-8", "replace")
    sample.problem = (
      tar.End.TRUNCATED.value,
      f"the tar ends inside {name}, which begins at byte {member.offset:,}",
    )
  elif extension == b"json":
    sample.row = member.data
    sample.has_large_json = member.size_bytes > json_rows.MAX_JSON_BYTES
  elif extension in _IMAGE_EXTENSIONS and sample.extension:
    sample.is_repeated |= extension == sample.extension
  elif extension in _IMAGE_EXTENSIONS:
    sample.extension = extension
    sample.image = member.data
    if member.size_bytes > samples_lib.MAX_IMAGE_BYTES:
      sample.problem = samples_lib.describe_large(member.size_bytes)


def _keep(sample: Sample) -> None:
  """Copies what lies in a window that is about to be overwritten."""
  if sample.image is not None:
    sample.image = bytes(sample.image)
  if sample.row is not None:
    sample.row = bytes(sample.row)


def _describe_start(start: bytes) -> str:
  """Says what a file that is no tar seems to be."""
  if not start:
    return "an empty file (0 bytes)"
  if start.lstrip()[:1] == b"<":
    return f"HTML or XML: {start.lstrip()[:60].decode('utf-8', 'replace')!r}"
  if start[:2] == b"\x1f\x8b":
    return "a gzip-compressed file; decompress it first"
  return f"a file that starts with {start[:16]!r}"
