"""Finds img2dataset's shards in the user's folder, whatever their format."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import re

from etils import epath

from tfds_plugins import errors
from tfds_plugins.sources import checking
from tfds_plugins.sources import folders
from tfds_plugins.sources import parquet_files
from tfds_plugins.sources import states
from tfds_plugins.sources.img2dataset import image_parquet
from tfds_plugins.sources.img2dataset import samples
from tfds_plugins.sources.img2dataset.shards import Format
from tfds_plugins.sources.img2dataset.shards import ImageShard

_EXPECTED = (
  "img2dataset's output: 00000.tar, 00000.parquet, 00000_stats.json, ..., or"
  " its formats files, parquet and tfrecord"
)
_SHARD_STEM = re.compile(r"[0-9]+")
_SHARD_EXTENSIONS = ("tar", "tfrecord", "parquet")
_PARQUET_TO_DO = "Download the shard again, or remove it."
_SHARD_FILE = re.compile(r"[0-9]+(_stats)?\.")
# COYO's recipe renames TFRecord files like this (kakaobrain/coyo-dataset,
# `subset/COYO-Labeled-300M/download/dataproc/write_metadata.py`).
_RENAMED_TFRECORD = re.compile(
  r"CoyoLabeled300m-train\.tfrecord-[0-9]+-of-[0-9]+"
)
# img2dataset's work in progress (rom1504/img2dataset, `img2dataset/main.py`).
_TEMPORARY_DIR = "_tmp"
# Of so many parquets one should be readable, to tell what they hold.
_NUM_LOOKED_INTO = 4
_NUM_THREADS = 16
# What else users have, and what to tell them. The first that fits is told.
_OTHER_FORMATS = (
  (r"[0-9]+\.tar\.\w+", "Decompress the tars (gunzip *.tar.gz)."),
  (
    r"[0-9]+\.parquet",
    "This is metadata without images: the tars seem to be elsewhere.",
  ),
  (
    r".*\.parquet",
    "This seems to be the list of URLs. The images are downloaded from it:",
  ),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Listing:
  """The shards of a source folder.

  Attributes:
    source_dir: the folder.
    shards: finished shards, sorted by folder and number, in the state that they
      are in. Lengths and sizes may not be known yet.
    unfinished: names of shards that img2dataset is still writing.
    without_images: names of shards of which there is metadata alone.
    unreadable: what is wrong with parquets that may be shards.
  """

  source_dir: epath.Path
  shards: Sequence[ImageShard]
  unfinished: Sequence[str]
  without_images: Sequence[str]
  unreadable: Sequence[str] = ()


def find_shards(
  manual_dir: epath.Path,
  *,
  dataset: str,
  config: str,
  other_datasets: Collection[str] = (),
  instructions: str,
) -> Listing:
  """Lists the shards of the first candidate folder that holds any.

  Args:
    manual_dir: the folder that the user named.
    dataset: name of the dataset, a possible sub-folder.
    config: name of the builder config, a possible sub-folder.
    other_datasets: sub-folders of these names belong to other datasets.
    instructions: how to get the data, for the error.

  Returns:
    The shards. At least one is finished.

  Raises:
    errors.ManualDirError: there is no folder, or none with a finished shard,
      or the first one with shards has two formats of them.
    errors.SourceError: there is nothing but parquets that cannot be read.
  """
  existing = folders.list_candidate_dirs(
    manual_dir, dataset, [config], expected=_EXPECTED, instructions=instructions
  )
  for candidate in existing:
    listing = list_shards(candidate, ignored_dirs=other_datasets)
    _check_one_format(listing)
    if listing.shards:
      return listing
    if listing.unfinished:
      raise _no_shards_error(
        "Not one shard is finished: none has its _stats.json yet.",
        str(candidate),
        f"unfinished shards {folders.shorten(listing.unfinished)}",
        "Wait for img2dataset, or run it again: it continues where it was.",
      )
    if listing.unreadable:
      raise errors.SourceError(errors.describe(listing.unreadable))
  found, hint = _describe_folders(existing)
  raise _no_shards_error(
    "No img2dataset shard was found.",
    ", ".join(str(path) for path in existing),
    found,
    f"{hint}\n{instructions}",
  )


def _check_one_format(listing: Listing) -> None:
  """Checks that a folder is the output of one run."""
  names: dict[Format, list[str]] = {}
  for shard in listing.shards:
    names.setdefault(shard.format, []).append(shard.name)
  if len(names) > 1:
    found = "; ".join(
      f"{len(of_format):,} shards of output_format={key.value}"
      f" ({folders.shorten(of_format)})"
      for key, of_format in names.items()
    )
    raise _no_shards_error(
      "The shards have more than one format.",
      str(listing.source_dir),
      found,
      "The same rows may be there twice. Move one format into another folder.",
      expected="shards of one of img2dataset's formats",
    )


def _describe_folders(existing: Sequence[epath.Path]) -> tuple[str, str]:
  """Says what lies in folders without a shard, and what to do about it."""
  found = []
  names: set[str] = set()
  for folder in existing:
    inside = sorted(path.name for path in folders.list_children(folder))
    names.update(inside)
    found.append(
      f"in {folder}: {folders.shorten(inside) if inside else 'nothing'}"
    )
  for pattern, hint in _OTHER_FORMATS:
    if any(re.fullmatch(pattern, name) for name in names):
      return "; ".join(found), hint
  return "; ".join(found), "Fetch the data like this:"


def list_shards(
  source_dir: epath.Path, *, ignored_dirs: Collection[str] = ()
) -> Listing:
  """Lists the shards in `source_dir` and in the folders directly below it.

  img2dataset names a shard by its number, zero-padded to `oom_shard_count`
  (rom1504/img2dataset, `img2dataset/writer.py`), and writes `_stats.json` when
  the shard is done (`img2dataset/downloader.py`). Every folder is listed once.

  Args:
    source_dir: the folder that img2dataset wrote, or one that holds several.
    ignored_dirs: names of sub-folders to leave alone.

  Returns:
    What was found; maybe nothing, maybe of several formats.
  """
  found = _FolderContent(source_dir, "")
  contents = [found]
  # Those of `files` are shards themselves.
  sub_dirs = [
    path
    for name, path in found.files.items()
    if not name.startswith((".", "_"))
    and name not in ignored_dirs
    and not _SHARD_FILE.match(name)  # Spares 100,000 files a look.
    and not found.is_shard_dir(name)
    and path.is_dir()
  ]
  sub_dirs.sort(key=lambda path: folders.natural_key(path.name))
  for folder in sub_dirs:
    name = folder.name.encode("utf-8", "replace").decode()
    content = _FolderContent(folder, f"{name}/")
    if content.is_files_shard(folder.name):
      found.add_shard_dir(folder)
      continue
    for child in content.files:
      content.is_shard_dir(child)
    contents.append(content)
  shards: list[ImageShard] = []
  unfinished: list[str] = []
  without_images: list[str] = []
  for content in contents:
    finished, others = content.list_shards()
    shards += finished
    unfinished += others
    if finished or others:
      without_images += content.list_without_images()
  return Listing(
    source_dir=source_dir,
    shards=checking.map_all(_measure, shards, num_threads=_NUM_THREADS),
    unfinished=unfinished,
    without_images=without_images,
    unreadable=[each for content in contents for each in content.unreadable],
  )


class _FolderContent:
  """What lies in one folder."""

  def __init__(self, folder: epath.Path, prefix: str):
    self.files = {path.name: path for path in folders.list_children(folder)}
    self._prefix = prefix
    self._shard_dirs: set[str] = set()
    self.unreadable: list[str] = []

  def is_shard_dir(self, name: str) -> bool:
    """Whether a name is that of a shard of format `files`, by what is beside it."""
    is_shard = (
      _SHARD_STEM.fullmatch(name) is not None
      and (
        f"{name}.parquet" in self.files or f"{name}_stats.json" in self.files
      )
      and f"{name}.tar" not in self.files
      and self.files[name].is_dir()
    )
    if is_shard:
      self._shard_dirs.add(name)
    return is_shard

  def add_shard_dir(self, folder: epath.Path) -> None:
    """Notes that a sub-folder was found to be a shard by what is in it."""
    self._shard_dirs.add(folder.name)

  def is_files_shard(self, folder_name: str) -> bool:
    """Whether this folder is a shard of format `files`, by what is in it."""
    names = [name.partition(".") for name in self.files]
    return (
      _SHARD_STEM.fullmatch(folder_name) is not None
      and any(
        _SHARD_STEM.fullmatch(stem) and extension in samples.IMAGE_EXTENSIONS
        for stem, _, extension in names
      )
      # A folder of shards may have a stray image.
      and not any(extension in _SHARD_EXTENSIONS for _, _, extension in names)
    )

  def list_shards(self) -> tuple[list[ImageShard], list[str]]:
    """Returns the finished shards by format and number, and the names of others."""
    paths = {
      **self._find(Format.WEBDATASET, ".tar"),
      **self._find(Format.TFRECORD, ".tfrecord"),
      **{
        (Format.FILES, stem): self.files[stem]
        for stem in _sort_stems(self._shard_dirs)
      },
    }
    lone = [
      stem
      for stem in self._list_stems(".parquet")
      if not any((key, stem) in paths for key in Format)
    ]
    renamed = self._list_renamed()
    if not renamed and any(map(self._holds_images, lone[:_NUM_LOOKED_INTO])):
      paths |= {
        (Format.PARQUET, stem): self.files[f"{stem}.parquet"] for stem in lone
      }
    # Versions before 1.18 wrote no stats at all.
    has_stats = _TEMPORARY_DIR in self.files or any(
      f"{stem}_stats.json" in self.files for _, stem in paths
    )
    finished: list[ImageShard] = []
    unfinished: list[str] = []
    for (key, stem), path in paths.items():
      if has_stats and f"{stem}_stats.json" not in self.files:
        unfinished.append(self._prefix + stem)
        continue
      parquet_path = "" if key is Format.PARQUET else f"{stem}.parquet"
      finished.append(
        self._make_shard(stem, key, path, self.files.get(parquet_path))
      )
    return finished + renamed, unfinished

  def list_without_images(self) -> list[str]:
    """Returns the names of finished shards of which there is metadata alone."""
    if self._list_renamed():
      return []
    return [
      self._prefix + stem
      for stem in self._list_stems(".parquet")
      if f"{stem}_stats.json" in self.files
      and not {f"{stem}.tar", f"{stem}.tfrecord", stem} & self.files.keys()
      and not self._holds_images(stem)
    ]

  def _list_renamed(self) -> list[ImageShard]:
    """Returns the TFRecord files that COYO's recipe has renamed.

    They were numbered anew in the order of their names, the parquets beside
    them were not: where there are as many, the first belongs to the first.
    """
    names = [name for name in self.files if _RENAMED_TFRECORD.fullmatch(name)]
    names.sort(key=folders.natural_key)
    stems = self._list_stems(".parquet")
    parquets = [self.files[f"{stem}.parquet"] for stem in stems]
    if len(parquets) != len(names):
      parquets = [None] * len(names)
    return [
      self._make_shard(name, Format.TFRECORD, self.files[name], parquet)
      for name, parquet in zip(names, parquets)
    ]

  def _make_shard(
    self,
    name: str,
    key: Format,
    path: epath.Path,
    parquet_path: epath.Path | None,
  ) -> ImageShard:
    return ImageShard(
      name=self._prefix + name,
      length=0,
      size_bytes=0,
      format=key,
      path=str(path),
      parquet_path="" if parquet_path is None else str(parquet_path),
    )

  def _find(
    self, key: Format, suffix: str
  ) -> Mapping[tuple[Format, str], epath.Path]:
    return {
      (key, stem): self.files[stem + suffix]
      for stem in self._list_stems(suffix)
    }

  def _list_stems(self, suffix: str) -> list[str]:
    """Returns the shard numbers of the files with `suffix`, in numeric order."""
    return _sort_stems(
      name.removesuffix(suffix) for name in self.files if name.endswith(suffix)
    )

  def _holds_images(self, stem: str) -> bool:
    """Whether a parquet is a shard of format `parquet`."""
    path = self.files[f"{stem}.parquet"]
    try:
      schema = parquet_files.look_at(path, _PARQUET_TO_DO).schema
    except errors.SourceError as e:
      self.unreadable.append(str(e))
      return False
    return bool(image_parquet.find_image_columns(schema))


def _measure(shard: ImageShard) -> ImageShard:
  """Adds the state of a shard, and then its size if it is a file."""
  state = states.describe(shard.list_paths())
  is_file = shard.format is not Format.FILES
  size_bytes = folders.get_size(epath.Path(shard.path)) if is_file else 0
  return dataclasses.replace(
    shard, state=state, length=size_bytes, size_bytes=size_bytes
  )


def _sort_stems(names: Iterable[str]) -> list[str]:
  """Returns those names that are shard numbers, in numeric order."""
  stems = [name for name in names if _SHARD_STEM.fullmatch(name)]
  return sorted(stems, key=lambda stem: (int(stem), stem))


def _no_shards_error(
  what: str, where: str, found: str, to_do: str, expected: str = _EXPECTED
) -> errors.ManualDirError:
  problem = errors.Problem(
    what=what,
    where=where,
    expected=expected,
    found=found,
    to_do=to_do,
  )
  return errors.ManualDirError(str(problem))
