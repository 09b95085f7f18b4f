"""Translates TFDS's features into what the encoder needs to know of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from tensorflow_datasets.core import utils
from tensorflow_datasets.core.utils import dtype_utils

from tfds_plugins import errors
from tfds_plugins.encoding import tf_example


def make_feature_specs(
  features: Any,
) -> list[tf_example.FeatureSpec]:
  """Returns how TFDS stores features in a `tf.train.Example`.

  Args:
    features: the dataset's `tfds.features.FeaturesDict`; each feature stored
      as a single value, or as a list.

  Returns:
    The specification for each flattened name.
  """
  specs = []
  flat = utils.flatten_nest_dict(features.get_serialized_info())
  for name, tensor_info in flat.items():
    dtype = tensor_info.np_dtype
    if dtype_utils.is_string(dtype):
      kind = tf_example.Kind.BYTES
    elif np.issubdtype(dtype, np.floating):
      kind = tf_example.Kind.FLOAT
    else:
      kind = tf_example.Kind.INT64
    is_list = tensor_info.shape == (None,)
    if tensor_info.shape != () and not is_list:
      raise errors.ConversionError(
        f"Feature '{name}' is stored with shape {tensor_info.shape}; only"
        " single values and lists of them can be encoded."
      )
    specs.append(tf_example.FeatureSpec(name=name, kind=kind, is_list=is_list))
  return specs
