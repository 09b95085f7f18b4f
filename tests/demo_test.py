"""The first command of the README."""

import pathlib
import subprocess
import sys

import tensorflow_datasets as tfds

from tfds_plugins import dataset_names

ROOT = pathlib.Path(__file__).parents[1]


def test_the_demo_builds_and_shows_every_config(tmp_path):
  result = subprocess.run(
    [sys.executable, "dummy_data/demo.py", str(tmp_path)],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )

  assert result.returncode == 0, result.stderr
  shown = [
    line.rpartition("# ")[2]
    for line in result.stdout.splitlines()
    if line.startswith(">>> ")
  ]
  assert shown == [
    f"{name}/{config}"
    for name in dataset_names.DATASETS
    for config in tfds.builder_cls(name).builder_configs
  ]
  assert len(shown) == 11
