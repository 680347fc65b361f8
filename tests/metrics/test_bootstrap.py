"""Intervals of means over clips: as wide as they should be, paired, and always the same."""

import numpy as np
import pytest
import scipy.stats

from avlink_jax.metrics.bootstrap import intervals


def interval(values, **options):
  return intervals({'x': values}, **options)['x']


@pytest.mark.parametrize('clips', [10, 64, 500])
def test_agrees_with_scipy(clips):
  values = np.random.default_rng(clips).beta(2, 1, clips)
  expected = scipy.stats.bootstrap((values,), np.mean, n_resamples=20000, method='percentile',
                                   rng=np.random.default_rng(1)).confidence_interval
  width = expected.high - expected.low
  np.testing.assert_allclose(interval(list(values), resamples=20000), expected, atol=0.03 * width)
  np.testing.assert_allclose(interval(list(values)), expected, atol=0.08 * width)


def test_many_clips_give_the_normal_interval():
  values = np.random.default_rng(0).normal(3, 2, 4000)
  half = 1.959964 * values.std() / np.sqrt(4000)
  np.testing.assert_allclose(interval(list(values)), [values.mean() - half, values.mean() + half],
                             atol=0.08 * half)


def test_95_percent_hold_the_true_mean():
  rng = np.random.default_rng(0)
  draws = {str(k): rng.uniform(0, 1, 60) for k in range(400)}
  # Each column is an experiment of its own; the draws of clips are shared, which the coverage
  # does not mind.
  held = [low <= 0.5 <= high for low, high in intervals(draws).values()]
  # Binomial(400, 0.94): the percentile interval is a little narrow at 60 clips.
  assert 0.90 <= np.mean(held) <= 0.98


def test_twice_the_same_and_another_seed_another():
  values = list(np.random.default_rng(0).uniform(0, 1, 30))
  assert interval(values) == interval(values) != interval(values, seed=1)


def test_all_columns_are_drawn_alike_so_that_differences_are_paired():
  rng = np.random.default_rng(0)
  score = rng.uniform(0, 1, 50)
  found = intervals({'score': list(score), 'control': list(score - 0.1),
                     'difference': list(score - (score - 0.1))})
  np.testing.assert_allclose(np.subtract(found['score'], found['control']), 0.1)
  np.testing.assert_allclose(found['difference'], 0.1)


def test_undefined_values_are_left_out():
  rng = np.random.default_rng(0)
  values = list(rng.uniform(0, 1, 200))
  few = interval([value for value in values for value in (value, None, None)])
  np.testing.assert_allclose(few, interval(values), atol=0.02)
  assert few != interval(values)  # how many are defined is chance too


@pytest.mark.parametrize('values', [[], [None], [0.5], [None, 0.5, None]])
def test_fewer_than_two_values_tell_nothing(values):
  assert interval(values) is None


def test_constant_scores_have_an_interval_without_width():
  assert interval([1.0] * 7) == [1.0, 1.0]
  assert intervals({}) == {}
