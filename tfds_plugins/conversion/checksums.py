"""Finds the tables of published files."""

from __future__ import annotations

from etils import epath


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
