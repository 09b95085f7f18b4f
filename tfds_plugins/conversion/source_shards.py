"""What a dataset was made of, and what has become of it since.

`source_shards.json` lies beside `dataset_info.json`:
    manual_dir      string, where its source was
    is_part         boolean, whether `max_examples_per_split` made it a part of it
    num_shards, max_shard_size   integers or null, by which it was cut
    states          object, split -> object, name of a source shard -> its state
                    (`sources/states.py`) when it was converted
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import json

from etils import epath

from tfds_plugins.sources import folders

FILENAME = "source_shards.json"

# Split -> name of a source shard -> its state.
States = Mapping[str, Mapping[str, str]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MadeOf:
  """What a dataset was made of.

  Attributes:
    manual_dir: where its source was.
    is_part: whether the dataset is a part of it on purpose.
    num_shards: `DownloadConfig.num_shards`.
    max_shard_size: `DownloadConfig.max_shard_size`, bytes.
    states: the states of the source shards.
  """

  manual_dir: str
  is_part: bool
  num_shards: int | None
  max_shard_size: int
  states: States


@dataclasses.dataclass(frozen=True, kw_only=True)
class Changes:
  """How a source differs from what a dataset was made of.

  Attributes:
    new: names of source shards that were not there.
    removed: names of those that are no longer there.
    changed: names of those of another state.
  """

  new: Sequence[str]
  removed: Sequence[str]
  changed: Sequence[str]

  def __bool__(self) -> bool:
    return bool(self.new or self.removed or self.changed)


def write(data_dir: epath.Path, made_of: MadeOf) -> None:
  """Notes what a dataset is made of.

  Args:
    data_dir: where the dataset is prepared.
    made_of: its source.
  """
  (data_dir / FILENAME).write_text(json.dumps(dataclasses.asdict(made_of)))


def read(data_dir: epath.Path) -> MadeOf | None:
  """Returns what a dataset was made of; None if that is not known."""
  try:
    content = json.loads((data_dir / FILENAME).read_text())
    states = {split: dict(each) for split, each in content["states"].items()}
    return MadeOf(**{**content, "states": states})
  except (OSError, ValueError, KeyError, TypeError, AttributeError):
    return None


def compare(before: States, now: States) -> Changes:
  """Returns how a source has changed; names in the order of `now`, then `before`."""
  new: list[str] = []
  removed: list[str] = []
  changed: list[str] = []
  for split in dict.fromkeys([*now, *before]):
    old, current = before.get(split, {}), now.get(split, {})
    new += [name for name in current if name not in old]
    removed += [name for name in old if name not in current]
    changed += [n for n in current if n in old and current[n] != old[n]]
  return Changes(
    new=list(dict.fromkeys(new)),
    removed=list(dict.fromkeys(removed)),
    changed=list(dict.fromkeys(changed)),
  )


def describe(changes: Changes) -> str:
  """Names what has changed, a line for each kind of change."""
  kinds = (
    ("new", changes.new),
    ("removed", changes.removed),
    ("changed", changes.changed),
  )
  return "\n".join(
    f"    {len(names):,} {kind}: {folders.shorten(names)}"
    for kind, names in kinds
    if names
  )
