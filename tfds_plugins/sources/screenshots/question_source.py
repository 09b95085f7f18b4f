"""JSON lines with their tiles, as the source of a conversion."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import itertools
from typing import Any

from etils import epath
import numpy as np
import pyarrow as pa

from tfds_plugins import errors
from tfds_plugins.sources import arrays
from tfds_plugins.sources import raw_files
from tfds_plugins.sources.rows import IMAGE_COLUMN
from tfds_plugins.sources.rows import KEY_COLUMN
from tfds_plugins.sources.rows import IncompleteRow
from tfds_plugins.sources.rows import SkippedRow
from tfds_plugins.sources.rows import SourceBatch
from tfds_plugins.sources.rows import SourceSlice
from tfds_plugins.sources.screenshots import json_lines
from tfds_plugins.sources.screenshots import questions
from tfds_plugins.sources.screenshots import row_order
from tfds_plugins.sources.screenshots import tile_index
from tfds_plugins.sources.screenshots import tile_reader
from tfds_plugins.sources.screenshots.question_plan import QuestionShard

# The column that is added beside `image`: the tiles of the negative paths.
NEGATIVES_COLUMN = "neg_images"
# Why a row is there without all of its negatives.
MISSING_NEGATIVE = "missing_negative"
# A reason for skipping a row.
ROW_TOO_LARGE = "row_too_large"

_READ_ROWS = 512
# Tiles of a batch; what it takes in memory is some four times as much.
_BATCH_BYTES = 48 << 20
# A row may name any number of negatives.
_MAX_ROW_BYTES = 512 << 20


def iter_batches(
  source_slice: SourceSlice[QuestionShard], wanted: pa.Schema
) -> Iterator[SourceBatch]:
  """Yields the rows of a slice.

  Args:
    source_slice: a part of a file's order.
    wanted: names and types of the fields: those of `questions`, without the
      split.

  Yields:
    Batches with the columns `key` (the number of the line), `image`, the wanted
    ones and, if negative paths are wanted, `neg_images`: list of binary, the
    tiles of these paths. Paths whose tile cannot be had are left out of both.
    Tiles are valid until the next batch is asked for.

  Raises:
    errors.SourceError: a file is not what it was when it was looked over.
  """
  shard = source_slice.shard
  index = tile_index.load_index(epath.Path(shard.index_path))
  dataset_dir = epath.Path(shard.dataset_dir)
  finder = tile_reader.TileFinder(dataset_dir, index)
  order = row_order.read_order(
    epath.Path(shard.order_path), source_slice.start, source_slice.stop
  )
  memory = (arrays.BinaryBuffer(), arrays.BinaryBuffer())
  with (
    epath.Path(shard.lines_path).open("rb") as opened,
    tile_reader.TileReader(dataset_dir, index.tars) as reader,
  ):
    file = raw_files.without_read_ahead(opened)
    for rows in row_order.iter_chunks(
      order, _READ_ROWS, json_lines.MAX_CHUNK_BYTES
    ):
      parsed = [
        (number, _read_line(file, number, offset, size, shard, wanted.names))
        for number, offset, size in rows.tolist()
      ]
      tiles = finder.find(
        path
        for _, row in parsed
        if isinstance(row, questions.Question)
        for path in row.paths
      )
      batch = _Batch(shard, wanted)
      for number, row in parsed:
        num_bytes = _count_bytes(row, tiles)
        if batch.num_rows and batch.tile_bytes + num_bytes > _BATCH_BYTES:
          yield batch.finish(reader, memory)
          batch = _Batch(shard, wanted)
        if num_bytes > _MAX_ROW_BYTES:
          detail = (
            f"tiles of {num_bytes:,} bytes, the limit is {_MAX_ROW_BYTES:,}"
          )
          row = questions.BadLine(reason=ROW_TOO_LARGE, detail=detail)
        batch.add(number, row, tiles)
      if batch.num_rows:
        yield batch.finish(reader, memory)


def _read_line(
  file: Any,
  number: int,
  offset: int,
  size_bytes: int,
  shard: QuestionShard,
  wanted: Collection[str],
) -> questions.Question | questions.BadLine:
  if size_bytes > json_lines.MAX_LINE_BYTES:
    return questions.parse_line(None, wanted)
  file.seek(offset)
  data = file.read(size_bytes)
  if len(data) < size_bytes or b"\n" in data[:-1]:
    problem = errors.Problem(
      what="The file has changed while it was converted.",
      where=f"{shard.lines_path}, line {number}",
      expected=f"a line of {size_bytes:,} bytes at byte {offset:,}",
      found="another one",
      to_do="Wait until nothing writes to it any more, and build again.",
    )
    raise errors.SourceError(str(problem))
  row = questions.parse_line(json_lines.strip(data), wanted)
  if isinstance(row, questions.Question) and row.split != shard.split:
    if row.split is not None:
      shown = ascii(row.split)
      detail = f"split is {shown} among the rows of '{shard.split}'"
      return questions.BadLine(reason=questions.WRONG_SPLIT, detail=detail)
    if shard.has_all_splits:
      detail = "the row does not say to which split it belongs"
      return questions.BadLine(reason=questions.WRONG_SPLIT, detail=detail)
  return row


def _count_bytes(
  row: questions.Question | questions.BadLine,
  tiles: Mapping[str, tile_reader.Tile | tile_reader.LostTile],
) -> int:
  """Returns the size of the tiles of a row."""
  if isinstance(row, questions.BadLine):
    return 0
  found = [tiles[path] for path in row.paths]
  return sum(t.size for t in found if isinstance(t, tile_reader.Tile))


class _Batch:
  """Rows whose tiles are read together."""

  def __init__(self, shard: QuestionShard, wanted: pa.Schema):
    self._shard = shard
    self._wanted = wanted
    self._has_negatives = questions.NEGATIVE_PATHS in wanted.names
    self._keys: list[str] = []
    self._rows: list[questions.Question] = []
    self._tiles: list[tile_reader.Tile] = []
    self._negatives: list[list[tile_reader.Tile]] = []
    self._skipped: list[SkippedRow] = []
    self._incomplete: list[IncompleteRow] = []
    self.num_rows = 0
    self.tile_bytes = 0

  def add(
    self,
    number: int,
    row: questions.Question | questions.BadLine,
    tiles: Mapping[str, tile_reader.Tile | tile_reader.LostTile],
  ) -> None:
    """Adds a row."""
    self.num_rows += 1
    if isinstance(row, questions.BadLine):
      self._skip(number, row.reason, row.detail)
      return
    tile = tiles[row.path]
    if isinstance(tile, tile_reader.LostTile):
      self._skip(number, tile.reason, tile.detail)
      return
    negatives = []
    for path in row.negative_paths:
      negative = tiles[path]
      if isinstance(negative, tile_reader.Tile):
        negatives.append(negative)
      else:
        self._incomplete.append(
          IncompleteRow(
            source_shard=self._shard.name,
            key=str(number),
            reason=MISSING_NEGATIVE,
            detail=negative.detail,
          )
        )
    self._keys.append(str(number))
    self._rows.append(row)
    self._tiles.append(tile)
    self._negatives.append(negatives)
    self.tile_bytes += tile.size + sum(each.size for each in negatives)

  def _skip(self, number: int, reason: str, detail: str) -> None:
    self._skipped.append(
      SkippedRow(
        source_shard=self._shard.name,
        key=str(number),
        reason=reason,
        detail=detail,
      )
    )

  def finish(
    self,
    reader: tile_reader.TileReader,
    memory: tuple[arrays.BinaryBuffer, arrays.BinaryBuffer],
  ) -> SourceBatch:
    """Reads the tiles and returns the rows.

    Args:
      reader: reads the tiles.
      memory: for those that answer, and for those that do not.
    """
    flat = list(itertools.chain.from_iterable(self._negatives))
    images, image_views = memory[0].make_room([t.size for t in self._tiles])
    negatives, negative_views = memory[1].make_room([t.size for t in flat])
    reader.read(
      zip([*self._tiles, *flat], [*image_views, *negative_views], strict=True)
    )
    columns: dict[str, pa.Array] = {
      KEY_COLUMN: arrays.make_strings(self._keys),
      IMAGE_COLUMN: images,
    }
    ends = list(itertools.accumulate(map(len, self._negatives), initial=0))
    offsets = arrays.from_numpy(np.array(ends, np.int32))
    for field in self._wanted:
      columns[field.name] = self._make_column(field, offsets, flat)
    if self._has_negatives:
      columns[NEGATIVES_COLUMN] = pa.ListArray.from_arrays(offsets, negatives)
    return SourceBatch(
      rows=pa.RecordBatch.from_pydict(columns),
      skipped=self._skipped,
      incomplete=self._incomplete,
      num_rows=self.num_rows,
    )

  def _make_column(
    self, field: pa.Field, offsets: pa.Array, flat: Sequence[tile_reader.Tile]
  ) -> pa.Array:
    rows = self._rows
    if field.name == questions.NEGATIVE_PATHS:
      values = arrays.make_strings([tile.path for tile in flat])
      return pa.ListArray.from_arrays(offsets, values)
    if field.name == questions.RANK:
      return arrays.from_numpy(np.array([row.rank for row in rows], np.int64))
    if field.name == questions.SCORE:
      return arrays.from_numpy(
        np.array([row.score for row in rows], np.float64)
      )
    get = {
      questions.QUERY: lambda row: row.query,
      questions.PATH: lambda row: row.path,
      questions.ANSWER: lambda row: row.answer,
    }[field.name]
    return arrays.make_strings(list(map(get, rows)))
