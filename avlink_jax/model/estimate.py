"""Data from velocity, velocity from data, and the linear estimate of what a guess leaves open.

X_t = t·X_1 + (1−t)·X_0 as in flow.py; t () or (B,), arrays of data (B, ...).
"""

import jax.numpy as jnp

from avlink_jax.flow import broadcast


def data_from_velocity(x_t, v, t):
  """X̂_1 = X_t + (1−t)·v: where the straight path through X_t with velocity v ends."""
  return x_t + (1 - broadcast(t, x_t)) * v


def velocity_from_data(x_t, x1, t, t_max=0.95):
  """v = (X̂_1 − X_t)/(1−t), for a network that predicts the clean data X̂_1.

  The division blows up at t = 1; past `t_max` the divisor stays at 1 − t_max.
  """
  return (x1 - x_t) / (1 - jnp.minimum(broadcast(t, x_t), t_max))


def add_detail(x_t, x1, t, deviation):
  """X̂_1 with what X_t itself shows beyond it: the linear least-squares estimate of X_1, given X_t,
  where X_1 − X̂_1 has that standard deviation.

  A network with a narrow waist can predict the coarse video only. Without this, it is charged at
  late t, where 1/(1−t)² weighs most, for detail that it cannot carry and X_t shows already.
  """
  return x1 + shown_beyond(x_t, x1, t, deviation)


def shown_beyond(x_t, x1, t, deviation):
  """The linear least-squares estimate, given X_t, of what X_1 is beyond a guess `x1` of it, which
  has that standard deviation: 0 at t = 0, where X_t shows nothing, and all of it at t = 1."""
  t = broadcast(t, x_t)
  gain = t * deviation**2 / ((t * deviation) ** 2 + (1 - t) ** 2 + 1e-12)
  return gain * (x_t - t * x1)


def precondition(x_t, f, t):
  """Velocity of a network's output `f` of variance 1: what is left of it beside the linear estimate
  that X_t gives, of data and noise of variance 1,

      v = (2t − 1) / s · X_t + f / √s,   s = t² + (1 − t)²   (the variance of X_t)

  so that f = ((1 − t)·X_1 − t·X_0) / √s where v = X_1 − X_0.
  """
  t = broadcast(t, x_t)
  s = t**2 + (1 - t) ** 2
  return (2 * t - 1) / s * x_t + f / jnp.sqrt(s)
