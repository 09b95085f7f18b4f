"""Tests of the tests: a reader that misbehaves is found out, with its input."""

import dataclasses

import fault_run
import fault_sources
import misbehaving
import mutations
from mutations import Mutation
import pytest
import shards
import source_job

# Which leave the rows as they are: in what no reader looks at.
INPUTS = [("00000.tar", Mutation("truncate", n)) for n in (51_100, 51_150)]


def run(folder, read, *, max_seconds=20):
  case = fault_sources.make_webdataset(folder / "source")
  recipe = dataclasses.replace(case.recipe, read=read)
  case = dataclasses.replace(case, name="case", recipe=recipe)
  job = source_job.SourceJob(case=case, inputs=INPUTS)
  return fault_run.run_jobs([job], folder, max_seconds=max_seconds)


@pytest.mark.parametrize("kind", mutations.KINDS)
def test_a_damage_is_the_same_each_time(kind):
  data = shards.encode(shards.noise(0), "PNG") * 3
  made = [Mutation(kind, n).apply(data) for n in range(50)]

  assert made == [Mutation(kind, n).apply(data) for n in range(50)]
  assert len(set(made)) > 10 or kind == "resized"
  assert sum(damaged != data for damaged in made) > 30


@pytest.mark.slow
@pytest.mark.parametrize("fault", misbehaving.READERS)
def test_what_should_not_be_is_told_with_its_input(tmp_path, fault):
  report = run(tmp_path, misbehaving.READERS[fault], max_seconds=3)

  assert report.num_inputs == len(report.failures) == 2
  for (file, mutation), failure in zip(INPUTS, report.failures, strict=True):
    assert failure.startswith(f"case, {file}, {mutation}: ")
    assert fault in failure


@pytest.mark.slow
def test_memory_is_measured(tmp_path):
  report = run(tmp_path, misbehaving.GREEDY)

  assert not report.failures
  assert report.memory_bytes > 1_100_000_000
  assert report.largest == "case, 00000.tar, truncate 51100"
