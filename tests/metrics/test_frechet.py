"""Figures of sets against closed forms, SciPy's matrix root and their own identities."""

import numpy as np
import pytest
import scipy.linalg
from scipy.special import softmax

from avlink_jax.metrics import frechet, inception_score, set_figures

RNG = np.random.default_rng(0)


def exactly(mean, covariance, rows=400):
  """Rows whose sample mean and covariance are those, to rounding."""
  x = RNG.standard_normal((rows, len(mean)))
  x -= x.mean(0)
  x = x @ np.linalg.inv(np.linalg.cholesky(np.atleast_2d(np.cov(x.T)))).T
  return x @ np.linalg.cholesky(covariance).T + mean


def by_matrix_root(x, y):
  """The formula as it is written, with SciPy's matrix root."""
  a, b = np.cov(x.T), np.cov(y.T)
  root = scipy.linalg.sqrtm(a @ b)
  return np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(a + b) - 2 * np.trace(root.real)


def test_gaussians_with_common_axes_have_the_closed_form():
  a, b, shift = np.array([4.0, 1.0, 0.25]), np.array([1.0, 9.0, 0.25]), np.array([1.0, -2.0, 0.5])
  turn = np.linalg.qr(RNG.standard_normal((3, 3)))[0]
  x = exactly(np.zeros(3), turn @ np.diag(a) @ turn.T)
  y = exactly(shift, turn @ np.diag(b) @ turn.T)
  expected = np.sum(shift ** 2) + np.sum((np.sqrt(a) - np.sqrt(b)) ** 2)
  assert frechet.distance(x, y) == pytest.approx(expected, rel=1e-9)


def test_one_dimension_is_means_and_deviations():
  x, y = exactly(np.array([2.0]), np.array([[9.0]])), exactly(np.array([5.0]), np.array([[1.0]]))
  assert frechet.distance(x, y) == pytest.approx(9 + 4)


@pytest.mark.parametrize('rows_x, rows_y', [(300, 200), (9, 200), (7, 5)])
def test_it_is_what_the_matrix_root_gives_with_many_rows_and_with_few(rows_x, rows_y):
  x = RNG.standard_normal((rows_x, 12)) @ RNG.standard_normal((12, 12))
  y = RNG.standard_normal((rows_y, 12)) @ RNG.standard_normal((12, 12)) + 0.3
  assert frechet.distance(x, y) == pytest.approx(by_matrix_root(x, y), rel=1e-5)


def test_it_is_symmetric_and_turns_with_the_space_and_is_zero_at_home():
  x, y = RNG.standard_normal((40, 6)), RNG.standard_normal((50, 6)) * 2 + 1
  turn = np.linalg.qr(RNG.standard_normal((6, 6)))[0]
  found = frechet.distance(x, y)
  assert frechet.distance(y, x) == pytest.approx(found)
  assert frechet.distance(x @ turn, y @ turn) == pytest.approx(found)
  assert frechet.distance(x, x) < 1e-9 * np.sum(x ** 2)
  assert frechet.distance(x, x[::-1]) < 1e-9 * np.sum(x ** 2)


def test_few_clips_make_it_too_large_and_infinitely_many_do_not():
  plain, unbiased = [], []
  for seed in range(6):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((2, 200, 10))
    figure = lambda chosen, x=x, y=y: frechet.distance(x[chosen], y[chosen])  # noqa: E731
    plain.append(figure(np.arange(200)))
    unbiased.append(set_figures.at_infinity(figure, 200))
  assert min(plain) > 0.1  # of two samples of one law
  assert abs(np.mean(unbiased)) < 0.3 * np.mean(plain)


def test_at_infinity_reads_a_line_in_one_over_n_at_zero():
  assert set_figures.at_infinity(lambda chosen: 3 + 40 / len(chosen), 64) == pytest.approx(3)
  assert set_figures.at_infinity(len, 7) is None and set_figures.interval(len, 7) is None


def test_the_interval_of_a_mean_is_students():
  values = RNG.standard_normal(20)
  low, high = set_figures.interval(lambda chosen: values[chosen].mean(), 20)
  reach = scipy.stats.t.ppf(0.975, 19) * values.std(ddof=1) / np.sqrt(20)
  assert (low, high) == pytest.approx((values.mean() - reach, values.mean() + reach))


def test_inception_score_counts_the_classes_that_are_surely_there():
  sure = np.eye(5) * 200
  assert inception_score.score(sure) == pytest.approx(5)
  assert inception_score.score(np.repeat(sure[:2], 7, 0)) == pytest.approx(2)
  assert inception_score.score(np.repeat(sure[:1], 7, 0)) == pytest.approx(1)
  assert inception_score.score(np.zeros((9, 5))) == pytest.approx(1)


def test_inception_score_and_divergence_are_their_formulas():
  logits = RNG.standard_normal((30, 8)) * 3
  p = softmax(logits, -1)
  expected = np.exp(np.mean([scipy.stats.entropy(row, p.mean(0)) for row in p]))
  assert inception_score.score(logits) == pytest.approx(expected)
  assert inception_score.divergence(logits[0], logits[1]) == pytest.approx(
      scipy.stats.entropy(p[0], p[1]))
  assert inception_score.divergence(logits[0], logits[0] + 7) == pytest.approx(0, abs=1e-12)


def test_inception_score_in_splits_is_the_public_codes():
  """torch-fidelity's isc_features_to_metric with its defaults, told anew."""
  logits = np.random.default_rng(3).normal(0, 2, (37, 6))
  p = np.exp(logits[np.random.RandomState(2020).permutation(37)])
  p /= p.sum(1, keepdims=True)
  parts = [p[k * 37 // 10:(k + 1) * 37 // 10] for k in range(10)]
  expected = np.mean([np.exp((part * np.log(part / part.mean(0))).sum(1).mean())
                      for part in parts])
  assert inception_score.score_in_splits(logits) == pytest.approx(expected)
  assert inception_score.score_in_splits(logits) < inception_score.score(logits)
  assert inception_score.score_in_splits(logits[:9]) is None
