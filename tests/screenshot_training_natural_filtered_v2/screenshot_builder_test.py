"""Tests of the screenshot set, on its fixture and on small folders."""

import io
import pathlib
import subprocess
import sys
import tarfile

import builds
import numpy as np
from PIL import Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import screens
import tensorflow as tf
import tensorflow_datasets as tfds

from tfds_plugins import errors
from tfds_plugins import features
from tfds_plugins.screenshot_training_natural_filtered_v2 import (
  screenshot_training_natural_filtered_v2_dataset_builder as builder_lib,
)
from tfds_plugins.sources.screenshots import tile_index

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


# Folders of other kinds.


@pytest.fixture
def folder(tmp_path):
  """26 tiles in 13 tars, and 24 rows in another order than they lie there."""
  folder = tmp_path / "with space" / screens.NAME
  screens.write_tars(folder, range(26))
  rows = [
    screens.make_row(i, i * 7 % 26, [i * 3 % 26, (i * 5 + 1) % 26])
    for i in range(24)
  ]
  screens.write_splits(folder, rows)
  return folder


def read_rows(builder, split="train"):
  ds = builder.as_dataset(
    split=split,
    decoders={
      "image": tfds.decode.SkipDecoding(),
      **(
        {"neg_images": tfds.decode.SkipDecoding()}
        if "neg_images" in builder.info.features
        else {}
      ),
    },
  )
  return list(tfds.as_numpy(ds))


def read_ledger(builder):
  table = pq.read_table(builder.data_path / "skipped_rows.parquet")
  return {
    (row["key"], row["reason"]): row["detail"] for row in table.to_pylist()
  }


def test_every_row_has_its_own_tiles(folder, tmp_path):
  builder = screens.prepare(folder, tmp_path)
  rows = read_rows(builder)
  assert len(rows) == 24
  for row in rows:
    i = int(row["query"].decode().removeprefix("question ").rstrip("?"))
    assert row["image"] == screens.make_tile(i * 7 % 26)
    assert list(row["neg_images"]) == [
      screens.make_tile(i * 3 % 26),
      screens.make_tile((i * 5 + 1) % 26),
    ]
  # As they lie in the tars.
  paths = [row["chunk_path"] for row in rows]
  assert paths == sorted(paths)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_the_result_is_the_same_however_tiles_lie(
  folder, tmp_path, num_workers
):
  """Tars; extracted; some of both; and by one or more processes."""
  expected = builds.digest(
    screens.prepare(folder, tmp_path / "a", num_shards=5).data_dir
  )
  for number in ("003", "007"):
    path = folder / "image_shards" / f"shard_{number}.tar"
    with tarfile.open(path) as tar:
      tar.extractall(folder / "images", filter="data")
    path.unlink()
  options = {"num_shards": 5, "num_workers": num_workers}
  mixed = screens.prepare(folder, tmp_path / "b", **options)
  screens.extract(folder)
  extracted = screens.prepare(folder, tmp_path / "c", **options)
  for builder in (mixed, extracted):
    found = builds.digest(builder.data_dir)
    del found["tile_index.arrow"]
    assert found == {k: v for k, v in expected.items() if k in found}
    assert (
      len(found) == 5 + 1 + 1 + 10
    )  # train, ledger, receipts, eval and test


def test_tiles_of_tars_and_of_folders(folder, tmp_path):
  paths = [screens.get_path(i) for i in range(26)]
  for path in sorted((folder / "image_shards").glob("*.tar"))[::2]:
    with tarfile.open(path) as tar:
      tar.extractall(folder / "images", filter="data")
    path.unlink()
  builder = screens.prepare(folder, tmp_path, "tiles")
  rows = read_rows(builder)
  assert sorted(row["chunk_path"].decode() for row in rows) == paths
  for row in rows:
    number = paths.index(row["chunk_path"].decode())
    assert row["image"] == screens.make_tile(number)


def test_manual_dir_may_hold_the_folder(folder, tmp_path):
  builder = screens.prepare(folder.parent, tmp_path, "pairs")
  assert len(read_rows(builder)) == 24


