"""Published metadata as the source of a conversion: a folder of parquets.

A row has everything that its example needs. Kakao Brain's metadata is
published like this (huggingface.co/datasets/kakaobrain/coyo-700m and
coyo-labeled-300m): files `data/part-00000-*.snappy.parquet`.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses

from etils import epath
import numpy as np
import pyarrow as pa

from tfds_plugins import errors
from tfds_plugins.sources import arrays
from tfds_plugins.sources import bad_rows
from tfds_plugins.sources import checking
from tfds_plugins.sources import columns as columns_lib
from tfds_plugins.sources import folders
from tfds_plugins.sources import parquet_files
from tfds_plugins.sources import states
from tfds_plugins.sources.rows import BAD_METADATA
from tfds_plugins.sources.rows import KEY_COLUMN
from tfds_plugins.sources.rows import Source
from tfds_plugins.sources.rows import SourceBatch
from tfds_plugins.sources.rows import SourceShard
from tfds_plugins.sources.rows import SourceSlice

_SUFFIX = ".parquet"
# Where Hugging Face's repositories have their files.
_DATA_DIR = "data"
_EXPECTED = "the published parquets, part-00000-*.snappy.parquet, ..."
_TO_DO = "Download the file again, or remove it."
# img2dataset's output, which has been made of these files, has this column.
_DOWNLOAD_COLUMN = "status"
_BATCH_ROWS = 2048
# What a value takes in a record beside its bytes and its name.
_VALUE_BYTES = 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableShard(SourceShard):
  """One parquet of metadata; positions are rows.

  Attributes:
    path: the file.
  """

  path: str

  def list_paths(self) -> Sequence[str]:
    """Returns the file."""
    return [self.path]


def list_tables(
  manual_dir: epath.Path, *, dataset: str, config: str, instructions: str
) -> Source:
  """Lists the parquets in the first candidate folder that has any.

  Args:
    manual_dir: the folder that the user named.
    dataset: name of the dataset, a possible sub-folder.
    config: name of the builder config, a possible sub-folder.
    instructions: how to get the data, for the error.

  Returns:
    The files in the order of their numbers and the state that they are in, of
    unknown length and size.

  Raises:
    errors.ManualDirError: there is no folder, or none with a parquet.
  """
  candidates = folders.list_candidate_dirs(
    manual_dir, dataset, [config], expected=_EXPECTED, instructions=instructions
  )
  for folder in candidates:
    for place in (folder, folder / _DATA_DIR):
      paths = _list_parquets(place)
      # img2dataset may have been told to write beside the list.
      paths = [path for path in paths if not _is_download(path)]
      if paths:
        shards = [
          TableShard(
            name=path.name.removesuffix(_SUFFIX),
            length=0,
            size_bytes=0,
            state=states.describe([str(path)]),
            path=str(path),
          )
          for path in paths
        ]
        return Source(source_dir=str(place), shards=shards, notes=[])
  found = "; ".join(
    f"in {path}: {folders.shorten(names) if names else 'nothing'}"
    for path in candidates
    for names in [sorted(child.name for child in folders.list_children(path))]
  )
  problem = errors.Problem(
    what="No parquet of metadata was found.",
    where=", ".join(map(str, candidates)),
    expected=f"{_EXPECTED}, there or in a folder {_DATA_DIR} below",
    found=found,
    to_do=f"Fetch the data like this:\n{instructions}",
  )
  raise errors.ManualDirError(str(problem))


def check_source(
  source: Source[TableShard], wanted: pa.Schema, required: Collection[str]
) -> Source[TableShard]:
  """Looks at the footers and a few rows of all files.

  Args:
    source: from `list_tables`.
    wanted: names and types of the columns that the dataset has.
    required: names of columns without which a file is another one.

  Returns:
    The source, with the lengths and sizes of its files.

  Raises:
    errors.SourceError: files are damaged, or hold something else; all of them
      are named.
  """
  shards = checking.check_all(
    lambda shard: _check_file(shard, wanted, required),
    source.shards,
    num_threads=parquet_files.NUM_SAMPLING_THREADS,
  )
  return dataclasses.replace(source, shards=shards)


def iter_batches(
  source_slice: SourceSlice[TableShard], wanted: pa.Schema
) -> Iterator[SourceBatch]:
  """Yields the rows of a slice in their order.

  Args:
    source_slice: some rows of a file.
    wanted: names and types of the columns.

  Yields:
    Batches with the columns `key` (string, the number of the row in its file)
    and the wanted ones.

  Raises:
    errors.SourceError: the file is damaged behind its footer.
  """
  shard = source_slice.shard
  start = source_slice.start
  for found in parquet_files.iter_rows(
    epath.Path(shard.path),
    start,
    source_slice.stop,
    wanted.names,
    batch_rows=_BATCH_ROWS,
    to_do=_TO_DO,
  ):
    num_rows = found.num_rows
    columns, bad = columns_lib.cast_batch(found, wanted)
    keys = arrays.from_numpy(np.arange(start, start + num_rows))
    rows, skipped = bad_rows.leave_out(
      pa.RecordBatch.from_arrays(
        [keys.cast(pa.string()), *columns], names=[KEY_COLUMN, *wanted.names]
      ),
      {i: (BAD_METADATA, detail) for i, detail in bad.items()},
      shard.name,
    )
    yield SourceBatch(
      rows=rows,
      skipped=skipped,
      num_rows=num_rows,
      missing_columns=[n for n in wanted.names if n not in found.schema.names],
    )
    start += num_rows


def _list_parquets(folder: epath.Path) -> list[epath.Path]:
  if not folder.is_dir():
    return []
  paths = [
    path
    for path in folders.list_children(folder)
    if path.name.endswith(_SUFFIX) and not path.name.startswith((".", "_"))
  ]
  return sorted(paths, key=lambda path: folders.natural_key(path.name))


def _is_download(path: epath.Path) -> bool:
  """Whether a parquet is img2dataset's output."""
  try:
    schema = parquet_files.look_at(path, _TO_DO).schema
  except errors.SourceError:
    return False  # Its damage is told when all files are checked.
  return _DOWNLOAD_COLUMN in schema.names


def _check_file(
  shard: TableShard, wanted: pa.Schema, required: Collection[str]
) -> TableShard:
  info = parquet_files.look_at(epath.Path(shard.path), _TO_DO, wanted.names)
  schema = info.schema
  missing = sorted(set(required) - set(schema.names))
  if missing:
    problem = errors.Problem(
      what=f"The parquet has no column {', '.join(missing)}.",
      where=shard.path,
      expected=f"published metadata, with {', '.join(wanted.names)}",
      found=f"columns {', '.join(schema.names) or '(none)'}",
      to_do="Keep the files of other datasets in other folders.",
    )
    raise errors.SourceError(str(problem))
  record_bytes = sum(len(name) + _VALUE_BYTES for name in wanted.names)
  return dataclasses.replace(
    shard,
    length=info.num_rows,
    size_bytes=info.num_rows * record_bytes + info.value_bytes,
  )
