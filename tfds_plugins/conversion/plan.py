"""Decides which source rows go into which output shard."""

from __future__ import annotations

from collections.abc import Sequence

from tfds_plugins.sources.rows import SourceShard
from tfds_plugins.sources.rows import SourceSlice


def plan_output_shards(
  shards: Sequence[SourceShard],
  *,
  num_shards: int | None,
  max_shard_bytes: int,
) -> list[list[SourceSlice]]:
  """Plans the output shards of a split.

  One source shard becomes one output shard, unless it is larger than
  `max_shard_bytes`: then it is cut into equal parts. With `num_shards`, all
  source shards together are cut into that many equal parts. The plan depends on
  `SourceShard.size_bytes` and nothing else.

  Args:
    shards: the source shards, in order; at least one.
    num_shards: the exact number of output shards; None to follow the source.
    max_shard_bytes: see above.

  Returns:
    The parts of source shards for each output shard, in source order.
  """
  if num_shards is not None:
    return _cut_into(shards, num_shards)
  plan = []
  for shard in shards:
    num_parts = max(1, -(-shard.size_bytes // max_shard_bytes))
    plan += _cut_into([shard], num_parts)
  return plan


def _cut_into(
  shards: Sequence[SourceShard], num_parts: int
) -> list[list[SourceSlice]]:
  """Cuts the concatenation of `shards` into parts of equal size."""
  total = sum(shard.size_bytes for shard in shards)
  parts: list[list[SourceSlice]] = []
  pending = iter(shards)
  shard = next(pending)
  shard_start = 0  # Where `shard` begins in the concatenation.
  for i in range(num_parts):
    start, stop = total * i // num_parts, total * (i + 1) // num_parts
    part = []
    while start < stop:
      shard_stop = shard_start + shard.size_bytes
      if start >= shard_stop:
        shard_start = shard_stop
        shard = next(pending)
        continue
      end = min(stop, shard_stop)
      piece = SourceSlice(
        shard=shard,
        start=_to_position(start - shard_start, shard),
        stop=_to_position(end - shard_start, shard),
      )
      if piece.start < piece.stop:
        part.append(piece)
      start = end
    parts.append(part)
  return parts


def _to_position(size_bytes: int, shard: SourceShard) -> int:
  """Returns where the first `size_bytes` of a shard's examples end."""
  return size_bytes * shard.length // shard.size_bytes
