"""Tests of finding rows by key."""

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pyarrow as pa
import pytest

from tfds_plugins import errors
from tfds_plugins.sources.img2dataset.keys import KeyIndex

text = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


@given(
  keys=st.lists(text.filter(bool), unique=True, max_size=30),
  others=st.lists(text, max_size=5),
)
def test_finds_what_a_dictionary_finds(keys, others):
  wanted = keys[::-1] + others

  found = KeyIndex(pa.array(keys, pa.string()), where="test").find(
    [key.encode() for key in wanted]
  )

  assert found.dtype == np.int64
  assert found.tolist() == [keys.index(k) if k in keys else -1 for k in wanted]


@given(keys=st.lists(st.integers(0, 10**12), unique=True, max_size=30))
def test_finds_integers_however_padded(keys):
  index = KeyIndex(pa.array(keys, pa.int64()), where="test")

  found = index.find([b"%015d" % k for k in keys] + [b"12x", b"", b"-1"])

  assert found.tolist() == [*range(len(keys)), -1, -1, -1]


@pytest.mark.parametrize(
  ("keys", "message"),
  [
    (pa.array(["a", None]), "A row has no key"),
    (pa.array(["a", "b", "a"]), "1 repeated, such as a"),
    (pa.array([7, 8, 7]), "1 repeated, such as 7"),
    (pa.array(["x" * 2000]), "A key is too long"),
  ],
)
def test_keys_that_identify_nothing_are_refused(keys, message):
  with pytest.raises(errors.SourceError, match=message):
    KeyIndex(keys, where="test")
