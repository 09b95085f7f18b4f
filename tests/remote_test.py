"""`manual_dir` and `data_dir` in S3: moto's server on loopback stands for it.

What goes in and comes out is moved by boto3, which this package does not use.
"""

from __future__ import annotations

import hashlib
import pathlib

import boto3
import builds
from etils import epath
from etils.epath import gpath
from moto import server
import pyarrow as pa
import pytest
import screens
import tensorflow as tf
import tensorflow_datasets as tfds

from tfds_plugins import errors
from tfds_plugins.conversion import finalize
from tfds_plugins.sources import raw_files
from tfds_plugins.sources.screenshots import json_lines
from tfds_plugins.sources.screenshots import tile_index
from tfds_plugins.sources.screenshots import tile_scan

_BUCKET = "corpora"
_URL = f"s3://{_BUCKET}"
# Holds the times of the tars, which epath does not know of those in S3.
_INDEX = "tile_index.arrow"
_IMAGES = "laion400m/images"


@pytest.fixture(scope="module")
def bucket():
  """A bucket in an S3 of its own, which epath and pyarrow are led to."""
  moto = server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
  moto.start()
  host, port = moto.get_host_and_port()
  with pytest.MonkeyPatch.context() as patch:
    for name, value in {
      "AWS_ENDPOINT_URL": f"http://{host}:{port}",
      "AWS_ACCESS_KEY_ID": "nobody",
      "AWS_SECRET_ACCESS_KEY": "nothing",
      "AWS_DEFAULT_REGION": "us-east-1",
      "AWS_CONFIG_FILE": "/dev/null",
      "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
      "NO_PROXY": "127.0.0.1",
      "EPATH_USE_TF": "false",
    }.items():
      patch.setenv(name, value)
    patch.delenv("AWS_PROFILE", raising=False)
    gpath._is_tf_installed.cache_clear()  # epath looks once.
    s3 = boto3.resource("s3", endpoint_url=f"http://{host}:{port}")
    yield s3.create_bucket(Bucket=_BUCKET)
  gpath._is_tf_installed.cache_clear()
  moto.stop()


@pytest.fixture
def place(bucket, request) -> str:
  """A prefix that no other test has."""
  return hashlib.sha256(request.node.name.encode()).hexdigest()[:12]


def upload(bucket, folder, prefix) -> str:
  for path in pathlib.Path(folder).rglob("*"):
    if path.is_file():
      key = f"{prefix}/{path.relative_to(folder).as_posix()}"
      bucket.put_object(Key=key, Body=path.read_bytes())
  return f"{_URL}/{prefix}"


def list_keys(bucket, prefix) -> list[str]:
  return [each.key for each in bucket.objects.filter(Prefix=f"{prefix}/")]


def digest_local(builder) -> dict[str, str]:
  folder = pathlib.Path(builder.data_dir)
  return builds.digest_results(
    {path.name: path.read_bytes() for path in folder.iterdir()}
  )


def digest(bucket, builder) -> dict[str, str]:
  """Returns what `digest_local` does, of a dataset in the bucket."""
  prefix = f"{builder.data_dir.removeprefix(_URL + '/')}/"
  return builds.digest_results(
    {
      each.key.removeprefix(prefix): each.get()["Body"].read()
      for each in bucket.objects.filter(Prefix=prefix)
    }
  )


@pytest.mark.parametrize(
  ("name", "folder"),
  [
    (_IMAGES, ""),
    ("coyo_labeled_300m/images", "coyo_labeled_300m/as_webdataset"),
    ("coyo_labeled_300m/images", "coyo_labeled_300m/as_files"),
    ("coyo_labeled_300m/images", "coyo_labeled_300m/as_tfrecord"),
    ("coyo_labeled_300m/images", "coyo_labeled_300m/as_parquet"),
    ("laion400m/embeddings", ""),
    ("coyo_700m/metadata", ""),
    ("coyo_labeled_300m/labels", ""),
    (f"{screens.NAME}/hard_negatives", ""),
    (f"{screens.NAME}/tiles", ""),
  ],
)
def test_manual_dir_in_s3_gives_what_a_local_one_gives(
  bucket, place, dummy_data, tmp_path, name, folder
):
  dataset = folder or name.partition("/")[0]
  inside = "" if folder else dataset
  local = builds.prepare_dataset(
    name, dummy_data / folder, str(tmp_path / "local")
  )
  upload(bucket, dummy_data / dataset, f"{place}/{inside}".rstrip("/"))

  remote = builds.prepare_dataset(
    name, f"{_URL}/{place}", str(tmp_path / "remote")
  )

  expected, found = (
    digest_local(local),
    digest_local(remote),
  )
  indexes = [
    tile_index.read_index(epath.Path(builder.data_dir) / _INDEX)
    for builder in (local, remote)
    if expected.pop(_INDEX, None) or found.pop(_INDEX, None)
  ]
  assert found == expected
  assert remote.info.splits.keys() == local.info.splits.keys()
  if screens.NAME in name:
    assert indexes[0].table.equals(indexes[1].table)


