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
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tfds_plugins import errors
from tfds_plugins.encoding.records import Records
from tfds_plugins.sources import arrays
from tfds_plugins.sources import masked_crc

_WRITE_BUFFER_BYTES = 1 << 20
_PARQUET_GROUP_BYTES = 8 << 20
# The most buffers that one call of `writev` takes, on Linux and macOS.
_MAX_GATHERED = 1024
# What comes before a record in a TFRecord file; little-endian, without gaps.
_HEAD = np.dtype([("length", "<u8"), ("checksum", "<u4")])
_FOOT = struct.Struct("<I")  # The checksum that comes after it.
# `tensorflow_datasets.core.file_adapters.ParquetFileAdapter`: one binary column.
_PARQUET_SCHEMA = pa.schema([pa.field("data", pa.binary())])
# The modules that write a format, where they are not our own dependencies.
_OPTIONAL_MODULES = {"array_record": "array_record", "riegeli": "riegeli"}
# Formats whose library opens files by itself, and local ones alone.
_LOCAL_FORMATS = {"array_record"}


def check_format(file_format: str, folder: epath.Path) -> None:
  """Checks that files of a format can be written.

  Args:
    file_format: value of a `tfds.core.FileFormat`.
    folder: where to.

  Raises:
    errors.OptionError: the library that writes the format is not installed, or
      cannot write there.
  """
  if file_format in _LOCAL_FORMATS and "://" in str(folder):
    raise errors.OptionError(
      f"file_format='{file_format}' can be written to local folders alone, not"
      f" to {folder}. Choose another format, or a local data_dir."
    )
  module = _OPTIONAL_MODULES.get(file_format)
  if module is not None and importlib.util.find_spec(module) is None:
    raise errors.OptionError(
      f"file_format='{file_format}' needs the Python package '{module}', which"
      " is not installed here. Install it, or choose another format."
    )


def write_records(
  path: epath.Path, file_format: str, records: Iterable[Records]
) -> None:
  """Writes a record file.

  Args:
    path: the file to write.
    file_format: value of a `tfds.core.FileFormat`: `tfrecord`, `array_record`,
      `parquet` or `riegeli`.
    records: serialized examples, taken as they come.
  """
  _WRITERS[file_format](path, records)


def _write_tfrecord(path: epath.Path, records: Iterable[Records]) -> None:
  """TFRecord: length, its checksum, the record, its checksum.

  Format: tensorflow/tensorflow, `tensorflow/core/lib/io/record_writer.h`; the
  checksums are masked CRC-32C.
  """
  opened = cast(Any, path.open("wb"))
  if isinstance(opened, io.BufferedWriter):  # A local file.
    opened = io.BufferedWriter(opened.detach(), _WRITE_BUFFER_BYTES)
  with opened as file:
    for some in records:
      if some.has_large_pieces:
        _write_vector(file, _frame_pieces(some))
      else:
        _write(file, _frame(some))


def _write(file: Any, buffer: Any) -> None:
  """Writes a buffer; TensorFlow's GFile, for remote paths, takes bytes alone."""
  is_local = isinstance(file, io.BufferedWriter)
  file.write(buffer if is_local else bytes(buffer))


def _write_vector(file: Any, buffers: list[Any]) -> None:
  """Writes buffers one after the other.

  The system gathers them where it can: joining images would pass megabytes
  through memory once more.
  """
  if not (isinstance(file, io.BufferedWriter) and hasattr(os, "writev")):
    for buffer in buffers:
      _write(file, buffer)
    return
  file.flush()
  for start in range(0, len(buffers), _MAX_GATHERED):
    some = buffers[start : start + _MAX_GATHERED]
    num_written = os.writev(file.fileno(), some)
    for buffer in some:
      # A system may write less than it was given; what is left goes the usual
      # way, which raises if there is no more space.
      if num_written < len(buffer):
        file.write(buffer[num_written:])
      num_written = max(0, num_written - len(buffer))
    file.flush()


