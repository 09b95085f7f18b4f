"""Regenerates `dummy_data/screenshot_training_natural_filtered_v2`.

    python -m pip install pillow
    python dummy_data/screenshot_training_natural_filtered_v2/make_tiles.py

Articles, written for this purpose, are drawn as pages of 875 pixels, cut into
tiles of at most 1,024, and packed as the published ones are: tars in mode `w`,
members sorted, without the `images/` that the JSON lines have before them.

Article i of `ARTICLES` is page `shard_0SS/shard_00000/00000i.png.tiles`, and its
tile k is `chunk_000k_00.png`: SS is 00 for articles 0 and 1, 01 for 2 and 3, 02
for 4. What is special:

    article 1, tile 0   RGBA, fully opaque but for a margin of 8 pixels
    article 2, tile 0   a palette of 64 colours
    article 3, tile 0   a JPEG
    article 4, tile 1   28 pixels high
    article 5, tile 0   a hard link to article 4, tile 0, in the same tar
    shard_003.tar       is named in `train_hn.jsonl`, but is not there

and of the rows of `train` (counted from 1):

    5    its second negative lies in shard_003.tar
    7    the tile that answers lies in shard_003.tar
    8    the answer is null
    9    has a blank line before it
"""

from __future__ import annotations

import io
import json
import pathlib
import tarfile
import textwrap
from typing import Any

from PIL import Image
from PIL import ImageDraw
from PIL import ImageFont

OUT_DIR = pathlib.Path(__file__).parent
WIDTH = 875
MAX_HEIGHT = 1024
_MARGIN = 40
_LINE = 26

ARTICLES = (
  (
    "Lighthouse",
    "A lighthouse is a tower with a lamp that tells ships at sea where they are."
    " Every lighthouse has a light of its own: so many flashes, and so many"
    " seconds of darkness between them. A navigator counts, looks the rhythm up in"
    " the list of lights, and knows the coast.",
    "The lens is made of rings of glass. Each ring bends the light a little more"
    " than the one inside it, so that all of it leaves the tower as one beam. A"
    " solid lens of that strength would weigh tons.",
  ),
  (
    "Glacier",
    "A glacier is a body of ice that moves under its own weight. Snow falls on its"
    " upper part faster than it melts; pressed together, it turns into ice, and the"
    " ice flows downhill, some centimetres to some metres a day.",
    "Where it ends, it leaves what it has carried: boulders, gravel and clay, a"
    " moraine. Many lakes lie behind one.",
  ),
  (
    "Honey bee",
    "A honey bee that has found flowers dances when she comes home. The angle"
    " between her run and the vertical is the angle between the flowers and the"
    " sun; how long she waggles tells how far it is.",
    "A hive keeps its brood at 35 degrees, in winter by shivering, in summer by"
    " fanning with wings and evaporating water.",
  ),
  (
    "Suspension bridge",
    "The deck of a suspension bridge hangs from two cables, and the cables lie on"
    " two towers. The towers are pressed, the cables are pulled; anchors at both"
    " ends hold what the cables pull.",
    "Its enemy is the wind. A deck that is stiff against twisting, or lets the wind"
    " through, does not begin to swing.",
  ),
  (
    "Tide",
    "Twice a day the sea rises and falls. The moon pulls at the water on its side"
    " of the earth more than at the earth, and at the earth more than at the water"
    " behind it: two bulges, under which the earth turns.",
    "When sun and moon pull in one line, at new and full moon, the tide is highest,"
    " and is called a spring tide.",
  ),
)
_COLOURS = ("#f2d16b", "#8ec6e6", "#e0a458", "#b7b7c9", "#7fb7a3")
# Of the pages, before they are cut.
_HEIGHTS = (700, 520, 610, 480, MAX_HEIGHT + 28)

# The tile that answers, two that do not, question, answer.
_Row = tuple[str, str, str, str, str | None]


def get_path(article: int, tile: int = 0) -> str:
  """Returns the path of a tile, as JSON lines have it."""
  shard = f"shard_{article // 2:03d}"
  page = f"{article:06d}.png.tiles"
  return f"images/{shard}/shard_00000/{page}/chunk_{tile:04d}_00.png"


def draw_page(article: int) -> Image.Image:
  """Draws an article as a page, RGB."""
  title, *paragraphs = ARTICLES[article]
  page = Image.new("RGB", (WIDTH, _HEIGHTS[article]), "white")
  draw = ImageDraw.Draw(page)
  y = 30
  draw.text((_MARGIN, y), title, "black", ImageFont.load_default(34))
  y += 52
  draw.line([(_MARGIN, y), (WIDTH - _MARGIN, y)], "#a2a9b1", 1)
  y += 20
  box = (WIDTH - _MARGIN - 190, y, WIDTH - _MARGIN, y + 150)
  draw.rectangle(box, _COLOURS[article], "#a2a9b1")
  draw.ellipse((box[0] + 60, y + 40, box[0] + 130, y + 110), "white")
  font = ImageFont.load_default(18)
  for paragraph in paragraphs:
    for line in textwrap.wrap(paragraph, 60):
      draw.text((_MARGIN, y), line, "#202122", font)
      y += _LINE
    y += _LINE // 2
  foot = page.height - 24
  draw.text((_MARGIN, foot), f"page {article}", "#54595d", font=font)
  return page


def cut(page: Image.Image) -> list[Image.Image]:
  """Cuts a page into tiles, the last one shorter."""
  return [
    page.crop((0, top, WIDTH, min(top + MAX_HEIGHT, page.height)))
    for top in range(0, page.height, MAX_HEIGHT)
  ]


