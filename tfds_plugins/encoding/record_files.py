"""Writes records into files that TFDS reads: its four file formats.

TFDS's own adapters (tensorflow/datasets, `core/file_adapters.py`) import
TensorFlow for TFRecord, and its parquet adapter drops records when it is given
an iterator (4.9.10: `_batched` skips what it has already consumed).
"""

from __future__ import annotations

from collections.abc import Iterable
import importlib.util
import io
import os
import struct
from typing import Any
from typing import cast

from etils import epath
import google_crc32c
import pyarrow as pa
import pyarrow.parquet as pq

from tfds_plugins import errors

_WRITE_BUFFER_BYTES = 1 << 20
_PARQUET_GROUP_BYTES = 8 << 20
# `tensorflow_datasets.core.file_adapters.ParquetFileAdapter`: one binary column.
_PARQUET_SCHEMA = pa.schema([pa.field("data", pa.binary())])
# The modules that write a format, where they are not our own dependencies.
_OPTIONAL_MODULES = {"array_record": "array_record", "riegeli": "riegeli"}


def check_format(file_format: str) -> None:
  """Checks that files of a format can be written here.

  Args:
    file_format: value of a `tfds.core.FileFormat`.

  Raises:
    errors.OptionError: the library that writes the format is not installed.
  """
  module = _OPTIONAL_MODULES.get(file_format)
  if module is not None and importlib.util.find_spec(module) is None:
    raise errors.OptionError(
      f"file_format='{file_format}' needs the Python package '{module}', which"
      " is not installed here. Install it, or choose another format."
    )


def write_records(
  path: epath.Path, file_format: str, records: Iterable[bytes]
) -> None:
  """Writes a record file.

  Args:
    path: the file to write.
    file_format: value of a `tfds.core.FileFormat`: `tfrecord`, `array_record`,
      `parquet` or `riegeli`.
    records: serialized examples, read one after the other.
  """
  _WRITERS[file_format](path, records)


def _write_tfrecord(path: epath.Path, records: Iterable[bytes]) -> None:
  """TFRecord: length, its checksum, the record, its checksum.

  Format: tensorflow/tensorflow, `tensorflow/core/lib/io/record_writer.h`; the
  checksums are masked CRC-32C.
  """
  opened = cast(Any, path.open("wb"))
  if isinstance(opened, io.BufferedWriter):  # A local file.
    opened = io.BufferedWriter(opened.detach(), _WRITE_BUFFER_BYTES)
  with opened as file:
    for record in records:
      length = struct.pack("<Q", len(record))
      file.write(length + struct.pack("<I", _masked_crc(length)))
      file.write(record)
      file.write(struct.pack("<I", _masked_crc(record)))


def _masked_crc(data: bytes) -> int:
  crc = google_crc32c.value(data)
  return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _write_array_record(path: epath.Path, records: Iterable[bytes]) -> None:
  """ArrayRecord with one record a group, as TFDS writes it."""
  from array_record.python import array_record_module  # pylint: disable=g-import-not-at-top

  writer = array_record_module.ArrayRecordWriter(
    os.fspath(path), "group_size:1"
  )
  try:
    for record in records:
      writer.write(record)
  finally:
    writer.close()


def _write_parquet(path: epath.Path, records: Iterable[bytes]) -> None:
  """Parquet with one binary column `data`, some 8 MiB a row group."""
  with (
    path.open("wb") as file,
    pq.ParquetWriter(cast(Any, file), _PARQUET_SCHEMA) as writer,
  ):
    group: list[bytes] = []
    size_bytes = 0
    for record in records:
      group.append(record)
      size_bytes += len(record)
      if size_bytes >= _PARQUET_GROUP_BYTES:
        _write_group(writer, group)
        group, size_bytes = [], 0
    if group:
      _write_group(writer, group)


def _write_group(writer: pq.ParquetWriter, records: list[bytes]) -> None:
  column = pa.array(records, pa.binary())
  writer.write_batch(
    pa.RecordBatch.from_arrays([column], schema=_PARQUET_SCHEMA)
  )


def _write_riegeli(path: epath.Path, records: Iterable[bytes]) -> None:
  """Riegeli, through TFDS's own adapter (which imports TensorFlow)."""
  from tensorflow_datasets.core import file_adapters  # pylint: disable=g-import-not-at-top

  adapter = file_adapters.RiegeliFileAdapter
  adapter.write_examples(path, ((b"", record) for record in records))


_WRITERS = {
  "tfrecord": _write_tfrecord,
  "array_record": _write_array_record,
  "parquet": _write_parquet,
  "riegeli": _write_riegeli,
}
