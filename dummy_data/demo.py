"""Builds every dataset of the package from `dummy_data/` and prints it.

python dummy_data/demo.py [DATA_DIR]
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

os.environ.setdefault(
  "TF_CPP_MIN_LOG_LEVEL", "3"
)  # Nothing about GPUs, please.

import pandas as pd
import tensorflow_datasets as tfds

import tfds_plugins
from tfds_plugins import dataset_names

MANUAL_DIR = os.path.relpath(pathlib.Path(__file__).parent)


def main() -> None:
  data_dir = sys.argv[1] if len(sys.argv) > 1 else "build/demo"
  print(f"tfds_plugins {tfds_plugins.__version__}")
  pd.set_option("display.width", 160, "display.max_columns", 20)
  for name in dataset_names.DATASETS:
    command = [
      str(pathlib.Path(sys.executable).with_name("tfds")),
      "build",
      name,
      "--imports=tfds_plugins",
      f"--manual_dir={MANUAL_DIR}",
      f"--data_dir={data_dir}",
      "--overwrite",
    ]
    print("\n$ " + " ".join(["tfds", *command[1:]]), flush=True)
    subprocess.run(command, check=True)
    for config in tfds.builder_cls(name).builder_configs:
      ds, info = tfds.load(
        f"{name}/{config}",
        split="train",
        data_dir=data_dir,
        with_info=True,
      )
      print(f"\n>>> tfds.as_dataframe(ds.take(10), info)  # {name}/{config}")
      print(tfds.as_dataframe(ds.take(10), info))


if __name__ == "__main__":
  main()
