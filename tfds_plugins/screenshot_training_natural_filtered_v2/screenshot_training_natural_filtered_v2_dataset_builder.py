"""The screenshot retrieval set: questions, tiles that answer them, negatives."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any
from typing import cast

from etils import epath
import numpy as np
import pyarrow as pa
import tensorflow_datasets as tfds

from tfds_plugins import errors
from tfds_plugins import features as features_lib
from tfds_plugins.conversion import manual_dir as manual_dir_lib
from tfds_plugins.conversion import work_dir
from tfds_plugins.conversion.builder import ConversionBuilder
from tfds_plugins.conversion.recipe import Recipe
from tfds_plugins.encoding import tf_example
from tfds_plugins.sources.rows import Source
from tfds_plugins.sources.rows import SourceShard
from tfds_plugins.sources.screenshots import layout as layout_lib
from tfds_plugins.sources.screenshots import question_plan
from tfds_plugins.sources.screenshots import question_source
from tfds_plugins.sources.screenshots import tile_index
from tfds_plugins.sources.screenshots import tile_scan
from tfds_plugins.sources.screenshots import tile_source

_SPLITS = ("train", "eval", "test")
_LITE_QUERY_FILE = "lite-query-v2-full-filtered-hn-with-answer.jsonl"
_NEGATIVE_COLUMNS = {
  "neg_chunk_paths": pa.list_(pa.string()),
}
_ANSWER_COLUMNS = {**_NEGATIVE_COLUMNS, "answer": pa.string()}
_LITE_QUERY_COLUMNS = {
  **_ANSWER_COLUMNS,
  "source_positive_rank": pa.int64(),
  "source_positive_score": pa.float64(),
}


@dataclasses.dataclass(eq=False, kw_only=True)
class ScreenshotConfig(tfds.core.BuilderConfig):
  """A config.

  Attributes:
    files: names of the JSON Lines files of a split, `{split}` standing for it,
      which have the same rows; the first that there is is read. No names: the
      config is made of the tiles alone.
    columns: the columns beside query and path, and their types.
  """

  files: Sequence[str] = ()
  columns: Mapping[str, pa.DataType] = dataclasses.field(default_factory=dict)


class Builder(ConversionBuilder):
  """Builder of screenshot-training-natural-filtered-v2."""

  VERSION = tfds.core.Version("1.0.0")
  RELEASE_NOTES = {"1.0.0": "Initial release."}
  BUILDER_CONFIGS = [
    ScreenshotConfig(
      name="hard_negatives",
      description="Questions, the tiles that answer them, and hard negatives.",
      files=("{split}_hn.jsonl", "{split}.jsonl"),
      columns=_NEGATIVE_COLUMNS,
    ),
    ScreenshotConfig(
      name="hard_negatives_with_answer",
      description="The same, with answers.",
      files=("{split}_hn_with_answer.jsonl",),
      columns=_ANSWER_COLUMNS,
    ),
    ScreenshotConfig(
      name="pairs",
      description="Questions and the tiles that answer them.",
      files=("{split}.jsonl", "{split}_hn.jsonl"),
    ),
    ScreenshotConfig(
      name="lite_query",
      description="Questions in fewer words, with answers and hard negatives.",
      files=(_LITE_QUERY_FILE,),
      columns=_LITE_QUERY_COLUMNS,
    ),
    ScreenshotConfig(
      name="tiles",
      description="Every tile once, to be embedded as a corpus.",
    ),
  ]
  DEFAULT_BUILDER_CONFIG_NAME = "hard_negatives"
  MANUAL_DOWNLOAD_INSTRUCTIONS = """\
