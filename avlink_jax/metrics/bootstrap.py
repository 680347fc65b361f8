"""How far a mean over clips can be trusted: percentile intervals of the bootstrap.

Clips are drawn with replacement as often as there are clips; a mean's interval holds the middle
95 % of what it then comes to (Efron & Tibshirani 1993, chapter 13). All figures are taken over
the same draws, clip by clip, so that a difference of two figures is paired.
"""

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95
SEED = 0
BLOCK = 250  # resamples at a time, so that 20,000 clips take 40 MB


def intervals(columns: dict, *, resamples: int = RESAMPLES, level: float = LEVEL,
              seed: int = SEED) -> dict:
  """The interval of each column's mean.

  Args:
    columns: {name: n values, a clip each}; None where a clip does not define the figure. A
      resample's mean is over those of its clips that do.
    resamples, level, seed: how often to draw, how much the interval holds, the draws' seed.

  Returns:
    {name: [low, high]}; None for a column with fewer than two defined values, which tell
    nothing of their spread.
  """
  if not columns:
    return {}
  values = np.array([[np.nan if value is None else value for value in column]
                     for column in columns.values()], np.float64)
  defined = ~np.isnan(values)
  told = np.flatnonzero(defined.sum(axis=1) > 1)
  found = dict.fromkeys(columns)
  if not len(told):
    return found
  clips, names = values.shape[1], list(columns)
  filled, defined = np.nan_to_num(values[told]).T, defined[told].T.astype(np.float64)
  rng, means = np.random.default_rng(seed), []
  for first in range(0, resamples, BLOCK):
    drawn = rng.multinomial(clips, np.full(clips, 1 / clips),
                            size=min(BLOCK, resamples - first)).astype(np.float64)
    counted = drawn @ defined
    # A resample may hold none of the clips that define a figure: it has no mean.
    means.append(np.where(counted > 0, drawn @ filled / np.maximum(counted, 1), np.nan))
  low, high = np.nanquantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2], axis=0)
  for k, name in enumerate(told):
    found[names[name]] = [float(low[k]), float(high[k])]
  return found