@pytest.mark.parametrize(
  ("config", "name"),
  [
    ("hard_negatives", "eval_hn.jsonl or eval.jsonl"),
    ("hard_negatives_with_answer", "train_hn_with_answer.jsonl"),
    ("lite_query", "lite-query-v2-full-filtered-hn-with-answer.jsonl"),
  ],
)
def test_files_that_a_config_needs(folder, tmp_path, config, name):
  (folder / "eval_hn.jsonl").unlink()
  with pytest.raises(errors.ManualDirError, match=name):
    screens.prepare(folder, tmp_path, config)


def test_a_folder_of_something_else(tmp_path):
  (tmp_path / "manual").mkdir()
  (tmp_path / "manual" / "00000.tar").write_bytes(b"")
  with pytest.raises(errors.ManualDirError, match="was not found"):
    screens.prepare(tmp_path / "manual", tmp_path)


def test_partial_copies(folder, tmp_path, capsys):
  for number in ("003", "011"):
    (folder / "image_shards" / f"shard_{number}.tar").unlink()
  builder = screens.prepare(folder, tmp_path)
  lost = {6, 7, 22, 23}
  expected = {}
  for i in range(24):
    if i * 7 % 26 not in lost:
      negatives = [i * 3 % 26, (i * 5 + 1) % 26]
      expected[i] = [number for number in negatives if number not in lost]
  found = {
    int(row["query"][9:-1]): list(row["neg_images"])
    for row in read_rows(builder)
  }
  assert found.keys() == expected.keys()
  for i, numbers in expected.items():
    assert found[i] == list(map(screens.make_tile, numbers))
  num_skipped = 24 - len(expected)
  num_lost = sum(2 - len(numbers) for numbers in expected.values())
  printed = capsys.readouterr().out
  assert f"{num_skipped:>19,}  missing_tile" in printed
  assert f"{num_lost:>19,}  missing_negative" in printed
  assert "2 tars of tiles are not in" in printed
  assert "shard_003.tar, shard_011.tar" in printed


def test_refusing_partial_copies(folder, tmp_path):
  screens.prepare(folder, tmp_path / "a", "pairs", refuse_missing_tiles=True)
  (folder / "image_shards" / "shard_003.tar").unlink()
  with pytest.raises(errors.SourceError, match=r"shard_003\.tar") as caught:
    screens.prepare(folder, tmp_path / "b", refuse_missing_tiles=True)
  assert "refuse_missing_tiles" in str(caught.value)
  with pytest.raises(errors.OptionError, match="refuse_missing_tiles"):
    screens.prepare(folder, tmp_path, refuse_missing_tiles="yes")


UNSAFE = [
  "/etc/passwd",
  "images/../../secret.png",
  "images/shard_000/../../secret.png",
  "../secret.png",
  "images\\shard_000\\x.png",
  "images/shard_000//x.png",
  "images/./x.png",
  "shard_000/shard_00000/000000.png.tiles/chunk_0000_00.png",
  "images/",
  "",
  "images/" + "x" * 5000,
  "images/shard_000/\0.png",
]


_opened: list[str] | None = None


def _note_opened(event, arguments):
  if event == "open" and _opened is not None:
    _opened.append(str(arguments[0]))


sys.addaudithook(_note_opened)  # Which cannot be taken away again.


def test_unsafe_paths_are_never_opened(folder, tmp_path):
  global _opened
  Image.new("RGB", (9, 9)).save(folder.parent / "secret.png")
  rows = [screens.make_row(i, 0) for i in range(2)]
  rows += [{**screens.make_row(0, 0), "chunk_path": path} for path in UNSAFE]
  rows += [
    {**screens.make_row(0, 0), "neg_chunk_paths": [screens.get_path(1), path]}
    for path in UNSAFE
  ]
  screens.write_splits(folder, rows)
  _opened = []
  builder = screens.prepare(folder, tmp_path)
  opened, _opened = _opened, None
  assert len(read_rows(builder)) == 2
  ledger = read_ledger(builder)
  assert ledger.keys() == {
    (str(3 + i), "unsafe_path") for i in range(2 * len(UNSAFE))
  }
  assert all("secret" not in path and "passwd" not in path for path in opened)
  assert any("train_hn.jsonl" in path for path in opened)


