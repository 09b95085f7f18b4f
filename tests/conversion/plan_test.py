"""Tests of the plan."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from tfds_plugins.conversion import plan
from tfds_plugins.sources.rows import SourceShard


def make_shards(sizes):
  return [
    SourceShard(name=str(i), length=size, size_bytes=size)
    for i, size in enumerate(sizes)
  ]


def ranges(parts):
  return [[(s.shard.name, s.start, s.stop) for s in part] for part in parts]


def test_one_output_shard_for_each_source_shard():
  parts = plan.plan_output_shards(
    make_shards([10, 30, 20]), num_shards=None, max_shard_bytes=30
  )

  assert ranges(parts) == [[("0", 0, 10)], [("1", 0, 30)], [("2", 0, 20)]]


def test_large_source_shards_are_cut_into_equal_parts():
  parts = plan.plan_output_shards(
    make_shards([10, 100]), num_shards=None, max_shard_bytes=40
  )

  assert ranges(parts) == [
    [("0", 0, 10)],
    [("1", 0, 33)],
    [("1", 33, 66)],
    [("1", 66, 100)],
  ]


def test_fewer_output_shards_than_source_shards():
  parts = plan.plan_output_shards(
    make_shards([10, 10, 20]), num_shards=2, max_shard_bytes=1
  )

  assert ranges(parts) == [[("0", 0, 10), ("1", 0, 10)], [("2", 0, 20)]]


def test_shards_are_cut_at_their_own_positions():
  shards = [
    SourceShard(name="a", length=10, size_bytes=1000),
    SourceShard(name="empty", length=0, size_bytes=0),
    SourceShard(name="b", length=3, size_bytes=3000),
  ]

  follow = plan.plan_output_shards(
    shards, num_shards=None, max_shard_bytes=1500
  )
  equal = plan.plan_output_shards(shards, num_shards=8, max_shard_bytes=1)

  assert ranges(follow) == [[("a", 0, 10)], [], [("b", 0, 1)], [("b", 1, 3)]]
  # Eighths of 4,000 bytes: the first two are of `a`; a row of `b` takes two.
  assert ranges(equal) == [
    [("a", 0, 5)],
    [("a", 5, 10)],
    [],
    [("b", 0, 1)],
    [],
    [("b", 1, 2)],
    [],
    [("b", 2, 3)],
  ]


@given(
  sizes=st.lists(st.integers(1, 1000), min_size=1, max_size=20),
  num_shards=st.integers(1, 50) | st.none(),
  max_shard_bytes=st.integers(1, 2000),
)
def test_every_byte_is_in_exactly_one_part(sizes, num_shards, max_shard_bytes):
  shards = make_shards(sizes)

  parts = plan.plan_output_shards(
    shards, num_shards=num_shards, max_shard_bytes=max_shard_bytes
  )

  pieces = [piece for part in ranges(parts) for piece in part]
  for shard in shards:
    own = [(start, stop) for name, start, stop in pieces if name == shard.name]
    assert own[0][0] == 0
    assert own[-1][1] == shard.size_bytes
    assert all(a[1] == b[0] for a, b in itertools.pairwise(own))
    assert all(start < stop for start, stop in own)
  assert [int(name) for name, _, _ in pieces] == sorted(
    int(name) for name, _, _ in pieces
  )
  if num_shards is not None:
    assert len(parts) == num_shards
    lengths = [
      sum(stop - start for _, start, stop in part) for part in ranges(parts)
    ]
    assert max(lengths) - min(lengths) <= 1
  else:
    for part in ranges(parts):
      assert len(part) == 1
      assert part[0][2] - part[0][1] <= max_shard_bytes
