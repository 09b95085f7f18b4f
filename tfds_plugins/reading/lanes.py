"""Which file TFDS's interleave reads when."""

from __future__ import annotations

from collections.abc import Sequence
import heapq


def plan_lanes(
  lengths: Sequence[int], *, num_lanes: int, block_length: int
) -> list[list[int]]:
  """Returns the files that each lane of a `tf.data` interleave reads.

  `tf.data.Dataset.interleave` visits its `cycle_length` lanes in turn. A visit
  reads `block_length` records of the lane's file, or what is left of it; a
  visit that meets the end of the file frees the lane, and the next one opens
  the next file. So a file of n records takes `n // block_length + 1` visits,
  the last one of fewer than `block_length` records, perhaps of none.

  Args:
    lengths: the number of records of each file, in the order of opening.
    num_lanes: `cycle_length` of the interleave.
    block_length: `block_length` of the interleave.

  Returns:
    For each lane, the indices of its files in the order of reading. Lanes
    without a file are left out.
  """
  lanes = [[] for _ in range(min(num_lanes, len(lengths)))]
  # The round of visits in which a lane opens its next file, and the lane.
  free = [(0, lane) for lane in range(len(lanes))]
  for i, length in enumerate(lengths):
    visit, lane = free[0]
    lanes[lane].append(i)
    heapq.heapreplace(free, (visit + length // block_length + 1, lane))
  return lanes
