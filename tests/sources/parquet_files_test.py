"""Tests of parquets of any kind: what is wrong with them, and their size."""

import collections
import os
import subprocess
import sys

from etils import epath
import numpy as np
import parquet_faults
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tfds_plugins import errors
from tfds_plugins.sources import parquet_files

TO_DO = "Do something."
NAMES = ["caption", "similarity"]


def refused(path, read=parquet_files.look_at):
  with pytest.raises(errors.SourceError) as e:
    read(epath.Path(path), TO_DO)
  assert str(path) in str(e.value)
  assert f"to do:    {TO_DO}" in str(e.value)
  return str(e.value)


def look_at(path, names=NAMES):
  return parquet_files.look_at(epath.Path(path), TO_DO, names)


def run_faults(folder, first, last):
  """Returns what came of flipped bits, and the end of the process's life."""
  result = subprocess.run(
    [
      *(sys.executable, parquet_faults.__file__),
      *(str(folder), str(first), str(last), *parquet_faults.KINDS),
    ],
    capture_output=True,
    text=True,
    timeout=1800,
    env={
      **os.environ,
      "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    },
  )
  assert result.returncode == 0, result.stderr[-2000:]
  outcomes = collections.defaultdict(dict)
  for line in result.stdout.splitlines():
    kind, count, outcome = line.split(" ", 2)
    outcomes[kind][outcome] = int(count)
  return outcomes


def check_faults(folder, first, last):
  for outcomes in run_faults(folder, first, last).values():
    assert outcomes.keys() <= {"right", "refused", "without a column"}
    assert outcomes["right"] > (last - first) / 2
    assert outcomes["refused"] > (last - first) / 10
    assert sum(outcomes.values()) == last - first


def test_a_flipped_bit_gives_the_right_rows_or_an_error_of_ours(tmp_path):
  """Of partitions, tables and images; no process ends, no row is another."""
  check_faults(tmp_path, 0, 120)


@pytest.mark.slow
def test_thousands_of_flipped_bits(tmp_path):
  check_faults(tmp_path, 120, 4000)


def change_footer(path, old, new):
  """Yields the path, with one `old` in the footer replaced after the other."""
  content = path.read_bytes()
  place = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
  while (place := content.find(old, place + 1)) >= 0:
    path.write_bytes(content[:place] + new + content[place + len(old) :])
    yield path
  path.write_bytes(content)


def test_a_column_name_that_is_no_text_is_refused(tmp_path):
  path = tmp_path / "x.parquet"
  pq.write_table(pa.table({"caption": ["a"]}), path, store_schema=False)

  message = refused(next(change_footer(path, b"caption", b"capti\xefn")))

  assert "UnicodeDecodeError: 'utf-8' codec can't decode byte" in message


def test_row_groups_that_are_not_all_rows_are_refused(tmp_path):
  """Rows of a part in the middle would be taken for others."""
  path = tmp_path / "x.parquet"
  table = pa.table({"caption": ["a"] * 60})
  pq.write_table(table, path, row_group_size=20, store_schema=False)

  found = []
  for changed in change_footer(path, b"\x28", b"\x2c"):  # 20, 22
    try:
      assert look_at(changed).num_rows == 60
    except errors.SourceError as e:
      found.append(str(e))

  contradictions = [m for m in found if "contradicts itself" in m]
  assert len(contradictions) == 3
  assert "expected: row groups of 60 rows together" in contradictions[0]
  assert "found:    3 row groups of 62 rows" in contradictions[0]


def test_what_is_no_file_is_refused(tmp_path):
  (tmp_path / "folder").mkdir()
  os.mkfifo(tmp_path / "pipe")  # To open it would be to wait for ever.
  os.symlink(tmp_path / "pipe", tmp_path / "link")
  (tmp_path / "html").write_bytes(b"<html>")

  assert "this is a folder" in refused(tmp_path / "folder")
  assert "a pipe, socket or device" in refused(tmp_path / "pipe")
  assert "a pipe, socket or device" in refused(tmp_path / "link")
  assert "FileNotFoundError" in refused(tmp_path / "missing")
  assert "The parquet cannot be read" in refused(tmp_path / "html")


def test_columns_of_one_name_are_refused(tmp_path):
  table = pa.Table.from_arrays([pa.array(["x"])] * 2, ["caption", "caption"])
  pq.write_table(table, tmp_path / "x.parquet")

  assert "repeated caption" in refused(tmp_path / "x.parquet")


def iter_rows(path, names, start=0, stop=2):
  return parquet_files.iter_rows(
    epath.Path(path), start, stop, names, batch_rows=1, to_do=TO_DO
  )


def test_a_column_that_pyarrow_cannot_read_matters_if_it_is_wanted(tmp_path):
  path = tmp_path / "x.parquet"
  pairs = pa.array([[1, 2], None], pa.list_(pa.int64(), 2))
  pq.write_table(pa.table({"pairs": pairs, "caption": ["a", "b"]}), path)

  captions = [batch.column(0)[0].as_py() for batch in iter_rows(path, NAMES)]
  info = look_at(path)

  assert captions == ["a", "b"]
  assert (info.num_rows, info.schema.names) == (2, ["pairs", "caption"])
  message = refused(path, lambda *_: list(iter_rows(path, ["pairs"])))
  assert "found:    ArrowInvalid: Expected all lists to be of size=2" in message


def test_errors_of_those_who_use_the_rows_are_their_own(tmp_path):
  path = tmp_path / "x.parquet"
  pq.write_table(pa.table({"caption": ["a", "b"]}), path)

  for error in (pa.ArrowInvalid, OSError, ValueError):
    with pytest.raises(error, match="mine"):
      for _ in iter_rows(path, NAMES):
        raise error("mine")


def make_captions(num_rows):
  rng = np.random.default_rng(0)
  return ["x" * n for n in rng.integers(0, 150, num_rows)]


@pytest.mark.parametrize("group_rows", [7, 1000, 100_000])
def test_the_size_of_values_is_estimated_from_a_few_rows(tmp_path, group_rows):
  captions = make_captions(20_000)
  table = pa.table(
    {
      "similarity": np.zeros(20_000),
      "caption": captions,
      "exif": ["unwanted " * 100] * 20_000,
    }
  )
  path = tmp_path / "x.parquet"
  pq.write_table(table, path, row_group_size=group_rows)

  info = look_at(path)

  # A double, four bytes of an offset.
  true_bytes = 20_000 * (8 + 4) + sum(map(len, captions))
  # Three groups of seven rows say less than three of five hundred.
  tolerance = 0.3 if group_rows == 7 else 0.1
  assert info.value_bytes == pytest.approx(true_bytes, rel=tolerance)
  assert look_at(path) == info


@pytest.mark.parametrize("is_dictionary", [False, True])
def test_a_value_that_rows_share_counts_for_each_of_them(
  tmp_path, is_dictionary
):
  """In the file it is there once."""
  captions = pa.array(["x" * 50_000]).take(pa.array([0] * 3000))
  if is_dictionary:
    captions = captions.dictionary_encode()
  path = tmp_path / "x.parquet"
  pq.write_table(pa.table({"caption": captions}), path)
  assert path.stat().st_size < 100_000

  assert look_at(path).value_bytes == pytest.approx(3000 * 50_000, rel=0.01)


def test_files_without_rows_or_without_the_columns_take_nothing(tmp_path):
  path = tmp_path / "x.parquet"
  pq.write_table(pa.table({"caption": pa.array([], pa.string())}), path)
  assert look_at(path).value_bytes == 0
  pq.write_table(pa.table({"caption": ["a"]}), path)
  assert look_at(path, ["url"]).value_bytes == 0
  assert look_at(path, []).value_bytes == 0
