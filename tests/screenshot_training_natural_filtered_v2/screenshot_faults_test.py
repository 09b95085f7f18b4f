"""Lines, paths, tiles and tars that are not as they should be."""

import io
import pathlib
import sys
import tarfile

import builds
from PIL import Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import screens

from tfds_plugins import errors
from tfds_plugins.conversion import finalize
from tfds_plugins.screenshot_training_natural_filtered_v2 import (
  screenshot_training_natural_filtered_v2_dataset_builder as builder_lib,
)
from tfds_plugins.sources.screenshots import tile_scan

DUMMY_DATA = pathlib.Path(__file__).parents[2] / "dummy_data"
FIXTURE = DUMMY_DATA / screens.NAME
CONFIGS = [config.name for config in builder_lib.Builder.BUILDER_CONFIGS]


UNSAFE = [
  "/etc/passwd",
  "images/../../secret.png",
  "images/shard_000/../../secret.png",
  "../secret.png",
  "images\\shard_000\\x.png",
  "images/shard_000//x.png",
  "images/./x.png",
  "shard_000/shard_00000/000000.png.tiles/chunk_0000_00.png",
  "images/",
  "",
  "images/" + "x" * 5000,
  "images/shard_000/\0.png",
]


_opened: list[str] | None = None


def _note_opened(event, arguments):
  if event == "open" and _opened is not None:
    _opened.append(str(arguments[0]))


sys.addaudithook(_note_opened)  # Which cannot be taken away again.


def test_unsafe_paths_are_never_opened(folder, tmp_path):
  global _opened
  Image.new("RGB", (9, 9)).save(folder.parent / "secret.png")
  rows = [screens.make_row(i, 0) for i in range(2)]
  rows += [{**screens.make_row(0, 0), "chunk_path": path} for path in UNSAFE]
  rows += [
    {**screens.make_row(0, 0), "neg_chunk_paths": [screens.get_path(1), path]}
    for path in UNSAFE
  ]
  screens.write_splits(folder, rows)
  _opened = []
  builder = screens.prepare(folder, tmp_path)
  opened, _opened = _opened, None
  assert len(screens.read_rows(builder)) == 2
  ledger = screens.read_ledger(builder)
  assert ledger.keys() == {
    (str(3 + i), "unsafe_path") for i in range(2 * len(UNSAFE))
  }
  assert all("secret" not in path and "passwd" not in path for path in opened)
  assert any("train_hn.jsonl" in path for path in opened)


def test_lines_that_are_no_rows(folder, tmp_path):
  good = screens.make_row(0, 0, [1])
  bom = b"\xef\xbb\xbf"
  lines = [
    bom + screens.json.dumps(good).encode(),  # 1
    b"",
    b"   \r",
    b'{"query": "cut off',  # 4
    b"[1, 2]",
    b"\xff\xfe",
    {k: v for k, v in good.items() if k != "query"},  # 7
    {k: v for k, v in good.items() if k != "chunk_path"},
    {k: v for k, v in good.items() if k != "neg_chunk_paths"},
    {**good, "query": None},  # 10
    {**good, "neg_chunk_paths": "images/x.png"},
    {**good, "neg_chunk_paths": [1]},
    b'{"query": "\\ud800", "chunk_path": "images/x.png", "neg_chunk_paths": []}',
    b"[" * 100_000,  # 14
    {**good, "split": "test"},
    {**good, "query": "x" * (5 << 20)},  # 16
    {**good, "split": 5},
    {**good, "query": "the last"},  # 18
  ]
  screens.write_splits(folder, lines)
  builder = screens.prepare(folder, tmp_path)
  queries = {row["query"].decode() for row in screens.read_rows(builder)}
  assert queries == {"question 0?", "the last"}
  assert sorted(screens.read_ledger(builder), key=lambda key: int(key[0])) == [
    ("4", "bad_line"),
    ("5", "bad_line"),
    ("6", "bad_line"),
    ("7", "missing_field"),
    ("8", "missing_field"),
    ("9", "missing_field"),
    ("10", "missing_field"),
    ("11", "missing_field"),
    ("12", "missing_field"),
    ("13", "missing_field"),
    ("14", "bad_line"),
    ("15", "wrong_split"),
    ("16", "bad_line"),
    ("17", "missing_field"),
  ]