def test_lines_that_are_no_rows(folder, tmp_path):
  good = screens.make_row(0, 0, [1])
  bom = b"\xef\xbb\xbf"
  lines = [
    bom + screens.json.dumps(good).encode(),  # 1
    b"",
    b"   \r",
    b'{"query": "cut off',  # 4
    b"[1, 2]",
    b"\xff\xfe",
    {k: v for k, v in good.items() if k != "query"},  # 7
    {k: v for k, v in good.items() if k != "chunk_path"},
    {k: v for k, v in good.items() if k != "neg_chunk_paths"},
    {**good, "query": None},  # 10
    {**good, "neg_chunk_paths": "images/x.png"},
    {**good, "neg_chunk_paths": [1]},
    b'{"query": "\\ud800", "chunk_path": "images/x.png", "neg_chunk_paths": []}',
    b"[" * 100_000,  # 14
    {**good, "split": "test"},
    {**good, "query": "x" * (5 << 20)},  # 16
    {**good, "split": 5},
    {**good, "query": "the last"},  # 18
  ]
  screens.write_splits(folder, lines)
  builder = screens.prepare(folder, tmp_path)
  queries = {row["query"].decode() for row in read_rows(builder)}
  assert queries == {"question 0?", "the last"}
  assert sorted(read_ledger(builder), key=lambda key: int(key[0])) == [
    ("4", "bad_line"),
    ("5", "bad_line"),
    ("6", "bad_line"),
    ("7", "missing_field"),
    ("8", "missing_field"),
    ("9", "missing_field"),
    ("10", "missing_field"),
    ("11", "missing_field"),
    ("12", "missing_field"),
    ("13", "missing_field"),
    ("14", "bad_line"),
    ("15", "wrong_split"),
    ("16", "bad_line"),
    ("17", "missing_field"),
  ]


def test_negatives_are_not_needed_for_pairs(folder, tmp_path):
  row = screens.make_row(0, 3)
  del row["neg_chunk_paths"]
  for split in screens.SPLITS:
    screens.write_lines(folder / f"{split}.jsonl", [{**row, "split": split}])
  builder = screens.prepare(folder, tmp_path, "pairs")
  [found] = read_rows(builder, "eval")
  assert found["image"] == screens.make_tile(3)


def test_a_row_of_lite_query_without_a_split(folder, tmp_path):
  rows = [
    screens.make_row(i, i, [], split=split, answer=str(i))
    for i, split in enumerate(["train", "eval", "test", "dev", "train"])
  ]
  rows.append({**rows[0], "split": None})
  rows.append({k: v for k, v in rows[0].items() if k != "split"})
  name = "lite-query-v2-full-filtered-hn-with-answer.jsonl"
  screens.write_lines(folder / name, rows)
  builder = screens.prepare(folder, tmp_path, "lite_query")
  found = {
    split: sorted(row["answer"] for row in read_rows(builder, split))
    for split in screens.SPLITS
  }
  assert found == {"train": [b"0", b"4"], "eval": [b"1"], "test": [b"2"]}
  assert set(read_ledger(builder)) == {
    ("4", "wrong_split"),
    ("6", "missing_field"),
    ("7", "wrong_split"),
  }


