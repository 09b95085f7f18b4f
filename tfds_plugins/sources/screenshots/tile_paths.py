"""Which paths of tiles are taken, and where they say that the tile lies.

A path in a JSON line is data: it may name any file of the machine. A tile's is
`images/shard_123/shard_00001/123456.png.tiles/chunk_0000_00.png`; the tar
`image_shards/shard_123.tar` has it without its first part.
"""

from __future__ import annotations

IMAGES_DIR = "images"
SHARDS_DIR = "image_shards"
TAR_SUFFIX = ".tar"
_PREFIX = f"{IMAGES_DIR}/"
_MAX_CHARACTERS = 4096  # Linux's PATH_MAX


def find_problem(path: str) -> str | None:
  """Returns why a path is not to be opened; None if there is nothing against it.

  Args:
    path: as it stands in a JSON line.
  """
  if not path.startswith(_PREFIX):
    return f"it does not start with {_PREFIX}"
  if len(path) > _MAX_CHARACTERS:
    return f"it has more than {_MAX_CHARACTERS:,} characters"
  if "\\" in path or "\0" in path:
    return "it has a backslash or a NUL"
  if any(part in ("", ".", "..") for part in path.split("/")):
    return "one of its parts is empty, '.' or '..'"
  return None


def to_member(path: str) -> str:
  """Returns a path's name in a tar, if there is nothing against it."""
  return path.removeprefix(_PREFIX)


def from_member(member: str) -> str:
  """Returns the path of a tile that has this name in a tar."""
  return _PREFIX + member


def get_tar_name(path: str) -> str:
  """Returns the name of the tar in which a path's tile should lie."""
  return to_member(path).split("/", 1)[0] + TAR_SUFFIX
