"""What damaged files say themselves, by other readers than the package's.

Where no checksum covers a value, a file may say another thing than it did, and
nobody can know better. A pair that comes out is wrong unless the file says it.
"""

from __future__ import annotations

import io
import json
import pathlib
import struct
import tarfile
from typing import Any

from fault_cases import NUMBER_BASES
from fault_cases import Case
from fault_cases import Identities
from fault_cases import find_image
from fault_cases import find_path
from fault_cases import find_text
from fault_cases import find_vector
import numpy as np
import pyarrow.parquet as pq

# Of which row the columns of a parquet are.
_TEXT_COLUMNS = ("caption", "text", "url")


def read_tar(case: Case, path: pathlib.Path) -> list[Identities]:
  """Returns what is under each key, or each path, of a tar."""
  contents: dict[str, dict[str, bytes]] = {}
  with tarfile.open(path) as tar:
    try:
      for info in tar:
        if info.isfile():
          file: Any = tar.extractfile(info)
          stem, _, extension = info.name.rpartition(".")
          contents.setdefault(stem, {})[extension] = file.read()
    except (tarfile.TarError, OSError, ValueError):
      pass  # What comes before is what counts.
  pairs = []
  for stem, members in contents.items():
    found: dict[str, int | None] = {
      "image": find_image(
        members.get("jpg") or members.get("png") or b"", case.images
      )
    }
    if ".png.tiles" in stem:
      found["path"] = find_path(f"{stem}.png")
    elif stem.isdigit():
      found |= dict.fromkeys(("caption", "url"), int(stem))
    pairs.append(found)
    if "json" in members:
      pairs.append({**found, **_read_json(members["json"])})
  return _drop_unclear(pairs)


def _read_json(data: bytes) -> dict[str, int | None]:
  try:
    row = json.loads(data)
    return {name: find_text(str(row.get(name))) for name in ("caption", "url")}
  except (ValueError, AttributeError):
    return {}


def read_table(case: Case, path: pathlib.Path) -> list[Identities]:
  """Returns what each row of a parquet says."""
  pairs = []
  for i, row in enumerate(pq.ParquetFile(path).read().to_pylist()):
    found: dict[str, int | None] = {
      name: find_text(row[name] or "")
      for name in _TEXT_COLUMNS
      if isinstance(row.get(name), str | bytes)
    }
    for name, base in NUMBER_BASES.items():
      if isinstance(row.get(name), int):
        found[name] = row[name] - base
    if isinstance(row.get("jpg"), bytes):
      found["image"] = find_image(row["jpg"], case.images)
    elif case.images and str(row.get("key")).isdigit():
      found["image"] = int(row["key"])
    elif case.vectors:
      found |= dict.fromkeys(case.vectors, i)
    pairs.append(found)
  return _drop_unclear(pairs)


def read_vectors(case: Case, path: pathlib.Path) -> list[Identities]:
  """Returns whose vector is in which row of an .npy file."""
  name = "image_embedding" if path.name.startswith("img") else "text_embedding"
  others = (*_TEXT_COLUMNS, *NUMBER_BASES, *case.vectors)
  vectors = np.load(path).astype("<f2")
  return _drop_unclear(
    [
      {
        **dict.fromkeys(others, i),
        name: find_vector(vector.tobytes(), case.vectors[name]),
      }
      for i, vector in enumerate(vectors)
    ]
  )


def read_records(case: Case, path: pathlib.Path) -> list[Identities]:
  """Returns whose image is in a record of which key, by their bytes."""
  data = path.read_bytes()
  pairs = []
  offset = 0
  while offset + 16 <= len(data):
    (length,) = struct.unpack_from("<Q", data, offset)
    record = data[offset : offset + 16 + length]
    image = find_image(record, case.images)
    # Field 1, 9 characters: keys are written in so many digits.
    at = record.find(b"\n\x09000000")
    if at >= 0 and record[at + 2 : at + 11].isdigit():
      number = int(record[at + 2 : at + 11])
      pairs.append({"image": image, "caption": number, "url": number})
    offset += 16 + length
  return _drop_unclear(pairs)


def read_lines(case: Case, path: pathlib.Path) -> list[Identities]:
  """Returns which question names which tile."""
  pairs = []
  for line in path.read_bytes().split(b"\n"):
    try:
      row = json.loads(line.removeprefix(b"\xef\xbb\xbf"))
      number = find_path(row["chunk_path"])
      query = find_text(row["query"])
    except (ValueError, KeyError, TypeError, RecursionError):
      continue
    pairs.append({"query": query, "path": number, "image": number})
  return _drop_unclear(pairs)


def count_lines(path: pathlib.Path) -> int:
  """Returns the number of lines that are not blank."""
  lines = io.BytesIO(path.read_bytes()).readlines()
  return sum(bool(x.removeprefix(b"\xef\xbb\xbf").strip()) for x in lines)


def _drop_unclear(pairs: list[dict[str, int | None]]) -> list[Identities]:
  return [
    {name: value for name, value in found.items() if value is not None}
    for found in pairs
  ]
