"""Names for what a task makes, by all that its bytes depend on.

What has been made before is used again if the name is the same, whoever made it
and in whichever build. A name stands for:

- the parts of source shards, with the states of these shards,
- the recipe (functions by their names, columns, features) and the record format,
- the versions of this package, whose code the functions are, of Pillow, which
  decides what can be decoded and how a PNG is compressed, and of Arrow, which reads
  and writes parquets.

Paths are no part of it: a source may be moved, and so may a dataset.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import enum
import functools
import hashlib
import json
import types
from typing import Any

import PIL
import pyarrow as pa

import tfds_plugins
from tfds_plugins.conversion.recipe import Recipe
from tfds_plugins.sources.rows import SourceSlice

_NUM_CHARACTERS = 32


def digest_recipe(recipe: Recipe, file_format: str) -> str:
  """Returns what a plan's fingerprints have in common.

  Args:
    recipe: how rows become examples.
    file_format: value of a `tfds.core.FileFormat`.
  """
  return _digest([list_versions(), file_format, _describe(recipe)])


def list_versions() -> list[str]:
  """Returns the versions that the bytes of output shards depend on."""
  return [tfds_plugins.__version__, PIL.__version__, pa.__version__]


def make_fingerprint(
  recipe_digest: str, sources: Sequence[SourceSlice], shard_index: int
) -> str:
  """Returns the fingerprint of a task.

  Args:
    recipe_digest: from `digest_recipe`.
    sources: the parts of source shards, in order.
    shard_index: the output shard's number. Those that nothing goes into need it
      to be told apart.

  Returns:
    32 hexadecimal digits.
  """
  parts = [
    [
      *(part.shard.name, part.shard.state, part.shard.selection),
      *(part.shard.length, part.start, part.stop),
    ]
    for part in sources
  ]
  return _digest([recipe_digest, parts or shard_index])


def _digest(description: Any) -> str:
  text = json.dumps(description, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:_NUM_CHARACTERS]


def _describe(value: Any) -> Any:
  """Returns a value as JSON has it, the same in every process."""
  if value is None or isinstance(value, (bool, int, float, str)):
    return value
  if isinstance(value, enum.Enum):
    return [type(value).__qualname__, value.name]
  if isinstance(value, types.FunctionType):
    return f"{value.__module__}.{value.__qualname__}"
  if isinstance(value, functools.partial):
    return [_describe(v) for v in (value.func, value.args, value.keywords)]
  if isinstance(value, (pa.Schema, pa.DataType)):
    return str(value)
  if dataclasses.is_dataclass(value):
    fields = dataclasses.fields(value)
    return {f.name: _describe(getattr(value, f.name)) for f in fields}
  if isinstance(value, Mapping):
    return [[_describe(k), _describe(v)] for k, v in value.items()]
  if isinstance(value, Sequence):
    return list(map(_describe, value))
  raise TypeError(f"A recipe has no place for {type(value)}.")
