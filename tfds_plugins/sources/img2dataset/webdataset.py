"""Rows of img2dataset's webdataset output: a tar, and a parquet beside it.

The metadata of a sample (`samples.py`) is found by its key, in the parquet or
in the sample's own `.json` member.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import dataclasses
from typing import Any
from typing import cast

from etils import epath
import numpy as np
import pyarrow as pa

from tfds_plugins import errors
from tfds_plugins.sources import arrays
from tfds_plugins.sources import columns as columns_lib
from tfds_plugins.sources.img2dataset import json_rows
from tfds_plugins.sources.img2dataset import parquet_rows
from tfds_plugins.sources.img2dataset import samples as samples_lib
from tfds_plugins.sources.img2dataset import tar
from tfds_plugins.sources.img2dataset.listing import TarShard
from tfds_plugins.sources.img2dataset.samples import Sample
from tfds_plugins.sources.rows import BAD_METADATA
from tfds_plugins.sources.rows import BATCH_ROWS
from tfds_plugins.sources.rows import IMAGE_COLUMN
from tfds_plugins.sources.rows import KEY_COLUMN
from tfds_plugins.sources.rows import SkippedRow
from tfds_plugins.sources.rows import SourceBatch
from tfds_plugins.sources.rows import SourceSlice

# Reasons for skipping a row, beside img2dataset's own (`failed_to_download`,
# `failed_to_resize`) and those of `tar.End` and `samples`.
NO_IMAGE = "no_image_in_tar"
NO_METADATA = "no_metadata"
NOT_IN_TAR = "missing_from_tar"
UNKNOWN_STATUS = "unknown_status"


@dataclasses.dataclass(slots=True)
class _Account:
  """Which rows of a shard have been met.

  Attributes:
    is_met: (num_rows,) bool, for each row of the parquet.
    keys_without_row: keys of samples that the parquet does not know.
    has_cut_sample: whether the sample in which the tar ends has been met.
  """

  is_met: np.ndarray
  keys_without_row: set[bytes]
  has_cut_sample: bool = False


def iter_batches(
  source_slice: SourceSlice[TarShard], wanted: pa.Schema
) -> Iterator[SourceBatch]:
  """Yields the rows of a slice in the order of the tar.

  Rows of the parquet that have no sample in the tar belong to the first slice
  and come last.

  Args:
    source_slice: a part of a tar. A sample belongs to the slice in which its
      first header starts.
    wanted: names and types of the metadata columns.

  Yields:
    Batches with the columns `key`, `image` and the wanted ones.

  Raises:
    errors.SourceError: the tar or parquet is not what img2dataset writes, or
      a key occurs twice, so that pairing would be a guess.
  """
  shard = source_slice.shard
  with contextlib.ExitStack() as stack:
    rows = None
    if shard.parquet_path:
      rows = stack.enter_context(
        parquet_rows.ParquetRows(epath.Path(shard.parquet_path), wanted)
      )
    account = _Account(
      is_met=np.zeros(rows.num_rows if rows else 0, bool),
      keys_without_row=set(),
    )
    reader = tar.TarReader(
      stack.enter_context(epath.Path(shard.tar_path).open("rb")), shard.length
    )
    for samples in samples_lib.iter_samples(reader, source_slice):
      yield _join(samples, rows, account, source_slice, wanted)
    if source_slice.is_first:
      yield from _iter_rest(reader, rows, account, source_slice, wanted)


def _join(
  samples: list[Sample],
  rows: parquet_rows.ParquetRows | None,
  account: _Account,
  source_slice: SourceSlice[TarShard],
  wanted: pa.Schema,
) -> SourceBatch:
  """Pairs samples with their metadata."""
  positions = _find_rows(samples, rows, account, source_slice)
  kept: list[Sample] = []
  kept_positions: list[int] = []
  parsed: list[Mapping[str, Any]] = []
  skipped: list[SkippedRow] = []
  num_rows = 0

  def skip(sample: Sample, reason: str, detail: str) -> None:
    skipped.append(
      SkippedRow(
        source_shard=source_slice.shard.name,
        key=sample.name,
        reason=reason,
        detail=detail,
      )
    )

  for sample, position in zip(samples, positions.tolist()):
    if not source_slice.start <= sample.offset < source_slice.stop:
      continue
    num_rows += 1
    if sample.problem is not None:
      skip(sample, *sample.problem)
      continue
    if sample.image is None:
      skip(sample, NO_IMAGE, "the tar has no image under this key")
      continue
    if position < 0:
      row = _parse_json(sample)
      if isinstance(row, str):
        skip(sample, NO_METADATA, row)
        continue
      parsed.append(row)
    kept.append(sample)
    kept_positions.append(position)
  metadata, bad = _read_metadata(
    np.array(kept_positions, np.int64), parsed, rows, wanted
  )
  if rows is not None and not rows.has_global_keys:
    _check_urls(kept, kept_positions, metadata, source_slice)
  batch = pa.RecordBatch.from_arrays(
    [
      pa.array([s.name for s in kept], pa.string()),
      arrays.make_binary([cast(bytes, s.image) for s in kept]),
      *metadata.columns,
    ],
    names=[KEY_COLUMN, IMAGE_COLUMN, *wanted.names],
  )
  if bad:
    for i, detail in sorted(bad.items()):
      skip(kept[i], BAD_METADATA, detail)
    batch = batch.filter(pa.array([i not in bad for i in range(len(kept))]))
  return SourceBatch(
    rows=batch,
    skipped=skipped,
    num_rows=num_rows,
    missing_columns=_find_missing_columns(parsed, rows, wanted),
  )


def _check_urls(
  samples: list[Sample],
  positions: list[int],
  metadata: pa.RecordBatch,
  source_slice: SourceSlice[TarShard],
) -> None:
  """Checks by one sample's own URL that the parquet is that of the tar."""
  if "url" not in metadata.schema.names:
    return
  urls = metadata.column("url")
  for sample, position, url in zip(samples, positions, urls):
    row = _parse_json(sample)
    if (
      position < 0
      or isinstance(row, str)
      or not isinstance(row.get("url"), str)
    ):
      continue
    if row["url"] != url.as_py():
      problem = errors.Problem(
        what="The parquet belongs to another tar.",
        where=source_slice.shard.parquet_path,
        expected=f"the URL that the tar has for {sample.name}: {row['url']}",
        found=url.as_py() or "no URL",
        to_do="Put back the parquet that img2dataset wrote with this tar.",
      )
      raise errors.SourceError(str(problem))
    return


