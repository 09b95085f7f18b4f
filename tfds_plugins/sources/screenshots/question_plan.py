"""Looks over JSON Lines files: which rows, in which order, with which tiles."""

from __future__ import annotations

import collections
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses

from etils import epath
import numpy as np

from tfds_plugins import errors
from tfds_plugins.sources import folders
from tfds_plugins.sources import states
from tfds_plugins.sources.rows import Source
from tfds_plugins.sources.rows import SourceShard
from tfds_plugins.sources.screenshots import json_lines
from tfds_plugins.sources.screenshots import layout
from tfds_plugins.sources.screenshots import questions
from tfds_plugins.sources.screenshots import row_order
from tfds_plugins.sources.screenshots import tile_index
from tfds_plugins.sources.screenshots import tile_paths
from tfds_plugins.sources.screenshots import tile_reader

_ORDER_SUFFIX = ".row_order"
_PLANNED_ROWS = 4096
# What a row takes in a record beside texts and tiles.
_RECORD_BYTES = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuestionShard(SourceShard):
  """The rows of a split in a JSON Lines file; positions are those of its order.

  Attributes:
    lines_path: the file.
    split: the split.
    has_all_splits: whether the file has the rows of others as well.
    dataset_dir: the folder of the tiles.
    lines_identity: size and time of the file when it was looked at.
    order_path: the order of its rows; '' where it is not known yet.
    index_path: the index of the tars; likewise.
  """

  lines_path: str
  split: str
  has_all_splits: bool
  dataset_dir: str
  lines_identity: tuple[int, int] = (0, 0)
  order_path: str = ""
  index_path: str = ""

  @property
  def place(self) -> str:
    """The split: files of other names may have the same rows."""
    return self.split

  def has_changed(self) -> bool:
    """Whether the file has; each tar is looked at when it is opened."""
    path = epath.Path(self.lines_path)
    return folders.get_identity(path) != self.lines_identity


@dataclasses.dataclass
class _Plan:
  """What is known of the rows of a split while a file is looked over."""

  rows: list[tuple[int, int, int]] = dataclasses.field(default_factory=list)
  paths: list[str] = dataclasses.field(default_factory=list)
  size_bytes: int = 0


@dataclasses.dataclass
class _Losses:
  """Tiles that cannot be had.

  Attributes:
    num_rows: how many rows lack the tile that answers.
    num_negatives: how many negatives are lacking.
    tars: the tars that are not there, and how many tiles of them are asked for.
    others: tiles that are lost for another reason, some of them.
    num_others: all of them.
  """

  num_rows: int = 0
  num_negatives: int = 0
  tars: collections.Counter[str] = dataclasses.field(
    default_factory=collections.Counter
  )
  others: list[str] = dataclasses.field(default_factory=list)
  num_others: int = 0


_MAX_REMEMBERED_LOSSES = 100


def list_sources(
  files: Mapping[str, epath.Path], *, dataset_dir: epath.Path
) -> dict[str, Source[QuestionShard]]:
  """Lists the rows of splits in the state that they and their tiles are in.

  Args:
    files: the file of each split. If it is one file for all of them, rows go to
      the split that they name; those that name none, to the first.
    dataset_dir: the folder of the tiles.

  Returns:
    The source of each split, of unknown length and size.
  """
  uses = collections.Counter(files.values())
  tiles = states.describe(layout.list_tile_paths(dataset_dir))
  sources = {}
  for split, path in files.items():
    shard = QuestionShard(
      name=path.name.rpartition(".")[0],
      length=0,
      size_bytes=0,
      lines_path=str(path),
      split=split,
      has_all_splits=uses[path] > 1,
      dataset_dir=str(dataset_dir),
      state=f"{states.describe([str(path)])} {tiles}",
      lines_identity=_get_identity(path),
    )
    sources[split] = Source(
      source_dir=str(dataset_dir), shards=[shard], notes=[]
    )
  return sources


def _get_identity(path: epath.Path) -> tuple[int, int]:
  try:
    return folders.get_identity(path)
  except OSError:  # It will not be read either, and that says why.
    return (0, 0)


def check_source(
  listed: Mapping[str, Source[QuestionShard]],
  *,
  index: tile_index.TileIndex,
  work_dir: epath.Path,
  wanted: Collection[str],
  refuse_missing_tiles: bool,
) -> dict[str, Source[QuestionShard]]:
  """Looks over JSON Lines files and plans in which order to read their rows.

  Args:
    listed: from `list_sources`. It comes before the index is made: what changes
      in between is noticed then.
    index: of the tars.
    work_dir: where the order of the rows is written, and the index is.
    wanted: names of the fields that are needed, as for `questions.parse_line`.
    refuse_missing_tiles: whether a tile that cannot be had is an error.

  Returns:
    The source of each split. Notes say which tars are missing.

  Raises:
    errors.SourceError: a file cannot be read, or tiles cannot be had and that
      is an error.
  """
  shards = {split: source.shards[0] for split, source in listed.items()}
  dataset_dir = epath.Path(next(iter(shards.values())).dataset_dir)
  finder = tile_reader.TileFinder(dataset_dir, index)
  tar_names = {tar.name for tar in index.tars}
  plans = {split: _Plan() for split in shards}
  losses = _Losses()
  by_path: dict[epath.Path, list[str]] = {}
  for split, shard in shards.items():
    by_path.setdefault(epath.Path(shard.lines_path), []).append(split)
  for path, splits in by_path.items():
    _look_over(
      path,
      [plans[split] for split in splits],
      splits,
      finder,
      wanted,
      tar_names,
      losses,
    )
  notes = [*tile_index.describe_damage(index), *_describe(losses, dataset_dir)]
  if notes and refuse_missing_tiles:
    problem = errors.Problem(
      what="Tiles are missing, and refuse_missing_tiles=True.",
      where=str(dataset_dir),
      expected="every tile that a row names",
      found="\n      ".join(notes),
      to_do="Fetch the rest, or build without the option.",
    )
    raise errors.SourceError(str(problem))
  sources = {}
  for i, (split, source) in enumerate(listed.items()):
    sources[split] = dataclasses.replace(
      source,
      shards=[_complete_shard(shards[split], plans[split], work_dir)],
      notes=[] if i else notes,
    )
  return sources


