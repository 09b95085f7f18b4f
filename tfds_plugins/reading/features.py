"""Decoding a batch of serialized examples with one operation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import example_parser
from tensorflow_datasets.core import utils
from tensorflow_datasets.core.features import feature as feature_lib
from tensorflow_datasets.core.features import top_level_feature
from tensorflow_datasets.core.utils.lazy_imports_utils import tensorflow as tf

# Classes are matched exactly: what a subclass decodes is not known here.
_DICTS = (tfds.features.FeaturesDict, tfds.features.Translation)
_SEQUENCES = (tfds.features.Sequence, tfds.features.Video)
_TENSORS = (
  tfds.features.BBoxFeature,
  tfds.features.ClassLabel,
  tfds.features.Scalar,
  tfds.features.Tensor,
  tfds.features.Text,
)
# What `tf.io.decode_raw` takes. TFDS decodes uint64 as int64.
_RAW_DTYPES = frozenset(
  np.dtype(name)
  for name in (
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint64", "bool"),
    *("float16", "float32", "float64", "complex64", "complex128"),
  )
)

# From the parsed batch of one feature, maybe a dictionary, to the decoded one.
_Decode = Callable[[Any], Any]
_Shape = tuple[int | None, ...]


def make_batch_decoder(
  features: Any, decoders: Any
) -> Callable[[Any], dict[str, Any]] | None:
  """Returns a function that parses and decodes a batch.

  Args:
    features: the `tfds.features.FeatureConnector` of the dataset.
    decoders: what the user gave to `as_dataset`.

  Returns:
    A function from (batch,) strings, serialized examples, to what TFDS makes
    of each of them by `features.decode_example`, batched by `padded_batch`.
    None if that is not known for a feature or decoder.

  Raises:
    ValueError: a `tfds.decode.PartialDecoding` does not fit the features.
    TypeError: likewise.
  """
  if isinstance(decoders, tfds.decode.PartialDecoding):
    features = decoders.extract_features(features)
    decoders = decoders.decoders
  if type(features) not in _DICTS:
    return None
  decode = _plan(features, decoders, outer=())
  if decode is None:
    return None
  specs = features.get_serialized_info()
  flat_specs: Any = utils.flatten_nest_dict(specs)
  tf_specs: Any = example_parser.ExampleParser(specs).flat_feature_specs

  def parse_and_decode(serialized: Any) -> dict[str, Any]:
    batch: Any = tf.io.parse_example(serialized, tf_specs)
    batch = {
      name: tf.cast(tensor, flat_specs[name].tf_dtype)
      for name, tensor in batch.items()
    }
    return decode(utils.pack_as_nest_dict(batch, specs))

  return parse_and_decode


def _plan(feature: Any, decoder: Any, *, outer: _Shape) -> _Decode | None:
  """Returns how a batch of a feature is decoded, None if that is unknown.

  Args:
    feature: a feature of any depth.
    decoder: the decoders of the feature, None for the feature's own.
    outer: the length of the `Sequence` that the feature lies in, if any.
  """
  if type(feature) in _DICTS:
    return _plan_dict(feature, decoder, outer=outer)
  if type(feature) in _SEQUENCES:
    if outer:
      return None  # A ragged tensor, which TFDS cannot batch.
    length = feature._length  # pylint: disable=protected-access
    return _plan(feature.feature, decoder, outer=(length,))
  if isinstance(feature, top_level_feature.TopLevelFeature):
    return None
  infos = utils.flatten_nest_dict({"": feature.get_serialized_info()})
  if not all(_can_parse(info, outer) for info in infos.values()):
    return None
  if type(decoder) is tfds.decode.SkipDecoding:
    # In a sequence, TFDS maps over its elements, which dictionaries have not.
    return _keep if not outer or "" in infos else None
  if decoder is not None or type(feature) not in _TENSORS:
    return None
  return _plan_tensor(feature, outer=outer)


def _plan_dict(
  features: Any, decoders: Any, *, outer: _Shape
) -> _Decode | None:
  decoders = {} if decoders is None else decoders
  if type(decoders) is not dict or not decoders.keys() <= features.keys():
    return None  # TFDS's error.
  plans: dict[str, _Decode] = {}
  for name, feature in sorted(features.items()):
    plan = _plan(feature, decoders.get(name), outer=outer)
    if plan is None:
      return None
    plans[name] = plan
  if not plans:
    return None
  return lambda batch: {
    name: decode(batch[name]) for name, decode in plans.items()
  }


def _plan_tensor(feature: Any, *, outer: _Shape) -> _Decode | None:
  # pylint: disable=protected-access
  if feature._dynamic_shape:
    return None
  if feature._encoding is tfds.features.Encoding.NONE:
    return _keep
  is_zlib = feature._encoding is tfds.features.Encoding.ZLIB
  # pylint: enable=protected-access
  shape = (*outer, *feature.shape)
  if (
    # `tf.io.decode_raw` takes strings of one length.
    None in shape
    or 0 in shape
    or np.dtype(feature.np_dtype) not in _RAW_DTYPES
    or feature.get_serialized_info().default_value is not None
  ):
    return None
  dtype = feature.tf_dtype

  def decode(batch: Any) -> Any:
    # Not -1, which would take wrong sizes that happen to fit.
    batch_size = tf.shape(batch)[0]
    if is_zlib:
      batch = tf.io.decode_compressed(batch, compression_type="ZLIB")
    if dtype == tf.uint64:
      batch = tf.bitcast(tf.io.decode_raw(batch, tf.int64), tf.uint64)
    else:
      batch = tf.io.decode_raw(batch, dtype)
    return tf.reshape(batch, [batch_size, *shape])

  return decode


def _keep(batch: Any) -> Any:
  return batch


def _can_parse(info: feature_lib.TensorInfo, outer: _Shape) -> bool:
  """Returns whether a batch of a serialized feature is parsed at once.

  Args:
    info: the serialized feature, outside of any sequence.
    outer: the length of the sequence that it lies in, if any.
  """
  shape: tuple[Any, ...] = (*outer, *info.shape)
  if info.sequence_rank or info.dataset_lvl or 0 in shape:
    return False
  if info.default_value is not None:
    # In a sequence, the batch would be padded with the default.
    return not outer and None not in shape
  # `tf.io.parse_example` pads as `padded_batch` does, along the first axis.
  return None not in shape[1:]
