"""Tests of the plan."""

import itertools

from hypothesis import given
from hypothesis import strategies as st
import pytest

from tfds_plugins import errors
from tfds_plugins.conversion import plan
from tfds_plugins.sources.rows import SourceShard
from tfds_plugins.sources.rows import SourceSlice


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

  assert ranges(follow) == [[("a", 0, 10)], [], [("b", 0, 2)], [("b", 2, 3)]]
  # Eighths of 4,000 bytes: the first two are of `a`; a row of `b` takes two.
  assert ranges(equal) == [
    [("a", 0, 5)],
    [("a", 5, 10)],
    [("b", 0, 1)],
    [],
    [("b", 1, 2)],
    [],
    [("b", 2, 3)],
    [],
  ]


def test_sizes_that_differ_a_little_give_parts_of_one_length():
  shards = [
    SourceShard(name="a", length=40, size_bytes=40 * 1001),
    SourceShard(name="b", length=20, size_bytes=20 * 999),
  ]

  parts = plan.plan_output_shards(shards, num_shards=4, max_shard_bytes=1)

  assert ranges(parts) == [
    [("a", 0, 15)],
    [("a", 15, 30)],
    [("a", 30, 40), ("b", 0, 5)],
    [("b", 5, 20)],
  ]


@given(
  shards=st.lists(
    st.tuples(
      st.integers(0, 50),
      st.integers(-(1 << 63), 1 << 63) | st.integers(-1, 100),
    ),
    min_size=1,
    max_size=12,
  ),
  num_shards=st.integers(1, 30) | st.none(),
  max_shard_bytes=st.integers(1, 1 << 30),
)
def test_whatever_the_sizes_every_position_is_in_exactly_one_part(
  shards, num_shards, max_shard_bytes
):
  """Sizes are estimates, of files that may be damaged."""
  sources = [
    SourceShard(name=str(i), length=length, size_bytes=size)
    for i, (length, size) in enumerate(shards)
  ]

  parts = plan.plan_output_shards(
    sources, num_shards=num_shards, max_shard_bytes=max_shard_bytes
  )

  positions = [
    (name, i)
    for part in ranges(parts)
    for name, start, stop in part
    for i in range(start, stop)
  ]
  assert positions == [
    (shard.name, i) for shard in sources for i in range(shard.length)
  ]
  if num_shards is None:
    assert len(parts) <= sum(max(1, shard.length) for shard in sources)
  else:
    assert len(parts) == num_shards


def test_a_negative_length_is_refused():
  shards = [SourceShard(name="a", length=-1, size_bytes=5)]

  with pytest.raises(errors.ConversionError, match="not all of it"):
    plan.plan_output_shards(shards, num_shards=None, max_shard_bytes=10)


def test_parts_that_are_not_all_of_their_shards_are_refused():
  a, b, c = make_shards([10, 20, 30])

  def cut(shard, start, stop):
    return SourceSlice(shard=shard, start=start, stop=stop)

  whole = [cut(a, 0, 10), cut(b, 0, 5), cut(b, 5, 20), cut(c, 0, 30)]
  plan.check_complete([a, b, c], whole)
  for wrong, name in [
    (whole[1:], "0"),
    (whole[:1] + whole[2:], "1"),
    (whole[:-1], "2"),
    (whole + whole[-1:], "2"),
    ([cut(a, 0, 9), *whole[1:]], "0"),
    ([whole[0], cut(b, 0, 6), *whole[2:]], "1"),
    ([whole[1], whole[0], *whole[2:]], "0"),
  ]:
    with pytest.raises(errors.ConversionError) as e:
      plan.check_complete([a, b, c], wrong)
    assert f"The parts of source shard {name} are not all of it" in str(e.value)


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
