"""Towers whose network predicts something else than the velocity, which follows from it."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp

from avlink_jax.model.dit import DiT
from avlink_jax.model.estimate import add_detail, shown_beyond, velocity_from_data
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
class LearnedDetail(Wrapper):
  """DataPrediction whose deviation is learned, of each flow time and channel: how much of the data
  the tower carries differs between them, and what it carries should not be taken with its noise.

  Attributes:
    detail: deviation that all of them begin with.
  """
  tower: DiT
  detail: float

  @property
  def _log_deviation(self):
    return nn.Dense(self.channels, kernel_init=nn.initializers.zeros)

  def init(self, key):
    _, time, _ = self.tower.example()
    return self.tower.init(key) | {'detail': self._log_deviation.init(key, time)['params']}

  def head(self, params, stream):
    x, t = stream.input.x, stream.input.t
    x1 = self.tower.head(params, stream)
    log_deviation = self._log_deviation.apply(
        {'params': params['detail']}, nn.silu(stream.time.astype(jnp.float32)))
    deviation = self.detail * jnp.exp(log_deviation)
    deviation = jnp.expand_dims(deviation, range(1, x.ndim - 1))
    return velocity_from_data(x, add_detail(x, x1, t, deviation), t)


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
