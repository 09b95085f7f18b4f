"""Builds datasets of shards that are written here."""

from __future__ import annotations

import hashlib
import pathlib
import re

import tensorflow_datasets as tfds

_FILES_OF_TFDS = ("dataset_info.json", "features.json")
# Eleven and more shards, so that "10" comes after "9", of unequal lengths.
LENGTHS = [7, 3, 12, 1, 9, 5, 2, 8, 4, 11, 6, 10]


def prepare_dataset(
  name, manual_dir, data_dir, *, num_workers=1, builder_options=None, **options
):
  """Prepares a dataset and returns its builder.

  Args:
    name: of the dataset, maybe with a config.
    manual_dir: the user's folder.
    data_dir: where it goes.
    num_workers: by how many processes.
    builder_options: other options of the builder.
    **options: of `tfds.download.DownloadConfig`.
  """
  builder = tfds.builder(
    name, data_dir=data_dir, num_workers=num_workers, **(builder_options or {})
  )
  builder.download_and_prepare(
    download_config=tfds.download.DownloadConfig(
      manual_dir=manual_dir, **options
    )
  )
  return builder


def prepare(manual_dir, data_dir, *, file_format=None, **options):
  return prepare_dataset(
    "laion400m/images",
    manual_dir,
    data_dir,
    builder_options={"file_format": file_format},
    **options,
  )


def read_captions(builder, split="train"):
  ds = builder.as_dataset(split=split)
  return [e["caption"].decode() for e in tfds.as_numpy(ds)]


def digest_results(contents) -> dict[str, str]:
  """Returns what `digest` does, but of what tells sources apart.

  Args:
    contents: bytes of files by name, all of a dataset.
  """
  return {
    name: hashlib.sha256(
      re.sub(rb'"fingerprint": "[^"]*"', b"", content)
    ).hexdigest()
    for name, content in contents.items()
    if name not in (*_FILES_OF_TFDS, "source_shards.json")
  }


def digest(folder: str) -> dict[str, str]:
  """Returns the SHA-256 of every file but TFDS's own, by name."""
  return {
    path.name: hashlib.sha256(path.read_bytes()).hexdigest()
    for path in pathlib.Path(folder).iterdir()
    if path.name not in _FILES_OF_TFDS
  }
