"""Rectified flow as in the paper: path, law of t, target, guidance, solvers. No model here.

Time runs from noise, t = 0, to data, t = 1 (AV-Link Sec. 3.1). `t` is a scalar or has one value
for each example, (B,); arrays of data are (B, ...).
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

Velocity = Callable[[Any, Any, Any], tuple[Any, Any]]  # see `solve`


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


def logit_normal_quantile(share: ArrayLike, location: ArrayLike = 0.0,
                          scale: ArrayLike = 1.0) -> jax.Array:
  """Value t below which `share` (between 0 and 1) of the law `logit_normal` lies."""
  return jax.nn.sigmoid(location + scale * jax.scipy.special.ndtri(share))


def guide(v_conditional: jax.Array, v_unconditional: jax.Array, weight: ArrayLike) -> jax.Array:
  """Classifier-free guidance v = v_u + w·(v_c − v_u) (App. C.2: w = 5; w = 1 is no guidance)."""
  return v_unconditional + weight * (v_conditional - v_unconditional)


def time_grid(steps: int, shift: jax.Array | float = 0.0) -> jax.Array:
  """Boundaries (steps + 1,) of a solver's steps, from 0 to 1.

  logit t_k = logit(k/steps) + shift. Shift 0 is the paper's uniform grid; a negative shift moves
  steps towards noise, as a negative `location` does for the law of t in training.
  """
  u = jnp.linspace(0.0, 1.0, steps + 1)
  return u / (u + (1 - u) * jnp.exp(-shift))


def advance(x: Any, v: Any, t: Any, t_next: Any) -> Any:
  """x + (t_next − t)·v, of trees of which those of t and t_next are prefixes."""
  return jax.tree.map(lambda t, t_next, x, v: jax.tree.map(
      lambda x, v: x + (t_next - t).astype(x.dtype) * v, x, v), t, t_next, x, v)


def euler(velocity: Velocity, x: Any, t: Any, t_next: Any, kept: Any) -> tuple[Any, Any]:
  """First-order step (App. C.2): x_next = x + h·v(x, t), h = t_next − t. Returns it and `kept`."""
  v, kept = velocity(x, t, kept)
  return advance(x, v, t, t_next), kept


def midpoint(velocity: Velocity, x: Any, t: Any, t_next: Any, kept: Any) -> tuple[Any, Any]:
  """Second-order step, two velocities: x_next = x + h·v(x + h/2·v(x, t), t + h/2)."""
  v, kept = velocity(x, t, kept)
  middle = jax.tree.map(lambda t, t_next: (t + t_next) / 2, t, t_next)
  v, kept = velocity(advance(x, v, t, middle), middle, kept)
  return advance(x, v, t, t_next), kept


def heun(velocity: Velocity, x: Any, t: Any, t_next: Any, kept: Any) -> tuple[Any, Any]:
  """Second-order step, two velocities: x_next = x + h/2·(v(x, t) + v(x + h·v(x, t), t_next)).

  The step that ends in data is Euler's, which keeps the order: in training there is no t = 1, and
  a tower that predicts data gives no velocity there (Karras et al., 2022, do the same).
  """
  v, kept = velocity(x, t, kept)
  end = jnp.stack(jax.tree.leaves(t_next)).min() >= 1
  later = _either(end, lambda: v, lambda: velocity(advance(x, v, t, t_next), t_next, kept)[0])
  mean = jax.tree.map(lambda v, later: (v + later) / 2, v, later)
  return advance(x, mean, t, t_next), kept


def _either(which, yes, no):
  """`yes()` or `no()`, only one of which is computed; `which` may be traced."""
  if isinstance(which, jax.core.Tracer):
    return jax.lax.cond(which, yes, no)
  return yes() if which else no()


SOLVERS = {'euler': euler, 'midpoint': midpoint, 'heun': heun}


def solve(velocity: Velocity, x0: Any, times: Any, step: Callable = euler, group: int = 1) -> Any:
  """Integrates dx/dt = velocity from x0 at times[0] to times[-1], as one `lax.scan` or, in groups
  of several steps, as one inside another.

  Args:
    velocity: (x, t, kept) -> (dx/dt, kept), with x any pytree and t as `times`, without its axis.
      `kept` is None at the first evaluation of each group, and then what the one before returned
      that began its group: what it does not compute anew.
    times: (steps + 1,), increasing; or a dict of such arrays with the keys of x0.
    step: one of SOLVERS.
    group: steps in a group. In a group of one `kept` is None each time.
  Returns:
    the state at times[-1].
  """
  steps = jax.tree.leaves(times)[0].shape[0] - 1
  group = min(group, steps)
  if group == 1:
    alone = lambda x, t, kept: (velocity(x, t, None)[0], None)  # noqa: E731
    one = lambda x, t: (step(alone, x, *t, None)[0], None)  # noqa: E731
    return jax.lax.scan(one, x0, (_all_but_last(times), _all_but_first(times)))[0]
  groups = -(-steps // group)
  # The last group is filled up with steps that are left out.
  fill = lambda x: jnp.pad(x, (0, groups * group - steps)).reshape(groups, group)  # noqa: E731
  each = jax.tree.map(fill, (_all_but_last(times), _all_but_first(times), jnp.ones(steps, bool)))

  def together(x, rows):
    (t, t_next, _), rest = (jax.tree.map(lambda row, part=part: row[part], rows)
                            for part in (0, slice(1, None)))
    x, kept = step(velocity, x, t, t_next, None)

    def one(x, row):
      t, t_next, real = row
      go = lambda x: step(velocity, x, t, t_next, kept)[0]  # noqa: E731
      return (jax.lax.cond(real, go, lambda x: x, x) if steps % group else go(x)), None

    return jax.lax.scan(one, x, rest)[0], None

  return jax.lax.scan(together, x0, each)[0]


def _all_but_last(times):
  return jax.tree.map(lambda t: t[:-1], times)


def _all_but_first(times):
  return jax.tree.map(lambda t: t[1:], times)
