"""Regenerates the downloads in `dummy_data/coyo_labeled_300m`.

    python -m pip install img2dataset tensorflow tensorflow-io
    python dummy_data/coyo_labeled_300m/make_images.py

Needs Python 3.10 to 3.12, as tensorflow-io and img2dataset do. tensorflow-io
says that it cannot load its plugins: local files do not need them.

The real img2dataset downloads 30 rows in shards of 12, 12 and 6: the rows of
`make_labels.py`, the pictures of `coyo_pictures.py`.

    images/         as COYO-Labeled-300M documents it: TFRecord, `labels` and
                    `label_probs` kept
    as_tfrecord/    the same rows in each of img2dataset's formats, with `id`
    as_webdataset/  and `imagehash` kept as well
    as_files/
    as_parquet/

Lists are never empty here: img2dataset 1.47 loses such a row when it writes
TFRecord, and still counts it as a success (`TFRecordSampleWriter._list_feature`
in its `img2dataset/writer.py`), so the formats would not hold the same rows.
"""

from __future__ import annotations

import pathlib
import sys

import make_labels

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import coyo_pictures  # pylint: disable=g-import-not-at-top,wrong-import-position

_FORMATS = ("tfrecord", "webdataset", "files", "parquet")


def main() -> None:
  folder = pathlib.Path(__file__).parent
  labels = ["labels", "label_probs"]
  runs = {
    f"as_{name}": (name, ["id", "imagehash", *labels]) for name in _FORMATS
  }
  runs["images"] = ("tfrecord", labels)
  table = make_labels.make_table(coyo_pictures.NUM_PICTURES)
  for name, (output_format, columns) in runs.items():
    coyo_pictures.download(
      dict(zip(table.column_names, table.columns)),
      folder / name,
      caption_col=None,
      output_format=output_format,
      image_size=512,
      save_additional_columns=columns,
    )


if __name__ == "__main__":
  main()
