"""Tests of `coyo_labeled_300m`, on files that img2dataset itself wrote."""

import pathlib
import shutil

import coyo
import matplotlib as mpl
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow_datasets as tfds

from tfds_plugins import errors
from tfds_plugins.coyo_labeled_300m import coyo_labeled_300m_dataset_builder

mpl.use("Agg")

DUMMY_DATA = pathlib.Path(__file__).parents[2] / "dummy_data"

GOOD = [i for i in coyo.SUCCESSES if i not in coyo.BAD_LABELS]


class ImagesTest(tfds.testing.DatasetBuilderTestCase):
  """TFDS's own checks of config `images`."""

  DATASET_CLASS = coyo_labeled_300m_dataset_builder.Builder
  EXAMPLE_DIR = DUMMY_DATA
  BUILDER_CONFIG_NAMES_TO_TEST = ["images"]
  SPLITS = {"train": 19}


class LabelsTest(ImagesTest):
  """TFDS's own checks of config `labels`."""

  BUILDER_CONFIG_NAMES_TO_TEST = ["labels"]
  SPLITS = {"train": 18}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
  return coyo.prepare(
    "coyo_labeled_300m",
    DUMMY_DATA,
    tmp_path_factory.mktemp("data"),
  )


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
  return coyo.prepare(
    "coyo_labeled_300m/labels",
    DUMMY_DATA,
    tmp_path_factory.mktemp("data"),
  )


FEATURES = """\
FeaturesDict({
    'height': Scalar(shape=(), dtype=int32, description=height of the original image in pixels. Missing values default to -1),
    'id': Scalar(shape=(), dtype=int64, description=id of the image in COYO-700M. Missing values default to -1),
%s    'imagehash': Text(shape=(), dtype=string),
    'label_probs': Sequence(float32),
    'labels': Sequence(ClassLabel(shape=(), dtype=int64, num_classes=21841)),
    'url': Text(shape=(), dtype=string),
    'width': Scalar(shape=(), dtype=int32, description=width of the original image in pixels. Missing values default to -1),
})"""


def test_the_features_print_as_documented(images, labels):
  image = "    'image': Image(shape=(None, None, 3), dtype=uint8, description=image),\n"
  assert str(images.info.features) == FEATURES % image
  assert str(labels.info.features) == FEATURES % ""
  for builder in (images, labels):
    assert "the likeliest first" in builder.info.features["labels"].doc.desc
    assert "float16" in builder.info.features["label_probs"].doc.desc


def test_the_card(images, labels):
  info = images.info
  assert info.full_name == "coyo_labeled_300m/images/1.0.0"
  assert info.supervised_keys == ("image", "labels")
  assert labels.info.supervised_keys is None
  assert "EfficientNetV2-XL" in info.description
  assert "kakaobrain2022coyo-700m" in info.citation
  assert "kakaobrain2022coyo-vit" in info.citation
  instructions = images.MANUAL_DOWNLOAD_INSTRUCTIONS
  assert '["id","imagehash","labels","label_probs"]' in instructions


def check_labels(i, example):
  assert example["labels"].dtype == np.int64
  assert example["labels"].tolist() == coyo.get_labels(i)
  assert example["label_probs"].dtype == np.float32
  assert example["label_probs"].tolist() == coyo.get_probs(i)


def test_every_image_has_its_own_labels(images):
  examples = coyo.read(images)

  assert sorted(examples) == GOOD
  for i, example in examples.items():
    coyo.check_image(i, example["image"], 512)
    check_labels(i, example)
    assert (example["width"], example["height"]) == coyo.get_size(i)
    # Its recipe keeps neither.
    assert example["id"] == -1
    assert example["imagehash"] == b""


def test_the_published_labels(labels):
  examples = coyo.read(labels)

  assert sorted(examples) == [i for i in range(22) if i not in coyo.BAD_LABELS]
  for i, example in examples.items():
    if i == 18:
      assert example["labels"].size == example["label_probs"].size == 0
    else:
      check_labels(i, example)
    assert (example["width"], example["height"]) == coyo.get_size(i)
    assert example["id"] == (-1 if i == 11 else 315 + (2**33 + 148) * i)
    expected = b"" if i == 7 else coyo.get_hash(i, 0xDAF5A50AAE4AA54A)
    assert example["imagehash"] == expected


