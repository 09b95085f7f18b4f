"""Tests of the record files, read back with other people's readers."""

from array_record.python import array_record_data_source
from etils import epath
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from tensorflow_datasets.core import file_adapters

from tfds_plugins import errors
from tfds_plugins.encoding import record_files
from tfds_plugins.encoding.records import Records

RECORDS = [b"", b"a", bytes(range(256)) * 5000, "größer".encode()] + [
  str(i).encode() for i in range(257)
]


def make_records(records, num_pieces=1):
  """Yields slices of one array, of 0, 1, 2, ... records, cut into pieces."""
  array = pa.array(records, pa.binary())
  start, length = 0, 0
  while start < len(records):
    some = array.slice(start, length)
    yield Records(
      [
        pa.array(
          [
            v[len(v) * i // num_pieces : len(v) * (i + 1) // num_pieces]
            for v in some.to_pylist()
          ],
          pa.binary(),
        )
        for i in range(num_pieces)
      ]
    )
    start, length = start + length, length + 1


@pytest.mark.parametrize("num_pieces", [1, 3])
@pytest.mark.parametrize("records", [RECORDS, []])
@pytest.mark.parametrize("file_format", ["tfrecord", "array_record", "parquet"])
def test_tfds_reads_the_same_records(
  tmp_path, file_format, records, num_pieces
):
  path = epath.Path(tmp_path) / "with space.rec"

  record_files.write_records(
    path, file_format, make_records(records, num_pieces)
  )

  if file_format == "array_record":
    if (
      records
    ):  # (Its reader does not open empty files; TFDS never asks it to.)
      source = array_record_data_source.ArrayRecordDataSource([str(path)])
      assert source.__getitems__(list(range(len(records)))) == records
  else:
    adapter = file_adapters.ADAPTER_FOR_FORMAT[
      file_adapters.FileFormat(file_format)
    ]
    found = list(adapter.make_tf_data(str(path)).as_numpy_iterator())
    assert found == records


@pytest.mark.parametrize("num_pieces", [1, 3])
def test_tfrecords_equal_tensorflows_own(tmp_path, num_pieces):
  ours, theirs = tmp_path / "ours", tmp_path / "theirs"

  record_files.write_records(
    epath.Path(ours), "tfrecord", make_records(RECORDS, num_pieces)
  )
  with tf.io.TFRecordWriter(str(theirs)) as writer:
    for record in RECORDS:
      writer.write(record)

  assert ours.read_bytes() == theirs.read_bytes()


def test_parquet_groups_are_small(tmp_path):
  path = epath.Path(tmp_path) / "x.parquet"
  records = [Records([pa.array([bytes(1 << 20)])])] * 20
  record_files.write_records(path, "parquet", records)

  metadata = pq.read_metadata(path)

  sizes = [
    metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)
  ]
  assert sizes == [8, 8, 4]


def test_a_format_without_its_library_is_refused(tmp_path):
  with pytest.raises(errors.OptionError, match="riegeli"):
    record_files.check_format("riegeli", epath.Path(tmp_path))
