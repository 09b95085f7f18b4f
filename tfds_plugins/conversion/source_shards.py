"""What a dataset was made of, and what has become of it since.

`source_shards.json` lies beside `dataset_info.json`:
    manual_dir    string, where its source was
    max_examples  integer, `max_examples_per_split` where the dataset is not all of
                  its source; null else
    splits        object, split -> object, name of a source shard -> its state
                  (`sources/states.py`) when it was converted
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import json

from etils import epath

from tfds_plugins.sources import folders
from tfds_plugins.sources.rows import SourceShard

FILENAME = "source_shards.json"

# Split -> name of a source shard -> its state.
States = Mapping[str, Mapping[str, str]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MadeOf:
  """What a dataset was made of.

  Attributes:
    manual_dir: where it was.
    is_part: whether the dataset is a part of it on purpose.
    states: its source shards.
  """

  manual_dir: str
  is_part: bool
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


def write(
  data_dir: epath.Path,
  manual_dir: str,
  shards: Mapping[str, Sequence[SourceShard]],
  max_examples: int | None,
) -> None:
  """Notes what a dataset is made of.

  Args:
    data_dir: where the dataset is prepared.
    manual_dir: see above.
    shards: the source shards of each split, in order.
    max_examples: see above.
  """
  splits = {
    split: {shard.name: shard.state for shard in some}
    for split, some in shards.items()
  }
  content = {
    "manual_dir": manual_dir,
    "max_examples": max_examples,
    "splits": splits,
  }
  (data_dir / FILENAME).write_text(json.dumps(content))


def read(data_dir: epath.Path) -> MadeOf | None:
  """Returns what a dataset was made of; None if that is not known."""
  try:
    content = json.loads((data_dir / FILENAME).read_text())
    return MadeOf(
      manual_dir=str(content["manual_dir"]),
      is_part=content["max_examples"] is not None,
      states={
        split: dict(states) for split, states in content["splits"].items()
      },
    )
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


def describe(changes: Changes, dataset: str, source_dir: str) -> str:
  """Says what has changed, and what can be done.

  Args:
    changes: at least one.
    dataset: full name of the dataset, with its version.
    source_dir: where the source is.
  """
  kinds = (
    ("new", changes.new),
    ("removed", changes.removed),
    ("changed", changes.changed),
  )
  lines = [
    f"    {len(names):,} {kind}: {folders.shorten(names)}"
    for kind, names in kinds
    if names
  ]
  name = dataset.rpartition("/")[0]
  to_do = []
  if changes.new:
    to_do.append(
      f"  To convert the new ones and keep the rest as it is: {name}/update=add"
    )
  if changes.changed or changes.removed:
    to_do.append(
      "  To make the dataset what its source is now, converting what is new or"
      f" changed and dropping what was removed: {name}/update=sync"
    )
  return "\n".join(
    [
      f"{dataset} is read as it was prepared, but source shards in {source_dir}"
      " differ since then:",
      *lines,
      *to_do,
      f"  (in tfds.load or tfds build; or tfds.builder('{name}',"
      " update=...).download_and_prepare(...))",
    ]
  )
