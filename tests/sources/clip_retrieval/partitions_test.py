"""Tests of partitions: finding, checking and reading them."""

import os
import shutil
import tracemalloc

from etils import epath
from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pandas as pd
import partitions as write
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tfds_plugins import errors
from tfds_plugins.sources.clip_retrieval import embeddings
from tfds_plugins.sources.clip_retrieval import partition_check
from tfds_plugins.sources.clip_retrieval import partitions
from tfds_plugins.sources.rows import SourceSlice

WANTED = pa.schema([("caption", pa.string()), ("similarity", pa.float64())])


def check(folder, dim=512):
  found = partitions.find_partitions([epath.Path(folder)])
  assert found is not None
  return partition_check.check_source(
    found, dim=dim, wanted=WANTED, advise_dim=lambda dim: f"use {dim}"
  )


def read(shard, start, stop):
  source_slice = SourceSlice(shard=shard, start=start, stop=stop)
  batches = list(embeddings.iter_batches(source_slice, WANTED))
  assert sum(batch.num_rows for batch in batches) == stop - start
  return batches


def write_many(folder, lengths, **kwargs):
  for number, length in lengths.items():
    write.write_partition(
      folder, number, write.make_metadata(number, length), **kwargs
    )


def refused(folder, dim=512):
  with pytest.raises(errors.SourceError) as e:
    check(folder, dim)
  return str(e.value)


@pytest.mark.parametrize("width", [0, 1, 4])
def test_partitions_are_sorted_by_number(tmp_path, width):
  write_many(tmp_path, {100: 1, 9: 2, 10: 3}, width=width)

  shards = check(tmp_path).shards

  assert [(s.name, s.length) for s in shards] == [
    ("9", 2),
    ("10", 3),
    ("100", 1),
  ]


def test_the_first_folder_that_has_files_is_taken(tmp_path):
  write_many(tmp_path / "b", {0: 1})
  write_many(tmp_path / "c", {1: 1})
  (tmp_path / "a").mkdir()
  candidates = [epath.Path(tmp_path / name) for name in "abc"]

  found = partitions.find_partitions(candidates)

  assert found is not None
  assert found.source_dir == str(tmp_path / "b")
  assert [p.number for p in found.complete] == [0]


def test_files_of_other_names_are_none(tmp_path):
  for name in (
    "img_emb_0.npy.part",
    "._img_emb_0.npy",
    "img_emb_x.npy",
    "metadata_0.npy",
    "00000.tar",
  ):
    (tmp_path / name).write_bytes(b"")

  assert partitions.find_partitions([epath.Path(tmp_path)]) is None


def test_incomplete_partitions_are_left_out_loudly(tmp_path):
  write_many(tmp_path, {0: 2, 1: 2, 2: 2})
  (tmp_path / "text_emb" / "text_emb_1.npy").unlink()
  (tmp_path / "img_emb" / "img_emb_2.npy").unlink()
  (tmp_path / "metadata" / "metadata_2.parquet").unlink()

  source = check(tmp_path)

  assert [shard.name for shard in source.shards] == ["0"]
  assert source.notes == [
    "2 partitions were left out, for a file is missing (1 without text_emb, 2"
    " without img_emb and metadata)."
  ]


def test_one_kind_of_vectors_alone_is_refused(tmp_path):
  """clip-retrieval with --enable_text False."""
  write_many(tmp_path, {0: 2, 1: 2})
  shutil.rmtree(tmp_path / "text_emb")

  message = refused(tmp_path)

  assert "Not one embedding partition is complete" in message
  assert "partitions 0 (no text_emb), 1 (no text_emb)" in message
  assert "--enable_text True" in message


def test_two_files_of_one_number_are_refused(tmp_path):
  write_many(tmp_path, {1: 2})
  write_many(tmp_path, {1: 2}, width=3)
  write_many(tmp_path, {1: 2}, layout=write.FLAT)

  message = refused(tmp_path)

  assert "There are two files img_emb with the number 1" in message
  assert str(tmp_path / "img_emb" / "img_emb_001.npy") in message


def test_lengths_that_differ_are_refused_with_the_three_numbers(tmp_path):
  write_many(tmp_path, {0: 3, 1: 4})
  np.save(tmp_path / "text_emb" / "text_emb_1.npy", np.zeros((5, 512), "<f2"))
  write.make_metadata(1, 6).to_parquet(
    tmp_path / "metadata" / "metadata_1.parquet"
  )

  message = refused(tmp_path)

  assert "The files of partition 1 differ in their rows" in message
  assert (
    "found:    4 image vectors, 5 text vectors, 6 rows of metadata" in message
  )


def test_all_problems_are_told_at_once(tmp_path):
  write_many(tmp_path, {0: 3, 1: 4, 2: 5})
  (tmp_path / "img_emb" / "img_emb_0.npy").write_bytes(b"<html>")
  np.save(tmp_path / "text_emb" / "text_emb_1.npy", np.zeros((4, 1024), "<f2"))
  (tmp_path / "metadata" / "metadata_2.parquet").write_bytes(b"PAR1")

  message = refused(tmp_path)

  assert message.startswith("3 problems:")
  assert "This is not an .npy file" in message
  assert "found:    (4, 1024) floats" in message
  assert "to do:    use 1024" in message
  assert "The parquet cannot be read" in message