def _look_over(
  path: epath.Path,
  plans: Sequence[_Plan],
  splits: Sequence[str],
  finder: tile_reader.TileFinder,
  wanted: Collection[str],
  tar_names: Collection[str],
  losses: _Losses,
) -> None:
  """Notes the rows of a file, and which of their tiles there are."""
  by_split = dict(zip(splits, plans))
  others = splits[1:]
  try:
    folders.check_regular(path)
    with path.open("rb") as file:
      lines = json_lines.iter_lines(file)
      for chunk in json_lines.iter_chunks(lines, _PLANNED_ROWS):
        parsed = [questions.parse_line(line.data, wanted) for line in chunk]
        found = finder.find(
          tile
          for row in parsed
          if isinstance(row, questions.Question)
          for tile in row.paths
        )
        for line, row in zip(chunk, parsed):
          plan = by_split.get(row.split or "", plans[0])
          plan.rows.append((line.number, line.offset, line.size_bytes))
          plan.size_bytes += _RECORD_BYTES
          is_row = isinstance(row, questions.Question)
          plan.paths.append(row.path if is_row else "")
          # (A row of another split, or of none, will be skipped.)
          is_its = row.split in by_split or (row.split is None and not others)
          if is_row and is_its:
            plan.size_bytes += _count(row, line, found, tar_names, losses)
  except OSError as e:
    problem = errors.Problem(
      what="The file cannot be read.",
      where=str(path),
      expected="JSON Lines",
      found=f"{type(e).__name__}: {e}",
      to_do="Download the file again.",
    )
    raise errors.SourceError(str(problem)) from e


def _count(
  row: questions.Question,
  line: json_lines.Line,
  found: Mapping[str, tile_reader.Tile | tile_reader.LostTile],
  tar_names: Collection[str],
  losses: _Losses,
) -> int:
  """Returns about what a row's example takes, and notes what is lost."""
  size_bytes = line.size_bytes
  for i, path in enumerate(row.paths):
    tile = found[path]
    if i and isinstance(found[row.path], tile_reader.LostTile):
      break  # The row is skipped, whatever its negatives.
    if isinstance(tile, tile_reader.Tile):
      size_bytes += tile.size
      continue
    losses.num_rows += i == 0
    losses.num_negatives += i > 0
    tar_name = tile_paths.get_tar_name(path)
    if tile.reason == tile_reader.MISSING_TILE and tar_name not in tar_names:
      losses.tars[tar_name] += 1
    else:
      losses.num_others += 1
      if len(losses.others) < _MAX_REMEMBERED_LOSSES:
        losses.others.append(tile.detail)
  return size_bytes


def _describe(losses: _Losses, dataset_dir: epath.Path) -> list[str]:
  """Returns what the user should know of tiles that cannot be had."""
  notes = []
  if losses.tars:
    names = sorted(losses.tars, key=folders.natural_key)
    notes.append(
      f"{len(names):,} tar{'s' * (len(names) != 1)} of tiles"
      f" {'are' if len(names) != 1 else 'is'} not in"
      f" {dataset_dir / tile_paths.SHARDS_DIR}: {folders.shorten(names)}."
    )
  if losses.num_others:
    shown = "; ".join(losses.others[:3])
    notes.append(
      f"{losses.num_others:,} tiles cannot be had for other reasons, such as:"
      f" {shown}."
    )
  if notes:
    notes.append(
      f"for want of tiles, rows are skipped: {losses.num_rows:,}; negatives are"
      f" left out of rows: {losses.num_negatives:,}."
    )
  return notes


def _complete_shard(
  shard: QuestionShard, plan: _Plan, work_dir: epath.Path
) -> QuestionShard:
  """Writes the order of a shard's rows, and adds what is known of them."""
  order_path = work_dir / f"{shard.split}{_ORDER_SUFFIX}"
  rows = np.array(plan.rows, np.int64).reshape(-1, 3)
  row_order.write_order(order_path, row_order.sort_rows(rows, plan.paths))
  return dataclasses.replace(
    shard,
    length=len(plan.rows),
    size_bytes=plan.size_bytes,
    order_path=str(order_path),
    index_path=str(work_dir / tile_index.INDEX_FILENAME),
  )
