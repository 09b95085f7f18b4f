"""Tests of `coyo_700m`, on files that img2dataset itself wrote."""

import math
import pathlib

import coyo
import numpy as np
import pyarrow as pa
import pytest
import shards
import tensorflow_datasets as tfds

from tfds_plugins.coyo_700m import coyo_700m_dataset_builder

DUMMY_DATA = pathlib.Path(__file__).parents[2] / "dummy_data"
SCORES = (
  "clip_similarity_vitb32",
  "clip_similarity_vitl14",
  "nsfw_score_opennsfw2",
  "nsfw_score_gantman",
  "watermark_score",
  "aesthetic_score_laion_v2",
)


class ImagesTest(tfds.testing.DatasetBuilderTestCase):
  """TFDS's own checks of config `images`."""

  DATASET_CLASS = coyo_700m_dataset_builder.Builder
  EXAMPLE_DIR = DUMMY_DATA
  BUILDER_CONFIG_NAMES_TO_TEST = ["images"]
  SPLITS = {"train": 23}


class MetadataTest(ImagesTest):
  """TFDS's own checks of config `metadata`."""

  BUILDER_CONFIG_NAMES_TO_TEST = ["metadata"]
  SPLITS = {"train": 18}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
  return coyo.prepare("coyo_700m", DUMMY_DATA, tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def metadata(tmp_path_factory):
  return coyo.prepare(
    "coyo_700m/metadata", DUMMY_DATA, tmp_path_factory.mktemp("data")
  )


def expected_row(i):
  """Returns the features of row i but the image, where nothing is missing."""
  text = "Ein Bild — größer, 第六" if i == 6 else f"a plain colour, number {i}"
  num_words = 5
  row = {
    "id": 2559800550877 + 2**33 * i,
    "url": coyo.get_url(i),
    "text": text.encode(),
    "image_phash": coyo.get_hash(i, 0xE9E90C24F1D9C674),
    "width": coyo.get_size(i)[0],
    "height": coyo.get_size(i)[1],
    "text_length": len(text),
    "word_count": num_words,
    "num_tokens_bert": num_words + 3,
    "num_tokens_gpt": num_words + 5,
    "num_faces": i % 4,
    "clip_similarity_vitb32": -0.0625 if i == 1 else 0.25 + i / 1024,
    "clip_similarity_vitl14": (224 - i) / 1024,
    "nsfw_score_opennsfw2": i / 4096,
    "nsfw_score_gantman": (i + 1) / 8192,
    "watermark_score": i / 32,
    "aesthetic_score_laion_v2": 4 + i / 16,
  }
  counts = dict.fromkeys(
    ("text_length", "word_count", "num_tokens_bert", "num_tokens_gpt"), -1
  )
  missing = {
    2: {"text": b"", **counts},
    4: {
      "clip_similarity_vitb32": math.nan,
      "aesthetic_score_laion_v2": math.nan,
    },
    7: {"image_phash": b""},
    11: {"id": -1},
    14: dict.fromkeys(SCORES, math.nan),
    15: {"text": b"", "num_faces": -1},
  }
  return row | missing.get(i, {})


def check(example, expected):
  assert {k: v for k, v in example.items() if k != "image"}.keys() == (
    expected.keys()
  )
  for name, value in expected.items():
    if isinstance(value, float) and math.isnan(value):
      assert np.isnan(example[name]), name
    else:
      assert example[name] == value, name


def test_every_image_has_its_own_metadata(images):
  examples = coyo.read(images)

  # Its recipe keeps neither of these.
  not_kept = dict.fromkeys(
    (
      "text_length",
      "word_count",
      "num_tokens_bert",
      "num_tokens_gpt",
      "num_faces",
    ),
    -1,
  )
  assert sorted(examples) == coyo.SUCCESSES
  for i, example in examples.items():
    coyo.check_image(i, example["image"], 384)
    check(example, expected_row(i) | not_kept)


def test_the_published_metadata(metadata):
  examples = coyo.read(metadata)

  assert sorted(examples) == list(range(18))
  for i, example in examples.items():
    check(example, expected_row(i))


def test_types(metadata, images):
  spec = metadata.as_dataset(split="train").element_spec

  types = {name: s.dtype.name for name, s in spec.items()}
  assert types == {
    "id": "int64",
    **dict.fromkeys(("url", "text", "image_phash"), "string"),
    **dict.fromkeys(
      (
        "width",
        "height",
        "text_length",
        "word_count",
        "num_tokens_bert",
        "num_tokens_gpt",
        "num_faces",
      ),
      "int32",
    ),
    **dict.fromkeys(SCORES, "float32"),
  }
  assert set(images.info.features) == {*types, "image"}


def test_every_feature_is_documented(images):
  docs = {
    name: feature.doc.desc for name, feature in images.info.features.items()
  }

  assert docs.pop("image") == "image"
  for name, doc in docs.items():
    sentinel = "NaN" if name in SCORES else "-1"
    if name in ("url", "text", "image_phash"):
      sentinel = "''"
    assert doc.endswith(f". Missing values default to {sentinel}"), name
    assert len(doc) > 50


def test_the_card(images, metadata):
  info = images.info
  assert info.full_name == "coyo_700m/images/1.0.0"
  assert info.supervised_keys == ("image", "text")
  assert metadata.info.supervised_keys is None
  assert "746,972,269 pairs" in info.description
  assert "kakaobrain2022coyo-700m" in info.citation
  instructions = " ".join(images.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
  for name in ("num_tokens_gpt", *SCORES):
    assert f'"{name}"' in instructions


def test_what_the_download_did_not_keep_is_named_once(tmp_path, capsys):
  coyo.prepare("coyo_700m", DUMMY_DATA, tmp_path)

  out = capsys.readouterr().out
  assert (
    "Note: the source has no columns 'num_faces', 'num_tokens_bert',"
    " 'num_tokens_gpt', 'text_length', 'word_count' in 3 of 3 shards;"
  ) in out
  assert out.count("no column") == 1


@pytest.mark.parametrize("name", ["caption", "text"])
def test_the_text_may_be_kept_under_either_name(tmp_path, capsys, name):
  """As --caption_col, or as one of the additional columns."""
  schema = pa.schema(
    [f.with_name(name) if f.name == "caption" else f for f in shards.SCHEMA]
  )
  row = shards.make_row(1, "000")
  row[name] = row.pop("caption")
  shards.write_shard(
    tmp_path / "m",
    "0",
    [{"caption": None, **row}],
    {"000": shards.picture(1)},
    schema=schema,
  )

  builder = coyo.prepare("coyo_700m", tmp_path / "m", tmp_path / "data")

  (example,) = tfds.as_numpy(builder.as_dataset(split="train"))
  assert example["text"] == b"caption 1"
  out = capsys.readouterr().out
  assert "'caption'" not in out
  assert "'text'" not in out


def test_without_a_text(tmp_path, capsys):
  schema = shards.SCHEMA.remove(shards.SCHEMA.get_field_index("caption"))
  shards.write_shard(
    tmp_path / "m",
    "0",
    [shards.make_row(1, "000")],
    {"000": shards.picture(1)},
    schema=schema,
  )

  builder = coyo.prepare("coyo_700m", tmp_path / "m", tmp_path / "data")

  (example,) = tfds.as_numpy(builder.as_dataset(split="train"))
  assert example["text"] == b""
  out = capsys.readouterr().out
  assert "'caption'" in out
  assert "'text'" not in out


def test_both_datasets_in_one_manual_dir(tmp_path):
  """Each takes its own folder, whatever else lies beside it."""
  for name, count in (("coyo_700m", 23), ("coyo_labeled_300m", 19)):
    builder = coyo.prepare(name, DUMMY_DATA, tmp_path)
    assert builder.info.splits["train"].num_examples == count


def test_supervised_and_batches(images):
  ds = images.as_dataset(
    split="train",
    as_supervised=True,
    batch_size=23,
    decoders={"image": tfds.decode.SkipDecoding()},
  )

  ((encoded, texts),) = tfds.as_numpy(ds)

  assert encoded.shape == texts.shape == (23,)
  assert b"a plain colour, number 0" in texts.tolist()
