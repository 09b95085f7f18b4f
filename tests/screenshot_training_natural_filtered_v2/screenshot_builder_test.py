"""Tests of the screenshot set, on its fixture and on small folders."""

import io
import pathlib
import subprocess
import sys
import tarfile

import numpy as np
from PIL import Image
import pyarrow.parquet as pq
import pytest
import screens
import tensorflow as tf
import tensorflow_datasets as tfds

from tfds_plugins import features
from tfds_plugins.screenshot_training_natural_filtered_v2 import (
  screenshot_training_natural_filtered_v2_dataset_builder as builder_lib,
)

DUMMY_DATA = pathlib.Path(__file__).parents[2] / "dummy_data"
FIXTURE = DUMMY_DATA / screens.NAME
CONFIGS = [config.name for config in builder_lib.Builder.BUILDER_CONFIGS]


class HardNegativesTest(tfds.testing.DatasetBuilderTestCase):
  """TFDS's own checks."""

  DATASET_CLASS = builder_lib.Builder
  EXAMPLE_DIR = DUMMY_DATA
  BUILDER_CONFIG_NAMES_TO_TEST = ["hard_negatives"]
  SPLITS = {"train": 8, "eval": 2, "test": 2}


class HardNegativesWithAnswerTest(HardNegativesTest):
  BUILDER_CONFIG_NAMES_TO_TEST = ["hard_negatives_with_answer"]


class PairsTest(HardNegativesTest):
  BUILDER_CONFIG_NAMES_TO_TEST = ["pairs"]


class LiteQueryTest(HardNegativesTest):
  BUILDER_CONFIG_NAMES_TO_TEST = ["lite_query"]


class TilesTest(HardNegativesTest):
  BUILDER_CONFIG_NAMES_TO_TEST = ["tiles"]
  SPLITS = {"train": 7}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  data_dir = tmp_path_factory.mktemp("data")
  for config in CONFIGS:
    screens.prepare(DUMMY_DATA, data_dir, config)
  return data_dir


def load(data_dir, config, split="train", **options):
  builder = tfds.builder(f"{screens.NAME}/{config}", data_dir=data_dir)
  return builder.as_dataset(split=split, **options)


def get_article(path: bytes) -> int:
  return int(path.split(b"/")[3].split(b".")[0])


# By query, what make_tiles.py says: tile that answers, negatives, answer.
TRAIN = {
  "How do ships tell lighthouses apart?": (0, [1, 2]),
  "How fast does a glacier flow?": (1, [0, 4]),
  "How does a bee show the direction of flowers?": (2, [3, 0]),
  "What carries the deck of a suspension bridge?": (3, [4, 5]),
  "Why are there two tides a day?": (4, [0]),
  "When is a spring tide?": (5, [3, 1]),
  "How warm is a hive?": (2, [1, 3]),
  "Why is the lens made of rings — and not “solid”?": (0, [2, 4]),
}
HEIGHTS = {0: 700, 1: 520, 2: 610, 3: 480, 4: 1024, 5: 1024}


def read_member(shard, name):
  with tarfile.open(FIXTURE / "image_shards" / f"{shard}.tar") as tar:
    return tar.extractfile(name.removeprefix("images/")).read()


def test_rows_have_their_tiles(data_dir):
  examples = list(tfds.as_numpy(load(data_dir, "hard_negatives")))
  assert len(examples) == len(TRAIN)
  for example in examples:
    positive, negatives = TRAIN[example["query"].decode()]
    assert get_article(example["chunk_path"]) == positive
    assert list(map(get_article, example["neg_chunk_paths"])) == negatives
    assert example["image"].shape == (HEIGHTS[positive], 875, 3)
    images = [image.to_tensor().numpy() for image in example["neg_images"]]
    expected = [
      28 if path.endswith(b"chunk_0001_00.png") else HEIGHTS[get_article(path)]
      for path in example["neg_chunk_paths"]
    ]
    assert [image.shape for image in images] == [
      (height, 875, 3) for height in expected
    ]
    for path, image in zip(example["neg_chunk_paths"], images):
      check_pixels(path.decode(), image)
    check_pixels(example["chunk_path"].decode(), example["image"])


