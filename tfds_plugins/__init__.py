"""TFDS builders for web-scale image-text corpora.

Importing this package makes its datasets known to TFDS:

    import tensorflow_datasets as tfds
    import tfds_plugins

    ds = tfds.load("laion400m/images", split="train")

It imports neither TensorFlow nor Apache Beam nor pandas.
"""

from tfds_plugins import registration
from tfds_plugins.errors import ConversionError
from tfds_plugins.errors import ManualDirError
from tfds_plugins.errors import OptionError
from tfds_plugins.errors import SourceError
from tfds_plugins.errors import TfdsPluginsError

__all__ = [
  "ConversionError",
  "ManualDirError",
  "OptionError",
  "SourceError",
  "TfdsPluginsError",
]
__version__ = "0.1.0"

registration.register()
