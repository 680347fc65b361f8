"""What tests allow is what rounding does, and not much more."""

import numpy as np
import pytest
from tolerance import first_adam_tolerance, sum_tolerance


@pytest.mark.parametrize('dtype', [np.float16, np.float32])
@pytest.mark.parametrize('terms', [10, 1000])
def test_sums_in_another_order_are_within_the_tolerance_which_is_not_a_hundred_times_theirs(
    dtype, terms):
  x = np.random.default_rng(terms).standard_normal((300, terms)).astype(dtype)
  one, other = (np.cumsum(y, axis=1, dtype=dtype)[:, -1].astype(float) for y in (x, x[:, ::-1]))
  apart = np.abs(one - other).max()
  allowed = sum_tolerance(dtype, terms, np.sqrt(terms))
  assert allowed / 100 < apart < allowed


def test_adams_first_step_is_certain_where_the_gradient_is_and_open_where_it_is_rounding():
  gradient = np.array([1.0, -1.0, 1e-9, 0.0])
  allowed = first_adam_tolerance(gradient, 1e-6, learning_rate=0.1, epsilon=1e-8)
  np.testing.assert_allclose(allowed, [2e-15, 2e-15, 0.198, 0.198], rtol=0.01)