def test_negatives_are_not_needed_for_pairs(folder, tmp_path):
  row = screens.make_row(0, 3)
  del row["neg_chunk_paths"]
  for split in screens.SPLITS:
    screens.write_lines(folder / f"{split}.jsonl", [{**row, "split": split}])
  builder = screens.prepare(folder, tmp_path, "pairs")
  [found] = screens.read_rows(builder, "eval")
  assert found["image"] == screens.make_tile(3)


def test_a_row_of_lite_query_without_a_split(folder, tmp_path):
  rows = [
    screens.make_row(i, i, [], split=split, answer=str(i))
    for i, split in enumerate(["train", "eval", "test", "dev", "train"])
  ]
  rows.append({**rows[0], "split": None})
  rows.append({k: v for k, v in rows[0].items() if k != "split"})
  name = "lite-query-v2-full-filtered-hn-with-answer.jsonl"
  screens.write_lines(folder / name, rows)
  builder = screens.prepare(folder, tmp_path, "lite_query")
  found = {
    split: sorted(row["answer"] for row in screens.read_rows(builder, split))
    for split in screens.SPLITS
  }
  assert found == {"train": [b"0", b"4"], "eval": [b"1"], "test": [b"2"]}
  assert set(screens.read_ledger(builder)) == {
    ("4", "wrong_split"),
    ("6", "missing_field"),
    ("7", "wrong_split"),
  }


def test_tiles_of_other_formats(folder, tmp_path):
  """RGBA, a palette, a JPEG and a GIF named .png; damaged ones are no tiles."""
  rgba = Image.new("RGBA", (6, 5), (0, 0, 0, 0))
  palette = Image.new("P", (6, 5), 3)
  contents = {}
  for i, (image, file_format) in enumerate(
    [(rgba, "PNG"), (palette, "PNG"), (palette, "GIF")]
  ):
    out = io.BytesIO()
    image.save(out, file_format)
    contents[i] = out.getvalue()
  contents[3] = screens.make_tile(3, "JPEG")
  good = screens.make_tile(4)
  contents[4] = good[:-20]
  middle = len(good) // 2
  contents[5] = good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :]
  contents[6] = b"no image"
  screens.write_tars(folder, range(8), contents)
  rows = [screens.make_row(i, i) for i in range(8)]
  rows.append(screens.make_row(8, 7, [4, 0, 6, 3]))
  screens.write_splits(folder, rows)
  builder = screens.prepare(folder, tmp_path)
  found = {int(row["query"][9:-1]): row for row in screens.read_rows(builder)}
  assert found.keys() == {0, 1, 2, 3, 7, 8}
  assert found[3]["image"] == contents[3]
  assert found[7]["image"] == screens.make_tile(7)
  for i in (0, 1, 2):
    with Image.open(io.BytesIO(found[i]["image"])) as image:
      assert (image.format, image.mode, image.size) == ("PNG", "RGB", (6, 5))
  with Image.open(io.BytesIO(found[0]["image"])) as image:
    assert image.getcolors() == [(30, (255, 255, 255))]
  # The negatives that can be had, with their paths.
  assert list(found[8]["neg_images"]) == [found[0]["image"], contents[3]]
  assert list(found[8]["neg_chunk_paths"]) == [
    screens.get_path(0).encode(),
    screens.get_path(3).encode(),
  ]
  ledger = pq.read_table(builder.data_path / "skipped_rows.parquet").to_pylist()
  train = [row for row in ledger if row["split"] == "train"]
  assert {(r["key"], r["is_skipped"]) for r in train} == {
    ("5", True),
    ("6", True),
    ("7", True),
    ("9", False),
  }
  details = [r["detail"] for r in train if r["key"] == "9"]
  assert len(details) == 2
  assert all(screens.get_path(i) in details[i == 6] for i in (4, 6))