def encode(tile: Image.Image, article: int, number: int) -> bytes:
  """Returns the bytes of a tile, in the format that the docstring says."""
  out = io.BytesIO()
  if (article, number) == (1, 0):
    transparent = tile.convert("RGBA")
    transparent.paste((0, 0, 0, 0), (0, 0, 8, tile.height))
    transparent.save(out, "PNG", optimize=True)
  elif (article, number) == (2, 0):
    tile.quantize(64).save(out, "PNG", optimize=True)
  elif (article, number) == (3, 0):
    tile.save(out, "JPEG", quality=85)
  else:
    tile.save(out, "PNG", optimize=True)
  return out.getvalue()


def make_members() -> dict[str, bytes]:
  """Returns the tiles by their names in the tars, but the hard link."""
  members = {}
  for article in range(len(ARTICLES)):
    for number, tile in enumerate(cut(draw_page(article))):
      name = get_path(article, number).removeprefix("images/")
      members[name] = encode(tile, article, number)
  return members


def write_tars() -> None:
  """Packs the tiles."""
  members = make_members()
  shards_dir = OUT_DIR / "image_shards"
  shards_dir.mkdir(exist_ok=True)
  for shard in sorted({name.split("/")[0] for name in members}):
    with tarfile.open(shards_dir / f"{shard}.tar", "w") as tar:
      for name in sorted(members):
        if name.startswith(f"{shard}/"):
          info = tarfile.TarInfo(name)
          info.size = len(members[name])
          info.mtime = 1767225600.5  # As `TarFile.add` has it: not an integer.
          tar.addfile(info, io.BytesIO(members[name]))
      if shard == "shard_002":
        link = tarfile.TarInfo(get_path(5).removeprefix("images/"))
        link.type = tarfile.LNKTYPE
        link.linkname = get_path(4).removeprefix("images/")
        tar.addfile(link)


_LOST = "images/shard_003/shard_00000/000009.png.tiles/chunk_0000_00.png"
ROWS: dict[str, tuple[_Row, ...]] = {
  "train": (
    (
      get_path(0),
      get_path(1),
      get_path(2),
      "How do ships tell lighthouses apart?",
      "By the rhythm of their flashes",
    ),
    (
      get_path(1),
      get_path(0),
      get_path(4, 1),
      "How fast does a glacier flow?",
      "Centimetres to metres a day",
    ),
    (
      get_path(2),
      get_path(3),
      get_path(0),
      "How does a bee show the direction of flowers?",
      "By the angle of her dance",
    ),
    (
      get_path(3),
      get_path(4),
      get_path(5),
      "What carries the deck of a suspension bridge?",
      "Two cables",
    ),
    (
      get_path(4),
      get_path(0),
      _LOST,
      "Why are there two tides a day?",
      "The earth turns under two bulges",
    ),
    (
      get_path(5),
      get_path(3),
      get_path(1),
      "When is a spring tide?",
      "At new and full moon",
    ),
    (
      _LOST,
      get_path(0),
      get_path(1),
      "Why do the keys of a typewriter jam?",
      "They are neighbours",
    ),
    (get_path(2), get_path(1), get_path(3), "How warm is a hive?", None),
    (
      get_path(0),
      get_path(2),
      get_path(4),
      "Why is the lens made of rings — and not “solid”?",
      "It would weigh tons",
    ),
  ),
  "eval": (
    (
      get_path(1),
      get_path(4),
      get_path(0),
      "What is a moraine?",
      "What a glacier leaves",
    ),
    (
      get_path(3),
      get_path(1),
      get_path(2),
      "What makes a bridge swing?",
      "The wind",
    ),
  ),
  "test": (
    (
      get_path(4),
      get_path(1),
      get_path(3),
      "Which bodies cause the tides?",
      "Moon and sun",
    ),
    (get_path(4, 1), get_path(5), get_path(0), "Which page is this?", "page 4"),
  ),
}


def make_record(row: _Row, split: str) -> dict[str, Any]:
  """Returns a row of `*_hn_with_answer.jsonl`, fields in the published order."""
  positive, first, second, query, answer = row
  return {
    "query": query,
    "chunk_path": positive,
    "neg_chunk_paths": [first, second],
    "answer": answer,
    "split": split,
  }


def write_lines() -> None:
  """Writes the JSON lines."""
  everything = []
  for split, rows in ROWS.items():
    records = [make_record(row, split) for row in rows]
    lines = [json.dumps(each, ensure_ascii=False) for each in records]
    plain = [
      json.dumps(
        {k: v for k, v in each.items() if k != "answer"}, ensure_ascii=False
      )
      for each in records
    ]
    if split == "train":
      plain.insert(8, "")
      lines.insert(8, "")
    for name, texts in (
      (f"{split}.jsonl", plain),
      (f"{split}_hn.jsonl", plain),
      (f"{split}_hn_with_answer.jsonl", lines),
    ):
      (OUT_DIR / name).write_text("\n".join(texts) + "\n", encoding="utf-8")
    everything += records
  lite = [
    {
      **each,
      "source_positive_rank": i % 5,
      "source_positive_score": 0.5 + i / 64,
    }
    if i != 3
    else each
    for i, each in enumerate(everything)
  ]
  name = "lite-query-v2-full-filtered-hn-with-answer.jsonl"
  (OUT_DIR / name).write_text(
    "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in lite),
    encoding="utf-8",
  )


if __name__ == "__main__":
  write_tars()
  write_lines()
