"""Clips of any length as overlapping windows of the model's length.

Each modality's data are one flat array over all clips; `index` gives the rows of each window. So
overlapping windows share noise and state, and their velocities are averaged at every Euler step.
The result is one trajectory for the complete clip, not a cross-fade of separate results.
"""

import dataclasses
import math
from fractions import Fraction

import jax.numpy as jnp
import numpy as np

MOST = 10_000  # denominator of a rate, at most: 24000/1001 frames a second is 23.976
TINY = 1e-9  # what floats may lack
NEXT_TO_NOTHING = 1e-6  # weight of what counts only where there is nothing else


def common_step(rates, longest):
  """Smallest step in seconds that is a whole number of data frames at each of `rates` (a second).

  Where that is no shorter than `longest`, one frame of the lowest rate: other modalities' windows
  then begin at their nearest frame.
  """
  periods = [1 / Fraction(rate).limit_denominator(MOST) for rate in rates]
  step = Fraction(math.lcm(*(p.numerator for p in periods)),
                  math.gcd(*(p.denominator for p in periods)))
  return step if step < longest else max(periods)


def window_starts(duration, seconds, overlap, step, covered=None):
  """Starts in seconds of windows that cover [0, duration), multiples of `step`.

  Neighbours share at least `overlap`, or all but a step. The last window begins as early as it
  reaches the end, so that it has little padding.

  Args:
    duration: the clip's.
    seconds: a window's.
    step: grid of the starts (common_step).
    covered: seconds of media that a window gives; default: `seconds`.
  """
  missing = duration - (seconds if covered is None else covered)
  if missing <= TINY:
    return np.zeros(1)
  last = math.ceil(missing / step - TINY)  # all in steps
  hop = max(1, math.floor((seconds - overlap) / step + TINY))
  return np.array([float(n * step) for n in [*range(0, last, hop), last]])


@dataclasses.dataclass(frozen=True)
class Track:
  """Windows of one modality over all clips.

  index: int32 (W, T): each window's rows in the flat array.
  weight: float32 (T,): a window's weight where windows overlap, decreasing towards its ends.
  first: (clips + 1,): first row of each clip.
  """
  index: np.ndarray
  weight: np.ndarray
  first: np.ndarray

  @property
  def rows(self):
    return int(self.first[-1])

  def flat(self, values):
    """Blends windows (W, T, ...) to (rows, ...), by weighted mean where they overlap."""
    shape = self.rows, *values.shape[2:]
    return Sum(shape, values.dtype).add(values, self.index, self.weight).mean()

  def of_clip(self, flat, clip):
    """Rows of one clip."""
    return flat[self.first[clip]:self.first[clip + 1]]


def track(starts_by_clip, steps, rate, short_first=False):
  """Track of a modality with `steps` data frames a window, `rate` a second. `short_first`: the
  first of them counts only where no other window has that frame (codecs/codec.py)."""
  index, first = [], [0]
  for starts in starts_by_clip:
    local = np.round(starts * rate).astype(int)[:, None] + np.arange(steps)
    index.append(local + first[-1])
    first.append(first[-1] + int(local.max()) + 1)
  n = np.arange(steps)
  weight = np.minimum(n + 1, steps - n).astype(np.float32)
  if short_first:
    weight[0] = NEXT_TO_NOTHING
  return Track(np.concatenate(index).astype(np.int32), weight / weight.max(), np.array(first))


def blend(values, index, weight, rows):
  """Weighted mean of windows: values (W, T, ...), index (W, T), weight (T,) -> (rows, ...)."""
  weights = jnp.broadcast_to(weight, index.shape)
  weighted = values * weights.reshape(index.shape + (1,) * (values.ndim - 2))
  total = jnp.zeros((rows,) + values.shape[2:], values.dtype).at[index].add(weighted)
  count = jnp.zeros(rows, values.dtype).at[index].add(weights)
  count = jnp.where(count > 0, count, 1)  # rows of padding windows
  return total / count.reshape((rows,) + (1,) * (values.ndim - 2))


class Sum:
  """`blend` on the host, of windows that come batch by batch: their weighted sum so far.

  Args: shape (rows, ...) and dtype of the values.
  """

  def __init__(self, shape, dtype=np.float32):
    self._total, self._count = np.zeros(shape, dtype), np.zeros(shape[0], np.float32)

  def add(self, values, index, weight):
    """Adds windows: values (W, T, ...), index (W, T), weight (T,)."""
    weighted = values * weight.reshape((-1,) + (1,) * (values.ndim - 2))
    for rows, of_window in zip(index, weighted, strict=True):
      self._total[rows] += of_window
      self._count[rows] += weight
    return self

  def mean(self):
    """Weighted mean (rows, ...); 0 where there was no window."""
    count = np.where(self._count > 0, self._count, 1)
    return self._total / count.reshape((-1,) + (1,) * (self._total.ndim - 1))
