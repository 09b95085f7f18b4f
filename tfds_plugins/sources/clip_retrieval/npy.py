"""Vectors in `.npy` files, read a few rows at a time and never unpickled.

Format: numpy/numpy, `numpy/lib/_format_impl.py`: a header with the dtype, the
order and the shape of the array, and behind it nothing but the values.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import dataclasses
import tokenize
from typing import Any
from typing import BinaryIO
from typing import cast

from etils import epath
import numpy as np

from tfds_plugins import errors
from tfds_plugins.sources import folders

_MAGIC = b"\x93NUMPY"
_STORED = np.dtype("<f2")
# Versions 2 and 3 differ in the encoding of field names alone, and 3 has no
# reader of its own; an array with fields is refused anyway.
_HEADER_READERS: dict[Any, Any] = {
  (1, 0): np.lib.format.read_array_header_1_0,
  (2, 0): np.lib.format.read_array_header_2_0,
  (3, 0): np.lib.format.read_array_header_2_0,
}
# The header is a Python literal, and literals can be wrong in many ways.
_HEADER_ERRORS = (
  ValueError,
  KeyError,
  IndexError,
  OverflowError,
  TypeError,
  SyntaxError,
  RecursionError,
  MemoryError,
  tokenize.TokenError,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NpyVectors:
  """The vectors of one `.npy` file, as its header describes them.

  Attributes:
    path: the file.
    num_rows: the number of vectors.
    dim: the length of each.
    dtype: of the values, as NumPy spells it, e.g. `<f2`.
    is_fortran: whether values of one column, not of one row, lie together.
    offset: where the values begin, in bytes.
  """

  path: str
  num_rows: int
  dim: int
  dtype: str
  is_fortran: bool
  offset: int

  @property
  def is_float16(self) -> bool:
    """Whether vectors are handed on bit for bit."""
    return np.dtype(self.dtype).newbyteorder("<") == _STORED

  @contextlib.contextmanager
  def open(self) -> Iterator[NpyReader]:
    """Opens the file.

    Raises:
      errors.SourceError: it cannot be opened.
    """
    with contextlib.ExitStack() as stack:
      with _reading(self.path):
        file = stack.enter_context(epath.Path(self.path).open("rb"))
      yield NpyReader(self, cast(BinaryIO, file))


class NpyReader:
  """Reads vectors of an open file."""

  def __init__(self, vectors: NpyVectors, file: BinaryIO):
    self._vectors = vectors
    self._file = file
    self._dtype = np.dtype(vectors.dtype)

  def read(self, start: int, stop: int) -> np.ndarray:
    """Reads the vectors of some rows.

    Args:
      start: the first row.
      stop: the first row that is not read.

    Returns:
      (stop - start, dim) of the file's dtype; may not be writable.

    Raises:
      errors.SourceError: the file ends before its time.
    """
    vectors = self._vectors
    num_rows = stop - start
    if not vectors.is_fortran:
      data = self._read_values(start * vectors.dim, num_rows * vectors.dim)
      return data.reshape(num_rows, vectors.dim)
    columns = np.empty((vectors.dim, num_rows), self._dtype)
    for i in range(vectors.dim):
      columns[i] = self._read_values(i * vectors.num_rows + start, num_rows)
    return columns.T

  def _read_values(self, start: int, count: int) -> np.ndarray:
    size = self._dtype.itemsize
    with _reading(self._vectors.path):
      self._file.seek(self._vectors.offset + start * size)
      data = self._file.read(count * size)
    if len(data) != count * size:
      raise _error(
        "The file of vectors has become shorter.",
        self._vectors.path,
        f"{count * size:,} bytes from {self._vectors.offset + start * size:,} on",
        f"{len(data):,} bytes",
        "Do not change the source while it is converted; build again.",
      )
    return np.frombuffer(data, self._dtype)


def to_float16(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns vectors as they are stored.

  Args:
    vectors: (num_rows, dim) floats of any size and byte order.

  Returns:
    (num_rows, dim) float16, little-endian and contiguous, bit for bit where
    they have been float16; and (num_rows,) bool, which rows had a finite value
    beyond float16's largest, 65504.
  """
  with np.errstate(over="ignore"):
    stored = np.ascontiguousarray(vectors, _STORED)
  if vectors.dtype.itemsize <= _STORED.itemsize:
    return stored, np.zeros(len(vectors), bool)
  is_lost = np.isinf(stored) & np.isfinite(vectors)
  return stored, np.any(is_lost, axis=1, keepdims=True)[:, 0]