def test_tiles_of_other_formats(folder, tmp_path):
  """RGBA, a palette, a JPEG and a GIF named .png; damaged ones are no tiles."""
  rgba = Image.new("RGBA", (6, 5), (0, 0, 0, 0))
  palette = Image.new("P", (6, 5), 3)
  contents = {}
  for i, (image, file_format) in enumerate(
    [(rgba, "PNG"), (palette, "PNG"), (palette, "GIF")]
  ):
    out = io.BytesIO()
    image.save(out, file_format)
    contents[i] = out.getvalue()
  contents[3] = screens.make_tile(3, "JPEG")
  good = screens.make_tile(4)
  contents[4] = good[:-20]
  middle = len(good) // 2
  contents[5] = good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :]
  contents[6] = b"no image"
  screens.write_tars(folder, range(8), contents)
  rows = [screens.make_row(i, i) for i in range(8)]
  rows.append(screens.make_row(8, 7, [4, 0, 6, 3]))
  screens.write_splits(folder, rows)
  builder = screens.prepare(folder, tmp_path)
  found = {int(row["query"][9:-1]): row for row in read_rows(builder)}
  assert found.keys() == {0, 1, 2, 3, 7, 8}
  assert found[3]["image"] == contents[3]
  assert found[7]["image"] == screens.make_tile(7)
  for i in (0, 1, 2):
    with Image.open(io.BytesIO(found[i]["image"])) as image:
      assert (image.format, image.mode, image.size) == ("PNG", "RGB", (6, 5))
  with Image.open(io.BytesIO(found[0]["image"])) as image:
    assert image.getcolors() == [(30, (255, 255, 255))]
  # The negatives that can be had, with their paths.
  assert list(found[8]["neg_images"]) == [found[0]["image"], contents[3]]
  assert list(found[8]["neg_chunk_paths"]) == [
    screens.get_path(0).encode(),
    screens.get_path(3).encode(),
  ]
  ledger = pq.read_table(builder.data_path / "skipped_rows.parquet").to_pylist()
  train = [row for row in ledger if row["split"] == "train"]
  assert {(r["key"], r["is_skipped"]) for r in train} == {
    ("5", True),
    ("6", True),
    ("7", True),
    ("9", False),
  }
  details = [r["detail"] for r in train if r["key"] == "9"]
  assert len(details) == 2
  assert all(screens.get_path(i) in details[i == 6] for i in (4, 6))


def test_links_in_tars(folder, tmp_path):
  path = folder / "image_shards" / "shard_000.tar"
  target = screens.get_path(0).removeprefix("images/")
  kinds = {
    20: (tarfile.LNKTYPE, target),
    21: (tarfile.LNKTYPE, "shard_000/nothing.png"),
    22: (tarfile.SYMTYPE, "/etc/passwd"),
    23: (tarfile.SYMTYPE, target),
  }
  with tarfile.open(path, "w") as tar:
    for number, (kind, link) in [(0, (None, "")), *kinds.items()]:
      info = tarfile.TarInfo(
        screens.get_path(number, 0).removeprefix("images/")
      )
      data = b"" if kind else screens.make_tile(0)
      info.size = len(data)
      if kind:
        info.type, info.linkname = kind, link
      tar.addfile(info, io.BytesIO(data))
  rows = [
    {**screens.make_row(i, 0), "chunk_path": screens.get_path(i, 0)}
    for i in kinds
  ]
  screens.write_splits(folder, [*rows, screens.make_row(0, 0)])
  builder = screens.prepare(folder, tmp_path)
  found = {int(row["query"][9:-1]): row["image"] for row in read_rows(builder)}
  assert found == {0: screens.make_tile(0), 20: screens.make_tile(0)}
  details = [read_ledger(builder)[str(i), "unreadable_tile"] for i in (2, 3, 4)]
  assert "hard link to nothing" in details[0]
  assert "symbolic link" in details[1]
  assert "symbolic link" in details[2]


def test_a_tar_that_breaks_off(folder, tmp_path, capsys):
  path = folder / "image_shards" / "shard_004.tar"
  data = path.read_bytes()
  path.write_bytes(data[: data.index(b"IEND") - 30])
  screens.write_splits(folder, [screens.make_row(i, i) for i in (8, 9, 10)])
  builder = screens.prepare(folder, tmp_path)
  assert [row["image"] for row in read_rows(builder)] == [screens.make_tile(10)]
  ledger = read_ledger(builder)
  assert "breaks off" in ledger["1", "unreadable_tile"]
  assert "is not in image_shards/shard_004.tar" in ledger["2", "missing_tile"]
  assert "shard_004.tar" in capsys.readouterr().out


def test_what_is_no_tar_is_refused(folder, tmp_path):
  for number in ("002", "005"):
    path = folder / "image_shards" / f"shard_{number}.tar"
    path.write_bytes(b"<html>" * 1000)
  with pytest.raises(errors.SourceError, match=r"2 problems") as caught:
    screens.prepare(folder, tmp_path)
  assert "shard_002.tar" in str(caught.value)
  assert "shard_005.tar" in str(caught.value)


