"""Regenerates `dummy_data/laion400m/embeddings` with the real clip-retrieval.

    python -m pip install --no-deps clip-retrieval
    python -m pip install fsspec numpy pandas pyarrow
    python dummy_data/laion400m/make_embeddings.py

clip-retrieval's own writer writes the partitions of the samples in
`dummy_data/laion400m/images`, with the metadata that its reader would hand on
(rom1504/clip-retrieval, `clip_retrieval/clip_inference`: `reader.py`,
`runner.py`, `writer.py`; `--enable_metadata True`). Only the vectors are made
up, for a model would have to be downloaded: see `make_vectors`.

As in a run with 12 output partitions, numbers are padded to two digits, and
those after the third have no tar and write nothing.
"""

from __future__ import annotations

import importlib.util
import json
import pathlib
import shutil
import tarfile
from typing import Any

import numpy as np

NUM_PARTITIONS = 12
_FOLDER = pathlib.Path(__file__).parent


def make_vectors(picture: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns the vectors of picture i and of its caption.

  Both are (512,) float16: value j is ((31 i + 7 j) mod 61 - 30) / 64 for the
  picture, and ((17 i + 11 j) mod 53 - 26) / 64 for the caption.
  """
  i, j = picture, np.arange(512)
  image = ((31 * i + 7 * j) % 61 - 30) / 64
  text = ((17 * i + 11 * j) % 53 - 26) / 64
  return image.astype(np.float16), text.astype(np.float16)


def read_batch(tar_path: pathlib.Path) -> dict[str, Any]:
  """Returns the samples of a tar as clip-retrieval's mapper hands them on."""
  samples: dict[str, dict[str, bytes]] = {}
  with tarfile.open(tar_path) as tar:
    for member in tar:
      key, extension = member.name.split(".")
      file = tar.extractfile(member)
      assert file is not None
      samples.setdefault(key, {})[extension] = file.read()
  metadata = [sample["json"].decode() for sample in samples.values()]
  urls = [json.loads(text)["url"] for text in metadata]
  vectors = [
    make_vectors(int(url.rpartition("/")[2].partition(".")[0])) for url in urls
  ]
  image_vectors, text_vectors = zip(*vectors)
  return {
    "image_embs": np.stack(image_vectors),
    "text_embs": np.stack(text_vectors),
    "image_filename": list(samples),
    "text": [sample["txt"].decode() for sample in samples.values()],
    "metadata": metadata,
  }


def load_writer() -> Any:
  """Loads clip-retrieval's writer alone: the package imports torch."""
  package = importlib.util.find_spec("clip_retrieval")
  if package is None or not package.submodule_search_locations:
    raise SystemExit("clip-retrieval is not installed: see this file's top.")
  root = pathlib.Path(package.submodule_search_locations[0])
  spec = importlib.util.spec_from_file_location(
    "writer", root / "clip_inference" / "writer.py"
  )
  assert spec is not None
  assert spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.NumpyWriter


def main() -> None:
  output_dir = _FOLDER / "embeddings"
  shutil.rmtree(output_dir, ignore_errors=True)
  writer_class = load_writer()
  tar_paths = sorted((_FOLDER / "images").glob("*.tar"))
  for i in range(NUM_PARTITIONS):
    writer = writer_class(
      partition_id=i,
      output_folder=str(output_dir),
      enable_text=True,
      enable_image=True,
      enable_metadata=True,
      output_partition_count=NUM_PARTITIONS,
    )
    for tar_path in tar_paths[i::NUM_PARTITIONS]:
      writer(read_batch(tar_path))
    writer.flush()


if __name__ == "__main__":
  main()