1. pip install huggingface_hub
   hf download Chrisyichuan/screenshot-training-natural-filtered-v2 \\
       --repo-type dataset --local-dir \\
       MANUAL_DIR/screenshot_training_natural_filtered_v2
   (93.5 GB. Leave image_shards/*.tar as they are: nothing is extracted. A part of
   them does, and so does an extracted folder images.)
2. Name MANUAL_DIR: `tfds build screenshot_training_natural_filtered_v2
   --imports=tfds_plugins --manual_dir=MANUAL_DIR`, or in Python
   tfds.download.DownloadConfig(manual_dir=MANUAL_DIR).

MANUAL_DIR may also be the dataset's folder itself. Of the .jsonl files, those of
the config have to be there: {train,eval,test}_hn.jsonl (or {train,eval,test}.jsonl)
for hard_negatives, *_hn_with_answer.jsonl for hard_negatives_with_answer,
{train,eval,test}.jsonl for pairs, lite-query-v2-full-filtered-hn-with-answer.jsonl
for lite_query, none for tiles.
"""

  def __init__(self, *, refuse_missing_tiles: bool = False, **kwargs: Any):
    """Initializes a builder.

    Args:
      refuse_missing_tiles: whether to refuse a copy in which tiles are missing
        that rows name. Otherwise such rows are skipped, and such negatives left
        out.
      **kwargs: as for `ConversionBuilder`.

    Raises:
      errors.OptionError: an option makes no sense.
    """
    if not isinstance(refuse_missing_tiles, bool):
      raise errors.OptionError(
        "refuse_missing_tiles must be True or False, not"
        f" {refuse_missing_tiles!r}."
      )
    self._refuse_missing_tiles = refuse_missing_tiles
    super().__init__(**kwargs)
    if refuse_missing_tiles and self._is_tiles:
      raise errors.OptionError(
        "refuse_missing_tiles: config 'tiles' is made of the tiles that there"
        " are; no row names others."
      )

  def __getstate__(self) -> dict[str, Any]:
    state = super().__getstate__()
    state["_original_state"]["refuse_missing_tiles"] = (
      self._refuse_missing_tiles
    )
    return state

  @property
  def _config(self) -> ScreenshotConfig:
    return cast(ScreenshotConfig, self.builder_config)

  @property
  def _is_tiles(self) -> bool:
    return not self._config.files

  def _info(self) -> tfds.core.DatasetInfo:
    features: dict[str, Any] = {
      "chunk_path": tfds.features.Text(doc="path of the tile"),
      "image": tfds.features.Image(
        doc="the tile" if self._is_tiles else "the tile that answers the query"
      ),
    }
    if not self._is_tiles:
      features["query"] = tfds.features.Text(doc="question about the page")
    columns = self._config.columns
    if "neg_chunk_paths" in columns:
      features["neg_chunk_paths"] = tfds.features.Sequence(
        tfds.features.Text(), doc="paths of the hard negatives"
      )
      features["neg_images"] = features_lib.Images(
        doc="the hard negatives, one for each path"
      )
    if "answer" in columns:
      features["answer"] = tfds.features.Text(
        doc="answer to the query. Missing values default to ''"
      )
    if "source_positive_rank" in columns:
      features["source_positive_rank"] = tfds.features.Scalar(
        np.int64,
        doc="rank of the tile in the source's retrieval. Missing values default"
        " to -1",
      )
      features["source_positive_score"] = tfds.features.Scalar(
        np.float32,
        doc="score of the tile in the source's retrieval. Missing values default"
        " to NaN",
      )
    return self.dataset_info_from_configs(
      features=tfds.features.FeaturesDict(features),
      supervised_keys=None if self._is_tiles else ("query", "image"),
      homepage="https://huggingface.co/datasets/Chrisyichuan/"
      "screenshot-training-natural-filtered-v2",
    )

  @property
  def _can_add(self) -> bool:
    """Any row may name any tile, and a tile of a later tar takes the place of one."""
    return False

  def _list_shards(
    self, manual_dir: epath.Path
  ) -> Mapping[str, Sequence[SourceShard]]:
    layout = self._find_layout(manual_dir)
    if self._is_tiles:
      return {"train": tile_source.list_source(layout).shards}
    sources = question_plan.list_sources(
      self._pick_files(layout), dataset_dir=layout.dataset_dir
    )
    return {split: source.shards for split, source in sources.items()}

  def _find_layout(self, manual_dir: epath.Path) -> layout_lib.Layout:
    return layout_lib.find_layout(
      manual_dir,
      dataset=self.name,
      instructions=self.MANUAL_DOWNLOAD_INSTRUCTIONS,
    )

  def _pick_files(self, layout: layout_lib.Layout) -> dict[str, epath.Path]:
    """Returns the JSON Lines file of each split."""
    return {
      split: layout_lib.pick_file(
        layout,
        [name.format(split=split) for name in self._config.files],
        self.MANUAL_DOWNLOAD_INSTRUCTIONS,
      )
      for split in _SPLITS
    }

  def _find_sources(
    self,
    dl_manager: tfds.download.DownloadManager,
    download_config: tfds.download.DownloadConfig,
  ) -> Mapping[str, Source]:
    layout = self._find_layout(manual_dir_lib.get_manual_dir(dl_manager))
    work_path = self._work.path
    index_path = work_path / tile_index.INDEX_FILENAME
    if self._is_tiles:
      listed = tile_source.list_source(layout)
      index = self._make_index(layout, index_path)
      source = tile_source.check_source(
        listed,
        index=index,
        index_path=index_path,
        instructions=self.MANUAL_DOWNLOAD_INSTRUCTIONS,
      )
      return {"train": source}
    listed = question_plan.list_sources(
      self._pick_files(layout), dataset_dir=layout.dataset_dir
    )
    return question_plan.check_source(
      listed,
      index=self._make_index(layout, index_path),
      work_dir=work_path,
      wanted=list(self._config.columns),
      refuse_missing_tiles=self._refuse_missing_tiles,
    )

  def _make_index(
    self, layout: layout_lib.Layout, path: epath.Path
  ) -> tile_index.TileIndex:
    """Makes the index of the tars, and writes it where workers look for it."""
    index = tile_scan.make_index(layout.tars, self._read_indexes())
    tile_index.write_index(index, path)
    return index

  def _read_indexes(self) -> list[tile_index.TileIndex]:
    """Returns the indexes that other configs of this dataset have been built by."""
    root = epath.Path(self._data_dir_root) / self.name
    if not root.is_dir():
      return []
    paths = root.glob(f"*/*/{tile_index.INDEX_FILENAME}")
    found = map(tile_index.read_index, sorted(paths))
    return [index for index in found if index is not None]

  def _make_recipe(self, specs: Sequence[tf_example.FeatureSpec]) -> Recipe:
    columns = {"chunk_path": pa.string()}
    if not self._is_tiles:
      columns = {"query": pa.string(), **columns, **self._config.columns}
    has_negatives = "neg_chunk_paths" in columns
    return Recipe(
      columns=pa.schema(list(columns.items())),
      read=(
        tile_source.iter_batches
        if self._is_tiles
        else question_source.iter_batches
      ),
      map_batch=_keep,
      has_images=True,
      image_lists={"neg_images": ["neg_chunk_paths"]} if has_negatives else {},
      # All of them by one renderer, and written by one library.
      trusts_png_checksums=True,
      specs=specs,
    )

  def _download_and_prepare(self, *args: Any, **kwargs: Any) -> None:
    super()._download_and_prepare(*args, **kwargs)
    # It serves the next configs, and the next builds of this one.
    work_dir.give(
      self._work.path / tile_index.INDEX_FILENAME,
      self.data_path / tile_index.INDEX_FILENAME,
    )


def _keep(batch: pa.RecordBatch) -> pa.RecordBatch:
  """Every column has its feature's name; the encoder takes those that it needs."""
  return batch