def test_links_in_tars(folder, tmp_path):
  path = folder / "image_shards" / "shard_000.tar"
  target = screens.get_path(0).removeprefix("images/")
  kinds = {
    20: (tarfile.LNKTYPE, target),
    21: (tarfile.LNKTYPE, "shard_000/nothing.png"),
    22: (tarfile.SYMTYPE, "/etc/passwd"),
    23: (tarfile.SYMTYPE, target),
  }
  with tarfile.open(path, "w") as tar:
    for number, (kind, link) in [(0, (None, "")), *kinds.items()]:
      info = tarfile.TarInfo(
        screens.get_path(number, 0).removeprefix("images/")
      )
      data = b"" if kind else screens.make_tile(0)
      info.size = len(data)
      if kind:
        info.type, info.linkname = kind, link
      tar.addfile(info, io.BytesIO(data))
  rows = [
    {**screens.make_row(i, 0), "chunk_path": screens.get_path(i, 0)}
    for i in kinds
  ]
  screens.write_splits(folder, [*rows, screens.make_row(0, 0)])
  builder = screens.prepare(folder, tmp_path)
  found = {
    int(row["query"][9:-1]): row["image"] for row in screens.read_rows(builder)
  }
  assert found == {0: screens.make_tile(0), 20: screens.make_tile(0)}
  details = [
    screens.read_ledger(builder)[str(i), "unreadable_tile"] for i in (2, 3, 4)
  ]
  assert "hard link to nothing" in details[0]
  assert "symbolic link" in details[1]
  assert "symbolic link" in details[2]


def test_a_tar_that_breaks_off(folder, tmp_path, capsys):
  path = folder / "image_shards" / "shard_004.tar"
  data = path.read_bytes()
  path.write_bytes(data[: data.index(b"IEND") - 30])
  screens.write_splits(folder, [screens.make_row(i, i) for i in (8, 9, 10)])
  builder = screens.prepare(folder, tmp_path)
  assert [row["image"] for row in screens.read_rows(builder)] == [
    screens.make_tile(10)
  ]
  ledger = screens.read_ledger(builder)
  assert "breaks off" in ledger["1", "unreadable_tile"]
  assert "is not in image_shards/shard_004.tar" in ledger["2", "missing_tile"]
  assert "shard_004.tar" in capsys.readouterr().out


def test_what_is_no_tar_is_refused(folder, tmp_path):
  for number in ("002", "005"):
    path = folder / "image_shards" / f"shard_{number}.tar"
    path.write_bytes(b"<html>" * 1000)
  with pytest.raises(errors.SourceError, match=r"2 problems") as caught:
    screens.prepare(folder, tmp_path)
  assert "shard_002.tar" in str(caught.value)
  assert "shard_005.tar" in str(caught.value)


def test_the_index_is_taken_from_another_config(folder, tmp_path, monkeypatch):
  screens.prepare(folder, tmp_path)
  read = []
  real = tile_scan._read_tar

  def spy(path, *identity):
    read.append(path.name)
    return real(path, *identity)

  monkeypatch.setattr(tile_scan, "_read_tar", spy)
  screens.write_tars(folder, [2, 3, 50], {3: screens.make_tile(30)})
  builder = screens.prepare(folder, tmp_path, "tiles")
  assert sorted(read) == ["shard_001.tar", "shard_025.tar"]
  found = {
    row["chunk_path"].decode(): row["image"]
    for row in screens.read_rows(builder)
  }
  assert len(found) == 27
  assert found[screens.get_path(3)] == screens.make_tile(30)
  assert found[screens.get_path(4)] == screens.make_tile(4)


def test_a_damaged_index_is_not_taken(folder, tmp_path):
  first = screens.prepare(folder, tmp_path)
  path = first.data_path / "tile_index.arrow"
  data = path.read_bytes()
  for damaged in (b"", data[:-50], bytes(100), data[:400] + data[500:]):
    path.write_bytes(damaged)
    builder = screens.prepare(folder, tmp_path / str(len(damaged)), "tiles")
    assert len(screens.read_rows(builder)) == 26