def _find_missing_columns(
  parsed: list[Mapping[str, Any]],
  rows: parquet_rows.ParquetRows | None,
  wanted: pa.Schema,
) -> list[str]:
  """Returns the wanted columns of which neither source of metadata knows."""
  known: set[str] = set(rows.column_names if rows is not None else ())
  for row in parsed:
    known.update(row)
  return [name for name in wanted.names if name not in known]


def _find_rows(
  samples: list[Sample],
  rows: parquet_rows.ParquetRows | None,
  account: _Account,
  source_slice: SourceSlice[TarShard],
) -> np.ndarray:
  """Returns each sample's row in the parquet, or -1; marks them as met."""
  keys = [sample.key for sample in samples]
  account.has_cut_sample |= any(sample.is_cut for sample in samples)
  positions = np.full(len(keys), -1, np.int64)
  if rows is not None:
    positions = rows.index.find(keys)
  found = positions[positions >= 0]
  repeated = found[account.is_met[found]].tolist()
  account.is_met[found] = True
  values, counts = np.unique(found, return_counts=True)
  repeated += values[counts > 1].tolist()
  twice = [keys[positions.tolist().index(p)] for p in repeated[:5]]
  twice += [sample.key for sample in samples if sample.is_repeated]
  for key, position in zip(keys, positions.tolist()):
    if position < 0:
      if key in account.keys_without_row:
        twice.append(key)
      account.keys_without_row.add(key)
  if twice:
    problem = errors.Problem(
      what="A key occurs more than once in the tar.",
      where=source_slice.shard.tar_path,
      expected="the members of a sample next to each other, every key once",
      found=f"repeated {_name_keys(twice)}",
      to_do=(
        "Images and metadata cannot be paired. Remove this shard, or"
        " download it again: two runs may have written into one tar."
      ),
    )
    raise errors.SourceError(str(problem))
  return positions


