"""Tests of pairing samples with their metadata."""

import itertools
import json
import tarfile

from etils import epath
from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shards
from slices import WANTED
from slices import make_slice
from slices import read

from tfds_plugins.sources.img2dataset import parquet_rows
from tfds_plugins.sources.img2dataset import webdataset


def test_pairs_by_key_where_tar_and_parquet_have_different_orders(tmp_path):
  rows = [shards.make_row(i, f"{i:09d}") for i in (4, 1, 3, 0, 2)]
  images = {row["key"]: shards.picture(int(row["key"])) for row in rows}
  shards.write_shard(
    tmp_path, "00000", rows, images, parquet_order=[2, 0, 4, 3, 1]
  )

  examples, skipped = read(make_slice(tmp_path))

  assert list(examples) == [f"{i:09d}" for i in (4, 1, 3, 0, 2)]
  assert examples["000000003"] == (shards.picture(3), "caption 3", 0.303)
  assert examples["000000000"] == (shards.picture(0), "caption 0", 0.3)
  assert skipped == {}


@pytest.mark.parametrize("width", [4, 9])
def test_integer_keys_of_the_old_era_match_zero_padded_names(tmp_path, width):
  rows = [shards.make_row(i, f"{i:0{width}d}") for i in (2, 0, 1)]
  images = {row["key"]: f"image {row['key']}".encode() for row in rows}
  shards.write_shard(tmp_path, "00007", rows, images)
  table = pa.table(
    {
      "key": pa.array([0, 1, 2], pa.int64()),
      "shard_id": pa.array([7, 7, 7], pa.int64()),
      "status": ["success"] * 3,
      "url": ["u"] * 3,
      "caption": ["zero", "one", "two"],
      "error_message": pa.nulls(3),
    }
  )
  pq.write_table(table, tmp_path / "00007.parquet")

  examples, _ = read(make_slice(tmp_path, "00007"))

  captions = {int(key): row[1] for key, row in examples.items()}
  assert captions == {0: "zero", 1: "one", 2: "two"}
  assert examples["1".zfill(width)][0] == b"image " + b"1".zfill(width)


def test_double_keys_that_pandas_made_match_too(tmp_path):
  rows = [shards.make_row(i, f"{i:04d}") for i in range(2)]
  shards.write_shard(tmp_path, "0", rows, {"0000": b"0", "0001": b"1"})
  table = pa.table(
    {
      "key": [1.0, 0.0],
      "status": ["success"] * 2,
      "url": ["u"] * 2,
      "caption": "BA",
    }
    | {"caption": ["B", "A"]}
  )
  pq.write_table(table, tmp_path / "0.parquet")

  examples, _ = read(make_slice(tmp_path, "0"))

  assert {k: v[1] for k, v in examples.items()} == {"0000": "A", "0001": "B"}


def test_without_parquet_the_json_members_are_read(tmp_path):
  rows = [shards.make_row(i, f"00{i}") for i in (1, 0)]
  rows[0]["similarity"] = None
  shards.write_shard(
    tmp_path, "00000", rows, {"000": b"0", "001": b"1"}, parquet=False
  )

  examples, skipped = read(make_slice(tmp_path, parquet=False))

  assert examples == {
    "001": (b"1", "caption 1", None),
    "000": (b"0", "caption 0", 0.3),
  }
  assert skipped == {}


def test_json_fills_in_for_rows_that_the_parquet_lacks(tmp_path):
  rows = [shards.make_row(i, f"00{i}") for i in range(3)]
  images = {row["key"]: row["key"].encode() for row in rows}
  shards.write_shard(tmp_path, "00000", rows, images)
  half = pq.read_table(tmp_path / "00000.parquet").slice(1, 1)
  pq.write_table(half, tmp_path / "00000.parquet")

  examples, skipped = read(make_slice(tmp_path))

  assert {key: row[1] for key, row in examples.items()} == {
    "000": "caption 0",
    "001": "caption 1",
    "002": "caption 2",
  }
  assert skipped == {}


def test_extra_members_are_ignored(tmp_path):
  row = shards.make_row(0, "000")
  members = [
    ("./._000.jpg", b"AppleDouble"),
    ("./000.cls", b"3"),
    ("./000.jpg", b"the image"),
    ("./000.json", json.dumps(row).encode()),
    ("./000.seg.png", b"a mask"),
  ]
  shards.write_tar(tmp_path / "0.tar", members)

  examples, skipped = read(make_slice(tmp_path, "0", parquet=False))

  assert examples == {"000": (b"the image", "caption 0", 0.3)}
  assert skipped == {}


@pytest.mark.parametrize("extension", ["jpg", "JPEG", "png", "webp"])
def test_images_of_every_extension_are_found(tmp_path, extension):
  row = shards.make_row(0, "000")
  shards.write_tar(
    tmp_path / "0.tar", shards.sample_members(row, b"image", extension)
  )

  assert read(make_slice(tmp_path, "0", parquet=False))[0]["000"][0] == b"image"