def _frame_pieces(records: Records) -> list[Any]:
  """Returns records as they lie in a TFRecord file, in pieces."""
  columns = []
  for piece in records.join_small():
    offsets, data = arrays.get_values(piece)
    columns.append((offsets, np.frombuffer(data, np.uint8)))
  heads = memoryview(_make_heads(records.sizes).tobytes())
  framed: list[Any] = []
  for i in range(len(records)):
    framed.append(heads[i * _HEAD.itemsize : (i + 1) * _HEAD.itemsize])
    checksum = 0
    for offsets, content in columns:
      # Slices of ndarrays, for google_crc32c takes no memoryview.
      part = content[offsets[i] : offsets[i + 1]]
      checksum = google_crc32c.extend(checksum, part)
      framed.append(part)
    framed.append(_FOOT.pack(masked_crc.mask(checksum)))
  return framed


def _frame(records: Records) -> memoryview:
  """Returns records as they lie in a TFRecord file."""
  heads = arrays.from_fixed_size(_make_heads(records.sizes), _HEAD.itemsize)
  room = arrays.make_scalar(bytes(_FOOT.size))
  joined = records.join(before=[heads], after=[room])
  framed = bytearray(joined.buffers()[2].slice(0, joined.total_values_length))
  ends = np.cumsum(records.sizes + _HEAD.itemsize + _FOOT.size) - _FOOT.size
  starts = ends - records.sizes
  content = np.frombuffer(framed, np.uint8)
  # Slices of ndarrays, for google_crc32c takes no memoryview.
  checksums = [
    google_crc32c.value(content[start:end])
    for start, end in zip(starts.tolist(), ends.tolist())
  ]
  feet = masked_crc.mask(np.array(checksums, np.uint64)).astype("<u4")
  places = ends[:, None] + np.arange(_FOOT.size)
  content[places] = feet.view(np.uint8).reshape(-1, _FOOT.size)
  return memoryview(framed)


def _make_heads(lengths: np.ndarray) -> np.ndarray:
  """Returns what comes before records of these lengths."""
  heads = np.empty(len(lengths), _HEAD)
  heads["length"] = lengths
  heads["checksum"] = masked_crc.compute_of_lengths(lengths)
  return heads


def _write_array_record(path: epath.Path, records: Iterable[Records]) -> None:
  """ArrayRecord with one record a group, as TFDS writes it."""
  from array_record.python import array_record_module  # pylint: disable=g-import-not-at-top

  writer = array_record_module.ArrayRecordWriter(
    os.fspath(path), "group_size:1"
  )
  try:
    for some in records:
      for record in some.iter_bytes():
        writer.write(record)
  finally:
    writer.close()


def _write_parquet(path: epath.Path, records: Iterable[Records]) -> None:
  """Parquet with one binary column `data`, some 8 MiB a row group."""
  with (
    path.open("wb") as file,
    pq.ParquetWriter(cast(Any, file), _PARQUET_SCHEMA) as writer,
  ):
    group: list[pa.RecordBatch] = []
    size_bytes = 0
    for some in records:
      group.append(
        pa.RecordBatch.from_arrays([some.join()], schema=_PARQUET_SCHEMA)
      )
      size_bytes += some.num_bytes
      if size_bytes >= _PARQUET_GROUP_BYTES:
        writer.write_table(pa.Table.from_batches(group))
        group, size_bytes = [], 0
    if group:
      writer.write_table(pa.Table.from_batches(group))


def _write_riegeli(path: epath.Path, records: Iterable[Records]) -> None:
  """Riegeli, through TFDS's own adapter (which imports TensorFlow)."""
  from tensorflow_datasets.core import file_adapters  # pylint: disable=g-import-not-at-top

  adapter = file_adapters.RiegeliFileAdapter
  adapter.write_examples(
    path,
    ((b"", record) for some in records for record in some.iter_bytes()),
  )


_WRITERS = {
  "tfrecord": _write_tfrecord,
  "array_record": _write_array_record,
  "parquet": _write_parquet,
  "riegeli": _write_riegeli,
}
