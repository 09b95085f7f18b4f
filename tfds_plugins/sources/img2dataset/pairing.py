"""Pairs the samples of a shard with their metadata, by key.

The metadata of a sample is found in the parquet that img2dataset writes beside
the shard, or else in the sample itself. Every row of the parquet is accounted
for, whether there is a sample of it or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
from typing import Any
from typing import cast

from etils import epath
import numpy as np
import pyarrow as pa

from tfds_plugins import errors
from tfds_plugins.sources import arrays
from tfds_plugins.sources import bad_rows
from tfds_plugins.sources import columns as columns_lib
from tfds_plugins.sources.img2dataset import json_rows
from tfds_plugins.sources.img2dataset import parquet_rows
from tfds_plugins.sources.img2dataset.samples import NO_IMAGE
from tfds_plugins.sources.img2dataset.samples import Sample
from tfds_plugins.sources.img2dataset.samples import SampleReader
from tfds_plugins.sources.img2dataset.shards import ImageShard
from tfds_plugins.sources.rows import BAD_METADATA
from tfds_plugins.sources.rows import BATCH_ROWS
from tfds_plugins.sources.rows import IMAGE_COLUMN
from tfds_plugins.sources.rows import KEY_COLUMN
from tfds_plugins.sources.rows import SkippedRow
from tfds_plugins.sources.rows import SourceBatch
from tfds_plugins.sources.rows import SourceSlice

# Reasons for skipping a row, beside img2dataset's own (`failed_to_download`,
# `failed_to_resize`) and those of `rows` and `samples`.
NO_METADATA = "no_metadata"
MISSING_SAMPLE = "missing_sample"


def iter_batches(
  reader: SampleReader,
  source_slice: SourceSlice[ImageShard],
  wanted: pa.Schema,
) -> Iterator[SourceBatch]:
  """Yields the rows of a slice in the order of the shard.

  Rows of the parquet that have no sample in the shard belong to the first slice
  and come last.

  Args:
    reader: reads the samples of the slice.
    source_slice: a part of a shard.
    wanted: names and types of the metadata columns.

  Yields:
    Batches with the columns `key`, `image` and the wanted ones. The images are
    valid until the next batch is asked for.

  Raises:
    errors.SourceError: shard or parquet are not what img2dataset writes, or a
      key occurs twice, so that pairing would be a guess.
  """
  parquet_path = source_slice.shard.parquet_path
  with contextlib.ExitStack() as stack:
    rows = None
    if parquet_path:
      rows = stack.enter_context(
        parquet_rows.ParquetRows(epath.Path(parquet_path), wanted)
      )
    join = _Join(reader, rows, source_slice, wanted)
    for samples in reader.iter_samples():
      yield join.pair(samples)
    if source_slice.is_first:
      yield from join.iter_rest()


class _Join:
  """Pairs samples with rows, and keeps account of which rows were met."""

  def __init__(
    self,
    reader: SampleReader,
    rows: parquet_rows.ParquetRows | None,
    source_slice: SourceSlice[ImageShard],
    wanted: pa.Schema,
  ):
    self._reader = reader
    self._rows = rows
    self._slice = source_slice
    self._shard = source_slice.shard
    self._wanted = wanted
    # Whether a row of the parquet has been met.
    self._is_met = np.zeros(rows.num_rows if rows else 0, bool)
    self._keys_without_row: set[bytes] = set()
    # Whether the sample in which the shard ends has been met.
    self._has_cut_sample = False
    self._images = arrays.BinaryBuffer()
    # Why samples without a key cannot be had.
    self._nameless: list[tuple[str, str]] = []

  def pair(self, samples: list[Sample]) -> SourceBatch:
    """Returns the rows of some samples."""
    positions = self._find_rows(samples)
    kept: list[Sample] = []
    kept_positions: list[int] = []
    parsed: list[Mapping[str, Any]] = []
    skipped: list[SkippedRow] = []
    num_rows = 0
    for sample, position in zip(samples, positions.tolist()):
      if not self._slice.start <= sample.position < self._slice.stop:
        continue
      if sample.is_nameless and self._rows is not None:
        continue  # One of the rows of the parquet that no sample is found of.
      num_rows += 1
      if sample.problem is not None:
        skipped.append(self._skip(sample.name, *sample.problem))
        continue
      if sample.image is None:
        detail = "there is no image under this key"
        skipped.append(self._skip(sample.name, NO_IMAGE, detail))
        continue
      if position < 0:
        row = self._reader.read_row(sample)
        if isinstance(row, str):
          skipped.append(self._skip(sample.name, NO_METADATA, row))
          continue
        parsed.append(row)
      kept.append(sample)
      kept_positions.append(position)
    metadata, bad = self._read_metadata(
      np.array(kept_positions, np.int64), parsed
    )
    if self._rows is not None and not self._rows.has_global_keys:
      self._check_urls(kept, kept_positions, metadata)
    batch = pa.RecordBatch.from_arrays(
      [
        arrays.make_strings([s.name for s in kept]),
        self._images.make_binary([cast(bytes, s.image) for s in kept]),
        *metadata.columns,
      ],
      names=[KEY_COLUMN, IMAGE_COLUMN, *self._wanted.names],
    )
    batch, rejected = bad_rows.leave_out(
      batch,
      {i: (BAD_METADATA, detail) for i, detail in bad.items()},
      self._shard.name,
    )
    skipped += rejected
    return SourceBatch(
      rows=batch,
      skipped=skipped,
      num_rows=num_rows,
      missing_columns=self._find_missing_columns(parsed),
    )

  def iter_rest(self) -> Iterator[SourceBatch]:
    """Yields the rows that have no sample, with the reason for each."""
    damage = self._reader.find_damage()
    if self._rows is None:
      if damage and not self._has_cut_sample:
        yield self._make_skipped_batch([self._skip("", *damage)])
      return
    if (
      self._rows.num_rows and self._keys_without_row and not self._is_met.any()
    ):
      raise self._wrong_parquet(
        f"rows for the keys in {self._shard.path}", "not one of them"
      )
    missing = damage or self._explain_missing(self._rows)
    skipped: list[SkippedRow] = []
    for key, status, message in self._rows.iter_status(~self._is_met):
      if status == parquet_rows.SUCCESS:
        reason, detail = missing
      else:
        reason, detail = parquet_rows.explain_status(status, message)
      skipped.append(self._skip(key, reason, detail))
      if len(skipped) >= BATCH_ROWS:
        yield self._make_skipped_batch(skipped)
        skipped = []
    if skipped:
      yield self._make_skipped_batch(skipped)

  def _explain_missing(self, rows: parquet_rows.ParquetRows) -> tuple[str, str]:
    """Returns why there is no sample of rows that are successes."""
    detail = "a success by the parquet, without a sample"
    if not self._nameless:
      return MISSING_SAMPLE, detail
    statuses = (status for _, status, _ in rows.iter_status(~self._is_met))
    num_missing = sum(status == parquet_rows.SUCCESS for status in statuses)
    reason, first = self._nameless[0]
    if num_missing <= len(self._nameless):
      return reason, first
    return MISSING_SAMPLE, (
      f"{detail}; of {num_missing:,} such rows, {len(self._nameless):,} may be"
      f" those whose keys cannot be read: {reason}, {first}"
    )

  def _find_rows(self, samples: list[Sample]) -> np.ndarray:
    """Returns each sample's row in the parquet, or -1; marks them as met."""
    positions = np.full(len(samples), -1, np.int64)
    named = [i for i, sample in enumerate(samples) if not sample.is_nameless]
    keys = [samples[i].key for i in named]
    if self._rows is not None:
      positions[named] = self._rows.index.find(keys)
    found = positions[positions >= 0]
    values, counts = np.unique(found, return_counts=True)
    repeated = set(found[self._is_met[found]].tolist())
    repeated |= set(values[counts > 1].tolist())
    self._is_met[found] = True
    twice = []
    for sample, position in zip(samples, positions.tolist()):
      if sample.is_nameless:
        if sample.problem is not None:
          self._nameless.append(sample.problem)
        continue
      self._has_cut_sample |= sample.is_cut
      if position < 0:
        if sample.key in self._keys_without_row:
          twice.append(sample.name)
        self._keys_without_row.add(sample.key)
      if sample.is_repeated or position in repeated:
        twice.append(sample.name)
    if twice:
      problem = errors.Problem(
        what="A key occurs more than once in the shard.",
        where=self._shard.path,
        expected="every key once, all that belongs to it in one place",
        found=f"repeated {', '.join(dict.fromkeys(twice[:10]))}",
        to_do=(
          "Images and metadata cannot be paired. Remove this shard, or"
          " download it again: two runs may have written into one file."
        ),
      )
      raise errors.SourceError(str(problem))
    return positions

  def _read_metadata(
    self, positions: np.ndarray, parsed: list[Mapping[str, Any]]
  ) -> tuple[pa.RecordBatch, columns_lib.BadValues]:
    """Returns the metadata in the order of `positions` (-1: the next parsed)."""
    if self._rows is not None and not parsed:
      return self._rows.read(positions)
    from_samples, bad_in_samples = json_rows.to_batch(parsed, self._wanted)
    if self._rows is None:
      return from_samples, bad_in_samples
    in_parquet = np.flatnonzero(positions >= 0)
    in_samples = np.flatnonzero(positions < 0)
    from_parquet, bad_in_parquet = self._rows.read(positions[in_parquet])
    place = np.empty(len(positions), np.int64)
    place[in_parquet] = np.arange(len(in_parquet))
    place[in_samples] = len(in_parquet) + np.arange(len(in_samples))
    table = pa.Table.from_batches([from_parquet, from_samples])
    bad = {int(in_parquet[i]): text for i, text in bad_in_parquet.items()}
    bad |= {int(in_samples[i]): text for i, text in bad_in_samples.items()}
    return columns_lib.to_batch(table.take(pa.array(place.tolist()))), bad

  def _check_urls(
    self,
    samples: list[Sample],
    positions: list[int],
    metadata: pa.RecordBatch,
  ) -> None:
    """Checks by one sample's own URL that the parquet is that of the shard."""
    if "url" not in metadata.schema.names:
      return
    urls = metadata.column("url")
    for sample, position, url in zip(samples, positions, urls):
      if position < 0:
        continue
      row = self._reader.read_row(sample)
      if isinstance(row, str) or not isinstance(row.get("url"), str):
        continue
      if row["url"] != url.as_py():
        raise self._wrong_parquet(
          f"the URL that the shard has for {sample.name}: {row['url']}",
          url.as_py() or "no URL",
        )
      return

  def _find_missing_columns(self, parsed: list[Mapping[str, Any]]) -> list[str]:
    """Returns the wanted columns of which neither source of metadata knows."""
    known: set[str] = set(self._rows.column_names if self._rows else ())
    for row in parsed:
      known.update(row)
    return [name for name in self._wanted.names if name not in known]

  def _wrong_parquet(self, expected: str, found: str) -> errors.SourceError:
    problem = errors.Problem(
      what="The parquet belongs to another shard.",
      where=self._shard.parquet_path,
      expected=expected,
      found=found,
      to_do="Put back the parquet that img2dataset wrote with this shard.",
    )
    return errors.SourceError(str(problem))

  def _skip(self, key: str, reason: str, detail: str) -> SkippedRow:
    return SkippedRow(
      source_shard=self._shard.name, key=key, reason=reason, detail=detail
    )

  def _make_skipped_batch(self, skipped: list[SkippedRow]) -> SourceBatch:
    """Returns a batch of skipped rows only."""
    schema = pa.schema(
      [(KEY_COLUMN, pa.string()), (IMAGE_COLUMN, pa.binary()), *self._wanted]
    )
    return SourceBatch(
      rows=pa.RecordBatch.from_pylist([], schema=schema),
      skipped=skipped,
      num_rows=len(skipped),
    )