def test_a_tar_that_changes_meanwhile(folder, tmp_path, monkeypatch):
  real = builder_lib.question_plan.check_source

  def check(*args, **kwargs):
    found = real(*args, **kwargs)
    screens.write_tars(folder, [4, 5, 2 * 2 + 20], {4: screens.make_tile(40)})
    return found

  monkeypatch.setattr(builder_lib.question_plan, "check_source", check)
  with pytest.raises(errors.SourceError, match="changed while"):
    screens.prepare(folder, tmp_path)


def test_tiles_are_read_in_the_order_of_the_disk(folder, tmp_path, monkeypatch):
  places = []
  reader_lib = builder_lib.question_source.tile_reader
  real = reader_lib._read_into

  def spy(file, offset, view, path):
    places.append((path.name, offset))
    return real(file, offset, view, path)

  monkeypatch.setattr(reader_lib, "_read_into", spy)
  screens.prepare(folder, tmp_path)
  # Rows of `train` are one batch: each of the tiles that they name once.
  num_tiles = len(
    {n for i in range(24) for n in (i * 7 % 26, i * 3 % 26, (i * 5 + 1) % 26)}
  )
  train = places[:num_tiles]
  assert len(set(train)) == num_tiles
  assert train == sorted(train)


def test_max_examples(folder, tmp_path):
  builder = screens.prepare(folder, tmp_path, max_examples_per_split=3)
  numbers = sorted(i * 7 % 26 for i in range(24))[:3]
  assert [row["image"] for row in screens.read_rows(builder)] == list(
    map(screens.make_tile, numbers)
  )


def test_features_are_as_documented():
  builder = builder_lib.Builder(config="hard_negatives_with_answer")
  assert builder.info.supervised_keys == ("query", "image")
  assert sorted(builder.info.features) == [
    *("answer", "chunk_path", "image", "neg_chunk_paths", "neg_images", "query")
  ]
  assert builder_lib.Builder(config="tiles").info.supervised_keys is None
  assert builder_lib.Builder().builder_config.name == "hard_negatives"
  assert pa.types.is_list(builder_lib._NEGATIVE_COLUMNS["neg_chunk_paths"])


def cut_between_members(path, name):
  """Cuts a tar before a member's first header."""
  with tarfile.open(path) as tar:
    offset = tar.getmember(name.removeprefix("images/")).offset
  path.write_bytes(path.read_bytes()[:offset])


def test_tars_that_end_too_early_are_named(folder, tmp_path, capsys):
  cut_between_members(
    folder / "image_shards" / "shard_004.tar", screens.get_path(9)
  )
  (folder / "image_shards" / "shard_006.tar").write_bytes(b"")
  builder = screens.prepare(folder, tmp_path, "tiles")
  assert len(screens.read_rows(builder)) == 26 - 1 - 2
  assert set(screens.read_ledger(builder)) == {
    ("shard_004.tar", "truncated_shard"),
    ("shard_006.tar", "truncated_shard"),
  }
  printed = capsys.readouterr().out
  assert "2 tars of tiles do not end as a tar does" in printed
  screens.prepare(folder, tmp_path)
  assert "shard_004.tar (truncated_shard)" in capsys.readouterr().out
  with pytest.raises(errors.SourceError, match=r"shard_006\.tar"):
    screens.prepare(folder, tmp_path / "b", refuse_missing_tiles=True)


