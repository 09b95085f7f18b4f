"""What a builder config declares about its conversion."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses

import pyarrow as pa

from tfds_plugins.encoding import tf_example
from tfds_plugins.sources.rows import SourceBatch
from tfds_plugins.sources.rows import SourceSlice


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
  """How the rows of a source become examples. Picklable: workers receive it.

  Attributes:
    columns: the metadata columns to read, with the types to read them as.
    read: yields the batches of a slice, e.g. `webdataset.iter_batches`.
    map_batch: turns a batch's columns (`columns`, `key` and, where there are
      images, `image`, `image_height`, `image_width`) into a batch that has a
      column without nulls for every feature. A function of a module.
    has_images: whether batches have images to be made uniform.
    image_lists: columns of lists of images to be made uniform, and the columns
      whose lists lose a value where one of these loses an image.
    trusts_png_checksums: see `images.ImageNormalizer`.
    specs: how the features are stored.
    find_bad_rows: returns the rows of a batch, before it is mapped, that cannot
      be examples: by row number the reason for skipping it, and a detail. A
      function of a module, or None.
    stand_ins: columns of which it is enough that a source has one.
  """

  columns: pa.Schema
  read: Callable[[SourceSlice, pa.Schema], Iterator[SourceBatch]]
  map_batch: Callable[[pa.RecordBatch], pa.RecordBatch]
  has_images: bool
  specs: Sequence[tf_example.FeatureSpec]
  find_bad_rows: (
    Callable[[pa.RecordBatch], Mapping[int, tuple[str, str]]] | None
  ) = None
  image_lists: Mapping[str, Sequence[str]] = dataclasses.field(
    default_factory=dict
  )
  trusts_png_checksums: bool = False
  stand_ins: Mapping[str, str] = dataclasses.field(default_factory=dict)
