"""Tests of `laion400m`, on files that img2dataset itself wrote.

What the fixtures hold is written down in `dummy_data/laion400m/make_images.py`.
"""

import json
import pathlib
import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pyarrow as pa
import pytest
import shards
import tensorflow as tf
import tensorflow_datasets as tfds

import tfds_plugins
from tfds_plugins.laion400m import laion400m_dataset_builder

DUMMY_DATA = pathlib.Path(__file__).parents[2] / "dummy_data"
NAMES = [11, 9, 8, 7, 6, 4, 2, 1, 0]  # The order of 00000.tar
NAMES += [23, 22, 21, 20, 19, 18, 16, 15, 14, 13, 12, 29, 28, 27, 26, 25]

mpl.use("Agg")


class Laion400mTest(tfds.testing.DatasetBuilderTestCase):
  """TFDS's own checks of a builder."""

  DATASET_CLASS = laion400m_dataset_builder.Builder
  EXAMPLE_DIR = DUMMY_DATA
  BUILDER_CONFIG_NAMES_TO_TEST = ["images"]
  SPLITS = {"train": 25}


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
  builder = tfds.builder(
    "laion400m", data_dir=tmp_path_factory.mktemp("data"), num_workers=1
  )
  builder.download_and_prepare(
    download_config=tfds.download.DownloadConfig(manual_dir=DUMMY_DATA)
  )
  return builder


@pytest.fixture(scope="module")
def examples(builder):
  return list(tfds.as_numpy(builder.as_dataset(split="train")))


FEATURES = """\
FeaturesDict({
    'caption': Text(shape=(), dtype=string),
    'image': Image(shape=(None, None, 3), dtype=uint8, description=image),
    'license': Text(shape=(), dtype=string),
    'nsfw': ClassLabel(shape=(), dtype=int64, num_classes=4),
    'original_height': Scalar(shape=(), dtype=int32, description=original height of the image),
    'original_width': Scalar(shape=(), dtype=int32, description=original width of the image),
    'similarity': Scalar(shape=(), dtype=float64, description=cosine similarity score between the text and image embedding. Missing values default to -1.0),
    'url': Text(shape=(), dtype=string),
})"""


def test_the_features_print_as_documented(builder):
  assert str(builder.info.features) == FEATURES


def test_the_documentation_of_each_feature(builder):
  docs = {
    name: (feature.doc.desc, feature.doc.value_range)
    for name, feature in builder.info.features.items()
  }

  assert docs == {
    "caption": ("HTML alt-text attribute", None),
    "image": ("image", None),
    "license": ("type of Creative Commons license (if applicable)", None),
    "nsfw": (
      "NSFW tag (detected with CLIP). Incohesive and missing tags are replaced"
      " with UNTAGGED",
      None,
    ),
    "original_height": ("original height of the image", None),
    "original_width": ("original width of the image", None),
    "similarity": (
      "cosine similarity score between the text and image embedding. Missing"
      " values default to -1.0",
      "[0.0, 1.0]",
    ),
    "url": ("image URL", None),
  }
  names = builder.info.features["nsfw"].names
  assert names == ["UNLIKELY", "UNSURE", "NSFW", "UNTAGGED"]


def test_the_card(builder):
  info = builder.info
  assert info.full_name == "laion400m/images/2.0.0"
  assert info.supervised_keys is None
  assert info.homepage == "https://laion.ai/blog/laion-400-open-dataset/"
  assert "LAION-400M" in info.description
  assert "similarity below 0.3" in info.description
  assert (
    "{LAION-400M:} Open Dataset of CLIP-Filtered 400 Million" in info.citation
  )
  assert builder.RELEASE_NOTES == {
    "1.0.0": "Initial release (TFDS).",
    "2.0.0": (
      "Images joined to their metadata by key. Embeddings stored as bytes."
    ),
  }
  names = [config.name for config in builder.BUILDER_CONFIGS]
  assert names == ["images", "embeddings"]
  assert "img2dataset --url_list" in builder.MANUAL_DOWNLOAD_INSTRUCTIONS
  columns = """'["NSFW","similarity","LICENSE"]'"""
  assert columns in builder.MANUAL_DOWNLOAD_INSTRUCTIONS


def test_every_example_has_its_own_url(examples):
  urls = [e["url"].decode() for e in examples]

  assert urls == [f"http://127.0.0.1:18400/{i}.jpg" for i in NAMES]


def test_every_picture_is_the_one_its_url_names(examples):
  """Row i is a picture of the colour (8i, 255 - 8i, 53i mod 256)."""
  for number, example in zip(NAMES, examples, strict=True):
    assert example["image"].shape == (64, 64, 3)
    centre = example["image"][32, 32].astype(int)
    colour = np.array([8 * number, 255 - 8 * number, 53 * number % 256])
    if number == 8:  # Served as grayscale: 0.299 R + 0.587 G + 0.114 B.
      colour = np.full(3, round(0.299 * 64 + 0.587 * 191 + 0.114 * 168))
    if number == 9:  # Half transparent: img2dataset puts it on white.
      colour = (colour * 128 + 255 * 127) // 255
    assert np.abs(centre - colour).max() <= 6, number


