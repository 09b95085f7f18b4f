"""What the dataset's folder has in it."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Sequence
import dataclasses

from etils import epath

from tfds_plugins import errors
from tfds_plugins.sources import folders
from tfds_plugins.sources.screenshots import tile_paths

_EXPECTED = (
  "the folder as it is published: JSON lines (train_hn.jsonl, ...), image_shards/"
  " or images/"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
  """The folder of the dataset.

  Attributes:
    dataset_dir: the folder.
    names: of the files that lie directly in it.
    tars: the files `image_shards/*.tar`.
    has_images: whether there is a folder `images`.
  """

  dataset_dir: epath.Path
  names: Collection[str]
  tars: Sequence[epath.Path]
  has_images: bool


def find_layout(
  manual_dir: epath.Path, *, dataset: str, instructions: str
) -> Layout:
  """Finds the folder: `manual_dir` itself, or one of the dataset's name in it.

  Args:
    manual_dir: the folder that the user named.
    dataset: name of the dataset.
    instructions: how to get the data, for the error.

  Raises:
    errors.ManualDirError: neither has anything of the dataset.
  """
  candidates = folders.list_candidate_dirs(
    manual_dir, dataset, [], expected=_EXPECTED, instructions=instructions
  )
  for folder in candidates:
    layout = _look_at(folder)
    has_lines = any(name.endswith(".jsonl") for name in layout.names)
    if has_lines or layout.tars or layout.has_images:
      return layout
  problem = errors.Problem(
    what="The dataset was not found.",
    where=", ".join(map(str, candidates)),
    expected=_EXPECTED,
    found="; ".join(
      folders.shorten(
        sorted(path.name for path in folders.list_children(folder))
      )
      or "nothing"
      for folder in candidates
    ),
    to_do=f"Fetch the data like this:\n{instructions}",
  )
  raise errors.ManualDirError(str(problem))


def pick_file(
  layout: Layout, names: Sequence[str], instructions: str
) -> epath.Path:
  """Returns the first of some files that there is.

  Args:
    layout: the folder.
    names: of files that hold the same rows.
    instructions: how to get the data, for the error.

  Raises:
    errors.ManualDirError: there is none.
  """
  for name in names:
    if name in layout.names:
      return layout.dataset_dir / name
  lines = sorted(name for name in layout.names if name.endswith(".jsonl"))
  problem = errors.Problem(
    what=f"The file {names[0]} is missing.",
    where=str(layout.dataset_dir),
    expected=" or ".join(names),
    found=folders.shorten(lines) or "no .jsonl file at all",
    to_do=f"Fetch it as well:\n{instructions}",
  )
  raise errors.ManualDirError(str(problem))


def list_tile_paths(dataset_dir: epath.Path) -> list[str]:
  """Returns what tiles are read from: tars, and the folders of extracted ones."""
  layout = _look_at(dataset_dir)
  paths = list(map(str, layout.tars))
  if layout.has_images:
    paths += map(str, list_image_dirs(layout))
  return paths


def list_image_dirs(layout: Layout) -> list[epath.Path]:
  """Returns the folders of extracted tars, in the order of their numbers."""
  images_dir = layout.dataset_dir / tile_paths.IMAGES_DIR
  found = [path for path in folders.list_children(images_dir) if path.is_dir()]
  return sorted(found, key=lambda path: folders.natural_key(path.name))


def _look_at(folder: epath.Path) -> Layout:
  names = {path.name for path in folders.list_children(folder)}
  shards_dir = folder / tile_paths.SHARDS_DIR
  tars = []
  if tile_paths.SHARDS_DIR in names and shards_dir.is_dir():
    tars = [
      path
      for path in folders.list_children(shards_dir)
      if path.name.endswith(tile_paths.TAR_SUFFIX)
      and not path.name.startswith(".")
    ]
  return Layout(
    dataset_dir=folder,
    names=names,
    tars=sorted(tars, key=lambda path: folders.natural_key(path.name)),
    has_images=(folder / tile_paths.IMAGES_DIR).is_dir(),
  )
