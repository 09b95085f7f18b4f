"""Finds rows by key."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfds_plugins import errors

_NO_ROW = -1
# Longer keys are no file names, and would be held in memory at full width.
_MAX_KEY_BYTES = 1024


class KeyIndex:
  """Finds rows by key in some 20 bytes of memory a row.

  Attributes:
    num_rows: the number of keys.
  """

  def __init__(self, keys: pa.Array, *, where: str):
    """Sorts the keys.

    Args:
      keys: string or integer keys, one a row.
      where: the file, for the errors.

    Raises:
      errors.SourceError: a key is null, too long, or occurs twice.
    """
    self.num_rows = len(keys)
    self._is_integer = pa.types.is_integer(keys.type)
    if keys.null_count:
      raise key_error(
        "A row has no key.", where, "a key in every row", "a null key"
      )
    if self._is_integer:
      values = keys.to_numpy(zero_copy_only=False).astype(np.int64)
    else:
      values = _to_fixed_width(keys, where=where)
    self._order = np.argsort(values, kind="stable")
    self._sorted = values[self._order]
    repeated = self._sorted[1:][self._sorted[1:] == self._sorted[:-1]]
    if repeated.size:
      names = [
        v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v)
        for v in repeated[:5].tolist()
      ]
      raise key_error(
        "Keys occur more than once.",
        where,
        "every key once in a shard",
        f"{repeated.size:,} repeated, such as {', '.join(names)}",
      )

  def find(self, keys: list[bytes]) -> np.ndarray:
    """Returns the row of each key: (len(keys),) int64, -1 where there is none.

    Args:
      keys: names of samples in UTF-8. Integer keys match by value, so that
        `000000012` finds 12.
    """
    if not self.num_rows or not keys:
      return np.full(len(keys), _NO_ROW, np.int64)
    if self._is_integer:
      is_number = [k.isdigit() and len(k) < 19 for k in keys]
      wanted = np.array(
        [int(k) if ok else -1 for k, ok in zip(keys, is_number)], np.int64
      )
    else:
      # (An array is as wide as its longest value; a tar's names can be a MiB.)
      wanted = np.array([k if len(k) <= _MAX_KEY_BYTES else b"" for k in keys])
    place = np.searchsorted(self._sorted, wanted)
    place[place == self.num_rows] = 0
    is_found = self._sorted[place] == wanted
    if not self._is_integer:
      is_found &= [len(k) <= _MAX_KEY_BYTES for k in keys]
    return np.where(is_found, self._order[place], _NO_ROW)


def _to_fixed_width(keys: pa.Array, *, where: str) -> np.ndarray:
  longest = pc.max(pc.binary_length(keys)).as_py() or 0
  if longest > _MAX_KEY_BYTES:
    raise key_error(
      "A key is too long.",
      where,
      f"at most {_MAX_KEY_BYTES:,} bytes",
      f"{longest:,} bytes",
    )
  # (`to_numpy` would import pandas, 0.2 s and 50 MB a worker.)
  return np.array(pc.cast(keys, pa.binary()).to_pylist(), f"S{max(longest, 1)}")


def key_error(
  what: str, where: str, expected: str, found: str
) -> errors.SourceError:
  """Returns the error for keys by which nothing can be paired."""
  problem = errors.Problem(
    what=what,
    where=where,
    expected=expected,
    found=found,
    to_do=(
      "Images and metadata cannot be paired. Remove this shard, or download"
      " it again: two runs may have written into one folder."
    ),
  )
  return errors.SourceError(str(problem))