@pytest.mark.parametrize(
  ("num_workers", "file_format"), [(1, "parquet"), (2, "tfrecord")]
)
def test_data_dir_in_s3_holds_what_a_local_one_holds(
  bucket, place, dummy_data, tmp_path, num_workers, file_format
):
  local = builds.prepare(dummy_data, str(tmp_path), file_format=file_format)
  upload(bucket, dummy_data / _IMAGES, f"{place}/manual/{_IMAGES}")

  remote = builds.prepare(
    f"{_URL}/{place}/manual",
    f"{_URL}/{place}/data",
    num_workers=num_workers,
    file_format=file_format,
  )

  assert digest(bucket, remote) == digest_local(local)
  assert {key.split("/")[2] for key in list_keys(bucket, f"{place}/data")} == {
    "laion400m"
  }
  assert remote.is_prepared()
  again = tfds.builder(_IMAGES, data_dir=f"{_URL}/{place}/data")
  assert (
    again.info.splits["train"].shard_lengths
    == local.info.splits["train"].shard_lengths
  )
  assert again.info.splits.total_num_examples == 25


def test_the_index_of_tiles_is_read_in_s3(bucket, place, dummy_data, tmp_path):
  local = screens.prepare(dummy_data, str(tmp_path))

  remote = screens.prepare(dummy_data, f"{_URL}/{place}", file_format="parquet")

  assert digest(bucket, remote)[_INDEX] == digest_local(local)[_INDEX]
  expected, found = screens.read_rows(local), screens.read_rows(remote)
  assert [row["query"] for row in found] == [row["query"] for row in expected]
  assert [row["image"] for row in found] == [row["image"] for row in expected]
  assert not [key for key in list_keys(bucket, place) if "row_order" in key]


def test_parquet_is_read_in_s3(bucket, place, dummy_data, tmp_path):
  local = builds.prepare(dummy_data, str(tmp_path))
  builds.prepare(dummy_data, f"{_URL}/{place}", file_format="parquet")

  builder = tfds.builder_from_directory(f"{_URL}/{place}/{_IMAGES}/2.0.0")

  assert builds.read_captions(builder) == builds.read_captions(local)
  by_name = tfds.builder(_IMAGES, data_dir=f"{_URL}/{place}")
  assert builds.read_captions(by_name) == builds.read_captions(local)


def test_tensorflow_reads_no_tfrecord_in_s3(bucket, place, dummy_data):
  builder = builds.prepare(dummy_data, f"{_URL}/{place}")

  with pytest.raises(tf.errors.UnimplementedError, match="scheme 's3' not"):
    builds.read_captions(builder)


def test_array_record_is_not_written_to_s3(bucket, place, dummy_data):
  with pytest.raises(errors.OptionError, match="local folders alone"):
    builds.prepare(dummy_data, f"{_URL}/{place}", file_format="array_record")


def test_a_build_that_failed_goes_on_in_s3(
  bucket, place, dummy_data, tmp_path, monkeypatch, capsys
):
  def fail(*unused_args):
    raise ZeroDivisionError

  with monkeypatch.context() as patch:
    patch.setattr(finalize, "write_accounts", fail)
    with pytest.raises(ZeroDivisionError):
      builds.prepare(dummy_data, f"{_URL}/{place}", num_shards=2)
  left = list_keys(bucket, f"{place}/{_IMAGES}")
  assert {key.split("/")[-2] for key in left} == {"2.0.0.unfinished"}

  remote = builds.prepare(dummy_data, f"{_URL}/{place}")

  assert "output shards" in capsys.readouterr().out
  local = builds.prepare(dummy_data, str(tmp_path))
  assert digest(bucket, remote) == digest_local(local)
  left = list_keys(bucket, f"{place}/{_IMAGES}")
  assert {key.split("/")[-2] for key in left} == {"2.0.0"}


def test_a_part_of_a_dataset_is_not_taken_for_one(
  bucket, place, dummy_data, tmp_path
):
  """A build was killed while it moved its files."""
  key = f"{place}/{_IMAGES}/2.0.0/laion400m-train.tfrecord-00000-of-00003"
  bucket.put_object(Key=key, Body=b"of a build that was killed")

  remote = builds.prepare(dummy_data, f"{_URL}/{place}")

  local = builds.prepare(dummy_data, str(tmp_path))
  assert digest(bucket, remote) == digest_local(local)


