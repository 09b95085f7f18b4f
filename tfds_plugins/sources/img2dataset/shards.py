"""What img2dataset calls a shard, in each of its formats."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import enum

from tfds_plugins.sources.rows import SourceShard


class Format(enum.Enum):
  """Values of img2dataset's `output_format` that hold images.

  Source: rom1504/img2dataset, `img2dataset/writer.py`.

  Attributes:
    WEBDATASET: `00000.tar`, with the images and a `.json` for each.
    FILES: a folder `00000` of the same files.
    PARQUET: `00000.parquet`, with the images in a column.
    TFRECORD: `00000.tfrecord`, a `tf.train.Example` for each image.
  """

  WEBDATASET = "webdataset"
  FILES = "files"
  PARQUET = "parquet"
  TFRECORD = "tfrecord"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageShard(SourceShard):
  """One shard that img2dataset wrote.

  Attributes:
    format: how it is written. Positions (`length`) are bytes of a tar or
      TFRecord file, samples of a folder in the order of their keys, rows of a
      parquet.
    path: where the images are: a file, or a folder.
    parquet_path: the parquet beside it, with a row for every URL; '' if it is
      missing, or is what holds the images.
  """

  format: Format
  path: str
  parquet_path: str

  def list_paths(self) -> Sequence[str]:
    """Returns the file or folder of images, and the parquet."""
    return [path for path in (self.path, self.parquet_path) if path]
