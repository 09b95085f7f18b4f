"""Samples of img2dataset's tfrecord output.

A `tf.train.Example` for every image (rom1504/img2dataset,
`img2dataset/writer.py`): the image in a feature named by its encoding (`jpg`),
`key`, and a feature for every column of the metadata. A null is an empty
string whatever the column's type, and doubles are stored as float32; the
parquet beside the file, where there is one, has the values as they were.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
from typing import Any

from etils import epath
import pyarrow as pa

from tfds_plugins import errors
from tfds_plugins.sources import folders
from tfds_plugins.sources.img2dataset import example_proto
from tfds_plugins.sources.img2dataset import pairing
from tfds_plugins.sources.img2dataset import record_reader
from tfds_plugins.sources.img2dataset import samples as samples_lib
from tfds_plugins.sources.img2dataset.samples import Sample
from tfds_plugins.sources.img2dataset.shards import ImageShard
from tfds_plugins.sources.rows import CORRUPT_RECORD
from tfds_plugins.sources.rows import SourceBatch
from tfds_plugins.sources.rows import SourceSlice

_KEY = b"key"
# (COYO's own reader asks for `image`: kakaobrain/coyo-vit.)
_IMAGE_FEATURES = frozenset(
  name.encode() for name in {*samples_lib.IMAGE_EXTENSIONS, "image"}
)


def iter_batches(
  source_slice: SourceSlice[ImageShard], wanted: pa.Schema
) -> Iterator[SourceBatch]:
  """Yields the rows of a slice in the order of the file; see `pairing`.

  A record belongs to the slice in which its length starts.
  """
  shard = source_slice.shard
  with contextlib.ExitStack() as stack:
    file = stack.enter_context(epath.Path(shard.path).open("rb"))
    reader = _RecordSamples(
      record_reader.RecordReader(file, shard.size_bytes), source_slice, wanted
    )
    yield from pairing.iter_batches(reader, source_slice, wanted)


def check(shard: ImageShard) -> ImageShard:
  """Checks the head of the first record.

  Args:
    shard: the shard; a file without any record is legal (every download
      failed).

  Returns:
    The shard.

  Raises:
    errors.SourceError: it is something else.
  """
  path = epath.Path(shard.path)
  try:
    folders.check_regular(path)
    with path.open("rb") as f:
      start: Any = f.read(record_reader.HEAD.size)
    found = f"a file that starts with {start!r}"
  except OSError as e:
    start, found = b"?", f"{type(e).__name__}: {e}"
  if not start or record_reader.parse_head(start) is not None:
    return shard
  problem = errors.Problem(
    what="This is not a TFRecord file.",
    where=shard.path,
    expected="a TFRecord file as img2dataset writes it, uncompressed",
    found=found,
    to_do=(
      "Remove this shard (every file with its number), or have img2dataset"
      " write it again."
    ),
  )
  raise errors.SourceError(str(problem))


class _RecordSamples:
  """Reads the samples of a slice of a TFRecord file."""

  def __init__(
    self,
    reader: record_reader.RecordReader,
    source_slice: SourceSlice[ImageShard],
    wanted: pa.Schema,
  ):
    self._reader = reader
    self._slice = source_slice
    self._wanted = wanted

  def iter_samples(self) -> Iterator[list[Sample]]:
    """Yields the samples of some megabytes at a time."""
    start, stop = self._slice.start, self._slice.stop
    # A first slice answers for the rows without a record: it needs all keys.
    for records in self._reader.iter_windows(
      start, self._slice.shard.length if self._slice.is_first else stop
    ):
      yield [_make_sample(record) for record in records]

  def read_row(self, sample: Sample) -> Mapping[str, Any] | str:
    """Returns the features that have the names of wanted columns."""
    row = {}
    try:
      spans = dict(example_proto.iter_features(sample.row))
      for field in self._wanted:
        span = spans.get(field.name.encode())
        if span is not None:
          values = example_proto.get_values(sample.row, span)
          row[field.name] = _to_value(values, field.type)
    except example_proto.MessageError as e:
      return f"a feature of the record cannot be read: {e}"
    return row

  def find_damage(self) -> tuple[str, str] | None:
    """Returns where the file broke off, if it did."""
    return self._reader.damage


def _make_sample(record: record_reader.Record) -> Sample:
  """Finds key and image of a record."""
  sample = Sample(key=b"", position=record.position, is_nameless=True)
  data = record.data
  if data is None:
    sample.problem = (
      samples_lib.describe_large(record.size_bytes)
      if record.is_large
      else (CORRUPT_RECORD, f"{_locate(record)} differs from its checksum")
    )
    return sample
  key = image = None
  try:
    for name, span in example_proto.iter_features(data):
      if name == _KEY:
        key = example_proto.get_bytes(data, span)
      elif name in _IMAGE_FEATURES and image is None:
        image = example_proto.get_bytes(data, span)
      if key and image:  # The rest is looked at when it is asked for.
        break
  except example_proto.MessageError as e:
    detail = f"{_locate(record)} is no tf.train.Example: {e}"
    sample.problem = (CORRUPT_RECORD, detail)
    return sample
  if key is None:
    sample.problem = (CORRUPT_RECORD, f"{_locate(record)} has no key")
    return sample
  sample.is_nameless = False
  sample.key = bytes(data[slice(*key)])
  sample.row = data
  if image is not None:
    size_bytes = image[1] - image[0]
    if size_bytes > samples_lib.MAX_IMAGE_BYTES:
      sample.problem = samples_lib.describe_large(size_bytes)
    else:
      sample.image = data[slice(*image)]
  return sample


def _locate(record: record_reader.Record) -> str:
  return f"the record at byte {record.position:,}"


def _to_value(values: example_proto.Values, target: pa.DataType) -> Any:
  """Returns what the values of a feature are in a column of some type."""
  text = [
    value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    for value in values
  ]
  if text == [""] and not pa.types.is_string(target):
    return None
  if pa.types.is_list(target):
    return text
  return text[0] if text else None