def test_a_dataset_in_s3_is_not_updated(bucket, place, dummy_data):
  builds.prepare(dummy_data, f"{_URL}/{place}")

  with pytest.raises(errors.OptionError, match="cannot be renamed"):
    builds.prepare_dataset(
      _IMAGES,
      dummy_data,
      f"{_URL}/{place}",
      builder_options={"update": "sync"},
    )


def test_a_part_of_a_dataset_is_overwritten_if_wanted(
  bucket, place, dummy_data, tmp_path
):
  bucket.put_object(Key=f"{place}/{_IMAGES}/2.0.0/stray", Body=b"of a build")

  remote = builds.prepare(
    dummy_data,
    f"{_URL}/{place}",
    download_mode=tfds.GenerateMode.REUSE_CACHE_IF_EXISTS,
  )

  local = builds.prepare(dummy_data, str(tmp_path))
  assert digest(bucket, remote) == digest_local(local)


@pytest.mark.parametrize("name", [_IMAGES, f"{screens.NAME}/tiles"])
def test_objects_that_stand_for_folders_are_none_of_them(
  bucket, place, dummy_data, tmp_path, name
):
  dataset = name.partition("/")[0]
  upload(bucket, dummy_data / dataset, f"{place}/{dataset}")
  for folder in ("", "images/", "image_shards/"):
    bucket.put_object(Key=f"{place}/{dataset}/{folder}", Body=b"")

  remote = builds.prepare_dataset(name, f"{_URL}/{place}", str(tmp_path / "a"))

  local = builds.prepare_dataset(name, dummy_data, str(tmp_path / "b"))
  expected, found = (digest_local(each) for each in (local, remote))
  assert found | {_INDEX: ""} == expected | {_INDEX: ""}


def test_without_the_switch_the_error_names_it(
  bucket, dummy_data, tmp_path, monkeypatch
):
  monkeypatch.delenv("EPATH_USE_TF")
  gpath._is_tf_installed.cache_clear()
  try:
    with pytest.raises(errors.ManualDirError, match="EPATH_USE_TF=false"):
      builds.prepare(f"{_URL}/manual", str(tmp_path))
    with pytest.raises(errors.OptionError, match="EPATH_USE_TF=false"):
      builds.prepare(dummy_data, f"{_URL}/data")
  finally:
    monkeypatch.undo()
    gpath._is_tf_installed.cache_clear()


def test_an_index_says_nothing_of_tars_without_a_time(bucket, place, tmp_path):
  tars = []
  for number in (0, 1):
    folder = tmp_path / str(number)
    screens.write_tars(folder, [number], {number: bytes([number]) * 100})
    tars.append((folder / "image_shards/shard_000.tar").read_bytes())
  assert len(tars[0]) == len(tars[1])
  path = epath.Path(f"{_URL}/{place}/shard_000.tar")
  bucket.put_object(Key=f"{place}/shard_000.tar", Body=tars[0])
  first = tile_scan.make_index([path])
  bucket.put_object(Key=f"{place}/shard_000.tar", Body=tars[1])

  second = tile_scan.make_index([path], [first])

  assert pa.array(second.table["member"].to_pylist()).equals(
    pa.array([screens.get_path(1).removeprefix("images/")])
  )


def test_no_more_is_fetched_than_is_asked_for(bucket, place, monkeypatch):
  data = bytes(range(256)) * 4096
  bucket.put_object(Key=place, Body=data)
  with epath.Path(f"{_URL}/{place}").open("rb") as opened:
    fetched = []
    fetch = opened._fetch_range

    def note(start, end):
      fetched.append((start, end))
      return fetch(start, end)

    monkeypatch.setattr(opened, "_fetch_range", note)
    file = raw_files.without_read_ahead(opened)
    file.seek(500_000)
    assert file.read(10) == data[500_000:500_010]
    file.seek(7)
    assert file.read(3) == data[7:10]

  assert fetched == [(500_000, 500_010), (7, 10)]


def test_lines_are_read_from_files_that_know_no_limit(tmp_path):
  path = tmp_path / "rows.jsonl"
  content = [b"short", b"x" * (json_lines.MAX_LINE_BYTES + 5), b"", b"last"]
  path.write_bytes(b"\n".join(content))

  with tf.io.gfile.GFile(str(path), "rb") as file:
    lines = list(json_lines.iter_lines(file))

  assert [(line.number, line.data) for line in lines] == [
    (1, b"short"),
    (2, None),
    (4, b"last"),
  ]