def test_the_index_is_taken_from_another_config(folder, tmp_path, monkeypatch):
  screens.prepare(folder, tmp_path)
  read = []
  real = tile_index._read_tar

  def spy(path, *identity):
    read.append(path.name)
    return real(path, *identity)

  monkeypatch.setattr(tile_index, "_read_tar", spy)
  screens.write_tars(folder, [2, 3, 50], {3: screens.make_tile(30)})
  builder = screens.prepare(folder, tmp_path, "tiles")
  assert sorted(read) == ["shard_001.tar", "shard_025.tar"]
  found = {
    row["chunk_path"].decode(): row["image"] for row in read_rows(builder)
  }
  assert len(found) == 27
  assert found[screens.get_path(3)] == screens.make_tile(30)
  assert found[screens.get_path(4)] == screens.make_tile(4)


def test_a_damaged_index_is_not_taken(folder, tmp_path):
  first = screens.prepare(folder, tmp_path)
  path = first.data_path / "tile_index.arrow"
  data = path.read_bytes()
  for damaged in (b"", data[:-50], bytes(100), data[:400] + data[500:]):
    path.write_bytes(damaged)
    builder = screens.prepare(folder, tmp_path / str(len(damaged)), "tiles")
    assert len(read_rows(builder)) == 26


def test_a_tar_that_changes_meanwhile(folder, tmp_path, monkeypatch):
  real = builder_lib.question_plan.check_source

  def check(*args, **kwargs):
    found = real(*args, **kwargs)
    screens.write_tars(folder, [4, 5, 2 * 2 + 20], {4: screens.make_tile(40)})
    return found

  monkeypatch.setattr(builder_lib.question_plan, "check_source", check)
  with pytest.raises(errors.SourceError, match="changed while"):
    screens.prepare(folder, tmp_path)


def test_tiles_are_read_in_the_order_of_the_disk(folder, tmp_path, monkeypatch):
  places = []
  reader_lib = builder_lib.question_source.tile_reader
  real = reader_lib._read_into

  def spy(file, offset, view, path):
    places.append((path.name, offset))
    return real(file, offset, view, path)

  monkeypatch.setattr(reader_lib, "_read_into", spy)
  screens.prepare(folder, tmp_path)
  # Rows of `train` are one batch: each of the tiles that they name once.
  num_tiles = len(
    {n for i in range(24) for n in (i * 7 % 26, i * 3 % 26, (i * 5 + 1) % 26)}
  )
  train = places[:num_tiles]
  assert len(set(train)) == num_tiles
  assert train == sorted(train)


def test_max_examples(folder, tmp_path):
  builder = screens.prepare(folder, tmp_path, max_examples_per_split=3)
  numbers = sorted(i * 7 % 26 for i in range(24))[:3]
  assert [row["image"] for row in read_rows(builder)] == list(
    map(screens.make_tile, numbers)
  )


def test_features_are_as_documented():
  builder = builder_lib.Builder(config="hard_negatives_with_answer")
  assert builder.info.supervised_keys == ("query", "image")
  assert sorted(builder.info.features) == [
    *("answer", "chunk_path", "image", "neg_chunk_paths", "neg_images", "query")
  ]
  assert builder_lib.Builder(config="tiles").info.supervised_keys is None
  assert builder_lib.Builder().builder_config.name == "hard_negatives"
  assert pa.types.is_list(builder_lib._NEGATIVE_COLUMNS["neg_chunk_paths"])


def cut_between_members(path, name):
  """Cuts a tar before a member's first header."""
  with tarfile.open(path) as tar:
    offset = tar.getmember(name.removeprefix("images/")).offset
  path.write_bytes(path.read_bytes()[:offset])


