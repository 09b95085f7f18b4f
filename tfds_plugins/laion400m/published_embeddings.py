"""LAION-400M's published embeddings, as far as they are needed.

The table (`checksums/laion400m.tsv`) has 1,230 files, three for each of 410
partitions.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any

from absl import logging
import tensorflow_datasets as tfds

from tfds_plugins.conversion import published
from tfds_plugins.sources.clip_retrieval import partitions

_DATASET = "laion400m"
# By the sizes in the table every .npy file is a header and 512 float16 a row.
_NPY_HEADER_BYTES = 128
_NPY_ROW_BYTES = 512 * 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishedPartition:
  """One partition in the table.

  Attributes:
    num_rows: the number of its rows.
    size_bytes: the size of its three files.
    urls: published file name -> URL.
  """

  num_rows: int
  size_bytes: int
  urls: Mapping[str, str]


def list_published(url_infos: Mapping[str, Any]) -> list[PublishedPartition]:
  """Returns the partitions in a table of published files, by number.

  Args:
    url_infos: URL -> `size` (bytes) and `filename`, as
      `tfds.core.DatasetBuilder.url_infos` has them; may list other files, too.
  """
  files: dict[int, dict[str, tuple[str, Any]]] = {}
  for url, info in url_infos.items():
    parsed = partitions.parse_name(info.filename or "")
    if parsed is not None:
      kind, number = parsed
      files.setdefault(number, {})[kind] = (url, info)
  return [
    PublishedPartition(
      num_rows=(int(of_kind[partitions.IMAGE_FILE][1].size) - _NPY_HEADER_BYTES)
      // _NPY_ROW_BYTES,
      size_bytes=sum(int(info.size) for _, info in of_kind.values()),
      urls={info.filename: url for url, info in of_kind.values()},
    )
    for _, of_kind in sorted(files.items())
  ]


def download(
  dl_manager: tfds.download.DownloadManager,
  url_infos: Mapping[str, Any],
  max_examples: int | None,
) -> partitions.Listing:
  """Downloads the published partitions.

  Args:
    dl_manager: does it, and checks every file against the table.
    url_infos: the table.
    max_examples: download no more partitions than it takes for so many rows;
      None for all. 0, by which TFDS means to download and not to convert
      (`DownloadConfig.max_examples_per_split`), downloads what 1 does: enough to
      check that the download works, and not 897 GB for no examples.

  Returns:
    The partitions.

  Raises:
    errors.ConversionError: the disk is too small.
  """
  chosen: list[PublishedPartition] = []
  num_rows = 0
  for partition in list_published(url_infos):
    if max_examples is None or num_rows < max(1, max_examples):
      chosen.append(partition)
      num_rows += partition.num_rows
  size_bytes = sum(partition.size_bytes for partition in chosen)
  logging.warning(
    "Downloading %d of LAION-400M's published embedding partitions (%s rows,"
    " %.1f GB) to %s",
    len(chosen),
    f"{num_rows:,}",
    size_bytes / 1e9,
    dl_manager.download_dir,
  )
  urls = {name: url for p in chosen for name, url in p.urls.items()}
  published.check_space(
    dl_manager.download_dir,
    _DATASET,
    {url: url_infos[url] for url in urls.values()},
  )
  paths = dl_manager.download(urls)
  return partitions.make_listing(str(dl_manager.download_dir), paths.items())
