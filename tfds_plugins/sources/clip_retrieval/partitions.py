"""Finds embedding partitions: image vectors, text vectors and their metadata.

A partition is three files with one number: `img_emb_N.npy`, `text_emb_N.npy`
and `metadata_N.parquet`, row i of each about the same pair. clip-retrieval
writes them into folders `img_emb`, `text_emb` and `metadata`, N padded with
zeros since 2022 and with gaps (rom1504/clip-retrieval,
`clip_retrieval/clip_inference/writer.py`). LAION-400M's are unpadded, and were
published in folders of these names as well as in `images`, `texts` and
`metadata`.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import re

from etils import epath

from tfds_plugins import errors
from tfds_plugins.sources import folders
from tfds_plugins.sources import states
from tfds_plugins.sources.clip_retrieval import npy
from tfds_plugins.sources.rows import SourceShard

EXPECTED = (
  "embedding partitions: img_emb/img_emb_0.npy, text_emb/text_emb_0.npy,"
  " metadata/metadata_0.parquet, ..."
)
IMAGE_FILE = "img_emb"
TEXT_FILE = "text_emb"
METADATA_FILE = "metadata"
_KINDS = (IMAGE_FILE, TEXT_FILE, METADATA_FILE)
_FOLDERS = (*_KINDS, "images", "texts")
_FILE_NAME = re.compile(
  r"(img_emb|text_emb)_([0-9]+)\.npy|(metadata)_([0-9]+)\.parquet"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddingPartition(SourceShard):
  """A partition whose files have been looked at. Its positions are rows.

  Attributes:
    image_vectors: the vectors of the images.
    text_vectors: the vectors of the texts; as many.
    metadata_path: the parquet; as many rows.
  """

  image_vectors: npy.NpyVectors
  text_vectors: npy.NpyVectors
  metadata_path: str

  def list_paths(self) -> Sequence[str]:
    """Returns the three files."""
    return [
      self.image_vectors.path,
      self.text_vectors.path,
      self.metadata_path,
    ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PartitionFiles:
  """The files of a partition.

  Attributes:
    number: the number in their names.
    paths: `img_emb`, `text_emb`, `metadata` -> the file.
  """

  number: int
  paths: Mapping[str, epath.Path]

  def make_shard(self) -> SourceShard:
    """Returns the partition, if it is complete, before its files are opened."""
    return SourceShard(
      name=str(self.number),
      length=0,
      size_bytes=0,
      state=states.describe(str(self.paths[kind]) for kind in _KINDS),
    )

  @property
  def missing(self) -> list[str]:
    """Which of the three are not there."""
    return [kind for kind in _KINDS if kind not in self.paths]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Listing:
  """The partitions of a source folder.

  Attributes:
    source_dir: the folder, for people.
    complete: partitions of three files, sorted by number.
    incomplete: the others.
  """

  source_dir: str
  complete: Sequence[PartitionFiles]
  incomplete: Sequence[PartitionFiles]


def parse_name(name: str) -> tuple[str, int] | None:
  """Returns kind and number of a partition's file; None for other files."""
  match = _FILE_NAME.fullmatch(name)
  if match is None:
    return None
  return (match[1] or match[3], int(match[2] or match[4]))


def find_partitions(candidates: Iterable[epath.Path]) -> Listing | None:
  """Lists the partitions of the first folder that has any of their files.

  Args:
    candidates: folders that exist, from `folders.list_candidate_dirs`.

  Returns:
    At least one complete partition; None if there is no file of any.

  Raises:
    errors.SourceError: two files of one kind have the same number, or not one
      partition is complete.
  """
  for folder in candidates:
    files = _list_files(folder)
    if files:
      return make_listing(str(folder), files)
  return None


def make_listing(
  source_dir: str, files: Iterable[tuple[str, epath.Path]]
) -> Listing:
  """Pairs the files of partitions by number.

  Args:
    source_dir: where they are, for people.
    files: names, as they were published, and paths.

  Returns:
    The partitions, at least one of them complete.

  Raises:
    errors.SourceError: see `find_partitions`.
  """
  found: dict[int, dict[str, epath.Path]] = {}
  problems = []
  for name, path in files:
    parsed = parse_name(name)
    if parsed is None:
      continue
    kind, number = parsed
    known = found.setdefault(number, {})
    if kind in known:
      problems.append(_repeated(kind, number, known[kind], path))
    known[kind] = path
  if problems:
    raise errors.SourceError(errors.describe(problems))
  partitions = [
    PartitionFiles(number=number, paths=paths)
    for number, paths in sorted(found.items())
  ]
  complete = [p for p in partitions if not p.missing]
  incomplete = [p for p in partitions if p.missing]
  if not complete:
    raise _none_complete(source_dir, incomplete)
  return Listing(
    source_dir=source_dir, complete=complete, incomplete=incomplete
  )


def list_names(listing: Listing) -> list[tuple[str, epath.Path]]:
  """Returns the files of complete partitions, by their published names."""
  return [
    (f"{kind}_{files.number}{path.suffix}", path)
    for files in listing.complete
    for kind, path in files.paths.items()
  ]


def _list_files(folder: epath.Path) -> list[tuple[str, epath.Path]]:
  """Lists partitions' files in `folder` and in the folders made for them."""
  files = []
  for place in (folder, *(folder / name for name in _FOLDERS)):
    if place == folder or place.is_dir():
      files += [
        (path.name, path)
        for path in folders.list_children(place)
        if parse_name(path.name)
      ]
  return sorted(files)


def _repeated(
  kind: str, number: int, first: epath.Path, second: epath.Path
) -> errors.Problem:
  return errors.Problem(
    what=f"There are two files {kind} with the number {number}.",
    where=str(first),
    expected="one file of a kind for each number",
    found=f"{second} as well",
    to_do="Remove the one that does not belong here.",
  )


def _none_complete(
  source_dir: str, incomplete: Sequence[PartitionFiles]
) -> errors.SourceError:
  """Says what is missing, of all partitions or of some of them."""
  missing = [
    kind for kind in _KINDS if all(kind in p.missing for p in incomplete)
  ]
  to_do = "Fetch the files that are missing."
  if {IMAGE_FILE, TEXT_FILE} & set(missing):
    to_do += (
      " clip-retrieval writes both kinds of vectors with --enable_image True"
      " --enable_text True."
    )
  described = [f"{p.number} (no {', '.join(p.missing)})" for p in incomplete]
  problem = errors.Problem(
    what="Not one embedding partition is complete.",
    where=source_dir,
    expected=EXPECTED,
    found=f"partitions {folders.shorten(described)}",
    to_do=to_do,
  )
  return errors.SourceError(str(problem))
