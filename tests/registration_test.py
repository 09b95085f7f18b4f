"""Tests of what TFDS finds after `import tfds_plugins`, each in a new process."""

import json
import os
import pathlib
import subprocess
import sys
import textwrap

import nbclient
import nbformat
import pytest
import shards


def run(code: str, cwd: pathlib.Path) -> str:
  """Runs a script, and returns what it prints."""
  script = cwd / "script.py"
  script.write_text(textwrap.dedent(code))
  result = subprocess.run(
    [sys.executable, str(script)],
    cwd=cwd,
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
  )
  assert result.returncode == 0, result.stderr[-3000:]
  return result.stdout


def test_the_import_is_light(tmp_path):
  printed = run(
    """
    import sys
    import tfds_plugins
    import tensorflow_datasets as tfds

    tfds.builder_cls("laion400m")
    heavy = ("tensorflow", "apache_beam", "pandas", "mlcroissant")
    print([name for name in heavy if name in sys.modules])
    """,
    tmp_path,
  )

  assert printed == "[]\n"


CHECK = """
import json
import tensorflow_datasets as tfds

before = {before}
import tfds_plugins
{after}
print(json.dumps({{
    "laion400m": tfds.builder_cls("laion400m").__module__,
    "builder": type(tfds.builder("laion400m", data_dir=".")).__module__,
    "versions": str(tfds.builder_cls("laion400m").VERSION),
    "others": [tfds.builder_cls(n).__module__.split(".")[0]
               for n in ("wit", "wit_kaggle", "mnist")],
    "unknown": "laion" in str(before),
    "list": tfds.list_builders(),
}}))
"""


@pytest.mark.parametrize(
  ("before", "after"),
  [
    ("None", ""),
    ("tfds.list_builders()", ""),
    ("tfds.builder_cls('laion400m')", ""),
    ("None", "import tensorflow_datasets.vision_language.laion400m"),
    ("None", "tfds.list_builders()"),
  ],
)
def test_our_laion400m_is_found_whatever_comes_first(tmp_path, before, after):
  printed = run(CHECK.format(before=before, after=after), tmp_path)
  plain = run(
    "import json, tensorflow_datasets as tfds; print(json.dumps(tfds.list_builders()))",
    tmp_path,
  )

  found = json.loads(printed)
  module = "tfds_plugins.laion400m.laion400m_dataset_builder"
  assert found["laion400m"] == found["builder"] == module
  assert found["versions"] == "2.0.0"
  assert found["others"] == ["tensorflow_datasets"] * 3
  assert found["list"] == json.loads(plain)
  assert "laion400m" in found["list"]


def test_a_script_needs_no_main_guard(tmp_path):
  """Workers are new processes that must not run the user's script again."""
  folder = tmp_path / "folder with spaces"
  folder.mkdir()
  rows = shards.write_simple_shards(folder / "laion400m", [3] * 4)

  printed = run(
    """
    import tensorflow_datasets as tfds
    import tfds_plugins

    print("once")
    tfds.disable_progress_bar()
    ds = tfds.load(
        "laion400m/images",
        split="train",
        data_dir="data dir",
        builder_kwargs={"num_workers": 2},
        download_and_prepare_kwargs={
            "download_config": tfds.download.DownloadConfig(manual_dir=".")
        },
    )
    print([e["caption"].decode() for e in tfds.as_numpy(ds)])
    """,
    folder,
  )

  assert printed.count("once") == 1
  assert str([row["caption"] for row in rows]) in printed


def test_a_notebook(tmp_path):
  """In notebooks TFDS allows datasets to be overwritten: ours must stay."""
  rows = shards.write_simple_shards(tmp_path / "manual", [3] * 3)
  cells = [
    "import tensorflow_datasets as tfds\nimport tfds_plugins",
    "import tensorflow_datasets.vision_language.laion400m",
    "ds, info = tfds.load('laion400m', split='train', data_dir='data',"
    " with_info=True, builder_kwargs={'num_workers': 2},"
    " download_and_prepare_kwargs={'download_config':"
    " tfds.download.DownloadConfig(manual_dir='manual')})",
    "print(type(tfds.builder('laion400m', data_dir='data')).__module__)",
    "print(tfds.builder_cls('wit').__module__)",
    "tfds.as_dataframe(ds, info)",
  ]
  notebook = nbformat.v4.new_notebook(
    cells=[nbformat.v4.new_code_cell(cell) for cell in cells]
  )
  environment = os.environ | {"PYTHONPATH": ""}

  client = nbclient.NotebookClient(
    notebook,
    timeout=300,
    kernel_name="python3",
    resources={"metadata": {"path": str(tmp_path)}},
  )
  client.execute(env=environment)

  outputs = [cell["outputs"] for cell in notebook.cells]
  assert "tfds_plugins.laion400m" in outputs[3][0]["text"]
  assert "tensorflow_datasets.vision_language.wit" in outputs[4][0]["text"]
  printed = "".join(o.get("text", "") for o in outputs[2])
  assert "8 examples in 3 shards" in printed.replace("  ", " ")
  html = outputs[5][-1]["data"]["text/html"]
  assert html.count("<img") == len(rows) == 8  # Thumbnails, one a row.
