"""Regenerates the list of ImageNet-21k's classes from an installed timm.

    python -m pip install timm --no-deps
    python dummy_data/coyo_labeled_300m/make_classes.py

Only timm's package data is read; timm itself is not imported, for it needs
PyTorch. Made with timm 1.0.31; what the files are and whose they are, is in
`tfds_plugins/coyo_labeled_300m/classes.py`.
"""

from __future__ import annotations

import importlib.resources
import importlib.util
import pathlib

_OUTPUT_PATH = (
  pathlib.Path(__file__).parents[2]
  / "tfds_plugins"
  / "coyo_labeled_300m"
  / "imagenet21k_classes.tsv"
)


def read_timm_file(name: str) -> list[str]:
  """Returns the lines of a file in timm's folder `data/_info`."""
  spec = importlib.util.find_spec("timm")
  if spec is None:
    raise SystemExit("Install timm: python -m pip install timm --no-deps")
  # A module that is made but not executed is enough to find its data.
  package = importlib.resources.files(importlib.util.module_from_spec(spec))
  path = package / "data" / "_info" / name
  return path.read_text(encoding="utf-8").splitlines()


def make_lines() -> list[str]:
  """Returns `<wnid> TAB <lemmas>` of each class, in the order of labels."""
  wnids = read_timm_file("imagenet22k_synsets.txt")
  if wnids != sorted(set(wnids)) or len(wnids) != 21_841:
    raise SystemExit(
      "imagenet22k_synsets.txt: expected 21,841 ids in ascending order, found"
      f" {len(wnids):,}, or another order."
    )
  lemmas = dict(
    line.split("\t") for line in read_timm_file("imagenet_synset_to_lemma.txt")
  )
  return [f"{wnid}\t{lemmas[wnid]}" for wnid in wnids]


def main() -> None:
  text = "".join(f"{line}\n" for line in make_lines())
  _OUTPUT_PATH.write_bytes(text.encode())
  print(f"{_OUTPUT_PATH}: {len(text.encode()):,} bytes")


if __name__ == "__main__":
  main()
