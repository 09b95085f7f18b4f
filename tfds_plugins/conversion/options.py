"""Options of a conversion that do not change its result."""

from __future__ import annotations

import dataclasses

from tfds_plugins import errors


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConversionOptions:
  """Options of a conversion that do not change its result.

  Attributes:
    num_workers: number of worker processes; 1 converts in this process. None
      stands for one per core that this process may use.

  """

  num_workers: int | None = None

  def __post_init__(self) -> None:
    value = self.num_workers
    if value is None:
      return
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
      raise errors.OptionError(
        f"num_workers must be an integer from 1 on, or None, not {value!r}."
      )
