"""A sample: the image, and maybe more, that a shard holds under one key."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses
from typing import Any
from typing import Protocol

# Reasons for skipping a row.
NO_IMAGE = "no_image"
IMAGE_TOO_LARGE = "image_too_large"

# An encoded image above this is no photo; it would not fit into memory twice.
MAX_IMAGE_BYTES = 256 << 20

# Names of members, columns and features that hold an image. They say where it
# is, never what codec it has.
IMAGE_EXTENSIONS = frozenset(
  [
    "jpg",
    "jpeg",
    "png",
    "webp",
    "gif",
    "bmp",
    "tif",
    "tiff",
    "avif",
    "jp2",
    "ico",
    "ppm",
  ]
)


@dataclasses.dataclass(slots=True)
class Sample:
  """What a shard holds under one key.

  Attributes:
    key: the name that its parts have in common.
    position: where it starts in the shard.
    image: the encoded image, if it was read. Valid until the next samples.
    row: its own metadata, unparsed, as the reader of its format left it.
    is_cut: whether the shard ends inside what is read of the sample.
    is_repeated: whether it is two samples of one key in a row.
    is_nameless: whether even the key cannot be read.
    problem: why the image cannot be had: reason and detail.
  """

  key: bytes
  position: int
  image: bytes | memoryview | None = None
  row: Any = None
  is_cut: bool = False
  is_repeated: bool = False
  is_nameless: bool = False
  problem: tuple[str, str] | None = None

  @property
  def name(self) -> str:
    """The key as text."""
    return self.key.decode("utf-8", "replace")


class SampleReader(Protocol):
  """Reads the samples of a slice of a shard; one implementation a format."""

  def iter_samples(self) -> Iterator[list[Sample]]:
    """Yields some samples at a time, in the order of the shard.

    The first slice of a shard yields the samples of all of it, for it answers
    for the rows that have no sample. (It has to read all of a TFRecord for that,
    and the headers of a tar.)
    """
    ...

  def read_row(self, sample: Sample) -> Mapping[str, Any] | str:
    """Returns a sample's own metadata by column, or why there is none."""
    ...

  def find_damage(self) -> tuple[str, str] | None:
    """Returns how the shard ended if not well: reason and detail.

    To be called when all samples have been read.
    """
    ...


def describe_large(size_bytes: int) -> tuple[str, str]:
  """Returns the reason and detail for an image that is too large to be read."""
  return (
    IMAGE_TOO_LARGE,
    f"{size_bytes:,} bytes, more than {MAX_IMAGE_BYTES:,}",
  )
