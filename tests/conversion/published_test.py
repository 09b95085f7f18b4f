"""Tests of published files: their table, download and verification."""

import contextlib
import functools
import hashlib
import http.server
import itertools
import os
import pathlib
import shutil
import threading

from etils import epath
import partitions
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import checksums
from tensorflow_datasets.core.download import download_manager

import tfds_plugins
from tfds_plugins.conversion import published
from tfds_plugins.laion400m import laion400m_dataset_builder
from tfds_plugins.laion400m import published_embeddings

Builder = laion400m_dataset_builder.Builder
DUMMY_DATA = pathlib.Path(__file__).parents[2] / "dummy_data"


def sha256(path):
  return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def server(tmp_path):
  """Serves `tmp_path / "www"`, with two partitions, on loopback."""
  www = tmp_path / "www"
  for number, length in ((0, 3), (1, 4)):
    partitions.write_partition(
      www, number, partitions.make_metadata(number, length)
    )
  requests = []

  class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
      requests.append(args[1])

  handler = functools.partial(Handler, directory=str(www))
  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield www, f"http://127.0.0.1:{httpd.server_port}", requests
    httpd.shutdown()
    thread.join()


@pytest.fixture
def table(server, tmp_path, monkeypatch):
  """A table of the server's files instead of the real one."""
  www, root, _ = server
  path = tmp_path / "checksums.tsv"
  files = sorted(p for p in www.rglob("*") if p.is_file())
  path.write_text(
    "".join(
      f"{root}/{p.relative_to(www).as_posix()}\t{p.stat().st_size}\t{sha256(p)}"
      f"\t{p.name}\n"
      for p in files
    )
  )
  # In this order: TFDS reads the table once, when it is first asked for it.
  monkeypatch.setattr(Builder, "url_infos", checksums.load_url_infos(path))
  monkeypatch.setattr(Builder, "_checksums_path", epath.Path(path))
  return path


def prepare(data_dir, *, verify_manual_files=False, **options):
  builder = tfds.builder(
    "laion400m/embeddings",
    data_dir=data_dir,
    num_workers=1,
    verify_manual_files=verify_manual_files,
  )
  builder.download_and_prepare(
    download_dir=data_dir / "downloads",
    download_config=tfds.download.DownloadConfig(**options),
  )
  return builder


def read_captions(builder):
  ds = builder.as_dataset(split="train")
  return [e["caption"].decode() for e in tfds.as_numpy(ds)]


ALL_CAPTIONS = [f"caption 0-{i}" for i in range(3)]
ALL_CAPTIONS += [f"caption 1-{i}" for i in range(4)]


def test_without_manual_files_the_published_ones_are_downloaded(
  table, server, tmp_path
):
  builder = prepare(tmp_path / "data")

  assert read_captions(builder) == ALL_CAPTIONS
  assert len(server[2]) == 6


def test_a_manual_dir_without_partitions_is_no_manual_file(table, tmp_path):
  (tmp_path / "m" / "images").mkdir(parents=True)
  (tmp_path / "m" / "images" / "00000.tar").write_bytes(b"")

  builder = prepare(tmp_path / "data", manual_dir=tmp_path / "m")

  assert read_captions(builder) == ALL_CAPTIONS


def test_a_manual_dir_that_does_not_exist_is_an_error(table, server, tmp_path):
  with pytest.raises(tfds_plugins.ManualDirError, match="is not a folder"):
    prepare(tmp_path / "data", manual_dir=tmp_path / "typo")

  assert not server[2]


def test_manual_files_are_preferred(table, server, tmp_path):
  partitions.write_partition(tmp_path / "m", 5, partitions.make_metadata(5, 1))

  builder = prepare(tmp_path / "data", manual_dir=tmp_path / "m")

  assert read_captions(builder) == ["caption 5-0"]
  assert not server[2]


def test_no_more_is_downloaded_than_the_examples_need(table, server, tmp_path):
  builder = prepare(tmp_path / "data", max_examples_per_split=2)

  assert read_captions(builder) == ALL_CAPTIONS[:2]
  assert len(server[2]) == 3


def test_a_file_with_other_bytes_is_refused(table, server, tmp_path):
  path = server[0] / "img_emb" / "img_emb_1.npy"
  data = bytearray(path.read_bytes())
  data[-1] ^= 1
  path.write_bytes(bytes(data))

  with pytest.raises(download_manager.NonMatchingChecksumError) as e:
    prepare(tmp_path / "data")

  assert "img_emb_1.npy" in str(e.value)


def test_checksums_are_registered(table, tmp_path):
  expected = table.read_text()
  lines = expected.splitlines()
  table.write_text(lines[0].replace(lines[0].split("\t")[2], "0" * 64) + "\n")

  prepare(tmp_path / "data", register_checksums=True)

  assert sorted(table.read_text().splitlines()) == sorted(lines)


def test_a_disk_that_is_too_small_is_told_before_the_download(
  table, server, tmp_path, monkeypatch
):
  usage = shutil.disk_usage(tmp_path)
  monkeypatch.setattr(
    published.shutil, "disk_usage", lambda _: usage._replace(free=1000)
  )

  with pytest.raises(tfds_plugins.ConversionError) as e:
    prepare(tmp_path / "data")

  assert "The disk is too small for the published files" in str(e.value)
  assert "found:    1,000 bytes free" in str(e.value)
  assert not server[2]


