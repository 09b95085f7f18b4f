"""Tests of ImageNet-21k's classes, against the file read by other means."""

import collections
import hashlib
import itertools
import pathlib
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import tensorflow_datasets as tfds

import tfds_plugins
from tfds_plugins.coyo_labeled_300m import classes

_PACKAGE_DIR = pathlib.Path(tfds_plugins.__file__).parent
_PATH = _PACKAGE_DIR / "coyo_labeled_300m" / "imagenet21k_classes.tsv"

# What `make_classes.py` makes of timm 1.0.31.
_SHA256 = "ee5edef25325e5287b913fbf0fc48c2cc5d47cf364720a6b008b7be7719b8024"


@pytest.fixture(scope="module")
def lines():
  return _PATH.read_bytes().decode("ascii").removesuffix("\n").split("\n")


def test_the_file_is_what_the_script_makes():
  assert hashlib.sha256(_PATH.read_bytes()).hexdigest() == _SHA256
  assert _PATH.stat().st_size < 1 << 20


def test_ids_are_ascending_and_every_class_has_lemmas(lines):
  wnids, lemmas = zip(*(line.split("\t") for line in lines))

  assert len(wnids) == classes.NUM_CLASSES == 21_841
  assert all(a < b for a, b in itertools.pairwise(wnids))
  assert all(x[0] == "n" and len(x) == 9 and x[1:].isdigit() for x in wnids)
  assert all(x and x == " ".join(x.split()) for x in lemmas)
  repeated = [n for n in collections.Counter(lemmas).values() if n > 1]
  assert (len(repeated), sum(repeated)) == (525, 1128)


@pytest.mark.parametrize(
  ("label", "wnid", "lemmas"),
  [
    (0, "n00004475", ["organism", "being"]),
    # The order that visym/vipy took from COYO's own pickle.
    (359, "n01440764", ["tench", "Tinca tinca"]),
    (999, "n01665541", ["leatherback turtle", "leatherback"]),
    # The first labels of example 315 on the dataset's card: table lamps.
    (8087, "n03636649", ["lamp"]),
    (11054, "n04380533", ["table lamp"]),
    # From here on, lists of 21,843 classes have other numbers.
    (9205, "n03931765", ["picture frame"]),
    (21840, "n15102894", ["knothole"]),
  ],
)
def test_known_classes(label, wnid, lemmas):
  assert classes.wnid(label) == wnid
  assert [x for x in classes.lemmas(np.int64(label)) if x in lemmas] == lemmas
  assert classes.names()[label].startswith(f"{wnid} {lemmas[0]}")
  assert classes.find(wnid) == [label]
  assert all(label in classes.find(lemma) for lemma in lemmas)


@pytest.mark.parametrize("label", [-1, 21_841, np.int64(-21_841)])
@pytest.mark.parametrize("function", [classes.wnid, classes.lemmas])
def test_other_labels_are_refused(function, label):
  with pytest.raises(ValueError, match=rf"no class {label}\. .* 0 to 21840 "):
    function(label)


def test_labels_are_found_by_id_and_by_whole_lemma_in_any_case(lines):
  expected = collections.defaultdict(list)
  for label, line in enumerate(lines):
    wnid, text = line.lower().split("\t")
    for key in sorted({wnid, *text.split(", ")}):
      expected[key].append(label)

  assert {key: classes.find(key.upper()) for key in expected} == expected
  assert classes.find("lamp") == classes.find(" Lamp\n") == [8086, 8087]
  assert classes.find("sun") == [14417]  # Its lemmas are "sun" and "Sun".
  for unknown in ("", "lam", "lamp,", "n0363664", "no such word", "8087"):
    assert classes.find(unknown) == []


def test_results_are_the_callers_own():
  classes.find("lamp").clear()
  classes.names().clear()
  classes.lemmas(0).clear()

  assert classes.find("lamp") == [8086, 8087]
  assert len(classes.names()) == 21_841
  assert classes.lemmas(0) == ["organism", "being"]


def test_class_label_reads_names_in_both_directions(tmp_path, lines):
  names = classes.names()
  assert names == [line.replace("\t", " ") for line in lines]

  feature = tfds.features.ClassLabel(names=names)
  feature.save_metadata(tmp_path, "labels")
  loaded = tfds.features.ClassLabel(num_classes=21_841)
  loaded.load_metadata(tmp_path, "labels")

  assert loaded.names == names
  assert [loaded.str2int(name) for name in names] == list(range(21_841))
  assert [loaded.int2str(i) for i in range(21_841)] == names
  assert loaded.str2int("n03636649 lamp") == 8087


def run(code, path):
  return subprocess.run(
    [sys.executable, "-c", code],
    env={"PYTHONPATH": str(path)},
    cwd="/",
    check=True,
    capture_output=True,
    text=True,
  ).stdout.strip()


def test_classes_are_read_from_a_zip_file_and_without_tensorflow(tmp_path):
  archive = tmp_path / "wheel.zip"
  with zipfile.ZipFile(archive, "w") as zipped:
    for path in _PACKAGE_DIR.rglob("*"):
      if path.suffix in (".py", ".tsv"):
        zipped.write(path, path.relative_to(_PACKAGE_DIR.parent))

  printed = run(
    "import sys\n"
    "from tfds_plugins.coyo_labeled_300m import classes\n"
    "print(classes.__file__, classes.find('lamp'), 'tensorflow' in sys.modules)",
    archive,
  )

  expected = archive / "tfds_plugins" / "coyo_labeled_300m" / "classes.py"
  assert printed == f"{expected} [8086, 8087] False"
