"""What a line of the published JSON Lines files says."""

from __future__ import annotations

from collections.abc import Collection
import dataclasses
import json
import math
from typing import Any

from tfds_plugins.sources.screenshots import json_lines
from tfds_plugins.sources.screenshots import tile_paths

# Reasons for skipping a row.
BAD_LINE = "bad_line"
MISSING_FIELD = "missing_field"
UNSAFE_PATH = "unsafe_path"
WRONG_SPLIT = "wrong_split"

QUERY = "query"
PATH = "chunk_path"
NEGATIVE_PATHS = "neg_chunk_paths"
ANSWER = "answer"
SPLIT = "split"
RANK = "source_positive_rank"
SCORE = "source_positive_score"

_MAX_SHOWN_CHARACTERS = 100


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Question:
  """A row.

  Attributes:
    query: the question.
    path: the tile that answers it.
    negative_paths: tiles that do not.
    answer: the answer; '' for null, or where it is not asked for.
    split: the row's own split; None if it names none.
    rank: -1 if there is none.
    score: NaN if there is none.
  """

  query: str
  path: str
  negative_paths: tuple[str, ...]
  answer: str
  split: str | None
  rank: int
  score: float

  @property
  def paths(self) -> tuple[str, ...]:
    """All tiles, the one that answers first."""
    return (self.path, *self.negative_paths)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class BadLine:
  """A line that is no row.

  Attributes:
    reason: one of this module's reasons.
    detail: what was found.
    split: the line's split, if that much is known.
  """

  reason: str
  detail: str
  split: str | None = None


def parse_line(
  data: bytes | None, wanted: Collection[str]
) -> Question | BadLine:
  """Parses a line.

  Args:
    data: from `json_lines`.
    wanted: names of the fields that are needed beside query and path: of them,
      negative paths and answer have to be there.
  """
  if data is None:
    limit = f"{json_lines.MAX_LINE_BYTES:,}"
    detail = f"a line of more than {limit} bytes is not read"
    return BadLine(reason=BAD_LINE, detail=detail)
  try:
    record = json.loads(data.decode())
  except (ValueError, RecursionError) as e:  # UnicodeDecodeError is the former.
    return BadLine(reason=BAD_LINE, detail=f"{type(e).__name__}: {e}")
  if not isinstance(record, dict):
    detail = f"{_shorten(record)} where an object was expected"
    return BadLine(reason=BAD_LINE, detail=detail)
  split = record.get(SPLIT)
  split = split if isinstance(split, str) else None
  found = _find_bad_field(record, wanted)
  if found is not None:
    return BadLine(reason=MISSING_FIELD, detail=found, split=split)
  negatives = record[NEGATIVE_PATHS] if NEGATIVE_PATHS in wanted else []
  for path in (record[PATH], *negatives):
    problem = tile_paths.find_problem(path)
    if problem is not None:
      detail = f"{_shorten(path)}: {problem}"
      return BadLine(reason=UNSAFE_PATH, detail=detail, split=split)
  return Question(
    query=record[QUERY],
    path=record[PATH],
    negative_paths=tuple(negatives),
    answer=(record[ANSWER] or "") if ANSWER in wanted else "",
    split=split,
    rank=_get_rank(record) if RANK in wanted else -1,
    score=_get_score(record) if SCORE in wanted else math.nan,
  )


def _find_bad_field(
  record: dict[str, Any], wanted: Collection[str]
) -> str | None:
  """Returns what is wrong with the fields."""
  for name in (QUERY, PATH):
    if not _is_text(record.get(name)):
      return f"{name} is {_describe(record, name)}, not a text"
  if NEGATIVE_PATHS in wanted:
    negatives = record.get(NEGATIVE_PATHS)
    if not isinstance(negatives, list) or not all(map(_is_text, negatives)):
      found = _describe(record, NEGATIVE_PATHS)
      return f"{NEGATIVE_PATHS} is {found}, not a list of texts"
  if ANSWER in wanted and not (
    ANSWER in record and (record[ANSWER] is None or _is_text(record[ANSWER]))
  ):
    return f"{ANSWER} is {_describe(record, ANSWER)}, not a text or null"
  if not isinstance(record.get(SPLIT, ""), str):
    return f"{SPLIT} is {_describe(record, SPLIT)}, not a text"
  return None


def _is_text(value: Any) -> bool:
  """Whether a value is a string that UTF-8 can hold: JSON has half characters."""
  if not isinstance(value, str):
    return False
  try:
    value.encode()
  except UnicodeEncodeError:
    return False
  return True


def _get_rank(record: dict[str, Any]) -> int:
  rank: Any = record.get(RANK)
  is_rank = isinstance(rank, int) and not isinstance(rank, bool)
  return rank if is_rank and 0 <= rank < 1 << 63 else -1


def _get_score(record: dict[str, Any]) -> float:
  score: Any = record.get(SCORE)
  if not isinstance(score, int | float) or isinstance(score, bool):
    return math.nan
  try:
    return float(score)
  except OverflowError:  # An integer of hundreds of digits.
    return math.inf if score > 0 else -math.inf


def _describe(record: dict[str, Any], name: str) -> str:
  return _shorten(record[name]) if name in record else "missing"


def _shorten(value: Any) -> str:
  """Returns a value in so many characters that UTF-8 can hold."""
  shown = ascii(value) if isinstance(value, str) else type(value).__name__
  if value is None or isinstance(value, bool | int | float):
    shown = str(value)
  if len(shown) > _MAX_SHOWN_CHARACTERS:
    shown = shown[:_MAX_SHOWN_CHARACTERS] + "..."
  return shown
