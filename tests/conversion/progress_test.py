"""Tests of the progress bar."""

import types

import pytest
import tensorflow_datasets as tfds

from tfds_plugins.conversion import progress
from tfds_plugins.conversion.receipts import ShardReceipt


def make_receipt(index):
  return ShardReceipt(
    split="train",
    shard_index=index,
    sources=[],
    num_rows=1500,
    num_examples=1000,
    skipped={"empty_image": 500},
    num_bytes=3_000_000,
    file_bytes=3_016_000,
    fingerprint="",
    missing_columns=[],
  )


@pytest.fixture
def _bar():
  tfds.enable_progress_bar()
  yield
  tfds.disable_progress_bar()


@pytest.mark.usefixtures("_bar")
def test_the_bar_shows_shards_rates_and_skipped_rows(capsys, monkeypatch):
  times = iter([0.0, 1.0, 4.0])  # The start, then one for each shard.
  clock = types.SimpleNamespace(monotonic=lambda: next(times))
  monkeypatch.setattr(progress, "time", clock)
  receipts = [make_receipt(0), make_receipt(1)]

  passed = list(progress.show_progress(iter(receipts), 2, "Converting x train"))

  assert passed == receipts
  last = capsys.readouterr().err.replace("\r", "\n").rstrip().splitlines()[-1]
  assert "Converting x train: 100%" in last
  assert "2/2" in last
  assert "500 examples/s, 1.5 MB/s, 1,000 skipped" in last
