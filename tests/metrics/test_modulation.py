"""The energy of fast and narrow detail, against sines and what smoothing leaves of them."""

import numpy as np
import pytest

from avlink_jax.metrics.modulation import FAST, NARROW, energies, high_energy

RATE, FRAMES, BANDS = 100.0, 400, 64


def sine(cycles_a_second, amplitude=1.0, level=-5.0):
  """(T, n_mels) log-mel, every band the same sine along time."""
  t = np.arange(FRAMES)[:, None] / RATE
  return level + amplitude * np.sin(2 * np.pi * cycles_a_second * t + np.arange(BANDS))


def ripple(cycles_a_bin, amplitude=1.0, level=-5.0):
  """(T, n_mels) log-mel, every frame the same sine along frequency."""
  n = np.arange(BANDS)
  return level + amplitude * np.sin(2 * np.pi * cycles_a_bin * n + np.arange(FRAMES)[:, None])


def kept(original, made, name):
  before, after = energies(original, made, RATE)[name]
  return after / before


@pytest.mark.parametrize('width', [2, 3, 5])
@pytest.mark.parametrize('rate', [15.0, 24.0, 40.0])
def test_a_smoothed_fast_sine_keeps_the_square_of_the_filters_gain(rate, width):
  """A running mean of n frames multiplies a sine by sin(πfn/r) / (n sin(πf/r))."""
  x = sine(rate)
  smooth = np.mean([np.roll(x, shift, axis=0) for shift in range(width)], axis=0)
  turn = np.pi * rate / RATE
  gain = np.sin(width * turn) / (width * np.sin(turn))
  assert kept(x, smooth, 'time') == pytest.approx(gain**2, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize('rate', [0.1875, 0.25, 0.4375])
def test_a_smoothed_narrow_ripple_keeps_the_square_of_the_filters_gain(rate):
  x = ripple(rate)
  smooth = (x + np.roll(x, 1, axis=1)) / 2
  assert kept(x, smooth, 'frequency') == pytest.approx(np.cos(np.pi * rate) ** 2, rel=1e-3)


def test_the_energy_of_a_sine_is_that_of_its_window():
  """Parseval: over positive frequencies Σ|X|² = N/2 · a²/2 · Σw²."""
  energy = high_energy(sine(30.0, amplitude=0.7), 0, FAST, RATE)
  window = np.hanning(FRAMES + 2)
  assert energy == pytest.approx(FRAMES / 2 * 0.7**2 / 2 * np.sum(window**2) * BANDS, rel=1e-3)


@pytest.mark.parametrize('name, slow', [('time', sine(5.0)), ('frequency', ripple(1 / 16))])
def test_slow_detail_and_level_do_not_count(name, slow):
  fast = sine(25.0) if name == 'time' else ripple(0.25)
  assert kept(fast, fast + 3 * slow - 2, name) == pytest.approx(1, rel=1e-3)
  assert kept(fast, slow, name) < 1e-4


def test_the_borders_are_those_of_the_docstring():
  for axis, above, rate, make in ((0, FAST, RATE, sine), (1, NARROW, 1.0, ripple)):
    below, over = (high_energy(make(factor * above), axis, above, rate) for factor in (0.75, 1.25))
    assert below < 0.01 * over
