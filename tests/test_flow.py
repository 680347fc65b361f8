"""Rectified flow, against closed forms: the path, the laws of time, guidance, solvers."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from avlink_jax import flow

seeds = st.integers(0, 2**32 - 1)
times = st.integers(0, 1000).map(lambda n: n / 1000)


def pair(seed, shape=(3, 4, 2)):
  rng = np.random.default_rng(seed)
  return rng.standard_normal((2, *shape)).astype(np.float32)


# The path

@given(seeds)
@settings(max_examples=10)
def test_the_path_runs_from_the_noise_to_the_data(seed):
  x1, x0 = pair(seed)
  np.testing.assert_array_equal(flow.interpolate(x1, x0, 0.0), x0)
  np.testing.assert_array_equal(flow.interpolate(x1, x0, 1.0), x1)


@given(seeds, times)
@settings(max_examples=20)
def test_the_target_is_the_paths_derivative(seed, t):
  x1, x0 = pair(seed)
  _, slope = jax.jvp(lambda t: flow.interpolate(x1, x0, t), (jnp.float32(t),), (jnp.float32(1),))
  np.testing.assert_allclose(slope, flow.target(x1, x0), atol=1e-6)


def test_each_example_has_its_own_time():
  x1, x0 = pair(0)
  t = np.array([0.1, 0.5, 0.9], np.float32)
  together = flow.interpolate(x1, x0, t)
  for n in range(3):
    np.testing.assert_allclose(together[n], t[n] * x1[n] + (1 - t[n]) * x0[n], atol=1e-6)


# The law of t

@pytest.mark.parametrize('location, scale', [(0.0, 1.0), (-1.0, 1.0), (-3.0, 0.5)])
def test_the_logits_of_t_are_normal(location, scale):
  t = np.asarray(flow.logit_normal(jax.random.key(0), (20_000,), location, scale), np.float64)
  assert ((t > 0) & (t < 1)).all()
  law = scipy.stats.norm(location, scale)
  assert scipy.stats.kstest(scipy.special.logit(t), law.cdf).pvalue > 0.01


# Guidance

def test_guidance_of_one_is_the_conditional_velocity_and_of_zero_the_unconditional():
  v_c, v_u = pair(1)
  np.testing.assert_allclose(flow.guide(v_c, v_u, 1.0), v_c, atol=1e-6)
  np.testing.assert_array_equal(flow.guide(v_c, v_u, 0.0), v_u)


@given(st.floats(-10, 10))
@settings(max_examples=20)
def test_guidance_goes_along_the_line_from_unconditional_to_conditional(weight):
  v_c, v_u = pair(2)
  np.testing.assert_allclose(flow.guide(v_c, v_u, weight), (1 - weight) * v_u + weight * v_c,
                             atol=1e-4)


# Where the steps lie

@given(st.sampled_from([1, 2, 64, 100]), st.floats(-4, 4))
@settings(max_examples=20)
def test_the_time_grid_goes_up_from_zero_to_one(steps, shift):
  grid = np.asarray(flow.time_grid(steps, shift))
  assert grid.shape == (steps + 1,) and grid[0] == 0 and grid[-1] == 1
  assert (np.diff(grid) > 0).all()


def test_without_a_shift_the_time_grid_is_even():
  np.testing.assert_allclose(flow.time_grid(64), np.arange(65) / 64, atol=1e-6)


@pytest.mark.parametrize('shift', [-3.0, -1.0, 0.5, 2.0])
def test_the_shift_moves_the_logits_of_the_time_grid(shift):
  inner = np.arange(1, 32) / 32
  wanted = scipy.special.expit(scipy.special.logit(inner) + shift)
  np.testing.assert_allclose(flow.time_grid(32, shift)[1:-1], wanted, rtol=1e-5)


# Solvers

MEAN, DEVIATION = 1.5, 0.4


def exact_velocity(x, t):
  """E[X_1 − X_0 | X_t = x] for X_0 ~ N(0, 1), X_1 ~ N(μ, σ²) independent of it.

  X_t and X_1 − X_0 are jointly normal: means tμ and μ, covariance tσ² − (1 − t),
  Var X_t = t²σ² + (1 − t)².
  """
  covariance = t * DEVIATION**2 - (1 - t)
  variance = t**2 * DEVIATION**2 + (1 - t) ** 2
  return MEAN + covariance / variance * (x - t * MEAN)


def alone(velocity):
  """`velocity` (x, t), for flow.solve, with nothing to keep."""
  return lambda x, t, kept: (velocity(x, t), kept)


def standard_normal(count=2001):
  """Evenly spaced quantiles of N(0, 1): its sample without the sampling error."""
  return scipy.stats.norm.ppf((np.arange(count) + 0.5) / count).astype(np.float32)


@pytest.mark.parametrize('shift', [0.0, -1.0, 1.0])
def test_euler_carries_one_gaussian_into_another(shift):
  x0 = standard_normal()
  x1 = flow.solve(alone(exact_velocity), x0, flow.time_grid(512, shift))
  assert np.mean(x1) == pytest.approx(MEAN, abs=2e-3)
  assert np.std(x1) == pytest.approx(DEVIATION * np.std(x0), rel=0.01)
  np.testing.assert_allclose(x1, MEAN + DEVIATION * x0, atol=0.02)  # point by point, too


@pytest.mark.parametrize('shift', [0.0, 0.5])
@pytest.mark.parametrize('solver, order', [('euler', 1), ('midpoint', 2), ('heun', 2)])
def test_a_solvers_error_falls_by_its_order(solver, order, shift):
  """With half the step, to a half or a quarter: dx/dt = x·(1 + 2t), x(1) = e²·x(0)."""
  errors = [float(jnp.exp(2.0) - flow.solve(
      alone(lambda x, t: x * (1 + 2 * t)), jnp.ones(()), flow.time_grid(steps, shift),
      flow.SOLVERS[solver])) for steps in (16, 32, 64)]
  orders = np.log2(np.divide(errors[:-1], errors[1:]))
  np.testing.assert_allclose(orders, order, atol=0.25)


@given(st.sampled_from([1, 2, 40]), st.floats(-3, 3), st.sampled_from(list(flow.SOLVERS)))
@settings(max_examples=10)
def test_one_straight_path_is_followed_exactly_whatever_the_steps(steps, shift, solver):
  x1, x0 = pair(5)
  made = flow.solve(alone(lambda x, t: flow.target(x1, x0)), x0, flow.time_grid(steps, shift),
                    flow.SOLVERS[solver])
  np.testing.assert_allclose(made, x1, atol=1e-5)


def test_heun_asks_for_no_velocity_of_data():
  """A tower that predicts data gives none at t = 1."""
  velocity = lambda x, t: jnp.where(t < 1, 1.0, jnp.nan) + 0 * x  # noqa: E731
  made = flow.solve(alone(velocity), jnp.zeros(2), flow.time_grid(4), flow.heun)
  np.testing.assert_allclose(made, 1.0, atol=1e-6)


@pytest.mark.parametrize('solver', flow.SOLVERS)
@pytest.mark.parametrize('group', [1, 2, 3, 7, 9])
def test_what_is_kept_stands_for_a_group_of_steps(solver, group):
  """Whether groups divide the steps or not: dx/dt = kept + x, where a group's first evaluation
  keeps its flow time; in groups of one every evaluation does."""
  times = flow.time_grid(7, -0.5)

  def velocity(x, t, kept):
    kept = t if kept is None else kept
    return kept + x, kept

  made = flow.solve(velocity, jnp.ones(2), times, flow.SOLVERS[solver], group)
  x, kept = np.ones(2), None
  for n, (t, t_next) in enumerate(itertools.pairwise(np.asarray(times, np.float64))):
    def slope(x, t):
      nonlocal kept
      kept = t if kept is None or group == 1 else kept
      return kept + x

    kept, h = kept if n % group else None, t_next - t
    v = slope(x, t)
    if solver == 'midpoint':
      v = slope(x + h / 2 * v, t + h / 2)
    elif solver == 'heun' and n < 6:
      v = (v + slope(x + h * v, t_next)) / 2
    x = x + h * v
  np.testing.assert_allclose(made, x, rtol=1e-5)


def test_euler_moves_every_leaf_of_a_tree_by_its_own_velocity():
  tree = {'a': jnp.ones((2, 3)), 'b': [jnp.zeros(4)]}
  rates = {'a': 1.0, 'b': [-2.0]}

  def velocity(x, t):
    return jax.tree.map(lambda x, r: r * x + t, x, rates)

  grid = flow.time_grid(16, -1.0)
  made = flow.solve(alone(velocity), tree, grid)
  for leaf, start, rate in zip(*(jax.tree.leaves(x) for x in (made, tree, rates)), strict=True):
    x = np.asarray(start)
    for t, t_next in zip(grid[:-1], grid[1:], strict=True):
      x = x + (t_next - t) * (rate * x + t)
    np.testing.assert_allclose(leaf, x, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('solver', flow.SOLVERS)
def test_a_solver_keeps_the_states_dtype(solver):
  x0 = jnp.ones(3, jnp.bfloat16)
  made = flow.solve(alone(lambda x, t: x), x0, flow.time_grid(4), flow.SOLVERS[solver])
  assert made.dtype == jnp.bfloat16