def check_pixels(path, found):
  """Compares a tile with what Pillow reads from the tar."""
  shard = path.split("/")[1]
  with Image.open(io.BytesIO(read_member(shard, path))) as image:
    assert image.format == ("JPEG" if "000003" in path else "PNG")
    assert image.mode == {1: "RGBA", 2: "P"}.get(
      get_article(path.encode()), "RGB"
    )
    rgba = image.convert("RGBA")
  white = Image.new("RGBA", rgba.size, "white")
  expected = np.asarray(Image.alpha_composite(white, rgba).convert("RGB"))
  difference = np.abs(found.astype(int) - expected)
  if "000003" in path:  # JPEG decoders round differently.
    assert difference.max() <= 8
    assert difference.mean() < 1.5
  else:
    assert not difference.any()


def test_rgb_tiles_go_through_byte_for_byte(data_dir):
  ds = load(
    data_dir,
    "hard_negatives",
    decoders={
      "image": tfds.decode.SkipDecoding(),
      "neg_images": tfds.decode.SkipDecoding(),
    },
  )
  num_compared = 0
  for example in tfds.as_numpy(ds):
    paths = [example["chunk_path"], *example["neg_chunk_paths"]]
    for path, data in zip(paths, [example["image"], *example["neg_images"]]):
      if get_article(path) not in (1, 2):
        shard = path.decode().split("/")[1]
        assert data == read_member(shard, path.decode())
        num_compared += 1
  assert num_compared == 15


def test_answers(data_dir):
  found = {
    example["query"].decode(): example["answer"].decode()
    for example in tfds.as_numpy(load(data_dir, "hard_negatives_with_answer"))
  }
  assert found.keys() == TRAIN.keys()
  assert found["How warm is a hive?"] == ""  # null
  assert found["When is a spring tide?"] == "At new and full moon"


def test_lite_query_goes_to_the_split_that_rows_name(data_dir):
  found = {
    split: {
      example["query"].decode(): (
        example["source_positive_rank"],
        float(example["source_positive_score"]),
      )
      for example in tfds.as_numpy(load(data_dir, "lite_query", split))
    }
    for split in screens.SPLITS
  }
  assert found["train"].keys() == TRAIN.keys()
  assert found["train"]["How do ships tell lighthouses apart?"] == (0, 0.5)
  # The fourth row has neither.
  rank, score = found["train"]["What carries the deck of a suspension bridge?"]
  assert rank == -1
  assert np.isnan(score)
  assert found["eval"] == {
    "What is a moraine?": (9 % 5, 0.5 + 9 / 64),
    "What makes a bridge swing?": (10 % 5, 0.5 + 10 / 64),
  }
  assert len(found["test"]) == 2


def test_tiles_are_all_there_once(data_dir):
  found = [
    (example["chunk_path"].decode(), example["image"].shape[0])
    for example in tfds.as_numpy(load(data_dir, "tiles"))
  ]
  heights = {
    "shard_000/shard_00000/000000": 700,
    "shard_000/shard_00000/000001": 520,
    "shard_001/shard_00000/000002": 610,
    "shard_001/shard_00000/000003": 480,
    "shard_002/shard_00000/000004": 1024,
    "shard_002/shard_00000/000005": 1024,
  }
  assert sorted(found) == sorted(
    [
      *(
        (f"images/{page}.png.tiles/chunk_0000_00.png", height)
        for page, height in heights.items()
      ),
      ("images/shard_002/shard_00000/000004.png.tiles/chunk_0001_00.png", 28),
    ]
  )


def test_what_is_missing_is_in_the_ledger(data_dir):
  builder = tfds.builder(f"{screens.NAME}/hard_negatives", data_dir=data_dir)
  ledger = pq.read_table(builder.data_path / "skipped_rows.parquet").to_pylist()
  path = "images/shard_003/shard_00000/000009.png.tiles/chunk_0000_00.png"
  detail = f"{path}: there is no image_shards/shard_003.tar"
  entry = {"source_shard": "train_hn", "detail": detail, "split": "train"}
  assert ledger == [
    {**entry, "key": "7", "reason": "missing_tile", "is_skipped": True},
    {**entry, "key": "5", "reason": "missing_negative", "is_skipped": False},
  ]


