"""Every reader against damaged files, through the path that a build takes.

A source is small, and everything in it says of which row it is. Its files are
damaged one at a time: cut at every length (at a sample of them where a file has
more than 750 bytes), with a bit flipped, or at random (`mutations.py`). Of each
input one of these must come:

- examples, each of one row alone, and as many rows as examples and skipped rows;
- an error of this package that names the file.

Never a hang, another exception, the end of the process, a wrong pair, or 1 GB.

The short suite runs 26 cases of 12 inputs each, 312 in all; the long one some 600
and more a case, 19,673 in all (those of small files vary with their size). What a
failure prints first, runs one again:

    PYTHONPATH=tests python tests/faults/reader_faults_test.py CASE KIND NUMBER
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import functools
import pathlib
import sys
import tempfile

import decoders
import fault_run
import fault_sources
import mutations
from mutations import Mutation
import pytest
import source_job

CASES = {
  "webdataset": fault_sources.make_webdataset,
  "webdataset without parquet": functools.partial(
    fault_sources.make_webdataset, parquet=False
  ),
  "parquet beside a tar": fault_sources.make_parquet_beside,
  "stats": fault_sources.make_stats,
  "files": fault_sources.make_files,
  "files without parquet": functools.partial(
    fault_sources.make_files, parquet=False
  ),
  "parquet of images": fault_sources.make_parquet,
  "tfrecord": fault_sources.make_tfrecord,
  "tfrecord without parquet": functools.partial(
    fault_sources.make_tfrecord, parquet=False
  ),
  "progressive JPEG": functools.partial(
    fault_sources.make_encoded_images, image_format="JPEG", progressive=True
  ),
  "PNG": functools.partial(
    fault_sources.make_encoded_images, image_format="PNG"
  ),
  "WebP": functools.partial(
    fault_sources.make_encoded_images, image_format="WEBP"
  ),
  "animated WebP": functools.partial(
    fault_sources.make_encoded_images, image_format="WEBP", save_all=True
  ),
  "GIF": functools.partial(
    fault_sources.make_encoded_images, image_format="GIF"
  ),
  **{
    f"partition, {kind}": functools.partial(
      fault_sources.make_partition, kind=kind
    )
    for kind in ("img_emb", "text_emb", "metadata")
  },
  **{
    name: functools.partial(fault_sources.make_table, name=name)
    for name in ("coyo_700m/metadata", "coyo_labeled_300m/labels")
  },
  **{
    f"screenshots, {kind}": functools.partial(
      fault_sources.make_screens, kind=kind
    )
    for kind in (
      *("lines", "tars", "tars as tiles", "folder", "folder as tiles"),
      *("index", "index in use"),
    )
  },
}
_SHORT_INPUTS = 12
_LONG_TRUNCATIONS = 250
_SMALL_BYTES = 750
# Larger ones, which claim to be, take a second each.
_MAX_CHECKED_PIXELS = 10_000_000


def make_job(
  name: str,
  folder: pathlib.Path,
  *,
  truncations: int,
  flips: int,
  randoms: int,
) -> source_job.SourceJob:
  """Writes the source of a case, and plans how to damage each of its files."""
  folder.mkdir(parents=True)
  case = dataclasses.replace(CASES[name](folder), name=name)
  inputs = []
  for file in case.files:
    data = (folder / file).read_bytes()
    planned = mutations.make_mutations(
      data,
      truncations=len(data) if len(data) <= _SMALL_BYTES else truncations,
      flips=flips,
      randoms=randoms,
    )
    inputs += [(file, mutation) for mutation in planned]
  return source_job.SourceJob(case=case, inputs=inputs)


def run(jobs: Sequence[source_job.SourceJob], work_dir: pathlib.Path):
  """Runs jobs and checks what came of them."""
  work_dir.mkdir()
  report = fault_run.run_jobs(jobs, work_dir)
  assert not report.failures, "\n\n".join(report.failures)
  assert report.num_inputs == sum(len(job.inputs) for job in jobs)
  assert sum(report.outcomes.values()) == report.num_inputs
  assert report.memory_bytes < fault_run.MAX_MEMORY_BYTES, report.largest
  # Damage is local: of nearly all examples it can be told whose they are.
  assert report.num_unclear <= report.num_examples / 20
  for image in report.images:
    decoders.check_alike(image, max_pixels=_MAX_CHECKED_PIXELS)
  return report


def test_a_few_inputs_of_every_reader(tmp_path):
  jobs = [
    make_job(name, tmp_path / f"{i}", truncations=300, flips=300, randoms=300)
    for i, name in enumerate(CASES)
  ]
  jobs = [
    source_job.SourceJob(
      case=job.case,
      inputs=_sample(job.inputs),
    )
    for job in jobs
  ]

  report = run(jobs, tmp_path / "work")

  assert report.num_inputs == _SHORT_INPUTS * len(CASES)
  assert {"right", "fewer", "changed", "refused"} <= report.outcomes.keys()


def _sample(inputs):
  """Returns some of the inputs, from the first to the last."""
  last = len(inputs) - 1
  places = [i * last // (_SHORT_INPUTS - 1) for i in range(_SHORT_INPUTS)]
  return [inputs[i] for i in places]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_many_inputs_of_every_reader(tmp_path, name):
  job = make_job(
    name,
    tmp_path / "source",
    truncations=_LONG_TRUNCATIONS,
    flips=150,
    randoms=200,
  )

  report = run([job], tmp_path / "work")

  # Of 26 cases together: more than 10,000. (That of `stats` has 28 bytes.)
  assert report.num_inputs >= (250 if name == "stats" else 550)


def main(name: str, kind: str, number: str) -> None:
  with tempfile.TemporaryDirectory() as folder:
    root = pathlib.Path(folder)
    job = make_job(name, root / "source", truncations=1, flips=1, randoms=1)
    mutation = Mutation(kind, int(number))
    inputs = [(file, mutation) for file in job.case.files]
    job = source_job.SourceJob(case=job.case, inputs=inputs)
    print(run([job], root / "work"))


if __name__ == "__main__":
  main(*sys.argv[1:])
