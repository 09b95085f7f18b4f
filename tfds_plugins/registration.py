"""Makes the builders of this package findable by name in TFDS.

TFDS has no discovery of plugins (4.9.10): a package has to be imported. It does
ask a list of providers for builder classes (tensorflow/datasets,
`core/registered.py`). Ours comes first, and knows nothing but our names.

`laion400m` itself stays out of TFDS's registry, because that name is there
already, and a second registration either fails or makes TFDS drop the datasets
of the same package (`wit`, `wit_kaggle`). The others are registered when their
module is imported.
"""

from __future__ import annotations

import importlib

import tensorflow_datasets as tfds

from tfds_plugins import dataset_names


class PluginBuilderProvider(tfds.core.DatasetBuilderProvider):
  """Finds the builders of this package."""

  def has_dataset(self, name: str) -> bool:
    """Whether `name` is one of our datasets."""
    return name in dataset_names.DATASETS

  def get_builder_cls(self, name: str) -> type[tfds.core.DatasetBuilder]:
    """Returns the builder of one of our datasets."""
    module = importlib.import_module(
      f"tfds_plugins.{name}.{name}_dataset_builder"
    )
    return module.Builder


def register() -> None:
  """Puts our provider before TFDS's own. To be called once."""
  tfds.core.add_dataset_builder_provider(PluginBuilderProvider(), index=0)