def test_nothing_but_the_dataset_and_its_accounts_is_left(data_dir):
  builder = tfds.builder(f"{screens.NAME}/pairs", data_dir=data_dir)
  names = {path.name for path in builder.data_path.iterdir()}
  assert {name for name in names if "tfrecord" not in name} == {
    "dataset_info.json",
    "features.json",
    "shard_receipts.jsonl",
    "skipped_rows.parquet",
    "source_shards.json",
    "tile_index.arrow",
  }


# The ways to look at the data.


def test_thumbnails_in_a_dataframe(data_dir):
  ds, info = tfds.load(
    f"{screens.NAME}/hard_negatives",
    split="train",
    data_dir=data_dir,
    with_info=True,
  )
  html = tfds.as_dataframe(ds, info)._repr_html_()
  # 8 tiles that answer, 2 x 7 + 1 that do not.
  assert html.count("<img src=") == 8 + 15
  encoded = load(
    data_dir,
    "hard_negatives",
    decoders={"neg_images": tfds.decode.SkipDecoding()},
  )
  html = tfds.as_dataframe(encoded, info)._repr_html_()
  assert html.count("<img src=") == 8 + 15


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_show_examples(data_dir):
  import matplotlib as mpl

  mpl.use("Agg")
  ds, info = tfds.load(
    f"{screens.NAME}/hard_negatives",
    split="train",
    data_dir=data_dir,
    with_info=True,
  )
  figure = tfds.show_examples(ds, info)
  assert len([ax for ax in figure.axes if ax.images]) == 8


def test_data_source_gives_arrays(tmp_path):
  builder = screens.prepare(DUMMY_DATA, tmp_path, file_format="array_record")
  source = builder.as_data_source(split="train")
  for example in source:
    _, negatives = TRAIN[example["query"].decode()]
    assert [image.dtype for image in example["neg_images"]] == [np.uint8] * len(
      negatives
    )
    for path, image in zip(example["neg_chunk_paths"], example["neg_images"]):
      check_pixels(path.decode(), image)


def test_resized_and_batched(data_dir):
  ds = load(data_dir, "hard_negatives")
  sized = ds.map(
    lambda example: {
      **example,
      "image": features.resize(example["image"], 64, 48),
      "neg_images": features.resize(example["neg_images"], 64, 48),
    }
  )
  [batch] = sized.padded_batch(8)
  assert batch["image"].shape == (8, 64, 48, 3)
  assert batch["neg_images"].shape == (8, 2, 64, 48, 3)
  assert batch["neg_images"].dtype == tf.float32
  # The row that has but one negative is filled up with zeros.
  is_there = tf.reduce_max(batch["neg_images"], axis=(2, 3, 4)) > 0
  assert int(tf.reduce_sum(tf.cast(is_there, tf.int32))) == 15
  assert 200 < float(tf.reduce_mean(batch["image"])) < 255  # Mostly white.


# In a process without this package: the directory of the checkout is not in
# `sys.path`, and the editable install's finder is taken out.
_WITHOUT_PACKAGE = """
import sys

class Hide:
  def find_spec(self, name, *args):
    if name.split(".")[0] == "tfds_plugins":
      raise ModuleNotFoundError(f"No module named {name!r}", name=name)

if sys.argv[2] == "hidden":
  sys.meta_path.insert(0, Hide())
import tensorflow_datasets as tfds
builder = tfds.builder_from_directory(sys.argv[1])
print(len(list(builder.as_dataset(split="train"))), builder.info.features)
"""


@pytest.mark.parametrize("is_hidden", [False, True])
def test_builder_from_directory(data_dir, is_hidden):
  builder = tfds.builder(f"{screens.NAME}/hard_negatives", data_dir=data_dir)
  result = subprocess.run(
    [
      *(sys.executable, "-c", _WITHOUT_PACKAGE, builder.data_dir),
      "hidden" if is_hidden else "there",
    ],
    capture_output=True,
    text=True,
    check=False,
  )
  if is_hidden:
    assert result.returncode
    assert "No module named 'tfds_plugins'" in result.stderr
  else:
    assert result.stdout.startswith("8 ")
    assert "neg_images': Images(" in result.stdout