def test_missing_columns_are_null_and_named(tmp_path):
  rows = [shards.make_row(i, f"00{i}") for i in range(2)]
  schema = pa.schema([f for f in shards.SCHEMA if f.name != "similarity"])
  shards.write_shard(
    tmp_path, "0", rows, {"000": b"", "001": b""}, schema=schema
  )

  batches = list(webdataset.iter_batches(make_slice(tmp_path, "0"), WANTED))

  assert [batch.missing_columns for batch in batches] == [["similarity"]] * len(
    batches
  )
  values = [v for b in batches for v in b.rows.column("similarity").to_pylist()]
  assert values == [None, None]


@pytest.mark.parametrize(
  "column",
  [
    pa.array(["a", None], pa.large_string()),
    pa.array(["a", None]).dictionary_encode(),
    pa.array([b"a", None], pa.binary()),
  ],
)
def test_other_types_of_text_are_read(tmp_path, column):
  rows = [shards.make_row(i, f"00{i}") for i in range(2)]
  shards.write_shard(tmp_path, "0", rows, {"000": b"", "001": b""})
  table = pq.read_table(tmp_path / "0.parquet")
  index = table.schema.get_field_index("caption")
  pq.write_table(
    table.set_column(index, "caption", column), tmp_path / "0.parquet"
  )

  examples, _ = read(make_slice(tmp_path, "0"))

  assert [row[1] for row in examples.values()] == ["a", None]


def test_nan_in_json_is_missing(tmp_path):
  row = shards.make_row(0, "000", caption=float("nan"), similarity=float("nan"))
  shards.write_shard(tmp_path, "0", [row], {"000": b"x"}, parquet=False)

  examples, _ = read(make_slice(tmp_path, "0", parquet=False))

  assert examples == {"000": (b"x", None, None)}


def test_captions_that_pandas_made_nan_are_missing(tmp_path):
  rows = [shards.make_row(0, "000")]
  shards.write_shard(tmp_path, "0", rows, {"000": b"x"})
  table = pq.read_table(tmp_path / "0.parquet")
  index = table.schema.get_field_index("caption")
  nan = pa.array([float("nan")])
  pq.write_table(
    table.set_column(index, "caption", nan), tmp_path / "0.parquet"
  )

  assert read(make_slice(tmp_path, "0"))[0] == {"000": (b"x", None, 0.3)}


def test_hidden_files_between_the_members_change_nothing(tmp_path):
  rows = [shards.make_row(i, f"00{i}") for i in range(2)]
  members = []
  for row in rows:
    for name, content in shards.sample_members(row, b"x"):
      members += [(f"._{name}", b"AppleDouble"), (name, content)]
  shards.write_tar(tmp_path / "0.tar", members)

  examples, skipped = read(make_slice(tmp_path, "0", parquet=False))

  assert sorted(examples) == ["000", "001"]
  assert skipped == {}


@pytest.mark.parametrize("parquet", [True, False])
@pytest.mark.parametrize("image_last", [True, False])
@given(data=st.data())
def test_slices_share_a_shard_without_loss(
  tmp_path_factory, data, parquet, image_last
):
  folder = tmp_path_factory.mktemp("slices")
  shards.write_simple_shards(folder, [11], fail_every=4)
  if image_last:  # As with encode_format=png, which sorts behind json.
    with tarfile.open(folder / "00000.tar") as tar:
      contents = [(m.name, tar.extractfile(m).read()) for m in tar]
    groups = [contents[i : i + 3] for i in range(0, len(contents), 3)]
    shards.write_tar(
      folder / "00000.tar", [m for g in groups for m in g[1:] + g[:1]]
    )
  size = (folder / "00000.tar").stat().st_size
  cuts = data.draw(
    st.lists(st.integers(0, size // 512), max_size=4, unique=True)
  )
  edges = sorted({0, size, *(512 * cut for cut in cuts)})
  whole_examples, whole_skipped = read(make_slice(folder, parquet=parquet))

  examples, skipped = {}, {}
  for start, stop in itertools.pairwise(edges):
    part_examples, part_skipped = read(
      make_slice(folder, start=start, stop=stop, parquet=parquet)
    )
    assert not set(part_examples) & set(examples)
    assert not set(part_skipped) & set(skipped)
    examples |= part_examples
    skipped |= part_skipped

  assert list(examples.items()) == list(whole_examples.items())
  assert skipped == whole_skipped
  assert len(whole_examples) == 9
  assert len(whole_skipped) == (2 if parquet else 0)


def test_a_parquet_is_read_a_row_group_at_a_time(tmp_path):
  rows = [shards.make_row(i, f"{i:04d}") for i in range(23)]
  shards.write_shard(tmp_path, "0", rows, {})
  order = np.array([22, 0, 7, 7, 12, 1], np.int64)
  with parquet_rows.ParquetRows(
    epath.Path(tmp_path / "0.parquet"), WANTED
  ) as p:
    batch, bad = p.read(order)
    empty, _ = p.read(order[:0])

  assert batch.column("caption").to_pylist() == [f"caption {i}" for i in order]
  assert bad == {}
  assert empty.num_rows == 0
  assert empty.schema == WANTED
