"""Offsets in tars, against Python's own `tarfile`."""

import io
import tarfile

from etils import epath
from hypothesis import given
from hypothesis import strategies as st
import pytest

from tfds_plugins import errors
from tfds_plugins.sources.screenshots import tile_index
from tfds_plugins.sources.screenshots import tile_scan

_NAMES = st.text("abö/.x", min_size=1, max_size=120).filter(
  lambda name: not name.endswith("/")
)


def write(path, members, tar_format=tarfile.PAX_FORMAT):
  with tarfile.open(path, "w", format=tar_format) as tar:
    for name, data in members:
      info = tarfile.TarInfo(name)
      info.size = len(data)
      info.mtime = 1.5 if tar_format == tarfile.PAX_FORMAT else 1
      tar.addfile(info, io.BytesIO(data))


@given(
  members=st.lists(st.tuples(_NAMES, st.binary(max_size=3000)), max_size=8),
  tar_format=st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
)
def test_the_offsets_are_those_of_the_content(
  tmp_path_factory, members, tar_format
):
  path = epath.Path(tmp_path_factory.mktemp("tars")) / "shard_000.tar"
  write(path, members, tar_format)
  index = tile_scan.make_index([path])
  data = path.read_bytes()
  found = {
    row["member"]: data[row["offset"] : row["offset"] + row["size"]]
    for row in index.table.to_pylist()
  }
  # Of members of one name, the last one counts.
  expected = {name.removeprefix("./"): data for name, data in members}
  assert found == expected
  [tar] = index.tars
  names = [name for name, _ in members]
  assert (tar.name, tar.size, tar.end) == (path.name, len(data), "complete")
  assert tar.num_repeated == len(names) - len(set(names))


@pytest.fixture
def tars(tmp_path):
  """Eleven tars of unequal length, so that 10 comes after 9."""
  paths = [epath.Path(tmp_path) / f"shard_{i}.tar" for i in range(11)]
  for i, path in enumerate(paths):
    write(path, [(f"shard_{i}/{j}.png", b"%d" % j * i) for j in range(i + 1)])
  return paths


def test_tars_are_in_the_order_of_their_numbers(tars):
  index = tile_scan.make_index(tars[::-1])
  assert [tar.name for tar in index.tars] == [path.name for path in tars]
  rows = index.find(["shard_10/7.png", "shard_3/0.png", "shard_3/4.png"])
  numbers = index.table.column("tar").to_pylist()
  assert [numbers[row] for row in rows[:2]] == [10, 3]
  assert rows[2] == -1
  assert len(index.list_rows(10)) == 11


def test_an_index_is_read_as_it_was_written(tars, tmp_path):
  path = epath.Path(tmp_path) / "index.arrow"
  index = tile_scan.make_index(tars)
  tile_index.write_index(index, path)
  found = tile_index.read_index(path)
  assert found.tars == index.tars
  assert found.table.equals(index.table)


def test_an_index_of_nothing(tmp_path):
  path = epath.Path(tmp_path) / "index.arrow"
  tile_index.write_index(tile_scan.make_index([]), path)
  found = tile_index.read_index(path)
  assert found.tars == []
  assert found.find(["x"]).tolist() == [-1]


@pytest.mark.parametrize("flip", [1, 0x80, 0xFF])
def test_a_damaged_index_is_none(tars, tmp_path, flip):
  path = epath.Path(tmp_path) / "index.arrow"
  index = tile_scan.make_index(tars[:3])
  tile_index.write_index(index, path)
  data = path.read_bytes()
  for position in range(0, len(data), 7):
    damaged = bytearray(data)
    damaged[position] ^= flip
    path.write_bytes(bytes(damaged))
    assert tile_index.read_index(path) is None
  for size in range(0, len(data), 11):
    path.write_bytes(data[:size])
    assert tile_index.read_index(path) is None


def test_the_last_of_equal_members_counts(tars, tmp_path):
  """Also once the tar that has it is gone, and its index is taken again."""
  late = epath.Path(tmp_path) / "shard_50.tar"
  write(late, [("shard_3/1.png", b"late")])
  index = tile_scan.make_index([*tars, late])
  [row] = index.find(["shard_3/1.png"])
  assert index.table.column("tar")[int(row)].as_py() == 11
  assert len(index.list_rows(3)) == 4
  assert len(index.list_rows(3, only_last=True)) == 3
  without = tile_scan.make_index(tars, [index])
  [row] = without.find(["shard_3/1.png"])
  assert without.table.column("tar")[int(row)].as_py() == 3
  assert len(without.list_rows(3, only_last=True)) == 4


def test_every_truncation_of_a_tar(tars, tmp_path):
  data = tars[4].read_bytes()
  whole = tile_scan.make_index([tars[4]]).table.to_pylist()
  path = epath.Path(tmp_path) / "cut" / "shard_4.tar"
  path.parent.mkdir()
  for size in range(0, len(data), 97):
    path.write_bytes(data[:size])
    try:
      index = tile_scan.make_index([path])
    except errors.SourceError:
      assert size < 512
      continue
    rows = index.table.to_pylist()
    good = [row for row in rows if not row["problem"]]
    assert good == whole[: len(good)]
    assert all("breaks off" in row["problem"] for row in rows[len(good) :])
    assert len(rows) - len(good) <= 1
