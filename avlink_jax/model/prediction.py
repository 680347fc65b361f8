"""Towers whose network predicts something else than the velocity, which follows from it."""

import dataclasses

from avlink_jax.model.estimate import (
  add_detail,
  precondition,
  shown_beyond,
  velocity_from_data,
)
from avlink_jax.model.guided import Guided
from avlink_jax.model.tower import Wrapper


@dataclasses.dataclass(frozen=True)
class DataPrediction(Wrapper):
  """A tower whose head says X̂_1. A patch wider than the tower needs this: velocity contains the
  noise, which a narrow tower cannot carry, while the clean video it can.

  Attributes:
    detail: deviation of what such a tower cannot carry of the data, and takes from its input
      instead, as far as that is clean (estimate.add_detail).
  """
  detail: float = 0.0

  def head(self, params, stream):
    x, t = stream.input.x, stream.input.t
    x1 = self.tower.head(params, stream)
    return velocity_from_data(x, add_detail(x, x1, t, self.detail), t)


@dataclasses.dataclass(frozen=True)
class Preconditioned(Wrapper):
  """A tower whose head says ((1−t)·X_1 − t·X_0) / √(t² + (1−t)²): the data from noise, the noise
  from data (v of Salimans & Ho 2022; the preconditioning of Karras et al. 2022).

  The velocity X_1 − X_0 is noise at every t, which a narrow tower has to pass on. What X_t itself
  shows of it, of data and noise of variance 1, comes from X_t here (estimate.precondition).
  """

  def head(self, params, stream):
    return precondition(stream.input.x, self.tower.head(params, stream), stream.input.t)


@dataclasses.dataclass(frozen=True)
class ResidualPrediction(Wrapper):
  """A guided tower whose head says what X_1 is beyond a first guess of it, the guide's last
  channels. Of X_t it sees what that shows beyond the guess (estimate.shown_beyond).

  Attributes:
    detail: deviation of the data from the guess.
  """
  tower: Guided
  detail: float = 0.0

  def embed(self, params, input):
    return self.tower.embed(params, self._shown(input)).replace(input=input)

  def head(self, params, stream):
    x, t = stream.input.x, stream.input.t
    shown = stream.replace(input=self._shown(stream.input))
    x1 = self.tower.head(params, shown) + self._guess(stream.input)
    return velocity_from_data(x, add_detail(x, x1, t, self.detail), t)

  def _guess(self, input):
    return input.guide[..., -self.channels:]

  def _shown(self, input):
    return input.replace(x=shown_beyond(input.x, self._guess(input), input.t, self.detail))