def test_named_examples(examples):
  by_number = dict(zip(NAMES, examples, strict=True))

  def metadata(number):
    row = {k: v for k, v in by_number[number].items() if k != "image"}
    return {
      k: v.decode() if isinstance(v, bytes) else v for k, v in row.items()
    }

  assert metadata(7) == {
    "caption": "Bild Nr. 7 — größer, 第七",
    "license": "",
    "nsfw": 2,
    "original_height": 60,
    "original_width": 87,
    "similarity": np.float64(np.float32(0.37)),
    "url": "http://127.0.0.1:18400/7.jpg",
  }
  assert metadata(20) == {
    "caption": "picture number 20",
    "license": "?",
    "nsfw": 0,
    "original_height": 60,
    "original_width": 100,
    "similarity": np.float64(np.float32(0.5)),
    "url": "http://127.0.0.1:18400/20.jpg",
  }
  assert by_number[2]["caption"] == by_number[15]["caption"] == b""  # null
  assert by_number[4]["similarity"] == -1.0  # null
  assert by_number[6]["similarity"] == 6016.0  # kept as it is
  assert by_number[8]["nsfw"] == 3  # null
  assert by_number[9]["nsfw"] == 3  # "?junk"
  assert by_number[11]["license"] == b""  # null
  assert (
    by_number[2]["license"] == b"https://creativecommons.org/licenses/by/2.0/"
  )


def test_types(builder):
  spec = builder.as_dataset(split="train").element_spec

  assert {name: s.dtype.name for name, s in spec.items()} == {
    "caption": "string",
    "image": "uint8",
    "license": "string",
    "nsfw": "int64",
    "original_height": "int32",
    "original_width": "int32",
    "similarity": "float64",
    "url": "string",
  }
  assert spec["image"].shape.as_list() == [None, None, 3]


def test_as_dataframe_shows_a_thumbnail_for_each_row(builder):
  df = tfds.as_dataframe(builder.as_dataset(split="train"), builder.info)

  assert len(df) == 25
  assert df["url"][3] == b"http://127.0.0.1:18400/7.jpg"
  assert df._repr_html_().count("<img src=") == 25


def test_show_examples(builder):
  figure = tfds.show_examples(builder.as_dataset(split="train"), builder.info)

  assert len(figure.axes) == 9
  assert figure.axes[0].get_images()


def test_as_supervised_says_that_there_are_no_supervised_keys(builder):
  with pytest.raises(ValueError, match="supervised"):
    builder.as_dataset(split="train", as_supervised=True)


def test_skip_decoding_gives_the_bytes_of_the_tar(builder):
  decoders = {"image": tfds.decode.SkipDecoding()}
  ds = builder.as_dataset(split="train[3:4]", decoders=decoders)
  (example,) = tfds.as_numpy(ds)

  import tarfile

  with tarfile.open(DUMMY_DATA / "laion400m/images/00000.tar") as tar:
    expected = tar.extractfile("0000007.jpg").read()
  assert example["image"] == expected


def test_data_source(tmp_path):
  builder = tfds.builder(
    "laion400m", data_dir=tmp_path, file_format="array_record", num_workers=2
  )
  builder.download_and_prepare(
    download_config=tfds.download.DownloadConfig(manual_dir=DUMMY_DATA)
  )

  source = tfds.data_source(
    "laion400m/images", split="train", data_dir=tmp_path
  )

  assert len(source) == 25
  example = source[3]
  assert example["url"] == b"http://127.0.0.1:18400/7.jpg"
  assert example["image"].shape == (64, 64, 3)
  assert example["similarity"] == np.float64(np.float32(0.37))


def test_what_was_prepared_can_be_read_without_this_package(builder):
  code = (
    "import sys, tensorflow_datasets as tfds\n"
    f"b = tfds.builder_from_directory({builder.data_dir!r})\n"
    "ds = tfds.as_numpy(b.as_dataset(split='train[3:4]'))\n"
    "print(next(iter(ds))['url'], 'tfds_plugins' in sys.modules)\n"
  )
  result = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )

  assert result.stdout == "b'http://127.0.0.1:18400/7.jpg' False\n"


def run_tfds_build(*arguments):
  command = [str(pathlib.Path(sys.executable).with_name("tfds")), "build"]
  return subprocess.run(
    [*command, *map(str, arguments), "--imports=tfds_plugins"],
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
  )


def test_tfds_build(tmp_path):
  result = run_tfds_build(
    "laion400m/images",
    f"--manual_dir={DUMMY_DATA}",
    f"--data_dir={tmp_path}",
    "--num_shards=2",
    "--file_format=parquet",
  )

  assert result.returncode == 0, result.stderr[-3000:]
  assert "25  examples in 2 shards" in result.stdout
  builder = tfds.builder("laion400m", data_dir=tmp_path)
  assert builder.info.splits["train"].num_examples == 25
  assert sorted(p.name for p in builder.data_path.glob("*-of-*")) == [
    "laion400m-train.parquet-00000-of-00002",
    "laion400m-train.parquet-00001-of-00002",
  ]


