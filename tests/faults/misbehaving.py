"""Readers that do what none should, from the second shard on that they read.

The first is that of the undamaged source, by which the others are measured.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import dataclasses
import functools
import os
import signal
import time

import numpy as np
import pyarrow as pa

from tfds_plugins.sources.img2dataset import source
from tfds_plugins.sources.rows import SourceBatch
from tfds_plugins.sources.rows import SourceSlice

_Change = Callable[[SourceBatch], SourceBatch]
_num_read = 0


def read(
  change: _Change, source_slice: SourceSlice, wanted: pa.Schema
) -> Iterator[SourceBatch]:
  """Reads a slice, and changes the batches of all but the first."""
  global _num_read
  _num_read += 1
  is_first = _num_read == 1
  for batch in source.iter_batches(source_slice, wanted):
    yield batch if is_first or not batch.rows.num_rows else change(batch)


def _swap_captions(batch: SourceBatch) -> SourceBatch:
  places = pa.array(np.roll(np.arange(batch.rows.num_rows), 1))
  index = batch.rows.schema.get_field_index("caption")
  captions = batch.rows.column("caption").take(places)
  rows = batch.rows.set_column(index, "caption", captions)
  return dataclasses.replace(batch, rows=rows)


def _lose_a_row(batch: SourceBatch) -> SourceBatch:
  return dataclasses.replace(batch, rows=batch.rows.slice(1))


def _forget_a_row(batch: SourceBatch) -> SourceBatch:
  return dataclasses.replace(
    _lose_a_row(batch), num_rows=max(0, batch.num_rows - 1)
  )


def _raise(batch: SourceBatch) -> SourceBatch:
  raise KeyError("not one of the package's errors")


def _die(batch: SourceBatch) -> SourceBatch:
  os.kill(os.getpid(), signal.SIGKILL)
  return batch


def _hang(batch: SourceBatch) -> SourceBatch:
  time.sleep(3600)
  return batch


def _eat(batch: SourceBatch) -> SourceBatch:
  assert np.ones(1_100_000_000, np.uint8).all()
  return batch


READERS = {
  "a wrong pair": functools.partial(read, _swap_captions),
  "defect of tfds_plugins": functools.partial(read, _lose_a_row),
  "rows of": functools.partial(read, _forget_a_row),
  "KeyError": functools.partial(read, _raise),
  "ends the process": functools.partial(read, _die),
  "hangs": functools.partial(read, _hang),
}
GREEDY = functools.partial(read, _eat)
