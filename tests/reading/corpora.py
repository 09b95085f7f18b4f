"""Small prepared datasets, and how they are compared."""

from __future__ import annotations

import os
import pathlib
import sys

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from tfds_plugins.reading.builder import BatchReaderBuilder

f = tfds.features

# NaNs with payloads, infinities, zeros of both signs, a subnormal number.
_SPECIAL = np.array(
  [0x7FC00000, 0x7FC12345, 0xFFC00001, 0x7F800000, 0xFF800000, 0x80000000, 99],
  np.uint32,
).view(np.float32)
_TEXTS = ["", "a", "naïve café", "日本語", "x" * 300, "tab\tand\0nul", "😀"]


class Corpus(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """A dataset that TFDS reads in its own way."""

  VERSION = tfds.core.Version("1.0.0")
  pkg_dir_path = pathlib.Path(__file__).parent
  NUM_ROWS = {"train": 61, "test": 10}

  def _split_generators(self, dl_manager):
    return {
      split: self._generate_examples(split, num_rows)
      for split, num_rows in self.NUM_ROWS.items()
    }

  def _generate_examples(self, split, num_rows):
    rng = np.random.default_rng(len(split))
    for i in range(num_rows):
      yield i, self.make_row(i, rng)


class Simple(Corpus, skip_registration=True):
  """Three features, to read in many ways."""

  name = "simple"

  def _info(self):
    return self.dataset_info_from_configs(
      features=f.FeaturesDict(
        {
          "row": np.int64,
          "caption": f.Text(),
          "embedding": f.Tensor(shape=(4,), dtype=np.float16, encoding="bytes"),
        }
      ),
      supervised_keys=("caption", "row"),
    )

  def make_row(self, i, rng):
    return {
      "row": i,
      "caption": f"{i} {_TEXTS[i % 7]}",
      "embedding": rng.random(4).astype(np.float16),
    }


class Ordered(Simple, skip_registration=True):
  """A dataset that TFDS reads in the order of its rows."""

  name = "ordered"

  def _info(self):
    return self.dataset_info_from_configs(
      features=f.FeaturesDict({"row": np.int64}), disable_shuffling=True
    )

  def make_row(self, i, rng):
    return {"row": i}


_DTYPES = (
  *(np.bool_, np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32),
  *(np.int64, np.uint64, np.float16, np.float32, np.float64),
)


class Rich(Corpus, skip_registration=True):
  """Every feature whose batches are decoded at once, and an image."""

  name = "rich"

  def _info(self):
    return self.dataset_info_from_configs(
      features=f.FeaturesDict(
        {
          "scalar": {np.dtype(d).name: f.Scalar(d) for d in _DTYPES},
          "vector": {
            np.dtype(d).name: f.Tensor(shape=(2, 3), dtype=d) for d in _DTYPES
          },
          "bytes": {
            np.dtype(d).name: f.Tensor(shape=(3, 2), dtype=d, encoding="bytes")
            for d in _DTYPES
            if d is not np.uint32
          },
          "complex": f.Tensor(shape=(), dtype=np.complex64, encoding="bytes"),
          "zlib": f.Tensor(shape=(5,), dtype=np.float32, encoding="zlib"),
          "text": f.Text(),
          "texts": f.Tensor(shape=(2,), dtype=np.str_),
          "label": f.ClassLabel(names=["no", "yes", "maybe"]),
          "box": f.BBoxFeature(),
          "translation": f.Translation(languages=["en", "fr"]),
          "optional": f.Scalar(np.int32, optional=True),
          "open": f.Tensor(shape=(None, 2), dtype=np.int32),
          "labels": f.Sequence(f.ClassLabel(num_classes=5)),
          "words": f.Sequence(f.Text()),
          "vectors": f.Sequence(f.Tensor(shape=(2,), dtype=np.float64)),
          "pairs": f.Sequence({"a": np.int32, "b": {"c": f.Text()}}),
          "three": f.Sequence(np.float32, length=3),
          "two bytes": f.Sequence(
            f.Tensor(shape=(2, 2), dtype=np.int16, encoding="bytes"), length=2
          ),
          "image": f.Image(shape=(None, None, 3), encoding_format="png"),
          "images": f.Sequence(f.Image(shape=(2, 2, 1))),
          "any shape": f.Tensor(
            shape=(None, None), dtype=np.int16, encoding="bytes"
          ),
        }
      ),
      supervised_keys=("text", "label"),
    )

  def make_row(self, i, rng):
    special = rng.permutation(_SPECIAL)
    box = np.sort(rng.random((2, 2)).astype(np.float32), axis=0)

    def make(dtype, shape):
      if dtype is np.bool_:
        return rng.integers(0, 2, shape).astype(np.bool_)
      if np.issubdtype(dtype, np.floating):
        if i % 3:
          return rng.standard_normal(shape).astype(dtype)
        return np.resize(special, shape).astype(dtype)
      info = np.iinfo(dtype)
      high = min(info.max, np.iinfo(np.int64).max)
      return rng.integers(info.min, high, shape, dtype, endpoint=True)

    def names(dtypes, shape):
      return {np.dtype(d).name: make(d, shape) for d in dtypes}

    n = i % 4
    text = _TEXTS[i % 7]
    return {
      "scalar": {k: v[0] for k, v in names(_DTYPES, (1,)).items()},
      "vector": names(_DTYPES, (2, 3)),
      "bytes": names([d for d in _DTYPES if d is not np.uint32], (3, 2)),
      "complex": np.complex64(i - 2j),
      "zlib": make(np.float32, (5,)),
      "text": text,
      "texts": [text, "b"],
      "label": i % 4 - 1,
      "box": f.BBox(box[0, 0], box[0, 1], box[1, 0], box[1, 1]),
      "translation": {"en": text, "fr": "le " + text},
      "optional": i if i % 2 else None,
      "open": make(np.int32, (n, 2)),
      "labels": list(range(n)),
      "words": [text] * n,
      "vectors": [make(np.float64, (2,)) for _ in range(n)],
      "pairs": [{"a": j, "b": {"c": text}} for j in range(n)],
      "three": make(np.float32, (3,)),
      "two bytes": [make(np.int16, (2, 2)) for _ in range(2)],
      "image": rng.integers(0, 256, (2, 3, 3), np.uint8),
      "images": [rng.integers(0, 256, (2, 2, 1), np.uint8)] * n,
      "any shape": make(np.int16, (n, 2)),
    }


def make_fast(corpus: type[Corpus]) -> type[Corpus]:
  """Returns a builder that reads in batches, and in no other way."""

  class Fast(BatchReaderBuilder, corpus, skip_registration=True):
    name = corpus.name

    def _as_dataset(self, *args, **kwargs):
      raise AssertionError("TFDS reads this record by record.")

  return Fast


def make_either(corpus: type[Corpus]) -> type[Corpus]:
  """Returns a builder that reads in batches or as TFDS does."""

  class Either(BatchReaderBuilder, corpus, skip_registration=True):
    name = corpus.name

  return Either


def prepare(corpus: type[Corpus], data_dir, num_shards: int) -> Corpus:
  builder = corpus(data_dir=data_dir)
  builder.download_and_prepare(
    download_config=tfds.download.DownloadConfig(num_shards=num_shards)
  )
  return builder


def make_env() -> dict[str, str]:
  """Returns the environment of a process that imports what this one does."""
  folders = [str(pathlib.Path(__file__).parent), *filter(None, sys.path)]
  return {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}


def to_plain(value):
  """Returns something that is equal only if every bit is."""
  if isinstance(value, dict):
    return [(name, to_plain(v)) for name, v in value.items()]
  if isinstance(value, tuple | list):
    return [type(value).__name__, *map(to_plain, value)]
  value = np.asarray(value)
  content = value.tolist() if value.dtype == object else value.tobytes()
  return value.dtype, value.shape, content


def read(ds) -> list:
  return [to_plain(element) for element in ds.as_numpy_iterator()]


def assert_same(ours, theirs):
  """Compares datasets, lists or dictionaries of them, or their elements."""
  if isinstance(theirs, tf.data.Dataset):
    assert ours.element_spec == theirs.element_spec
    assert repr(ours.element_spec) == repr(theirs.element_spec)
    assert ours.cardinality() == theirs.cardinality()
    expected = read(theirs)
    assert expected
    assert read(ours) == expected
    assert read(ours) == expected  # Maybe from the cache.
  elif isinstance(theirs, dict):
    assert list(ours) == list(theirs)
    for name in theirs:
      assert_same(ours[name], theirs[name])
  elif isinstance(theirs, list | tuple):
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs):
      assert_same(one, other)
  else:
    assert to_plain(ours) == to_plain(theirs)
