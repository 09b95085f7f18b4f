"""Decides which source rows go into which output shard."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence

from tfds_plugins import errors
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
  `max_shard_bytes`: then it is cut into equal parts, no more of them than it
  has positions. With `num_shards`, all source shards together are cut into that
  many equal parts. The plan depends on `length` and `size_bytes` of the source
  shards and nothing else. Sizes decide where a shard is cut, never what of it
  is converted.

  Args:
    shards: the source shards, in order; at least one.
    num_shards: the exact number of output shards; None to follow the source.
    max_shard_bytes: see above.

  Returns:
    The parts of source shards for each output shard, in source order.

  Raises:
    errors.ConversionError: a source shard has a negative length, or the plan
      leaves something out; defects of this package.
  """
  if num_shards is not None:
    plan = _cut_into(shards, num_shards)
  else:
    plan = []
    for shard in shards:
      num_parts = -(-shard.size_bytes // max_shard_bytes)
      plan += _cut_into([shard], max(1, min(num_parts, shard.length)))
  check_complete(shards, (piece for part in plan for piece in part))
  return plan


def check_complete(
  shards: Sequence[SourceShard], pieces: Iterable[SourceSlice]
) -> None:
  """Checks that slices are all of their shards, in order, and nothing twice.

  Args:
    shards: the source shards, in order.
    pieces: the slices, in order.

  Raises:
    errors.ConversionError: rows would be lost, or be there twice.
  """
  remaining = iter(pieces)
  piece = next(remaining, None)
  for shard in shards:
    position = 0
    while (
      piece is not None
      and piece.shard == shard
      and piece.start == position < piece.stop
    ):
      position = piece.stop
      piece = next(remaining, None)
    if position != shard.length:
      raise _incomplete_error(shard, position, piece)
  if piece is not None:
    raise _incomplete_error(piece.shard, piece.shard.length, piece)


def _incomplete_error(
  shard: SourceShard, position: int, piece: SourceSlice | None
) -> errors.ConversionError:
  follows = (
    "nothing"
    if piece is None
    else f"{piece.start:,} to {piece.stop:,} of {piece.shard.name}"
  )
  return errors.ConversionError(
    f"The parts of source shard {shard.name} are not all of it: it has"
    f" {shard.length:,} positions, its parts reach {position:,}, and what"
    f" follows is {follows}. This is a defect of tfds_plugins; please report it"
    " with this message."
  )


def _cut_into(
  shards: Sequence[SourceShard], num_parts: int
) -> list[list[SourceSlice]]:
  """Cuts the concatenation of `shards` into parts of equal size."""
  total = sum(map(_get_weight, shards))
  parts: list[list[SourceSlice]] = []
  pending = iter(shards)
  shard = next(pending)
  shard_start = 0  # Where `shard` begins in the concatenation.
  for i in range(num_parts):
    start, stop = total * i // num_parts, total * (i + 1) // num_parts
    part = []
    while start < stop:
      shard_stop = shard_start + _get_weight(shard)
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


def _get_weight(shard: SourceShard) -> int:
  """Returns the size by which a shard is cut; 0 if there is nothing to cut."""
  return max(1, shard.size_bytes) if shard.length else 0


def _to_position(size_bytes: int, shard: SourceShard) -> int:
  """Returns the position that is next to where `size_bytes` of a shard end."""
  weight = _get_weight(shard)
  return (size_bytes * shard.length + weight // 2) // weight
