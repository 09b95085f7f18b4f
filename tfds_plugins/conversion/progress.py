"""The progress bar of a conversion."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
import time
from typing import TypeVar

from tensorflow_datasets.core.utils import tqdm_utils

from tfds_plugins.conversion.receipts import ShardReceipt

_ItemT = TypeVar("_ItemT")


def show_count(
  items: Iterable[_ItemT], total: int, description: str, unit: str
) -> Iterator[_ItemT]:
  """Passes items on, and shows how many of them have come.

  Args:
    items: the items as they arrive.
    total: how many are expected.
    description: what is being done.
    unit: what is counted.

  Yields:
    The items.
  """
  with tqdm_utils.tqdm(total=total, desc=description, unit=unit) as bar:
    for item in items:
      bar.update(1)
      yield item


def show_progress(
  receipts: Iterable[ShardReceipt], num_shards: int, description: str
) -> Iterator[ShardReceipt]:
  """Passes receipts on, and shows shards, examples/s, MB/s and skipped rows.

  Uses TFDS's own bar: `tfds.disable_progress_bar()` turns it off, and it looks
  right in terminals and notebooks.

  Args:
    receipts: receipts as they arrive.
    num_shards: how many are expected.
    description: what is being converted.

  Yields:
    The receipts.
  """
  num_examples = num_bytes = num_skipped = 0
  start = time.monotonic()
  bar = tqdm_utils.tqdm(total=num_shards, desc=description, unit=" shards")
  with bar:
    for receipt in receipts:
      num_examples += receipt.num_examples
      num_bytes += receipt.num_bytes
      num_skipped += receipt.num_skipped
      seconds = max(time.monotonic() - start, 1e-9)
      bar.set_postfix_str(
        f"{num_examples / seconds:,.0f} examples/s,"
        f" {num_bytes / seconds / 1e6:,.1f} MB/s,"
        f" {num_skipped:,} skipped",
        refresh=False,
      )
      bar.update(1)
      yield receipt