def test_the_example_of_the_card(labels):
  """Id 315: table lamps."""
  example = coyo.read(labels)[0]
  names = labels.info.features["labels"].feature

  assert example["id"] == 315
  assert example["labels"][:2].tolist() == [8087, 11054]
  assert names.int2str(8087) == "n03636649 lamp"
  assert names.int2str(11054) == "n04380533 table lamp"
  assert names.str2int("n04380533 table lamp") == 11054
  assert example["label_probs"][0] == 0.4453125


@pytest.mark.parametrize("config", ["images", "labels"])
def test_rows_with_bad_labels_are_skipped(images, labels, config):
  builder = images if config == "images" else labels
  ledger = coyo.read_ledger(builder)

  def get_key(i):
    return f"{i // 12:05d}{i % 12:02d}" if config == "images" else f"{i}"

  details = {
    2: "50 labels with 49 probabilities",
    4: "label 21841 lies outside 0 to 21840",
    6: "label -1 lies outside 0 to 21840",
  }
  for i, detail in details.items():
    assert ledger[get_key(i)] == ("bad_labels", detail)
  # Row 14 is the last but one of the second file of 4, from row 11 on.
  key = get_key(14) if config == "images" else "3"
  assert ledger[key] == ("bad_labels", "50 labels with 0 probabilities")
  reasons = [reason for reason, _ in ledger.values()]
  assert reasons.count("bad_labels") == 4
  assert len(reasons) == (11 if config == "images" else 4)


@pytest.fixture(scope="module")
def examples_of_tars(tmp_path_factory):
  return read_format("webdataset", tmp_path_factory.mktemp("data"))


def read_format(name, data_dir, manual_dir=None):
  default = DUMMY_DATA / "coyo_labeled_300m" / f"as_{name}"
  builder = coyo.prepare("coyo_labeled_300m", manual_dir or default, data_dir)
  decoders = {"image": tfds.decode.SkipDecoding()}
  examples = coyo.read(builder, decoders=decoders)
  return {
    i: {
      key: value.tolist() if isinstance(value, np.ndarray) else value
      for key, value in example.items()
    }
    for i, example in examples.items()
  }


@pytest.mark.parametrize("name", ["files", "parquet", "tfrecord"])
def test_all_formats_give_the_same_examples(tmp_path, examples_of_tars, name):
  assert sorted(examples_of_tars) == GOOD
  assert examples_of_tars[0]["id"] == 315
  assert examples_of_tars[7]["imagehash"] == b""
  assert examples_of_tars[11]["id"] == -1

  assert read_format(name, tmp_path) == examples_of_tars


@pytest.mark.parametrize("name", ["files", "tfrecord", "webdataset"])
def test_so_they_do_without_their_parquets(
  tmp_path, dummy_data, examples_of_tars, name
):
  folder = tmp_path / "a folder"
  shutil.copytree(dummy_data / "coyo_labeled_300m" / f"as_{name}", folder)
  for path in folder.glob("*.parquet"):
    path.unlink()

  assert read_format(name, tmp_path / "data", folder) == examples_of_tars


@pytest.mark.parametrize("parquets", [True, False])
def test_files_renamed_by_the_recipe(
  tmp_path, dummy_data, examples_of_tars, parquets
):
  folder = tmp_path / "images"
  shutil.copytree(dummy_data / "coyo_labeled_300m" / "as_tfrecord", folder)
  for i, path in enumerate(sorted(folder.glob("*.tfrecord"))):
    path.rename(folder / f"CoyoLabeled300m-train.tfrecord-{i:05d}-of-00003")
  if not parquets:
    for path in folder.glob("*.parquet"):
      path.unlink()

  assert read_format("", tmp_path / "data", tmp_path) == examples_of_tars


def test_batches(images, labels):
  decoders = {"image": tfds.decode.SkipDecoding()}
  for builder, options in ((images, {"decoders": decoders}), (labels, {})):
    batches = list(
      tfds.as_numpy(builder.as_dataset(split="train", batch_size=4, **options))
    )
    plain = tfds.builder_from_directory(builder.data_dir)
    expected = list(
      tfds.as_numpy(plain.as_dataset(split="train", batch_size=4, **options))
    )
    assert len(batches) == len(expected) == 5
    for batch, other in zip(batches, expected, strict=True):
      assert batch.keys() == other.keys()
      for name in batch:
        np.testing.assert_array_equal(batch[name], other[name])