def test_what_tfds_downloaded_needs_no_more_space(table, tmp_path, monkeypatch):
  """TFDS's own names for files, in both places where it looks for them."""
  sizes = [info.size for info in Builder.url_infos.values()]
  folder = epath.Path(tmp_path / "data" / "downloads")
  free = 0
  monkeypatch.setattr(
    published.shutil,
    "disk_usage",
    lambda _: shutil._ntuple_diskusage(total=0, used=0, free=free),
  )

  def find_space():
    """Returns how much has to be free."""
    nonlocal free
    free = 0
    for free in [0, *itertools.accumulate(sorted(sizes))]:
      with contextlib.suppress(tfds_plugins.ConversionError):
        published.check_space(folder, "laion400m", Builder.url_infos)
        return free
    return pytest.fail("never enough")

  assert find_space() == sum(sizes)
  # A large file of another dataset, and files that are not all there yet.
  folder.mkdir(parents=True)
  with (folder / "another_dataset.zip").open("wb") as f:
    f.truncate(10 * sum(sizes))
  assert find_space() == sum(sizes)

  free = sum(sizes)
  prepare(tmp_path / "data")
  assert find_space() == 0
  (note,) = (folder / "laion400m").glob("*metadata_1*.INFO")
  note.rename(tmp_path / "note")  # TFDS would download it again.
  (size,) = (p.stat().st_size for p in tmp_path.glob("www/*/metadata_1.*"))
  free = size - 1
  with pytest.raises(tfds_plugins.ConversionError) as e:
    published.check_space(folder, "laion400m", Builder.url_infos)
  assert f"{sum(sizes) - size:,} of which are there" in str(e.value)
  (tmp_path / "note").rename(note)
  for path in (folder / "laion400m").iterdir():  # As before TFDS 4.9.
    path.rename(folder / path.name)
  assert find_space() == 0


@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_what_is_no_file_is_not_the_published_one(
  table, server, tmp_path, kind
):
  path = server[0] / "img_emb" / "img_emb_0.npy"
  path.unlink()
  if kind == "link":
    path.symlink_to(tmp_path / "nowhere")
  elif kind == "folder":
    path.mkdir()
  else:
    os.mkfifo(path)

  with pytest.raises(tfds_plugins.SourceError) as e:
    prepare(tmp_path / "data", manual_dir=server[0], verify_manual_files=True)

  assert "This is not the published file" in str(e.value)
  assert str(path) in str(e.value)


def test_no_examples_are_a_trial_of_the_download(table, server, tmp_path):
  builder = prepare(tmp_path / "data", max_examples_per_split=0)

  assert len(server[2]) == 3
  assert not list(builder.data_path.glob("*tfrecord*"))


def test_manual_files_are_verified_when_asked_to(table, server, tmp_path):
  www = server[0]
  whole = prepare(tmp_path / "whole", manual_dir=www, verify_manual_files=True)
  assert read_captions(whole) == ALL_CAPTIONS
  flipped = www / "text_emb" / "text_emb_0.npy"
  data = bytearray(flipped.read_bytes())
  data[500] ^= 1
  flipped.write_bytes(bytes(data))
  cut = www / "img_emb" / "img_emb_1.npy"
  cut.write_bytes(cut.read_bytes()[:-1])
  partitions.write_partition(www, 7, partitions.make_metadata(7, 1))

  with pytest.raises(tfds_plugins.SourceError) as e:
    prepare(tmp_path / "data", manual_dir=www, verify_manual_files=True)

  message = str(e.value)
  assert message.startswith("5 problems:")
  assert str(flipped) in message
  assert f"found:    {sha256(flipped)}" in message
  assert "expected: 4,224 bytes" in message
  assert "found:    4,223 bytes" in message
  assert "metadata_7.parquet" in message
  assert not server[2]


def test_padded_names_are_verified_as_the_published_ones(
  table, server, tmp_path
):
  for kind, suffix in (
    ("img_emb", "npy"),
    ("text_emb", "npy"),
    ("metadata", "parquet"),
  ):
    folder = tmp_path / "m" / kind
    folder.mkdir(parents=True)
    shutil.copy(
      server[0] / kind / f"{kind}_1.{suffix}", folder / f"{kind}_001.{suffix}"
    )

  builder = prepare(
    tmp_path / "data", manual_dir=tmp_path / "m", verify_manual_files=True
  )

  assert read_captions(builder) == ALL_CAPTIONS[3:]


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_verify_manual_files_is_true_or_false(value):
  with pytest.raises(tfds_plugins.OptionError, match="verify_manual_files"):
    tfds.builder("laion400m/embeddings", verify_manual_files=value)


def test_images_cannot_be_verified(tmp_path):
  builder = tfds.builder(
    "laion400m/images", data_dir=tmp_path, verify_manual_files=True
  )
  config = tfds.download.DownloadConfig(manual_dir=DUMMY_DATA)

  with pytest.raises(tfds_plugins.OptionError, match="no table of published"):
    builder.download_and_prepare(download_config=config)


def test_the_published_table():
  """By the sizes of its files there are 407,314,954 rows."""
  listed = published_embeddings.list_published(Builder.url_infos)

  assert len(Builder.url_infos) == 1230
  assert len(listed) == 410
  assert sum(partition.num_rows for partition in listed) == 407_314_954
  assert listed[0].num_rows == 1_000_448
  assert listed[107].num_rows == 189_159
  assert sorted(listed[409].urls) == [
    "img_emb_409.npy",
    "metadata_409.parquet",
    "text_emb_409.npy",
  ]
  root = "https://deploy.laion.ai/8f83b608504d46bb81708ec86e912220/embeddings/"
  assert listed[3].urls["img_emb_3.npy"] == f"{root}img_emb/img_emb_3.npy"


def test_the_table_is_found_in_a_checkout():
  path = published.find_checksums("laion400m")

  assert path == epath.Path(DUMMY_DATA.parent / "checksums" / "laion400m.tsv")
  assert published.find_checksums("no_such_dataset") is None
