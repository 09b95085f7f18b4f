"""The published files of a dataset: their table, download and verification."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
import concurrent.futures
import hashlib
import shutil
from typing import Any
from typing import cast

from etils import epath
from tensorflow_datasets.core.download import resource

from tfds_plugins import errors
from tfds_plugins.conversion import progress
from tfds_plugins.sources import folders

_READ_BYTES = 4 << 20
_NUM_HASHING_THREADS = 4


def find_checksums(name: str) -> epath.Path | None:
  """Returns the table of a dataset's published files, if it has one.

  Args:
    name: the dataset's name.

  Returns:
    `checksums/<name>.tsv` (url, bytes, SHA-256, file name) of the installed
    package or the checkout.
  """
  package_dir = epath.resource_path("tfds_plugins")
  for folder in (package_dir, package_dir.parent):
    path = folder / "checksums" / f"{name}.tsv"
    if path.exists():
      return path
  return None


def check_space(
  folder: epath.Path, dataset: str, table: Mapping[str, Any]
) -> None:
  """Checks that there is room for a download.

  Args:
    folder: where all downloads go. What TFDS would not download again is found
      by the names that it gives to files, there or in `dataset` below
      (tensorflow/datasets, `core/download/download_manager.py`).
    dataset: the dataset's name.
    table: URL -> `size` (bytes) and `checksum` (SHA-256, hexadecimal) of the
      files to be downloaded.

  Raises:
    errors.ConversionError: the disk is too small. Only local disks are looked
      at.
  """
  existing = folder
  while not existing.exists() and existing != existing.parent:
    existing = existing.parent
  try:
    free = shutil.disk_usage(existing).free
  except OSError:
    return  # Not a local disk.
  places = [place for place in (folder / dataset, folder) if place.is_dir()]
  present = {path.name for place in places for path in place.iterdir()}
  size_bytes = sum(int(info.size) for info in table.values())
  done = sum(
    int(info.size)
    for url, info in table.items()
    if _is_downloaded(url, info.checksum, present)
  )
  if size_bytes - done > free:
    problem = errors.Problem(
      what="The disk is too small for the published files.",
      where=str(folder),
      expected=f"{size_bytes:,} bytes, {done:,} of which are there",
      found=f"{free:,} bytes free",
      to_do=(
        "Give another --download_dir, fetch some of the files into manual_dir,"
        " or ask for fewer examples (max_examples_per_split)."
      ),
    )
    raise errors.ConversionError(str(problem))


def _is_downloaded(url: str, checksum: str, present: set[str]) -> bool:
  """Whether a file and TFDS's note about it are among the names of a folder."""
  return any(
    {name, f"{name}.INFO"} <= present
    for name in (
      resource.get_dl_fname(url, checksum),
      resource.get_dl_fname(url),
    )
  )


def verify_files(
  files: Iterable[tuple[str, epath.Path]], table: Mapping[str, Any]
) -> None:
  """Compares files with the published ones.

  Args:
    files: published names, and the files that should be theirs.
    table: URL -> `size` (bytes), `checksum` (SHA-256, hexadecimal) and
      `filename`, as `tfds.core.DatasetBuilder.url_infos` has them.

  Raises:
    errors.SourceError: some differ; all of them are named.
  """
  infos = {info.filename: info for info in table.values()}
  files = list(files)

  def compare(file: tuple[str, epath.Path]) -> errors.Problem | None:
    name, path = file
    return _compare(path, infos.get(name))

  with concurrent.futures.ThreadPoolExecutor(_NUM_HASHING_THREADS) as pool:
    results = progress.show_count(
      pool.map(compare, files), len(files), "Verifying files", " files"
    )
    problems = [problem for problem in results if problem is not None]
  if problems:
    raise errors.SourceError(errors.describe(problems))


def _compare(path: epath.Path, info: Any) -> errors.Problem | None:
  if info is None:
    expected, found = "a name in the table of published files", path.name
  else:
    expected = f"{info.size:,} bytes"
    try:
      folders.check_regular(path)
      # A wrong size is found without reading a gigabyte.
      size_bytes = path.stat().length
      found = f"{size_bytes:,} bytes"
      if size_bytes == info.size:
        expected, found = info.checksum, _hash_file(path)
    except OSError as e:  # A link to nowhere, a folder, a broken disk.
      found = f"{type(e).__name__}: {e}"
    if found == expected:
      return None
  return errors.Problem(
    what="This is not the published file.",
    where=str(path),
    expected=expected,
    found=found,
    to_do=(
      "Download it again, or leave verify_manual_files out if the file is your"
      " own."
    ),
  )


def _hash_file(path: epath.Path) -> str:
  sha256 = hashlib.sha256()
  with path.open("rb") as file:
    while chunk := cast(bytes, file.read(_READ_BYTES)):
      sha256.update(chunk)
  return sha256.hexdigest()