def _parse_json(sample: Sample) -> Mapping[str, Any] | str:
  if sample.has_large_json:
    return f"the .json member has more than {json_rows.MAX_JSON_BYTES:,} bytes"
  if sample.json is None:
    return "neither a row in a parquet nor a .json member in the tar"
  return json_rows.parse_row(bytes(sample.json))


def _name_keys(keys: list[bytes]) -> str:
  return ", ".join(key.decode("utf-8", "replace") for key in keys[:5])


def _read_metadata(
  positions: np.ndarray,
  parsed: list[Mapping[str, Any]],
  rows: parquet_rows.ParquetRows | None,
  wanted: pa.Schema,
) -> tuple[pa.RecordBatch, columns_lib.BadValues]:
  """Returns the metadata in the order of `positions` (-1: the next parsed)."""
  if rows is not None and not parsed:
    return rows.read(positions)
  from_json, bad_json = json_rows.to_batch(parsed, wanted)
  if rows is None:
    return from_json, bad_json
  in_parquet = np.flatnonzero(positions >= 0)
  in_json = np.flatnonzero(positions < 0)
  from_parquet, bad_parquet = rows.read(positions[in_parquet])
  place = np.empty(len(positions), np.int64)
  place[in_parquet] = np.arange(len(in_parquet))
  place[in_json] = len(in_parquet) + np.arange(len(in_json))
  table = pa.Table.from_batches([from_parquet, from_json])
  bad = {int(in_parquet[i]): text for i, text in bad_parquet.items()}
  bad |= {int(in_json[i]): text for i, text in bad_json.items()}
  return columns_lib.to_batch(table.take(pa.array(place.tolist()))), bad


def _iter_rest(
  reader: tar.TarReader,
  rows: parquet_rows.ParquetRows | None,
  account: _Account,
  source_slice: SourceSlice[TarShard],
  wanted: pa.Schema,
) -> Iterator[SourceBatch]:
  """Yields the rows that have no sample, with the reason for each."""
  end = reader.end
  detail = f"the tar cannot be read from byte {reader.end_offset:,} on"
  broken = end is not tar.End.MARKER
  if rows is None:
    if broken and not account.has_cut_sample:
      yield _skipped_batch(
        [
          SkippedRow(
            source_shard=source_slice.shard.name,
            key="",
            reason=cast(tar.End, end).value,
            detail=detail,
          )
        ],
        wanted,
      )
    return
  if rows.num_rows and account.keys_without_row and not account.is_met.any():
    problem = errors.Problem(
      what="The parquet belongs to another tar.",
      where=source_slice.shard.parquet_path,
      expected=f"rows for the keys in {source_slice.shard.tar_path}",
      found="not one of them",
      to_do="Put back the parquet that img2dataset wrote with this tar.",
    )
    raise errors.SourceError(str(problem))
  skipped: list[SkippedRow] = []
  for key, status, message in rows.iter_status(~account.is_met):
    if status == parquet_rows.SUCCESS:
      reason = cast(tar.End, end).value if broken else NOT_IN_TAR
      text = detail if broken else "a success in the parquet, not in the tar"
    elif status in parquet_rows.FAILURES:
      reason, text = status, message
    else:
      reason, text = UNKNOWN_STATUS, f"status '{status}': {message}"
    skipped.append(
      SkippedRow(
        source_shard=source_slice.shard.name,
        key=key,
        reason=reason,
        detail=text,
      )
    )
    if len(skipped) >= BATCH_ROWS:
      yield _skipped_batch(skipped, wanted)
      skipped = []
  if skipped:
    yield _skipped_batch(skipped, wanted)


def _skipped_batch(skipped: list[SkippedRow], wanted: pa.Schema) -> SourceBatch:
  """Returns a batch of skipped rows only."""
  schema = pa.schema(
    [(KEY_COLUMN, pa.string()), (IMAGE_COLUMN, pa.binary()), *wanted]
  )
  return SourceBatch(
    rows=pa.RecordBatch.from_pylist([], schema=schema),
    skipped=skipped,
    num_rows=len(skipped),
  )
