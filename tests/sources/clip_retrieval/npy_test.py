"""Tests of files of vectors, against NumPy's own reader."""

import io
import os
import pickle

from etils import epath
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest

from tfds_plugins import errors
from tfds_plugins.sources.clip_retrieval import npy


def save(path, array, **kwargs):
  with path.open("wb") as file:
    np.lib.format.write_array(file, array, **kwargs)
  return epath.Path(path)


def read(path, start, stop):
  vectors = npy.read_header(path)
  with vectors.open() as reader:
    return npy.to_float16(reader.read(start, stop))[0]


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f2", ">f2", "<f4", ">f4", "<f8"])
def test_any_rows_are_those_that_numpy_reads(tmp_path, version, order, dtype):
  rng = np.random.default_rng(0)
  array = rng.standard_normal((37, 8)).astype(dtype, order=order)
  path = save(tmp_path / "x.npy", array, version=version)
  loaded = np.load(tmp_path / "x.npy").astype("<f2")

  for start, stop in ((0, 37), (0, 1), (5, 21), (36, 37), (9, 9)):
    assert read(path, start, stop).tobytes() == loaded[start:stop].tobytes()


@given(bits=st.lists(st.integers(0, 0xFFFF), min_size=4, max_size=4))
def test_float16_bits_stay_as_they_are(tmp_path_factory, bits):
  """NaNs with a payload, signed zeros, denormals."""
  array = np.array([bits], np.uint16).view(np.float16)
  path = save(tmp_path_factory.mktemp("npy") / "x.npy", array)

  assert read(path, 0, 1).tobytes() == array.tobytes()


def test_values_beyond_float16_are_told_from_infinite_ones():
  rows = np.array([[1, 2], [np.inf, 1], [7e4, 1], [-7e4, np.nan]], np.float32)

  stored, is_lost = npy.to_float16(rows)

  assert is_lost.tolist() == [False, False, True, True]
  assert stored[:2].tolist() == [[1, 2], [np.inf, 1]]


def refused(path):
  with pytest.raises(errors.SourceError) as e:
    npy.read_header(epath.Path(path))
  assert str(path) in str(e.value)
  return str(e.value)


class Bomb:
  """Says whether it has been unpickled."""

  exploded = False

  def __reduce__(self):
    return (setattr, (Bomb, "exploded", True))


def test_pickles_are_never_loaded(tmp_path):
  np.save(tmp_path / "a.npy", np.array([[Bomb()]], object))
  (tmp_path / "b.npy").write_bytes(pickle.dumps(Bomb()))
  np.savez(tmp_path / "c.npz", x=np.zeros(3))

  first = refused(tmp_path / "a.npy")
  second = refused(tmp_path / "b.npy")
  third = refused(tmp_path / "c.npz")

  assert "holds pickled objects, which are never loaded" in first
  assert "This is not an .npy file" in second
  assert "This is not an .npy file" in third
  assert not Bomb.exploded


def test_a_cut_file_is_refused_with_both_sizes(tmp_path):
  path = save(tmp_path / "x.npy", np.zeros((10, 512), np.float16))
  whole = path.read_bytes()

  path.write_bytes(whole[:-100])
  cut = refused(path)
  path.write_bytes(whole + b"\0")
  longer = refused(path)

  assert "The file of vectors is cut off" in cut
  assert "10,368 bytes, for by its header it has 10 rows of 512 float16" in cut
  assert "found:    10,268 bytes" in cut
  assert "has bytes too many" in longer


@pytest.mark.parametrize(
  ("array", "found"),
  [
    (np.zeros((3, 4), np.int8), "shape (3, 4), dtype int8"),
    (np.zeros(3, np.float16), "shape (3,), dtype float16"),
    (np.zeros((2, 3, 4), np.float16), "shape (2, 3, 4)"),
    (np.zeros((3, 0), np.float16), "shape (3, 0)"),
    (np.zeros((3, 4), [("a", "<f2")]), "dtype [('a', '<f2')]"),
  ],
)
def test_other_arrays_are_refused(tmp_path, array, found):
  np.save(tmp_path / "x.npy", array)

  message = refused(tmp_path / "x.npy")

  assert "does not hold vectors of floats" in message
  assert found in message


