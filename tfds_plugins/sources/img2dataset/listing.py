"""Finds img2dataset's shards in the user's folder."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import re

from etils import epath

from tfds_plugins import errors
from tfds_plugins.sources import folders
from tfds_plugins.sources.rows import SourceShard

_EXPECTED = (
  "img2dataset's webdataset output: 00000.tar, 00000.parquet,"
  " 00000_stats.json, ..."
)
_SHARD_STEM = re.compile(r"[0-9]+")
_SHARD_FILE = re.compile(r"[0-9]+(_stats)?\.")
# img2dataset's work in progress (rom1504/img2dataset, `img2dataset/main.py`).
_TEMPORARY_DIR = "_tmp"
# What else users have, and what to tell them. The first that fits is told.
_OTHER_FORMATS = (
  (r"[0-9]+\.tar\.\w+", "Decompress the tars (gunzip *.tar.gz)."),
  (
    r"[0-9]+\.tfrecord.*",
    "This is img2dataset's output_format=tfrecord; webdataset is needed:",
  ),
  (
    r"[0-9]+",
    "This may be img2dataset's output_format=files; webdataset is needed:",
  ),
  (
    r"[0-9]+\.parquet",
    "This is img2dataset's output_format=parquet, or the tars are elsewhere;"
    " webdataset is needed:",
  ),
  (
    r".*\.parquet",
    "This seems to be the list of URLs. The images are downloaded from it:",
  ),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TarShard(SourceShard):
  """One tar that img2dataset wrote, and what it wrote beside it.

  Attributes:
    tar_path: the tar.
    parquet_path: the parquet with a row for every URL; '' if missing.
  """

  tar_path: str
  parquet_path: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Listing:
  """The shards of a source folder.

  Attributes:
    source_dir: the folder.
    shards: finished shards, sorted by folder and number.
    unfinished: names of shards that img2dataset is still writing.
    without_tar: names of shards of which there is metadata but no tar.
  """

  source_dir: epath.Path
  shards: Sequence[TarShard]
  unfinished: Sequence[str]
  without_tar: Sequence[str]


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
    errors.ManualDirError: there is no folder, or none with a finished shard.
  """
  existing = folders.list_candidate_dirs(
    manual_dir, dataset, [config], expected=_EXPECTED, instructions=instructions
  )
  for candidate in existing:
    listing = list_shards(candidate, ignored_dirs=other_datasets)
    if listing.shards:
      return listing
    if listing.unfinished:
      raise _no_shards_error(
        "Not one shard is finished: none has its _stats.json yet.",
        str(candidate),
        f"unfinished shards {folders.shorten(listing.unfinished)}",
        "Wait for img2dataset, or run it again: it continues where it was.",
      )
  found, hint = _describe_folders(existing)
  raise _no_shards_error(
    "No img2dataset shard was found.",
    ", ".join(str(path) for path in existing),
    found,
    f"{hint}\n{instructions}",
  )


def _describe_folders(existing: Sequence[epath.Path]) -> tuple[str, str]:
  """Says what lies in folders without a shard, and what to do about it."""
  found = []
  names: set[str] = set()
  for folder in existing:
    inside = sorted(path.name for path in folder.iterdir())
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
    What was found; maybe nothing.
  """
  shards: list[TarShard] = []
  unfinished: list[str] = []
  without_tar: list[str] = []
  children = list(source_dir.iterdir())
  sub_dirs = [
    path
    for path in children
    if not path.name.startswith((".", "_"))
    and path.name not in ignored_dirs
    and not _SHARD_FILE.match(path.name)  # Spares 100,000 files a look.
    and path.is_dir()
  ]
  sub_dirs.sort(key=lambda path: folders.natural_key(path.name))
  for folder in [source_dir, *sub_dirs]:
    name = folder.name.encode("utf-8", "replace").decode()
    prefix = "" if folder == source_dir else f"{name}/"
    paths = children if folder == source_dir else list(folder.iterdir())
    files = {path.name: path for path in paths}
    stems = _list_stems(files, ".tar")
    # Versions before 1.18 wrote no stats at all.
    has_stats = _TEMPORARY_DIR in files or any(
      f"{stem}_stats.json" in files for stem in stems
    )
    for stem in stems:
      if has_stats and f"{stem}_stats.json" not in files:
        unfinished.append(prefix + stem)
        continue
      tar_path = files[f"{stem}.tar"]
      size_bytes = folders.get_size(tar_path)
      shards.append(
        TarShard(
          name=prefix + stem,
          length=size_bytes,
          size_bytes=size_bytes,
          tar_path=str(tar_path),
          parquet_path=str(files.get(f"{stem}.parquet", "")),
        )
      )
    if stems:
      without_tar += [
        prefix + stem
        for stem in _list_stems(files, ".parquet")
        if f"{stem}.tar" not in files and f"{stem}_stats.json" in files
      ]
  return Listing(
    source_dir=source_dir,
    shards=shards,
    unfinished=unfinished,
    without_tar=without_tar,
  )


def _list_stems(files: Mapping[str, epath.Path], suffix: str) -> list[str]:
  """Returns the shard numbers of the files with `suffix`, in numeric order."""
  stems = [name.removesuffix(suffix) for name in files if name.endswith(suffix)]
  stems = [stem for stem in stems if _SHARD_STEM.fullmatch(stem)]
  return sorted(stems, key=lambda stem: (int(stem), stem))


def _no_shards_error(
  what: str, where: str, found: str, to_do: str
) -> errors.ManualDirError:
  problem = errors.Problem(
    what=what,
    where=where,
    expected=_EXPECTED,
    found=found,
    to_do=to_do,
  )
  return errors.ManualDirError(str(problem))
