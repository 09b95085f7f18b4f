"""Tests of `laion400m/embeddings`: what is read is what the files hold."""

import json
import pathlib
import struct
import subprocess
import sys

from builds import digest
import numpy as np
import pandas as pd
import partitions
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.scripts.cli import build
from tensorflow_datasets.scripts.cli import cli_utils

import tfds_plugins
from tfds_plugins.laion400m import laion400m_dataset_builder
from tfds_plugins.laion400m.laion400m_dataset_builder import Laion400mConfig

DUMMY_DATA = pathlib.Path(__file__).parents[2] / "dummy_data"
# The pictures of the fixtures: 00000.tar, 00001.tar, 00002.tar, in their order.
NAMES = [11, 9, 8, 7, 6, 4, 2, 1, 0]
NAMES += [23, 22, 21, 20, 19, 18, 16, 15, 14, 13, 12, 29, 28, 27, 26, 25]


class EmbeddingsTest(tfds.testing.DatasetBuilderTestCase):
  """TFDS's own checks of a builder."""

  DATASET_CLASS = laion400m_dataset_builder.Builder
  EXAMPLE_DIR = DUMMY_DATA
  BUILDER_CONFIG_NAMES_TO_TEST = ["embeddings"]
  SPLITS = {"train": 25}


def prepare(manual_dir, data_dir, *, config="embeddings", options=(), **kwargs):
  builder = tfds.builder(
    "laion400m", config=config, data_dir=data_dir, num_workers=1, **kwargs
  )
  builder.download_and_prepare(
    download_config=tfds.download.DownloadConfig(
      manual_dir=manual_dir, **dict(options)
    )
  )
  return builder


def read(builder):
  # By default TFDS takes 16 examples of one file, then 16 of the next.
  read_config = tfds.ReadConfig(interleave_cycle_length=1)
  ds = builder.as_dataset(split="train", read_config=read_config)
  return list(tfds.as_numpy(ds))