def with_header(header, num_bytes=48):
  """Returns a file with this text for a header."""
  text = f"{header:117}\n".encode("latin-1")
  size = len(text).to_bytes(2, "little")
  return b"\x93NUMPY\1\0" + size + text + bytes(num_bytes)


@pytest.mark.parametrize(
  ("descr", "shape", "message"),
  [
    ("('<f2',)", "(6, 4)", "cannot be read"),
    ("()", "(6, 4)", "cannot be read"),
    ("[('a',)]", "(6, 4)", "cannot be read"),
    ("{}", "(6, 4)", "does not hold vectors"),
    ("('<f2', -1)", "(6, 4)", "cannot be read"),
    ("'V99999999999999999999'", "(6, 4)", "cannot be read"),
    ("'<f2'", "(-6, -4)", "does not hold vectors"),
    ("'<f2'", "(6, -4)", "does not hold vectors"),
    ("'<f2'", "(6, 4.0)", "cannot be read"),
    ("'<f2'", "(0x" + "f" * 15 + ", 4)", "is cut off"),
    ("'<f2'", "(0x" + "f" * 4000 + ", 4)", "cannot be read"),
  ],
)
def test_crafted_headers_are_refused(tmp_path, descr, shape, message):
  path = tmp_path / "x.npy"
  path.write_bytes(
    with_header(
      f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}"
    )
  )

  assert message in refused(path)


def test_a_crafted_header_that_says_the_truth_is_read(tmp_path):
  path = epath.Path(tmp_path / "x.npy")
  path.write_bytes(
    with_header("{'descr': '<f2', 'fortran_order': False, 'shape': (6, 4)}")
  )

  assert (read(path, 0, 6) == np.zeros((6, 4))).all()


def test_what_is_no_file_is_refused(tmp_path):
  (tmp_path / "empty.npy").write_bytes(b"")
  (tmp_path / "folder.npy").mkdir()
  os.mkfifo(tmp_path / "pipe.npy")  # To open it would be to wait for ever.

  assert "an empty file (0 bytes)" in refused(tmp_path / "empty.npy")
  assert "cannot be read" in refused(tmp_path / "folder.npy")
  assert "cannot be read" in refused(tmp_path / "missing.npy")
  assert "pipe, socket or device, not a file" in refused(tmp_path / "pipe.npy")


def make_file():
  file = io.BytesIO()
  np.save(file, np.arange(12, dtype=np.float16).reshape(3, 4))
  return file.getvalue()


@settings(max_examples=300)
@given(
  place=st.integers(0, 127),
  byte=st.integers(0, 255) | st.sampled_from(list(b"0123456789()[]{}'\",: ")),
)
def test_a_changed_byte_is_an_error_of_ours_or_does_no_harm(
  tmp_path_factory, place, byte
):
  data = bytearray(make_file())
  data[place] = byte
  path = epath.Path(tmp_path_factory.mktemp("npy") / "x.npy")
  path.write_bytes(bytes(data))

  try:
    vectors = npy.read_header(path)
  except errors.SourceError:
    return
  with vectors.open() as reader:
    found = reader.read(0, vectors.num_rows)
  assert found.shape == (vectors.num_rows, vectors.dim)
  assert found.tobytes() == np.load(io.BytesIO(bytes(data))).tobytes()


def test_a_file_that_becomes_shorter_is_an_error(tmp_path):
  path = save(tmp_path / "x.npy", np.zeros((10, 4), np.float16))
  vectors = npy.read_header(path)
  path.write_bytes(path.read_bytes()[:-8])

  with (
    vectors.open() as reader,
    pytest.raises(errors.SourceError, match="has become shorter"),
  ):
    reader.read(5, 10)
