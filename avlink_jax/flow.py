"""Rectified flow as in the paper: path, law of t, target, guidance, Euler. No model here.

Time runs from noise, t = 0, to data, t = 1 (AV-Link Sec. 3.1). `t` is a scalar or has one value
for each example, (B,); arrays of data are (B, ...).
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def broadcast(t: ArrayLike, like: jax.Array) -> jax.Array:
  """Reshapes t, () or (B,), to (B, 1, 1, ...), so that it multiplies `like` (B, ...)."""
  t = jnp.asarray(t)
  return t if t.ndim == 0 else t.reshape(t.shape + (1,) * (like.ndim - t.ndim))


def interpolate(x1: jax.Array, x0: jax.Array, t: ArrayLike) -> jax.Array:
  """Straight path X_t = t·X_1 + (1−t)·X_0 from noise X_0 to data X_1 (Eq. 1)."""
  t = broadcast(t, x1)
  return t * x1 + (1 - t) * x0


def target(x1: jax.Array, x0: jax.Array) -> jax.Array:
  """Target velocity v_t = dX_t/dt = X_1 − X_0 (Sec. 3.1)."""
  return x1 - x0


def logit_normal(key: jax.Array, shape: Sequence[int], location: ArrayLike = 0.0,
                 scale: ArrayLike = 1.0) -> jax.Array:
  """Draws t = sigmoid(location + scale·n), n ~ N(0, 1), the law of t in training (App. D.1)."""
  return jax.nn.sigmoid(location + scale * jax.random.normal(key, shape))


def guide(v_conditional: jax.Array, v_unconditional: jax.Array, weight: ArrayLike) -> jax.Array:
  """Classifier-free guidance v = v_u + w·(v_c − v_u) (App. C.2: w = 5; w = 1 is no guidance)."""
  return v_unconditional + weight * (v_conditional - v_unconditional)


def time_grid(steps: int, shift: jax.Array | float = 0.0) -> jax.Array:
  """Boundaries (steps + 1,) of Euler steps, from 0 to 1.

  logit t_k = logit(k/steps) + shift. Shift 0 is the paper's uniform grid; a negative shift moves
  steps towards noise, as a negative `location` does for the law of t in training.
  """
  u = jnp.linspace(0.0, 1.0, steps + 1)
  return u / (u + (1 - u) * jnp.exp(-shift))


def euler(velocity: Callable[[Any, Any], Any], x0: Any, times: Any) -> Any:
  """First-order Euler from x0 at times[0] to times[-1] (App. C.2), as one `lax.scan`.

  Args:
    velocity: (x, t) -> dx/dt, with x any pytree and t as `times`, without its axis.
    x0: pytree, the state at times[0].
    times: (steps + 1,), increasing; or a dict of such arrays with the keys of x0.
  Returns:
    the state at times[-1].
  """
  def step(x, t_and_next):
    t, t_next = t_and_next
    v = velocity(x, t)
    advance = lambda t, t_next, x, v: jax.tree.map(  # noqa: E731
        lambda x, v: x + (t_next - t).astype(x.dtype) * v, x, v)
    return jax.tree.map(advance, t, t_next, x, v), None  # `times` is a prefix of x's tree

  both = jax.tree.map(lambda times: times[:-1], times), jax.tree.map(lambda t: t[1:], times)
  return jax.lax.scan(step, x0, both)[0]
