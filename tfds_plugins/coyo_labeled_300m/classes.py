"""ImageNet-21k's classes in the order of COYO-Labeled-300M's labels.

A label is a number from 0 to 21,840. Its class is a WordNet synset: an id, such
as n03636649, and one or more lemmas, such as "lamp". COYO's card does not print
the list; it is the 21,841 ids of ImageNet's release of autumn 2011 in ascending
order. `class_list` in visym/vipy (`vipy/data/coyo300m.json`, derived from
COYO's own `imagenet21k_tree.pickle`) has the same ids in the same order, and
the card's example 315, table lamps, is labelled 8087 (lamp) and 11054 (table
lamp). Lists of 21,843 ids, such as Google's, have other numbers from 9205 on.

`imagenet21k_classes.tsv` is made of two files of huggingface/pytorch-image-models
(`timm/data/_info`, timm 1.0.31, Apache License 2.0): the ids and their order of
`imagenet22k_synsets.txt`, the lemmas of `imagenet_synset_to_lemma.txt`.
`dummy_data/coyo_labeled_300m/make_classes.py` regenerates it. Ids and lemmas are
WordNet's, whose license is below.

525 strings of lemmas belong to more than one class, 1,128 classes together
("crane" the bird and "crane" the machine). This is why a class is named by its
id and its lemmas.
"""

# WordNet Release 3.0
#
# This software and database is being provided to you, the LICENSEE, by
# Princeton University under the following license. By obtaining, using and/or
# copying this software and database, you agree that you have read, understood,
# and will comply with these terms and conditions.:
#
# Permission to use, copy, modify and distribute this software and database and
# its documentation for any purpose and without fee or royalty is hereby
# granted, provided that you agree to comply with the following copyright notice
# and statements, including the disclaimer, and that the same appear on ALL
# copies of the software, database and documentation, including modifications
# that you make for internal use or for distribution.
#
# WordNet 3.0 Copyright 2006 by Princeton University. All rights reserved.
#
# THIS SOFTWARE AND DATABASE IS PROVIDED "AS IS" AND PRINCETON UNIVERSITY MAKES
# NO REPRESENTATIONS OR WARRANTIES, EXPRESS OR IMPLIED. BY WAY OF EXAMPLE, BUT
# NOT LIMITATION, PRINCETON UNIVERSITY MAKES NO REPRESENTATIONS OR WARRANTIES OF
# MERCHANT- ABILITY OR FITNESS FOR ANY PARTICULAR PURPOSE OR THAT THE USE OF THE
# LICENSED SOFTWARE, DATABASE OR DOCUMENTATION WILL NOT INFRINGE ANY THIRD PARTY
# PATENTS, COPYRIGHTS, TRADEMARKS OR OTHER RIGHTS.
#
# The name of Princeton University or Princeton may not be used in advertising
# or publicity pertaining to distribution of the software and/or database. Title
# to copyright in this software, database and any associated documentation shall
# at all times remain with Princeton University and LICENSEE agrees to preserve
# same.

from __future__ import annotations

from collections.abc import Mapping
import functools
import importlib.resources
import operator
from typing import SupportsIndex

NUM_CLASSES = 21_841

_FILE_NAME = "imagenet21k_classes.tsv"


def names() -> list[str]:
  """Returns a unique name of every class, in the order of labels.

  Returns:
    21,841 names, "<wnid> <lemmas>", such as "n03636649 lamp", as
    `tfds.features.ClassLabel(names=...)` takes them.
  """
  return [f"{wnid} {text}" for wnid, text in _read_classes()]


def find(word_or_wnid: str) -> list[int]:
  """Returns the labels of the classes that have a lemma or an id.

  Args:
    word_or_wnid: a lemma ("lamp", "table lamp") or an id ("n03636649"), in any
      case. The whole lemma: "lamp" does not find "table lamp".

  Returns:
    Labels in ascending order; none if no class has it.
  """
  return list(_index_classes().get(_fold(word_or_wnid), ()))


def wnid(label: SupportsIndex) -> str:
  """Returns the WordNet id of a class, such as "n03636649".

  Args:
    label: an integer from 0 to 21,840.

  Raises:
    ValueError: there is no such label.
  """
  return _get_class(label)[0]


def lemmas(label: SupportsIndex) -> list[str]:
  """Returns the words for a class, such as ["pickup", "pickup truck"].

  Args:
    label: an integer from 0 to 21,840.

  Returns:
    At least one word, in WordNet's order.

  Raises:
    ValueError: there is no such label.
  """
  return _split_lemmas(_get_class(label)[1])


def _get_class(label: SupportsIndex) -> tuple[str, str]:
  number = operator.index(label)
  # Python would count -1, "no label" in TFDS, from the end.
  if not 0 <= number < NUM_CLASSES:
    raise ValueError(
      f"There is no class {number}. Expected a label of COYO-Labeled-300M, from"
      f" 0 to {NUM_CLASSES - 1} (-1 stands for no label)."
    )
  return _read_classes()[number]


def _split_lemmas(text: str) -> list[str]:
  return text.split(", ")


def _fold(text: str) -> str:
  return text.strip().casefold()


@functools.cache
def _read_classes() -> tuple[tuple[str, str], ...]:
  """Returns id and lemmas of each class."""
  # Found without `__file__`, so that it may lie in a zip file as well.
  folder = importlib.resources.files("tfds_plugins.coyo_labeled_300m")
  lines = (folder / _FILE_NAME).read_text(encoding="utf-8").splitlines()
  return tuple((wnid, text) for wnid, text in (x.split("\t") for x in lines))


@functools.cache
def _index_classes() -> Mapping[str, tuple[int, ...]]:
  """Returns the labels that have an id or a lemma, by their folded text."""
  index: dict[str, list[int]] = {}
  for label, (wnid, text) in enumerate(_read_classes()):
    # A set, for the lemmas of n09450163, "sun" and "Sun", differ in case only.
    for key in {_fold(wnid), *map(_fold, _split_lemmas(text))}:
      index.setdefault(key, []).append(label)
  return {key: tuple(labels) for key, labels in index.items()}