def to_bits(vectors):
  return np.asarray(vectors).view(np.uint16)


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
  return prepare(DUMMY_DATA, tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def examples(builder):
  return read(builder)


FEATURES = """\
FeaturesDict({
    'caption': Text(shape=(), dtype=string),
    'image_embedding': Tensor(shape=(512,), dtype=float16, description=CLIP image embedding),
    'license': Text(shape=(), dtype=string),
    'nsfw': ClassLabel(shape=(), dtype=int64, num_classes=4),
    'original_height': Scalar(shape=(), dtype=int32, description=original height of the image),
    'original_width': Scalar(shape=(), dtype=int32, description=original width of the image),
    'similarity': Scalar(shape=(), dtype=float64, description=cosine similarity score between the text and image embedding. Missing values default to -1.0),
    'text_embedding': Tensor(shape=(512,), dtype=float16, description=CLIP text embedding),
    'url': Text(shape=(), dtype=string),
})"""


def test_the_features_print_as_documented(builder):
  assert str(builder.info.features) == FEATURES
  assert builder.info.full_name == "laion400m/embeddings/2.0.0"


def test_vectors_are_stored_as_two_bytes_a_value(builder):
  (split,) = builder.info.splits.values()

  per_example = split.num_bytes / split.num_examples
  assert 2 * 512 * 2 < per_example < 2 * 512 * 2 + 500


def test_every_vector_is_beside_its_own_url(examples):
  """The fixtures' vectors, worked out again from their description."""
  urls = [e["url"].decode() for e in examples]
  assert urls == [f"http://127.0.0.1:18400/{i}.jpg" for i in NAMES]
  for i, example in zip(NAMES, examples, strict=True):
    image = [((31 * i + 7 * j) % 61 - 30) / 64 for j in range(512)]
    text = [((17 * i + 11 * j) % 53 - 26) / 64 for j in range(512)]
    assert example["image_embedding"].dtype == np.float16
    assert example["image_embedding"].tolist() == image
    assert example["text_embedding"].tolist() == text


def test_the_metadata_of_named_examples(examples):
  of = dict(zip(NAMES, examples, strict=True))
  # 2 has no caption, 4 no similarity, 6 one that slipped, 7 is not ASCII.
  assert of[2]["caption"] == b""
  assert of[4]["similarity"] == -1.0
  assert of[6]["similarity"] == 6016.0
  assert of[7]["caption"].decode() == "Bild Nr. 7 — größer, 第七"
  assert of[0]["similarity"] == np.float32(0.3)
  assert of[11]["license"] == b""  # null
  assert of[8]["license"] == b"?"
  assert [of[i]["nsfw"] for i in (20, 21, 22, 23, 29)] == [0, 1, 2, 3, 3]
  # img2dataset resized 80 + i by 60 pixels to 64 by 64.
  assert of[9]["original_width"] == 89
  assert of[9]["original_height"] == 60


@pytest.mark.parametrize(
  "layout", [partitions.LAYOUT_A, partitions.LAYOUT_B, partitions.FLAT]
)
def test_rows_of_eleven_and_more_partitions(tmp_path, layout):
  """Numbers with gaps, beyond ten, of unequal lengths; every row is compared."""
  lengths = {0: 3, 1: 7, 2: 1, 3: 5, 5: 2, 9: 4, 10: 6, 11: 8, 12: 1, 100: 2}
  lengths[101] = 3
  manual_dir = tmp_path / "with space"
  for number, length in lengths.items():
    partitions.write_partition(
      manual_dir / "embeddings",
      number,
      partitions.make_metadata(number, length),
      layout=layout,
    )

  examples = read(prepare(manual_dir, tmp_path / "data"))

  assert len(examples) == sum(lengths.values())
  rows = [(n, i) for n in sorted(lengths) for i in range(lengths[n])]
  for (number, i), example in zip(rows, examples, strict=True):
    images, texts = partitions.make_vectors(number, lengths[number])
    assert (to_bits(example["image_embedding"]) == to_bits(images[i])).all()
    assert (to_bits(example["text_embedding"]) == to_bits(texts[i])).all()
    assert example["caption"].decode() == f"caption {number}-{i}"
    assert example["url"].decode() == f"https://example.org/{number}/{i}.jpg"
    assert example["license"] == b"?"
    assert example["nsfw"] == i % 4
    assert example["similarity"] == (-1.0 if i == 5 else 0.25 + i / 64)
    assert example["original_width"] == 300 + i
    assert example["original_height"] == 200 + number


@pytest.mark.parametrize("file_format", ["array_record", "parquet"])
def test_other_formats_hold_the_same(tmp_path, examples, file_format):
  builder = prepare(DUMMY_DATA, tmp_path, file_format=file_format)

  if file_format == "parquet":
    found = read(builder)
  else:
    found = list(builder.as_data_source(split="train"))

  assert len(found) == 25
  for example, expected in zip(found, examples, strict=True):
    assert set(example) == set(expected)
    for name, value in expected.items():
      value = value.decode() if isinstance(value, bytes) else value
      other = example[name]
      other = other.decode() if isinstance(other, bytes) else other
      assert np.array_equal(other, value)
      if name.endswith("embedding"):
        assert other.dtype == np.float16


def test_missing_columns_take_the_documented_values(tmp_path, capsys):
  """What clip-retrieval writes without --enable_metadata."""
  metadata = partitions.make_metadata(0, 4)[["image_path", "caption"]]
  partitions.write_partition(tmp_path / "m", 0, metadata)

  builder = prepare(tmp_path / "m", tmp_path / "data")

  (example, *_) = read(builder)
  expected = {
    "caption": b"caption 0-0",
    "url": b"",
    "license": b"",
    "nsfw": 3,
    "similarity": -1.0,
    "original_width": -1,
    "original_height": -1,
  }
  assert {name: example[name] for name in expected} == expected
  out = capsys.readouterr().out
  assert (
    "Note: the source has no columns 'LICENSE', 'NSFW', 'original_height',"
    " 'original_width', 'similarity', 'url' in 1 of 1 shards;"
  ) in out


def test_integers_with_nulls_that_pandas_made_doubles(tmp_path):
  metadata = partitions.make_metadata(0, 3)
  metadata["original_width"] = [640.0, None, 1.0]
  partitions.write_partition(tmp_path / "m", 0, metadata)

  examples = read(prepare(tmp_path / "m", tmp_path / "data"))

  assert [e["original_width"] for e in examples] == [640, -1, 1]


def test_float32_vectors_are_rounded_and_said_so(tmp_path, capsys):
  rng = np.random.default_rng(0)
  vectors = rng.standard_normal((2, 5, 512)).astype(np.float32)
  vectors[0, 1, 7] = np.inf  # As it is in the file, so it stays.
  vectors[1, 2, 3] = 1e6  # Would become infinite.
  partitions.write_partition(
    tmp_path / "m", 3, partitions.make_metadata(3, 5), vectors
  )

  builder = prepare(tmp_path / "m", tmp_path / "data")

  examples = read(builder)
  assert len(examples) == 4
  for example, i in zip(examples, (0, 1, 3, 4), strict=True):
    # Rounded by Python's own struct, not by NumPy.
    assert example["caption"].decode() == f"caption 3-{i}"
    expected = [float(np.float64(v)) for v in vectors[0, i]]
    packed = b"".join(
      struct.pack("<e", v) if np.isfinite(v) else b"\x00\x7c" for v in expected
    )
    assert example["image_embedding"].tobytes() == packed
  skipped = pd.read_parquet(f"{builder.data_dir}/skipped_rows.parquet")
  assert skipped.to_dict("records") == [
    {
      "source_shard": "3",
      "key": "2",
      "reason": "vector_out_of_range",
      "detail": "a finite value beyond 65504, float16's largest",
      "split": "train",
      "is_skipped": True,
    }
  ]
  out = capsys.readouterr().out
  assert "1 partitions hold vectors of more than 16 bits" in out


def test_values_of_another_kind_are_skipped_rows(tmp_path):
  metadata = partitions.make_metadata(0, 4)
  metadata["original_width"] = ["640", "wide", None, "1"]
  partitions.write_partition(tmp_path / "m", 0, metadata)

  builder = prepare(tmp_path / "m", tmp_path / "data")

  assert [e["original_width"] for e in read(builder)] == [640, -1, 1]
  skipped = pd.read_parquet(f"{builder.data_dir}/skipped_rows.parquet")
  assert skipped[["key", "reason", "detail"]].to_numpy().tolist() == [
    ["1", "bad_metadata", "column 'original_width': 'wide' is no int32"]
  ]


def test_vectors_of_another_model_under_a_config_of_their_own(tmp_path):
  vectors = partitions.make_vectors(0, 3, 768)
  partitions.write_partition(
    tmp_path / "m", 0, partitions.make_metadata(0, 3), vectors
  )

  with pytest.raises(tfds_plugins.SourceError) as e:
    prepare(tmp_path / "m", tmp_path / "data")
  config = Laion400mConfig(name="embeddings_768", embedding_dim=768)
  builder = prepare(tmp_path / "m", tmp_path / "data", config=config)

  message = str(e.value)
  assert "The vectors do not have 512 values" in message
  assert "ViT-B/32 gives 512, ViT-L/14 768, ViT-H/14 1024" in message
  assert '{"name": "embeddings_768", "embedding_dim": 768}' in message
  assert builder.info.full_name == "laion400m/embeddings_768/2.0.0"
  assert builder.info.features["text_embedding"].shape == (768,)
  found = [e["text_embedding"] for e in read(builder)]
  assert (to_bits(np.stack(found)) == to_bits(vectors[1])).all()


def test_a_config_given_as_json_is_one_of_embeddings(tmp_path):
  """`tfds build --config='{...}'`, with the text of the message."""
  vectors = partitions.make_vectors(0, 3, 768)
  partitions.write_partition(
    tmp_path / "m", 0, partitions.make_metadata(0, 3), vectors
  )
  config = '{"name": "embeddings_768", "embedding_dim": 768}'
  parse = cli_utils.make_flags_parser(build.Args, description="")
  args = parse(
    [
      "tfds build",
      "laion400m",
      f"--config={config}",
      f"--data_dir={tmp_path / 'data'}",
      f"--manual_dir={tmp_path / 'm'}",
    ]
  )

  args.execute()

  builder = tfds.builder_from_directory(
    str(tmp_path / "data/laion400m/embeddings_768/2.0.0")
  )
  found = [e["image_embedding"] for e in read(builder)]
  assert (to_bits(np.stack(found)) == to_bits(vectors[0])).all()


@pytest.mark.parametrize("dim", [0, -1, "768", 1.5, True])
def test_bad_dimensions_are_refused(dim):
  with pytest.raises(tfds_plugins.OptionError, match="embedding_dim must be"):
    Laion400mConfig(name="x", embedding_dim=dim)


def test_vectors_of_other_lengths_are_not_downloaded(tmp_path):
  (tmp_path / "m").mkdir()
  config = Laion400mConfig(name="l14", embedding_dim=768)

  with pytest.raises(tfds_plugins.ManualDirError) as e:
    prepare(tmp_path / "m", tmp_path / "data", config=config)

  assert "The published vectors have 512 values; those of 768" in str(e.value)


def test_a_partition_is_cut_into_shards_of_the_recommended_size(tmp_path):
  """5,000 rows of some 2.5 kB, at most 2 MiB an output shard."""
  partitions.write_partition(
    tmp_path / "m", 0, partitions.make_metadata(0, 5000)
  )
  options = {"max_shard_size": 2 << 20}

  builder = prepare(tmp_path / "m", tmp_path / "data", options=options)
  two = tfds.builder(
    "laion400m/embeddings", data_dir=tmp_path / "two", num_workers=2
  )
  two.download_and_prepare(
    download_config=tfds.download.DownloadConfig(
      manual_dir=tmp_path / "m", **options
    )
  )

  files = sorted(pathlib.Path(builder.data_dir).glob("*.tfrecord*"))
  assert len(files) == 6
  assert max(path.stat().st_size for path in files) <= 2 << 20
  captions = [e["caption"].decode() for e in read(builder)]
  assert captions == [f"caption 0-{i}" for i in range(5000)]
  assert digest(two.data_dir) == digest(builder.data_dir)
  receipts = pathlib.Path(builder.data_dir, "shard_receipts.jsonl")
  parts = [json.loads(line)["sources"] for line in receipts.open()]
  assert [part["length"] for (part,) in parts] == [5000] * 6
  assert parts[0][0]["start"] == 0
  assert parts[-1][0]["stop"] == 5000


def test_all_partitions_into_a_number_of_shards(tmp_path):
  for number, length in ((0, 40), (7, 20)):
    partitions.write_partition(
      tmp_path / "m", number, partitions.make_metadata(number, length)
    )

  builder = prepare(
    tmp_path / "m", tmp_path / "data", options={"num_shards": 4}
  )

  assert builder.info.splits["train"].shard_lengths == [15, 15, 15, 15]
  captions = [e["caption"].decode() for e in read(builder)]
  assert captions == [f"caption 0-{i}" for i in range(40)] + [
    f"caption 7-{i}" for i in range(20)
  ]


def test_the_first_examples_alone(tmp_path):
  builder = prepare(
    DUMMY_DATA, tmp_path, options={"max_examples_per_split": 12}
  )

  urls = [e["url"].decode() for e in read(builder)]
  assert urls == [f"http://127.0.0.1:18400/{i}.jpg" for i in NAMES[:12]]


@pytest.mark.parametrize("batch_size", [1, 4, 25, 100])
def test_batches_equal_those_of_tfds(builder, batch_size):
  """TFDS's own path: each record is parsed, then batches are made."""
  ours = builder.as_dataset(split="train", batch_size=batch_size)
  theirs = builder.as_dataset(split="train").batch(batch_size)

  assert ours.element_spec == theirs.element_spec
  assert ours.cardinality() == theirs.cardinality()
  batches = list(zip(tfds.as_numpy(ours), tfds.as_numpy(theirs), strict=True))
  assert len(batches) == -(-25 // batch_size)
  for batch, expected in batches:
    assert list(batch) == list(expected)
    for name, values in expected.items():
      assert batch[name].dtype == values.dtype
      assert batch[name].tobytes() == values.tobytes() or (
        values.dtype == object and (batch[name] == values).all()
      )


def test_loading_by_name_parses_whole_batches(tmp_path, monkeypatch):
  prepare(DUMMY_DATA, tmp_path)
  monkeypatch.setattr(
    tfds.features.FeaturesDict,
    "decode_example",
    lambda *args, **kwargs: pytest.fail("one example after the other"),
  )

  ds = tfds.load(
    "laion400m/embeddings", split="train", data_dir=tmp_path, batch_size=7
  )

  shapes = [batch["text_embedding"].shape for batch in tfds.as_numpy(ds)]
  assert shapes == [(7, 512), (7, 512), (7, 512), (4, 512)]


def test_the_dataset_is_read_without_this_package(builder):
  """In a process that cannot import it."""
  code = f"""
import sys
sys.modules["tfds_plugins"] = None
import tensorflow_datasets as tfds
builder = tfds.builder_from_directory({builder.data_dir!r})
ds = builder.as_dataset(split="train", batch_size=25)
(batch,) = tfds.as_numpy(ds)
print(batch["image_embedding"].dtype, batch["image_embedding"].sum(dtype="f8"))
"""
  result = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )

  expected = sum(
    ((31 * i + 7 * j) % 61 - 30) / 64 for i in NAMES for j in range(512)
  )
  assert result.stdout.split() == ["float16", str(expected)]