def test_a_tile_that_is_there_twice(folder, tmp_path):
  """The last one counts, whatever its name starts with, in whatever tar."""
  name = screens.get_path(0).removeprefix("images/")
  path = folder / "image_shards" / "shard_000.tar"
  with tarfile.open(path, "w") as tar:
    for member, number in ((f"./{name}", 40), (name, 41)):
      info = tarfile.TarInfo(member)
      info.size = len(screens.make_tile(number))
      tar.addfile(info, io.BytesIO(screens.make_tile(number)))
    link = tarfile.TarInfo(screens.get_path(1).removeprefix("images/"))
    link.type, link.linkname = tarfile.LNKTYPE, f"./{name}"
    tar.addfile(link)
  with tarfile.open(folder / "image_shards" / "shard_050.tar", "w") as tar:
    info = tarfile.TarInfo(screens.get_path(2).removeprefix("images/"))
    info.size = len(screens.make_tile(42))
    tar.addfile(info, io.BytesIO(screens.make_tile(42)))
  builder = screens.prepare(folder, tmp_path, "tiles")
  rows = screens.read_rows(builder)
  assert len(rows) == 26
  found = {row["chunk_path"].decode(): row["image"] for row in rows}
  assert found[screens.get_path(0)] == screens.make_tile(41)
  assert found[screens.get_path(1)] == screens.make_tile(41)
  assert found[screens.get_path(2)] == screens.make_tile(42)


def test_links_in_the_extracted_folder_are_not_followed(folder, tmp_path):
  screens.extract(folder)
  secret = folder.parent / "secret"
  secret.mkdir()
  (secret / "x.png").write_bytes(screens.make_tile(7))
  shard = folder / "images" / "shard_000"
  (shard / "evil").symlink_to(secret)
  (shard / "loop").symlink_to(".")
  (shard / "x.png").symlink_to(secret / "x.png")
  rows = [
    {**screens.make_row(i, 0), "chunk_path": f"images/shard_000/{path}"}
    for i, path in enumerate(
      ["evil/x.png", "loop/x.png", "x.png", "loop/loop/evil/x.png"]
    )
  ]
  screens.write_splits(folder, [*rows, screens.make_row(4, 0)])
  builder = screens.prepare(folder, tmp_path)
  assert [row["query"] for row in screens.read_rows(builder)] == [
    b"question 4?"
  ]
  assert {key for key, _ in screens.read_ledger(builder)} == {
    "1",
    "2",
    "3",
    "4",
  }
  tiles = screens.prepare(folder, tmp_path, "tiles")
  assert len(screens.read_rows(tiles)) == 26
  assert {reason for _, reason in screens.read_ledger(tiles)} == {
    "unreadable_tile"
  }
  # But `images` itself may be anywhere.
  (folder / "images").rename(folder.parent / "elsewhere")
  (folder / "images").symlink_to(folder.parent / "elsewhere")
  assert len(screens.read_rows(screens.prepare(folder, tmp_path / "c"))) == 1


def test_the_notes_say_what_the_ledger_says(folder, tmp_path, capsys):
  (folder / "image_shards" / "shard_003.tar").unlink()
  builder = screens.prepare(folder, tmp_path)
  reasons = [reason for _, reason in screens.read_ledger(builder)]
  # (A row may lack both of its negatives.)
  table = pq.read_table(builder.data_path / "skipped_rows.parquet")
  is_skipped = table.column("is_skipped").to_pylist()
  assert len(is_skipped) >= len(reasons)
  printed = capsys.readouterr().out
  assert f"rows are skipped: {sum(is_skipped)};" in printed
  num_left_out = len(is_skipped) - sum(is_skipped)
  assert f"left out of rows: {num_left_out}." in printed


def test_a_row_of_another_split_asks_for_nothing(folder, tmp_path):
  rows = [screens.make_row(0, 0), screens.make_row(1, 60, split="eval")]
  screens.write_splits(folder, rows)
  builder = screens.prepare(folder, tmp_path, refuse_missing_tiles=True)
  assert set(screens.read_ledger(builder)) == {("2", "wrong_split")}


def test_a_row_of_very_many_negatives(folder, tmp_path, monkeypatch):
  lib = builder_lib.question_source
  monkeypatch.setattr(lib, "_MAX_ROW_BYTES", 100_000)
  rows = [screens.make_row(0, 0, [1] * 2000), screens.make_row(1, 1, [2] * 5)]
  screens.write_splits(folder, rows)
  builder = screens.prepare(folder, tmp_path)
  assert [len(row["neg_images"]) for row in screens.read_rows(builder)] == [5]
  assert set(screens.read_ledger(builder)) == {("1", "row_too_large")}


