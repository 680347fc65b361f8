"""Noise from a hashed counter: normal, independent, and whatever the shape, the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from avlink_jax.model import noise

COUNT = 1 << 17
draw = jax.jit(noise.gaussian, static_argnums=1)


def values(seed=0, fold=0):
  return np.asarray(draw(jax.random.fold_in(jax.random.key(seed), fold), (COUNT,)), np.float64)


@pytest.mark.parametrize('seed', range(4))
def test_the_values_are_normal(seed):
  assert scipy.stats.kstest(values(seed), scipy.stats.norm.cdf).pvalue > 1e-3
  # The tails by themselves, which decide the kurtosis and not the distance above.
  beyond = int((np.abs(values(seed)) > 3).sum())
  assert scipy.stats.binomtest(beyond, COUNT, 2 * scipy.stats.norm.sf(3)).pvalue > 1e-3


def test_all_are_finite_also_at_the_ends_of_the_uniform(monkeypatch):
  """From the smallest to the largest 32-bit number the hash can give."""
  monkeypatch.setattr(noise, '_mix', lambda x: x)
  for ends in (0, 2**32 - 1):
    monkeypatch.setattr(jax.random, 'bits', lambda *_, e=ends: jnp.array([e, 0], jnp.uint32))
    made = noise.gaussian(None, (1,))
    assert abs(made[0]) == pytest.approx(-scipy.stats.norm.ppf(2.0**-24), abs=0.1)


@pytest.mark.parametrize('lag', [1, 2, 64, 4096])
def test_neighbours_are_independent(lag):
  x = values()
  for of in (np.abs, lambda x: x):  # of their sizes, too
    correlation = np.corrcoef(of(x[:-lag]), of(x[lag:]))[0, 1]
    assert abs(correlation) < 4 / np.sqrt(COUNT)


def test_keys_next_to_each_other_give_unrelated_noise():
  drawn = np.stack([values(0, fold) for fold in range(6)] + [values(1)])
  correlations = np.corrcoef(drawn) - np.eye(len(drawn))
  assert np.abs(correlations).max() < 4.5 / np.sqrt(COUNT)


def test_counters_that_overlap_do_not_repeat_the_noise(monkeypatch):
  """Two steps whose first random words are near each other count through the same numbers."""
  def of(*words):
    monkeypatch.setattr(jax.random, 'bits', lambda *_: jnp.array(words, jnp.uint32))
    return np.asarray(noise.gaussian(None, (4096,)))

  one, other = of(5, 1234), of(7, 999)
  assert abs(np.corrcoef(one[2:], other[:-2])[0, 1]) < 4 / np.sqrt(4094)
  np.testing.assert_array_equal(one[2:], of(7, 1234)[:-2])  # as it would be with one word alone


def test_the_shape_only_folds_the_values_up():
  key = jax.random.key(3)
  flat = draw(key, (24,))
  np.testing.assert_array_equal(draw(key, (2, 3, 4)), np.reshape(flat, (2, 3, 4)))
  assert flat.dtype == jnp.float32