def test_tfds_build_with_processes_that_may_not_have_children(tmp_path):
  result = run_tfds_build(
    "laion400m",
    f"--manual_dir={DUMMY_DATA}",
    f"--data_dir={tmp_path}",
    "--num-processes=2",
    "--file_format=array_record",
    "--max_examples_per_split=20",
  )

  assert result.returncode == 0, result.stderr[-3000:]
  source = tfds.data_source(
    "laion400m/images", split="train", data_dir=tmp_path
  )
  assert len(source) == 20


def test_tfds_build_takes_the_number_of_workers(tmp_path):
  result = run_tfds_build(
    "laion400m/images/num_workers=0", f"--data_dir={tmp_path}"
  )

  assert result.returncode != 0
  assert (
    "num_workers must be an integer from 1 on, or None, not 0" in result.stderr
  )


def test_null_sizes_are_read_from_the_image(tmp_path):
  row = shards.make_row(
    0, "000", width=None, height=None, original_width=None, original_height=None
  )
  webp = shards.encode(shards.noise(0, 33, 22), "WEBP")
  shards.write_shard(tmp_path, "0", [row], {"000": webp})
  builder = tfds.builder("laion400m", data_dir=tmp_path / "data")
  builder.download_and_prepare(
    download_config=tfds.download.DownloadConfig(manual_dir=tmp_path)
  )

  (example,) = tfds.as_numpy(builder.as_dataset(split="train"))

  assert example["original_width"] == 33
  assert example["original_height"] == 22
  assert example["image"].shape == (22, 33, 3)


def test_the_mapping_of_missing_and_odd_values():
  columns = {
    "caption": pa.array([None, "", "x"]),
    "url": pa.array([None, "u", "v"]),
    "LICENSE": pa.array([None, "?", ""]),
    "NSFW": pa.array(["nsfw", "UNTAGGED", None]),
    "similarity": pa.array([float("nan"), None, -0.5]),
    "original_width": pa.array([None, 5, 6], pa.int32()),
    "original_height": pa.array([7, None, 9], pa.int32()),
    "image": pa.array([b"1", b"2", b"3"]),
    "image_width": pa.array([100, 200, 300], pa.int32()),
    "image_height": pa.array([10, 20, 30], pa.int32()),
  }

  mapped = laion400m_dataset_builder.map_images(
    pa.RecordBatch.from_pydict(columns)
  )

  assert mapped.to_pydict() == {
    "image": [b"1", b"2", b"3"],
    "original_width": [100, 5, 6],
    "original_height": [7, 20, 9],
    "caption": ["", "", "x"],
    "url": ["", "u", "v"],
    "license": ["", "?", ""],
    "nsfw": [3, 3, 3],
    "similarity": [-1.0, -1.0, -0.5],
  }


def test_the_table_of_published_files():
  infos = laion400m_dataset_builder.Builder.url_infos

  assert len(infos) == 1230
  url = (
    "https://deploy.laion.ai/8f83b608504d46bb81708ec86e912220/embeddings/"
    "img_emb/img_emb_0.npy"
  )
  assert infos[url].size == 1024458880
  assert infos[url].checksum.startswith("4647943969df433c")
  rows = sum(
    (info.size - 128) // 1024
    for url, info in infos.items()
    if "img_emb_" in url
  )
  assert rows == 407_314_954


def test_the_version_of_the_package():
  assert tfds_plugins.__version__ == "0.1.0"
  assert tf.__version__


def test_the_fixtures_are_small():
  size = sum(p.stat().st_size for p in DUMMY_DATA.rglob("*") if p.is_file())

  assert size < 2_000_000
  stats = json.loads(
    (DUMMY_DATA / "laion400m/images/00000_stats.json").read_text()
  )
  assert (stats["count"], stats["successes"]) == (12, 9)


def test_batches_of_images_that_are_not_decoded(builder):
  """They are parsed a batch at a time; decoded ones are TFDS's business."""
  decoders = {"image": tfds.decode.SkipDecoding()}
  partial = tfds.decode.PartialDecoding({"caption": True, "nsfw": True})
  for options in ({"decoders": decoders}, {"decoders": partial}, {}):
    ours = builder.as_dataset(
      split="train", batch_size=10 if options else 1, **options
    )
    theirs = builder.as_dataset(split="train", **options)
    theirs = theirs.batch(10 if options else 1)

    assert ours.element_spec == theirs.element_spec
    pairs = zip(tfds.as_numpy(ours), tfds.as_numpy(theirs), strict=True)
    for batch, expected in pairs:
      for name, values in expected.items():
        assert np.array_equal(batch[name], values)
