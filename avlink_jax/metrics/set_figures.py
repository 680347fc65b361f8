"""Intervals of figures of a set of clips, and their extrapolation to infinitely many clips.

A figure such as a Fréchet distance is no mean over clips, and it is biased by their number: with
N clips it is too large by about c / N (an inception score too small). Hence:

- `interval`: delete-a-group jackknife (Kott 2001). The bootstrap would mislead: a resample holds
  0.63 N different clips, and its figure is biased by that much more.
- `at_infinity`: the figure at several sizes up to N, fitted by a line in 1 / N, read at 0. Chong &
  Forsyth 2020 (FID∞, IS∞), for audio Gui et al. 2024 (FAD∞).
"""

import numpy as np
import scipy.stats

GROUPS = 20  # left out in turn
SIZES, SMALLEST = 8, 0.25  # sizes of the fit, the smallest of them in N
FEWEST = 8  # clips, below which neither is computed
LEVEL, SEED = 0.95, 0


def interval(figure, clips: int):
  """95 % interval [low, high] of a figure, None with fewer than 8 clips.

  Args:
    figure: (int (K,) numbers of clips) -> float.
    clips: their number N.
  """
  if clips < FEWEST:
    return None
  groups = min(GROUPS, clips)
  order = np.random.default_rng(SEED).permutation(clips)
  left = np.array([figure(np.sort(np.delete(order, slice(k, None, groups))))
                   for k in range(groups)])
  error = np.sqrt((groups - 1) / groups * np.sum((left - left.mean()) ** 2))
  reach = float(scipy.stats.t.ppf((1 + LEVEL) / 2, groups - 1) * error)
  value = figure(np.arange(clips))
  return [value - reach, value + reach]


def at_infinity(figure, clips: int):
  """Figure extrapolated to infinitely many clips; None with fewer than 8. Args as `interval`."""
  if clips < FEWEST:
    return None
  rng = np.random.default_rng(SEED)
  # Evenly spaced in 1 / size: the line's two ends weigh alike.
  sizes = np.unique(np.round(1 / np.linspace(1 / clips, 1 / (SMALLEST * clips), SIZES)).astype(int))
  values = [figure(np.sort(rng.choice(clips, size, replace=False))) for size in sizes]
  return float(np.polyfit(1 / sizes, values, 1)[1])