def read_header(path: epath.Path) -> NpyVectors:
  """Reads the header of a file of vectors and checks the file's size by it.

  Args:
    path: the `.npy` file.

  Returns:
    What the header says.

  Raises:
    errors.SourceError: it is no `.npy` file, holds pickled objects or something
      else than vectors of floats, or is not as long as it should be.
  """
  where = str(path)
  with _reading(where):
    folders.check_regular(path)
    size_bytes = path.stat().length
    with path.open("rb") as file:
      shape, is_fortran, dtype = _parse_header(cast(BinaryIO, file), where)
      offset = file.tell()
  if (
    dtype.kind != "f"
    or dtype.itemsize > 8
    or len(shape) != 2
    or shape[0] < 0
    or shape[1] < 1
  ):
    raise _error(
      "The file does not hold vectors of floats.",
      where,
      "an array of shape (rows, length of a vector), float16 or float32",
      f"shape {shape}, dtype {dtype}",
      "Write it with clip-retrieval (`clip inference`), or as it does.",
    )
  num_rows, dim = shape
  expected = offset + num_rows * dim * dtype.itemsize
  if size_bytes != expected:
    what = "is cut off" if size_bytes < expected else "has bytes too many"
    raise _error(
      f"The file of vectors {what}.",
      where,
      f"{expected:,} bytes, for by its header it has {num_rows:,} rows of {dim}"
      f" {dtype}",
      f"{size_bytes:,} bytes",
      "Download it again.",
    )
  return NpyVectors(
    path=where,
    num_rows=num_rows,
    dim=dim,
    dtype=dtype.str,
    is_fortran=is_fortran,
    offset=offset,
  )


def _parse_header(
  file: BinaryIO, where: str
) -> tuple[tuple[int, ...], bool, np.dtype]:
  """Returns shape, order and dtype; the file is at the first value then."""
  start = file.read(len(_MAGIC))
  file.seek(0)
  if start != _MAGIC:
    raise _error(
      "This is not an .npy file.",
      where,
      f"a file that starts with {_MAGIC!r}",
      f"{start!r}" if start else "an empty file (0 bytes)",
      "Download it again. (Pickles and .npz archives are never opened.)",
    )
  try:
    version = np.lib.format.read_magic(file)
    shape, is_fortran, dtype = _HEADER_READERS[version](file)
    # Integers of thousands of digits cannot even be printed.
    shape = tuple(np.array(shape, np.int64).tolist())
  except _HEADER_ERRORS as e:
    raise _error(
      "The header of the .npy file cannot be read.",
      where,
      "a dictionary with shape, order and dtype",
      f"{type(e).__name__}: {e}",
      "Download it again.",
    ) from e
  if dtype.hasobject:
    raise _error(
      "The .npy file holds pickled objects, which are never loaded.",
      where,
      "an array of float16 or float32",
      f"shape {shape}, dtype {dtype}",
      "Whoever can vouch for the file can load it (allow_pickle=True), and save"
      " it with numpy.save as an array of float16.",
    )
  return shape, is_fortran, dtype


@contextlib.contextmanager
def _reading(where: str) -> Iterator[None]:
  """Turns the system's errors into ours."""
  try:
    yield
  except OSError as e:
    raise _error(
      "The file of vectors cannot be read.",
      where,
      "a complete .npy file",
      f"{type(e).__name__}: {e}",
      "See to the disk, or download the file again.",
    ) from e


def _error(
  what: str, where: str, expected: str, found: str, to_do: str
) -> errors.SourceError:
  problem = errors.Problem(
    what=what, where=where, expected=expected, found=found, to_do=to_do
  )
  return errors.SourceError(str(problem))