def test_supervised(images):
  ds = images.as_dataset(split="train[:1]", as_supervised=True)
  ((image, labels),) = tfds.as_numpy(ds)

  assert image.ndim == 3
  assert labels.shape == (50,)


def test_as_dataframe_names_the_classes(images):
  df = tfds.as_dataframe(images.as_dataset(split="train"), images.info)

  html = df._repr_html_()
  assert html.count("<img src=") == 19
  assert "n03636649 lamp" in html


def test_data_source(tmp_path, dummy_data):
  coyo.prepare(
    "coyo_labeled_300m/labels",
    dummy_data,
    tmp_path,
    file_format="array_record",
  )

  found = tfds.data_source(
    "coyo_labeled_300m/labels", split="train", data_dir=tmp_path
  )

  assert len(found) == 18
  for example in found:
    i = coyo.get_number(example["url"])
    if i != 18:  # Lists of NumPy numbers, as TFDS gives sequences here.
      assert example["labels"] == coyo.get_labels(i)
      assert example["label_probs"] == coyo.get_probs(i)


# The published files


def write_table(folder, columns, name="part-00000-x.snappy.parquet"):
  folder.mkdir(parents=True, exist_ok=True)
  pq.write_table(pa.table(columns), folder / name)


def make_columns(num_rows=3):
  return {
    "id": list(range(num_rows)),
    "url": [coyo.get_url(i).decode() for i in range(num_rows)],
    "labels": [[i, i + 1] for i in range(num_rows)],
    "label_probs": [[0.5, 0.25]] * num_rows,
  }


@pytest.mark.parametrize(
  "places",
  [
    "coyo_labeled_300m/labels/data",
    "coyo_labeled_300m/labels",
    "labels/data",
    "coyo_labeled_300m/data",
    "data",
    ".",
  ],
)
def test_where_the_published_files_may_lie(tmp_path, places):
  write_table(tmp_path / "m" / places, make_columns())

  builder = coyo.prepare(
    "coyo_labeled_300m/labels", tmp_path / "m", tmp_path / "data"
  )

  examples = coyo.read(builder)
  assert examples[2]["labels"].tolist() == [2, 3]
  assert examples[2]["width"] == -1


def test_null_elements_are_bad_labels(tmp_path):
  columns = make_columns(4)
  columns["labels"] = [[None, 1], [1, 2], [1, 2], [0, 21840]]
  columns["label_probs"] = [[0.5, 0.25], [None, 0.5], [0.5, 0.25], [0.5, 0.5]]
  write_table(tmp_path / "m", columns)

  builder = coyo.prepare(
    "coyo_labeled_300m/labels", tmp_path / "m", tmp_path / "data"
  )

  assert sorted(coyo.read(builder)) == [2, 3]
  assert coyo.read_ledger(builder) == {
    "0": ("bad_labels", "label None lies outside 0 to 21840"),
    "1": ("bad_labels", "a probability is missing"),
  }


def test_other_files_are_refused(tmp_path):
  columns = make_columns()
  write_table(tmp_path / "m", columns, "part-00000.parquet")
  del columns["labels"]
  write_table(tmp_path / "m", columns, "part-00001.parquet")
  (tmp_path / "m" / "part-00002.parquet").write_bytes(b"<html>")

  with pytest.raises(errors.SourceError) as e:
    coyo.prepare("coyo_labeled_300m/labels", tmp_path / "m", tmp_path / "data")

  assert "no column labels" in str(e.value)
  assert "part-00001.parquet" in str(e.value)
  assert "part-00002.parquet" in str(e.value)
  assert "part-00000" not in str(e.value)


def test_images_where_labels_are_wanted(tmp_path, dummy_data):
  """The download's parquets are not the published ones."""
  manual_dir = dummy_data / "coyo_labeled_300m" / "as_webdataset"

  with pytest.raises(errors.ManualDirError) as e:
    coyo.prepare("coyo_labeled_300m/labels", manual_dir, tmp_path)

  assert "No parquet of metadata was found" in str(e.value)
  assert "00000.parquet" in str(e.value)


def test_the_list_of_urls_where_images_are_wanted(tmp_path):
  write_table(tmp_path / "m", make_columns())

  with pytest.raises(errors.ManualDirError, match="the list of URLs"):
    coyo.prepare("coyo_labeled_300m/images", tmp_path / "m", tmp_path / "data")