def test_tars_that_end_too_early_are_named(folder, tmp_path, capsys):
  cut_between_members(
    folder / "image_shards" / "shard_004.tar", screens.get_path(9)
  )
  (folder / "image_shards" / "shard_006.tar").write_bytes(b"")
  builder = screens.prepare(folder, tmp_path, "tiles")
  assert len(read_rows(builder)) == 26 - 1 - 2
  assert set(read_ledger(builder)) == {
    ("shard_004.tar", "truncated_shard"),
    ("shard_006.tar", "truncated_shard"),
  }
  printed = capsys.readouterr().out
  assert "2 tars of tiles do not end as a tar does" in printed
  screens.prepare(folder, tmp_path)
  assert "shard_004.tar (truncated_shard)" in capsys.readouterr().out
  with pytest.raises(errors.SourceError, match=r"shard_006\.tar"):
    screens.prepare(folder, tmp_path / "b", refuse_missing_tiles=True)


def test_a_tile_that_is_there_twice(folder, tmp_path):
  """The last one counts, whatever its name starts with, in whatever tar."""
  name = screens.get_path(0).removeprefix("images/")
  path = folder / "image_shards" / "shard_000.tar"
  with tarfile.open(path, "w") as tar:
    for member, number in ((f"./{name}", 40), (name, 41)):
      info = tarfile.TarInfo(member)
      info.size = len(screens.make_tile(number))
      tar.addfile(info, io.BytesIO(screens.make_tile(number)))
    link = tarfile.TarInfo(screens.get_path(1).removeprefix("images/"))
    link.type, link.linkname = tarfile.LNKTYPE, f"./{name}"
    tar.addfile(link)
  with tarfile.open(folder / "image_shards" / "shard_050.tar", "w") as tar:
    info = tarfile.TarInfo(screens.get_path(2).removeprefix("images/"))
    info.size = len(screens.make_tile(42))
    tar.addfile(info, io.BytesIO(screens.make_tile(42)))
  builder = screens.prepare(folder, tmp_path, "tiles")
  rows = read_rows(builder)
  assert len(rows) == 26
  found = {row["chunk_path"].decode(): row["image"] for row in rows}
  assert found[screens.get_path(0)] == screens.make_tile(41)
  assert found[screens.get_path(1)] == screens.make_tile(41)
  assert found[screens.get_path(2)] == screens.make_tile(42)


def test_links_in_the_extracted_folder_are_not_followed(folder, tmp_path):
  screens.extract(folder)
  secret = folder.parent / "secret"
  secret.mkdir()
  (secret / "x.png").write_bytes(screens.make_tile(7))
  shard = folder / "images" / "shard_000"
  (shard / "evil").symlink_to(secret)
  (shard / "loop").symlink_to(".")
  (shard / "x.png").symlink_to(secret / "x.png")
  rows = [
    {**screens.make_row(i, 0), "chunk_path": f"images/shard_000/{path}"}
    for i, path in enumerate(
      ["evil/x.png", "loop/x.png", "x.png", "loop/loop/evil/x.png"]
    )
  ]
  screens.write_splits(folder, [*rows, screens.make_row(4, 0)])
  builder = screens.prepare(folder, tmp_path)
  assert [row["query"] for row in read_rows(builder)] == [b"question 4?"]
  assert {key for key, _ in read_ledger(builder)} == {"1", "2", "3", "4"}
  tiles = screens.prepare(folder, tmp_path, "tiles")
  assert len(read_rows(tiles)) == 26
  assert {reason for _, reason in read_ledger(tiles)} == {"unreadable_tile"}
  # But `images` itself may be anywhere.
  (folder / "images").rename(folder.parent / "elsewhere")
  (folder / "images").symlink_to(folder.parent / "elsewhere")
  assert len(read_rows(screens.prepare(folder, tmp_path / "c"))) == 1


def test_the_notes_say_what_the_ledger_says(folder, tmp_path, capsys):
  (folder / "image_shards" / "shard_003.tar").unlink()
  builder = screens.prepare(folder, tmp_path)
  reasons = [reason for _, reason in read_ledger(builder)]
  # (A row may lack both of its negatives.)
  table = pq.read_table(builder.data_path / "skipped_rows.parquet")
  is_skipped = table.column("is_skipped").to_pylist()
  assert len(is_skipped) >= len(reasons)
  printed = capsys.readouterr().out
  assert f"rows are skipped: {sum(is_skipped)};" in printed
  num_left_out = len(is_skipped) - sum(is_skipped)
  assert f"left out of rows: {num_left_out}." in printed


