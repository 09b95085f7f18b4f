"""Looking at many files at once, and telling all that is wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
import concurrent.futures
from typing import TypeVar
from typing import cast

from tfds_plugins import errors

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def map_all(
  function: Callable[[_In], _Out], items: Iterable[_In], *, num_threads: int
) -> list[_Out]:
  """Returns what a function returns of each item, called side by side.

  Args:
    function: waits for a disk or a network most of the time.
    items: its arguments.
    num_threads: how many at the same time.
  """
  with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
    return list(pool.map(function, items))


def check_all(
  check: Callable[[_In], _Out], items: Iterable[_In], *, num_threads: int
) -> list[_Out]:
  """Checks items side by side.

  Args:
    check: checks one, and raises `errors.SourceError` if it is damaged.
    items: what to check.
    num_threads: how many at the same time.

  Returns:
    What `check` returns, in the order of the items.

  Raises:
    errors.SourceError: some are damaged; all of them are named.
  """

  def run(item: _In) -> _Out | errors.SourceError:
    try:
      return check(item)
    except errors.SourceError as e:
      return e

  found = map_all(run, items, num_threads=num_threads)
  problems = [str(e) for e in found if isinstance(e, errors.SourceError)]
  if problems:
    raise errors.SourceError(errors.describe(problems))
  return cast("list[_Out]", found)
