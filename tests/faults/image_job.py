"""Normalizes damaged images, and hands on what goes through."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import io
import pathlib

from fault_run import Recorder
from mutations import Mutation
from PIL import Image

from tfds_plugins.encoding import decoding
from tfds_plugins.encoding import images


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageJob:
  """Damages of one image.

  Attributes:
    name: for people.
    image: the encoded image.
    mutations: how it is damaged.
  """

  name: str
  image: bytes
  mutations: Sequence[Mutation]

  @property
  def num_inputs(self) -> int:
    return len(self.mutations)

  def describe(self, number: int) -> str:
    return f"{self.name}, {self.mutations[number]}"

  def make_runner(
    self, work_dir: pathlib.Path, recorder: Recorder
  ) -> ImageRunner:
    return ImageRunner(self, recorder)


class ImageRunner:
  """Normalizes images as the rows of one shard are."""

  def __init__(self, job: ImageJob, recorder: Recorder):
    self._job = job
    self._recorder = recorder
    self._normalizers = [
      images.ImageNormalizer(trusts_png_checksums=trusts)
      for trusts in (False, True)
    ]
    for normalizer in self._normalizers:
      result = normalizer.normalize(job.image)
      assert isinstance(result, decoding.UniformImage), result

  def run(self, number: int) -> str:
    """Returns `right`, or the reason for which an image is rejected."""
    mutation = self._job.mutations[number]
    damaged = mutation.apply(self._job.image)
    outcome = ""
    # Who trusts checksums cannot know that they were forged.
    some = self._normalizers[: 1 if mutation.is_forged else 2]
    for normalizer in some:
      result = normalizer.normalize(damaged)
      if isinstance(result, decoding.RejectedImage):
        assert result.detail
        outcome = result.reason
        continue
      outcome = outcome or "right"
      image = bytes(result.data)
      with Image.open(io.BytesIO(image)) as opened:
        assert opened.size == (result.width, result.height)
      if image != self._job.image:
        self._recorder.add_image(image)
    return outcome