def test_rows_in_batches_of_any_size(folder, tmp_path, monkeypatch):
  expected = builds.digest(screens.prepare(folder, tmp_path / "a").data_dir)
  lib = builder_lib.question_source
  monkeypatch.setattr(lib, "_BATCH_BYTES", 500)
  monkeypatch.setattr(lib, "_READ_ROWS", 5)
  monkeypatch.setattr(lib.json_lines, "MAX_CHUNK_BYTES", 700)
  assert (
    builds.digest(screens.prepare(folder, tmp_path / "b").data_dir) == expected
  )


def test_files_whose_names_are_no_text(folder, tmp_path):
  screens.extract(folder)
  name = bytes(folder / "images" / "shard_000") + b"/\xff.png"
  with open(name, "wb") as file:
    file.write(screens.make_tile(0))
  (folder / "images" / "shard_000" / "a\\b.png").write_bytes(b"x")
  builder = screens.prepare(folder, tmp_path, "tiles")
  assert len(screens.read_rows(builder)) == 26
  assert [reason for _, reason in screens.read_ledger(builder)] == [
    "unsafe_path"
  ] * 2


def test_shards_are_in_the_order_of_their_numbers(folder, tmp_path):
  screens.extract(folder)
  screens.write_tars(folder, [4, 5, 20, 21])
  builder = screens.prepare(folder, tmp_path, "tiles")
  paths = [row["chunk_path"].decode() for row in screens.read_rows(builder)]
  assert paths == [screens.get_path(i) for i in range(26)]


def test_an_extracted_tile_stands_in_for_one_that_is_cut(folder, tmp_path):
  path = folder / "image_shards" / "shard_004.tar"
  with tarfile.open(path) as tar:
    tar.extractall(folder / "images", filter="data")
  data = path.read_bytes()
  path.write_bytes(data[: data.index(b"IEND") - 30])
  screens.write_splits(folder, [screens.make_row(i, i) for i in (8, 9)])
  builder = screens.prepare(folder, tmp_path)
  assert [row["image"] for row in screens.read_rows(builder)] == [
    screens.make_tile(8),
    screens.make_tile(9),
  ]


def test_a_split_without_examples_is_left_out(folder, tmp_path, capsys):
  screens.write_lines(
    folder / "eval_hn.jsonl", [screens.make_row(0, 80, split="eval")]
  )
  screens.write_lines(folder / "test_hn.jsonl", [])
  builder = screens.prepare(folder, tmp_path)
  assert set(builder.info.splits) == {"train"}
  assert len(screens.read_rows(builder)) == 24
  assert ("1", "missing_tile") in screens.read_ledger(builder)
  printed = capsys.readouterr().out
  assert "no example for split eval, test, which is left out" in printed
  screens.write_lines(folder / "train_hn.jsonl", [screens.make_row(0, 80)])
  with pytest.raises(errors.ConversionError, match="split 'train'"):
    screens.prepare(folder, tmp_path / "b")


def test_tiles_have_no_rows_that_could_lack_any():
  with pytest.raises(errors.OptionError, match="refuse_missing_tiles"):
    builder_lib.Builder(config="tiles", refuse_missing_tiles=True)


# A build that was stopped, and then another tile was extracted.


@pytest.mark.parametrize("config", ["hard_negatives", "tiles"])
def test_a_tile_that_has_come_since_a_build_was_stopped(
  folder, tmp_path, monkeypatch, config
):
  screens.extract(folder)
  late = folder / screens.get_path(3)
  kept = late.read_bytes()
  late.unlink()

  def fail(*unused_args):
    raise ZeroDivisionError

  with monkeypatch.context() as patch:
    patch.setattr(finalize, "write_accounts", fail)
    with pytest.raises(ZeroDivisionError):
      screens.prepare(folder, tmp_path, config)
  late.write_bytes(kept)

  builder = screens.prepare(folder, tmp_path, config)

  other = screens.prepare(folder, tmp_path / "other", config)
  assert builds.digest(builder.data_dir) == builds.digest(other.data_dir)
  assert not screens.read_ledger(builder)
