"""Which file is read when."""

from tfds_plugins.reading import lanes


def test_a_lane_opens_the_next_file_after_its_last_visit():
  # Blocks of 4: 1, 3, 1, 2 and 1 visits; the 8 records of the second file take
  # two and a third that finds its end.
  assert lanes.plan_lanes([3, 8, 0, 5, 1], num_lanes=2, block_length=4) == [
    [0, 2, 3],
    [1, 4],
  ]


def test_a_file_that_ends_with_its_block_is_visited_once_more():
  assert lanes.plan_lanes([3, 7, 3, 1], num_lanes=2, block_length=4) == [
    [0, 2, 3],
    [1],
  ]
  assert lanes.plan_lanes([4, 3, 3, 1], num_lanes=2, block_length=4) == [
    [0, 3],
    [1, 2],
  ]


def test_lanes_without_a_file_are_left_out():
  assert lanes.plan_lanes([2, 1], num_lanes=16, block_length=4) == [[0], [1]]
