"""Confidence intervals of means over clips: percentile intervals of the bootstrap.

As many clips as there are are drawn with replacement; a mean's interval holds the middle 95 % of
the resamples' means (Efron & Tibshirani 1993, chapter 13). All figures use the same draws, clip by
clip, so that a difference of two figures is paired.
"""

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95
SEED = 0
BLOCK = 250  # resamples at a time, so that 20,000 clips take 40 MB


def intervals(columns: dict, *, resamples: int = RESAMPLES, level: float = LEVEL,
              seed: int = SEED) -> dict:
  """Intervals of the columns' means.

  Args:
    columns: {name: n values, a clip each}; None where a clip does not define the figure. A
      resample's mean is over those of its clips that do.
    resamples, level, seed: number of draws, probability of the interval, seed of the draws.

  Returns:
    {name: [low, high]}; None for a column with fewer than two defined values.
  """
  if not columns:
    return {}
  values = np.array([[np.nan if value is None else value for value in column]
                     for column in columns.values()], np.float64)
  defined = ~np.isnan(values)
  enough = np.flatnonzero(defined.sum(axis=1) > 1)
  result = dict.fromkeys(columns)
  if not len(enough):
    return result
  clips, names = values.shape[1], list(columns)
  filled, defined = np.nan_to_num(values[enough]).T, defined[enough].T.astype(np.float64)
  rng, means = np.random.default_rng(seed), []
  for first in range(0, resamples, BLOCK):
    drawn = rng.multinomial(clips, np.full(clips, 1 / clips),
                            size=min(BLOCK, resamples - first)).astype(np.float64)
    counted = drawn @ defined
    # A resample may hold none of the clips that define a figure: it has no mean.
    means.append(np.where(counted > 0, drawn @ filled / np.maximum(counted, 1), np.nan))
  low, high = np.nanquantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2], axis=0)
  for k, name in enumerate(enough):
    result[names[name]] = [float(low[k]), float(high[k])]
  return result
