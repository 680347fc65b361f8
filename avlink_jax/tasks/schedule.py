"""Schedule of sampling: its steps, and which of them compute what."""

import dataclasses

from ml_collections import ConfigDict

from avlink_jax import flow
from avlink_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Schedule:
  """Settings of a sampler's program, from `config.sample`.

  Attributes:
    steps: from noise to data.
    refresh: steps that share one computation of the conditioning stream; 1: each evaluation of the
      velocity has its own, as in the paper.
    solver: name in flow.SOLVERS.
    guidance_from, guidance_to: guidance only at flow times t of the generated modality between
      these two, both included.
  """
  steps: int = 64
  refresh: int = 1
  solver: str = 'euler'
  guidance_from: float = 0.0
  guidance_to: float = 1.0

  @classmethod
  def of(cls, sample: ConfigDict) -> 'Schedule':
    """Schedule of `config.sample`. Raises UserError: a value is none that can be used."""
    schedule = cls(**{field.name: sample[field.name] for field in dataclasses.fields(cls)})
    for name in ('steps', 'refresh'):
      if sample[name] < 1:
        raise UserError(f'sample.{name}={sample[name]}: give at least 1')
    if schedule.solver not in flow.SOLVERS:
      raise UserError(f'sample.solver={schedule.solver!r}: use {", ".join(flow.SOLVERS)}')
    if not 0 <= schedule.guidance_from <= schedule.guidance_to <= 1:
      raise UserError(
          f'sample.guidance_from={schedule.guidance_from:g} and sample.guidance_to='
          f'{schedule.guidance_to:g} are flow times: give 0 <= from <= to <= 1')
    return schedule

  @property
  def always_guided(self) -> bool:
    """Whether there is guidance at every flow time."""
    return (self.guidance_from, self.guidance_to) == (0, 1)
