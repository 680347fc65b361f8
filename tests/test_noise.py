"""The hashed-counter noise is as good as normal for what it is used for."""

import jax
import numpy as np
from scipy import stats

from avlink_jax.noise import gaussian


def draw(seed, shape=(200_000,)):
  return np.asarray(gaussian(jax.random.key(seed), shape))


def test_values_are_standard_normal():
  assert stats.kstest(draw(0), 'norm').pvalue > 1e-3
  assert stats.kstest(draw(1, (40, 50, 100)).ravel(), 'norm').pvalue > 1e-3


def test_tails_are_there_and_finite():
  x = draw(2, (5_000_000,))
  assert np.isfinite(x).all()
  assert abs(np.mean(np.abs(x) > 4) / (2 * stats.norm.sf(4)) - 1) < 0.3


def test_neighbours_rows_and_seeds_are_uncorrelated():
  x, bound = draw(3), 5 / np.sqrt(200_000)
  for lag in (1, 2, 3, 64, 192, 4096):
    assert abs(np.corrcoef(x[:-lag], x[lag:])[0, 1]) < bound
    assert abs(np.corrcoef(x[:-lag] ** 2, x[lag:] ** 2)[0, 1]) < bound
  for other in (draw(4), draw(3 + 2**16)):
    assert abs(np.corrcoef(x, other)[0, 1]) < bound


def test_the_same_key_gives_the_same_noise():
  np.testing.assert_array_equal(draw(5), draw(5))