def test_a_row_of_another_split_asks_for_nothing(folder, tmp_path):
  rows = [screens.make_row(0, 0), screens.make_row(1, 60, split="eval")]
  screens.write_splits(folder, rows)
  builder = screens.prepare(folder, tmp_path, refuse_missing_tiles=True)
  assert set(read_ledger(builder)) == {("2", "wrong_split")}


def test_a_row_of_very_many_negatives(folder, tmp_path, monkeypatch):
  lib = builder_lib.question_source
  monkeypatch.setattr(lib, "_MAX_ROW_BYTES", 100_000)
  rows = [screens.make_row(0, 0, [1] * 2000), screens.make_row(1, 1, [2] * 5)]
  screens.write_splits(folder, rows)
  builder = screens.prepare(folder, tmp_path)
  assert [len(row["neg_images"]) for row in read_rows(builder)] == [5]
  assert set(read_ledger(builder)) == {("1", "row_too_large")}


def test_rows_in_batches_of_any_size(folder, tmp_path, monkeypatch):
  expected = builds.digest(screens.prepare(folder, tmp_path / "a").data_dir)
  lib = builder_lib.question_source
  monkeypatch.setattr(lib, "_BATCH_BYTES", 500)
  monkeypatch.setattr(lib, "_READ_ROWS", 5)
  monkeypatch.setattr(lib.json_lines, "MAX_CHUNK_BYTES", 700)
  assert (
    builds.digest(screens.prepare(folder, tmp_path / "b").data_dir) == expected
  )


def test_files_whose_names_are_no_text(folder, tmp_path):
  screens.extract(folder)
  name = bytes(folder / "images" / "shard_000") + b"/\xff.png"
  with open(name, "wb") as file:
    file.write(screens.make_tile(0))
  (folder / "images" / "shard_000" / "a\\b.png").write_bytes(b"x")
  builder = screens.prepare(folder, tmp_path, "tiles")
  assert len(read_rows(builder)) == 26
  assert [reason for _, reason in read_ledger(builder)] == ["unsafe_path"] * 2


def test_shards_are_in_the_order_of_their_numbers(folder, tmp_path):
  screens.extract(folder)
  screens.write_tars(folder, [4, 5, 20, 21])
  builder = screens.prepare(folder, tmp_path, "tiles")
  paths = [row["chunk_path"].decode() for row in read_rows(builder)]
  assert paths == [screens.get_path(i) for i in range(26)]


def test_an_extracted_tile_stands_in_for_one_that_is_cut(folder, tmp_path):
  path = folder / "image_shards" / "shard_004.tar"
  with tarfile.open(path) as tar:
    tar.extractall(folder / "images", filter="data")
  data = path.read_bytes()
  path.write_bytes(data[: data.index(b"IEND") - 30])
  screens.write_splits(folder, [screens.make_row(i, i) for i in (8, 9)])
  builder = screens.prepare(folder, tmp_path)
  assert [row["image"] for row in read_rows(builder)] == [
    screens.make_tile(8),
    screens.make_tile(9),
  ]


def test_a_split_without_examples_is_left_out(folder, tmp_path, capsys):
  screens.write_lines(
    folder / "eval_hn.jsonl", [screens.make_row(0, 80, split="eval")]
  )
  screens.write_lines(folder / "test_hn.jsonl", [])
  builder = screens.prepare(folder, tmp_path)
  assert set(builder.info.splits) == {"train"}
  assert len(read_rows(builder)) == 24
  assert ("1", "missing_tile") in read_ledger(builder)
  printed = capsys.readouterr().out
  assert "no example for split eval, test, which is left out" in printed
  screens.write_lines(folder / "train_hn.jsonl", [screens.make_row(0, 80)])
  with pytest.raises(errors.ConversionError, match="split 'train'"):
    screens.prepare(folder, tmp_path / "b")


def test_tiles_have_no_rows_that_could_lack_any():
  with pytest.raises(errors.OptionError, match="refuse_missing_tiles"):
    builder_lib.Builder(config="tiles", refuse_missing_tiles=True)
