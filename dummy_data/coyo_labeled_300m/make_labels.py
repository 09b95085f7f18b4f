"""Regenerates `dummy_data/coyo_labeled_300m/labels`, as it is published.

    python -m pip install numpy pillow pyarrow
    python dummy_data/coyo_labeled_300m/make_labels.py

Three files of 11, 4 and 7 rows. The first has the published types and row
groups of 4, 4 and 3 rows. The others have types that copies may have: lists of
int64 and double; large strings and a dictionary.

`make_images.py` downloads the same rows and 8 more. Row i is about picture i of
`coyo_pictures.py`, with j = 0 to 49:

    id             315 + (2**33 + 148) i
    imagehash      daf5a50aae4aa54a + 9e3779b97f4a7c15 i modulo 2**64, in hex
    labels[j]      (8087 + 7919 i + 2967 j) mod 21841
    label_probs[j] (560 + i - 11 j) / 2048, which float16 holds exactly

Row 0 is the example of the dataset's card, of which 8087, 11054, 808... and
0.4453125, 0.304... are printed: labels[2] is 8088, label_probs[0] is 912 / 2048
and label_probs[1] is 623 / 2048. What is special about other rows:

    1    no labels, no probabilities
    2    49 probabilities for 50 labels
    4    labels[7] is 21841, one more than the last class
    6    labels[0] is -1
    7    no imagehash
    11   no id
    12   labels[0] is 0, the first class, and labels[49] 21840, the last one
    14   no probabilities
    15   3 labels and 3 probabilities
    18   an empty list of each; 50 in `make_images.py`, see there
"""

from __future__ import annotations

import pathlib
import shutil
import sys

import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import coyo_pictures  # pylint: disable=g-import-not-at-top,wrong-import-position

SCHEMA = pa.schema(
  {
    "id": pa.int64(),
    "url": pa.string(),
    "imagehash": pa.string(),
    "labels": pa.list_(pa.int32()),
    "label_probs": pa.list_(pa.float32()),
    "width": pa.int32(),
    "height": pa.int32(),
  }
)
_NUM_LABELS = 50
_NUM_CLASSES = 21841
_FILE_NAME = (
  "part-{:05d}-c9672901-7346-47d7-b02e-c1562fdf3cf9-c000.snappy.parquet"
)


def _make_labels(i: int) -> list[int] | None:
  if i == 1:
    return None
  labels = [
    (8087 + 7919 * i + 2967 * j) % _NUM_CLASSES for j in range(_NUM_LABELS)
  ]
  if i == 0:
    labels[2] = 8088
  if i == 4:
    labels[7] = _NUM_CLASSES
  if i == 6:
    labels[0] = -1
  if i == 12:
    labels[0], labels[49] = 0, _NUM_CLASSES - 1
  return labels[:3] if i == 15 else labels


def _make_probs(i: int) -> list[float] | None:
  if i in (1, 14):
    return None
  probs = [(560 + i - 11 * j) / 2048 for j in range(_NUM_LABELS)]
  if i == 0:
    probs[:2] = [912 / 2048, 623 / 2048]
  return probs[: {2: 49, 15: 3}.get(i, _NUM_LABELS)]


def make_table(num_rows: int) -> pa.Table:
  """Returns the first rows, all with the published types."""
  rows = range(num_rows)
  imagehashes = [
    f"{(0xDAF5A50AAE4AA54A + 0x9E3779B97F4A7C15 * i) % 2**64:016x}"
    for i in rows
  ]
  return pa.table(
    {
      "id": [None if i == 11 else 315 + (2**33 + 148) * i for i in rows],
      "url": [coyo_pictures.get_url(i) for i in rows],
      "imagehash": [None if i == 7 else imagehashes[i] for i in rows],
      "labels": [_make_labels(i) for i in rows],
      "label_probs": [_make_probs(i) for i in rows],
      "width": [coyo_pictures.get_size(i)[0] for i in rows],
      "height": [coyo_pictures.get_size(i)[1] for i in rows],
    },
    SCHEMA,
  )


def _cast(table: pa.Table, types: dict[str, pa.DataType]) -> pa.Table:
  fields = [
    field.with_type(types.get(field.name, field.type)) for field in SCHEMA
  ]
  return table.cast(pa.schema(fields))


def main() -> None:
  output_dir = pathlib.Path(__file__).parent / "labels" / "data"
  shutil.rmtree(output_dir, ignore_errors=True)
  output_dir.mkdir(parents=True)
  rows = make_table(22).to_pylist()
  rows[18]["labels"], rows[18]["label_probs"] = [], []
  table = pa.Table.from_pylist(rows, SCHEMA)
  wide = {
    "labels": pa.list_(pa.int64()),
    "label_probs": pa.list_(pa.float64()),
  }
  large = {
    "url": pa.large_string(),
    "imagehash": pa.dictionary(pa.int32(), pa.string()),
  }
  files = [table[:11], _cast(table[11:15], wide), _cast(table[15:], large)]
  for number, part in enumerate(files):
    pq.write_table(
      part,
      output_dir / _FILE_NAME.format(number),
      compression="snappy",
      row_group_size=4 if number == 0 else None,
      # Spark knows nothing of Arrow's types; pyarrow keeps them like this.
      store_schema=number != 0,
    )


if __name__ == "__main__":
  main()
