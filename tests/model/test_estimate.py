"""Data and velocity turn into each other; what a guess leaves open is estimated linearly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avlink_jax import flow
from avlink_jax.model import estimate

seeds = st.integers(0, 2**32 - 1)
times = st.integers(0, 1000).map(lambda n: n / 1000)


def pair(seed, shape=(3, 4, 2)):
  return np.random.default_rng(seed).standard_normal((2, *shape)).astype(np.float32)


@given(seeds, times)
@settings(max_examples=20)
def test_the_exact_velocity_ends_in_the_data(seed, t):
  x1, x0 = pair(seed)
  x_t, v = flow.interpolate(x1, x0, t), flow.target(x1, x0)
  np.testing.assert_allclose(estimate.data_from_velocity(x_t, v, t), x1, atol=1e-5)


@given(seeds, times.filter(lambda t: t <= 0.95))
@settings(max_examples=20)
def test_velocity_and_data_turn_into_each_other(seed, t):
  x_t, v = pair(seed)
  t = np.full(len(x_t), t, np.float32)
  back = estimate.velocity_from_data(x_t, estimate.data_from_velocity(x_t, v, t), t)
  np.testing.assert_allclose(back, v, atol=1e-4)


@pytest.mark.parametrize('t', [0.96, 0.999, 1.0])
def test_past_t_max_the_divisor_stands_still(t):
  x_t, x1 = pair(3)
  np.testing.assert_allclose(estimate.velocity_from_data(x_t, x1, t, t_max=0.95), (x1 - x_t) / 0.05,
                             rtol=1e-5)


@pytest.mark.parametrize('t', [0.0, 0.2, 0.7, 0.97])
def test_what_is_shown_beyond_a_guess_is_the_best_linear_estimate(t):
  """Of a line through the points (X_t − t·guess, X_1 − guess), fitted to many draws."""
  rng, deviation = np.random.default_rng(0), 0.3
  guess, n = rng.standard_normal((2, 200_000))
  beyond = deviation * n
  x_t = flow.interpolate(guess + beyond, rng.standard_normal(200_000), t)
  made = np.asarray(estimate.shown_beyond(x_t, guess, t, deviation))
  rest = x_t - t * guess
  slope = np.mean(rest * beyond) / np.mean(rest**2)
  np.testing.assert_allclose(made, slope * rest, atol=2e-2)
  np.testing.assert_allclose(estimate.add_detail(x_t, guess, t, deviation), guess + made, atol=1e-6)


def test_a_guess_becomes_what_is_shown_as_the_noise_goes():
  x, guess = np.float32([1.0, -2.0]), np.float32([0.3, 0.4])
  np.testing.assert_allclose(estimate.add_detail(x, guess, 1.0, 0.3), x, atol=1e-6)
  np.testing.assert_array_equal(estimate.add_detail(x, guess, 0.0, 0.3), guess)