def test_columns_of_the_same_name_are_refused(tmp_path):
  write_many(tmp_path, {0: 1})
  table = pa.Table.from_arrays([pa.array(["x"])] * 2, ["caption", "caption"])
  pq.write_table(table, tmp_path / "metadata" / "metadata_0.parquet")

  assert "has columns of the same name" in refused(tmp_path)


def test_an_empty_partition_has_no_rows(tmp_path):
  write_many(tmp_path, {0: 0, 1: 1})

  empty, one = check(tmp_path).shards

  assert (empty.length, one.length) == (0, 1)


def test_a_damaged_page_is_an_error_of_ours(tmp_path):
  write_many(tmp_path, {0: 4000})
  path = tmp_path / "metadata" / "metadata_0.parquet"
  data = bytearray(path.read_bytes())
  caption = pq.read_metadata(path).row_group(0).column(1)
  start = caption.dictionary_page_offset
  data[start : start + 500] = bytes(500)
  (shard,) = check(tmp_path).shards  # It is damaged between check and reading.
  path.write_bytes(bytes(data))

  with pytest.raises(errors.SourceError) as e:
    read(shard, 0, 4000)

  for message in (str(e.value), refused(tmp_path)):
    assert "The parquet cannot be read" in message
    assert str(path) in message


@pytest.mark.parametrize("kind", ["img_emb", "text_emb", "metadata"])
def test_a_pipe_in_place_of_a_file_is_refused(tmp_path, kind):
  """It would be waited for, for ever."""
  write_many(tmp_path, {0: 2})
  (path,) = (tmp_path / kind).iterdir()
  path.unlink()
  os.mkfifo(path)

  message = refused(tmp_path)

  assert "this is a pipe, socket or device, not a file" in message
  assert str(path) in message


def test_sizes_count_text_that_the_file_has_once(tmp_path):
  """Parquet's dictionaries: 3,000 captions of 50 kB are 150 MB of records."""
  metadata = write.make_metadata(0, 3000).assign(caption="x" * 50_000)
  write.write_partition(tmp_path, 0, metadata, write.make_vectors(0, 3000, 8))

  (shard,) = check(tmp_path, dim=8).shards

  assert shard.size_bytes == pytest.approx(3000 * 50_300, rel=0.01)


# Any text that is not a surrogate, and any float that a double can be.
rows = st.lists(
  st.tuples(
    st.none() | st.text(max_size=20),
    st.none() | st.floats(allow_nan=False),
    st.binary(min_size=12, max_size=12),
  ),
  min_size=1,
  max_size=30,
)


@given(
  rows=rows,
  group_rows=st.integers(1, 40),
  data=st.data(),
)
def test_what_is_read_equals_what_was_written(
  tmp_path_factory, rows, group_rows, data
):
  """Any rows, any nulls, any bits, any slice, any row groups."""
  folder = tmp_path_factory.mktemp("partition")
  captions, similarities, bits = zip(*rows)
  vectors = np.stack([np.frombuffer(b, "<f2") for b in bits])
  frame = pd.DataFrame(
    {
      "caption": pd.Series(captions, dtype=object),
      "similarity": pd.Series(similarities, dtype=float),
    }
  )
  write.write_partition(folder, 0, frame, (vectors, vectors[:, ::-1]))
  frame.to_parquet(
    folder / "metadata" / "metadata_0.parquet", row_group_size=group_rows
  )
  start = data.draw(st.integers(0, len(rows)))
  stop = data.draw(st.integers(start, len(rows)))
  (shard,) = check(folder, dim=6).shards

  batches = read(shard, start, stop)

  found = [row for batch in batches for row in batch.rows.to_pylist()]
  assert len(found) == stop - start
  for i, row in zip(range(start, stop), found, strict=True):
    assert row["key"] == str(i)
    assert row["image_vector"] == bits[i]
    assert row["text_vector"] == np.frombuffer(bits[i], "<f2")[::-1].tobytes()
    assert row["caption"] == captions[i]
    assert row["similarity"] == similarities[i] or (
      similarities[i] is None and row["similarity"] != row["similarity"]
    )


def test_memory_holds_a_batch_and_not_a_partition(tmp_path):
  """What Arrow and NumPy hold while a partition of 48 MB is read."""
  num_rows = 20_000
  metadata = write.make_metadata(0, num_rows).assign(
    caption=[f"{i:0400d}" for i in range(num_rows)]
  )
  write.write_partition(tmp_path, 0, metadata)
  del metadata
  (shard,) = check(tmp_path).shards
  source_slice = SourceSlice(shard=shard, start=0, stop=num_rows)
  before = pa.total_allocated_bytes()
  num_read, largest, peak = 0, 0, 0

  tracemalloc.start()
  for batch in embeddings.iter_batches(source_slice, WANTED):
    num_read += batch.num_rows
    largest = max(largest, batch.num_rows)
    peak = max(peak, pa.total_allocated_bytes() - before)
  _, python_peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()

  assert num_read == num_rows
  assert largest == 1024
  # Two batches of 2.5 kB a row at most, and the pages of two columns.
  assert python_peak < 8 << 20
  assert peak < 8 << 20
