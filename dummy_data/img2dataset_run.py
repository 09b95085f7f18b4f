"""Runs the real img2dataset on images that are drawn here and served on loopback.

Used by the scripts that regenerate `dummy_data/` and the benchmarks' corpora.
Neither the package nor its tests need this module or img2dataset:

    python -m pip install img2dataset     # Python 3.10 to 3.12
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import dataclasses
import http.server
import io
import pathlib
import tempfile
import threading
import time
from typing import Any
import urllib.parse

import numpy as np
from PIL import Image
import pyarrow as pa
import pyarrow.parquet as pq


@dataclasses.dataclass(frozen=True, kw_only=True)
class Response:
  """What the server answers for a path.

  Attributes:
    body: the bytes of the answer.
    status: the HTTP status.
    delay_s: seconds before the answer, to change the order of completion.
  """

  body: bytes
  status: int = 200
  delay_s: float = 0.0


def draw_photo(seed: int, size: int) -> bytes:
  """Returns a JPEG that is as hard to compress as a small photograph.

  Args:
    seed: decides the picture.
    size: width and height in pixels.

  Returns:
    A JPEG of quality 92: smooth colours, edges, and some noise.
  """
  rng = np.random.default_rng(seed)
  y, x = np.mgrid[0:size, 0:size] / size
  image = np.zeros((size, size, 3))
  for channel in range(3):
    fx, fy, phase = rng.uniform(1, 9, 3)
    image[..., channel] = 128 + 80 * np.sin(6 * (fx * x + fy * y) + phase)
  for _ in range(12):
    cx, cy, radius = rng.uniform(0, 1, 3) * [1, 1, 0.25]
    image[(x - cx) ** 2 + (y - cy) ** 2 < radius**2] = rng.uniform(0, 255, 3)
  image += rng.normal(0, 5, image.shape)
  out = io.BytesIO()
  Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(
    out, "JPEG", quality=92
  )
  return out.getvalue()


@contextlib.contextmanager
def serve(answer: Callable[[str], Response], *, port: int = 0) -> Iterator[str]:
  """Serves `answer(path)` on 127.0.0.1 and yields the root URL.

  Args:
    answer: maps the path of a request, query included, to a response.
    port: the port; any free one if 0.

  Yields:
    The root URL, `http://127.0.0.1:<port>`.
  """

  class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"

    def do_GET(self) -> None:  # pylint: disable=invalid-name
      response = answer(urllib.parse.unquote(self.path))
      time.sleep(response.delay_s)
      self.send_response(response.status)
      self.send_header("Content-Length", str(len(response.body)))
      self.end_headers()
      self.wfile.write(response.body)

    def log_message(self, format: str, *args: Any) -> None:  # pylint: disable=redefined-builtin
      pass

  class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128

  server = Server(("127.0.0.1", port), Handler)
  thread = threading.Thread(target=server.serve_forever, daemon=True)
  thread.start()
  try:
    yield f"http://127.0.0.1:{server.server_port}"
  finally:
    server.shutdown()
    server.server_close()
    thread.join()


def run(
  table: Mapping[str, Any],
  output_dir: pathlib.Path,
  *,
  url_col: str = "URL",
  caption_col: str | None = "TEXT",
  **options: Any,
) -> None:
  """Downloads `table[url_col]` with img2dataset.

  Args:
    table: columns of the list of URLs; lists or Arrow arrays.
    output_dir: where the shards are written.
    url_col: name of the column of URLs.
    caption_col: name of the column of captions, if there is one.
    **options: forwarded to `img2dataset.download`.
  """
  import img2dataset  # pylint: disable=g-import-not-at-top

  with tempfile.TemporaryDirectory() as tmp_dir:
    url_list = pathlib.Path(tmp_dir) / "urls.parquet"
    pq.write_table(pa.table(dict(table)), url_list)
    img2dataset.download(
      url_list=str(url_list),
      input_format="parquet",
      url_col=url_col,
      caption_col=caption_col,
      output_folder=str(output_dir),
      enable_wandb=False,
      retries=0,
      **options,
    )
