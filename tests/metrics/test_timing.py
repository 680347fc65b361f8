"""Exactness of times: closed forms, and shifts that F1 at ±100 ms does not see."""

import numpy as np
import pytest

from avlink_jax.metrics import timing
from avlink_jax.metrics.onset import NO_ONSETS, Onsets

TIMES = np.array([0.5, 1.0, 1.6, 2.3])


def onsets(times, confidences=None):
  times = np.asarray(times, np.float64)
  return Onsets(times, np.ones(len(times)) if confidences is None else np.asarray(confidences))


@pytest.mark.parametrize('late, f1_25, f1_50', [
    (0.0, 1, 1), (0.02, 1, 1), (0.03, 0, 1), (-0.04, 0, 1), (0.09, 0, 0)])
def test_a_constant_lateness_is_told_and_no_spread(late, f1_25, f1_50):
  found = timing.scores(onsets(TIMES + late), TIMES)
  assert (found['f1_25ms'], found['f1_50ms']) == (f1_25, f1_50)
  assert found['lateness'] == pytest.approx(late) and found['spread'] == pytest.approx(0, abs=1e-9)


def test_the_spread_is_the_median_distance_from_the_lateness():
  found = timing.scores(onsets(TIMES + [0.01, 0.03, 0.05, 0.03]), TIMES)
  assert found['lateness'] == pytest.approx(0.03) and found['spread'] == pytest.approx(0.01)
  assert found['f1_25ms'] == pytest.approx(2 / 8)


def test_exact_times_may_come_in_any_order_with_their_strengths():
  order, strengths = [2, 0, 3, 1], np.array([0.2, 0.5, 0.7, 1.0])
  found = timing.scores(onsets(TIMES, [0.1, 0.3, 0.4, 0.9]), TIMES[order], strengths[order])
  assert found['strength'] == pytest.approx(1.0) and found['f1_25ms'] == 1
  found = timing.scores(onsets(TIMES, [0.9, 0.4, 0.3, 0.1]), TIMES, strengths)
  assert found['strength'] == pytest.approx(-1.0)


def test_what_is_undefined_is_none():
  empty = timing.scores(NO_ONSETS, TIMES, np.ones(4))
  assert empty == {'f1_25ms': 0, 'f1_50ms': 0, 'lateness': None, 'spread': None, 'strength': None}
  assert timing.scores(NO_ONSETS, [])['f1_25ms'] is None
  assert timing.scores(onsets(TIMES), TIMES)['strength'] is None
  assert timing.scores(onsets(TIMES), TIMES, np.ones(4))['strength'] is None
  assert timing.scores(onsets(TIMES[:2], [1, 0.5]), TIMES[:2], [1, 0.5])['strength'] is None
