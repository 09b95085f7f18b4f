"""The errors of this package: what, where, expected, found, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

# A folder can hold 41,455 broken shards; nobody reads more than a screenful.
_MAX_PRINTED_PROBLEMS = 20


class TfdsPluginsError(Exception):
  """Base class of every error that this package raises on purpose."""


class ManualDirError(TfdsPluginsError):
  """`manual_dir` does not hold what the dataset needs."""


class SourceError(TfdsPluginsError):
  """A source shard cannot be read as what its format promises."""


class ConversionError(TfdsPluginsError):
  """A conversion could not be completed, or its accounts do not agree."""


class OptionError(TfdsPluginsError, ValueError):
  """An option of a builder has a value that makes no sense."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
  """One thing that is wrong with an input, in words for the person who has it.

  Attributes:
    what: what is wrong, one sentence.
    where: the file or folder, with the member, key or column if there is one.
    expected: what would have been right.
    found: what is there instead.
    to_do: what the user can do about it.
  """

  what: str
  where: str
  expected: str
  found: str
  to_do: str

  def __str__(self) -> str:
    return (
      f"{self.what}\n"
      f"    where:    {self.where}\n"
      f"    expected: {self.expected}\n"
      f"    found:    {self.found}\n"
      f"    to do:    {self.to_do}"
    )


def describe(problems: Sequence[Problem | str]) -> str:
  """Returns one message for all `problems` of an input, the first in full.

  Args:
    problems: at least one problem, or its text.

  Returns:
    The text for an exception. A single string, so that the exception survives
    pickling and TFDS's own re-raising with a prefix.
  """
  if len(problems) == 1:
    return str(problems[0])
  shown = problems[:_MAX_PRINTED_PROBLEMS]
  lines = [f"{len(problems):,} problems:"]
  lines += [f"{i}. {problem}" for i, problem in enumerate(shown, start=1)]
  if len(problems) > len(shown):
    lines.append(f"... and {len(problems) - len(shown):,} more.")
  return "\n".join(lines)
