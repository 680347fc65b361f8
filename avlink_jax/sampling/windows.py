"""Clips of any length as overlapping windows of the model's length.

Each modality's data are one flat array over all clips; `index` gives the rows of each window. So
overlapping windows share noise and state, and their velocities are averaged at every Euler step.
The result is one trajectory for the complete clip, not a cross-fade of separate results.
"""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np

NEXT_TO_NOTHING = 1e-6  # weight of what counts only where there is nothing else


def window_starts(duration, seconds, overlap, rate, fps=None):
  """Starts in seconds of windows that cover [0, duration), neighbours sharing at least `overlap`.

  One window if the clip exceeds the model's length by less than a frame. Starts are multiples of
  1/rate, so that frames (or latents, with several frames of `fps` a second) of overlapping windows
  coincide.
  """
  if duration <= seconds + 1 / (fps or rate):
    return np.zeros(1)
  hop = max(1, math.floor((seconds - overlap) * rate + 1e-9)) / rate
  return hop * np.arange(1 + math.ceil((duration - seconds) / hop - 1e-9))


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
    return blend(values, self.index, self.weight, self.rows, np)

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


def blend(values, index, weight, rows, xp=jnp):
  """Weighted mean of windows: values (W, T, ...), index (W, T), weight (T,) -> (rows, ...)."""
  weights = xp.broadcast_to(weight, index.shape)
  weighted = values * weights.reshape(index.shape + (1,) * (values.ndim - 2))
  if xp is np:
    total, count = np.zeros((rows,) + values.shape[2:], values.dtype), np.zeros(rows, weight.dtype)
    np.add.at(total, index, weighted)
    np.add.at(count, index, weights)
  else:
    total = jnp.zeros((rows,) + values.shape[2:], values.dtype).at[index].add(weighted)
    count = jnp.zeros(rows, values.dtype).at[index].add(weights)
  count = xp.where(count > 0, count, 1)  # rows of padding windows
  return total / count.reshape((rows,) + (1,) * (values.ndim - 2))
