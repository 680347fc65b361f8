"""Clips of any length as windows of the model's length that overlap and are blended.

A clip longer than the model becomes several windows. Each modality's data stands once in a flat
array over all clips; `index` says which rows of it a window sees, so that where windows
overlap they share noise and state, and their velocities are averaged at every Euler step. The
result is one trajectory for the whole clip: nothing is cross-faded that was made apart.
"""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np


def window_starts(duration, seconds, overlap, rate, fps=None):
  """Starts in seconds of windows that cover [0, duration), at least `overlap` shared by neighbours.

  One window where the clip is no longer than the model (but for less than a picture). Starts
  lie on multiples of 1/rate, so that windows share pictures exactly; or latents, where one holds
  several pictures of `fps` a second.
  """
  if duration <= seconds + 1 / (fps or rate):
    return np.zeros(1)
  hop = max(1, math.floor((seconds - overlap) * rate + 1e-9)) / rate
  return hop * np.arange(1 + math.ceil((duration - seconds) / hop - 1e-9))


@dataclasses.dataclass(frozen=True)
class Track:
  """Windows of one modality over all clips.

  index: int32 (W, T): row of the flat array that each step of each window is.
  weight: float32 (T,): a window's say where windows overlap, falling towards its ends.
  first: (clips + 1,): where each clip's rows begin.
  """
  index: np.ndarray
  weight: np.ndarray
  first: np.ndarray

  @property
  def rows(self):
    return int(self.first[-1])

  def flat(self, values):
    """(W, T, ...) of windows -> (rows, ...), averaged by weight where they overlap."""
    return blend(values, self.index, self.weight, self.rows, np)

  def of_clip(self, flat, clip):
    """The rows of one clip."""
    return flat[self.first[clip]:self.first[clip + 1]]


def track(starts_by_clip, steps, rate):
  """Track of a modality with `steps` data steps a window at `rate` a second."""
  index, first = [], [0]
  for starts in starts_by_clip:
    local = np.round(starts * rate).astype(int)[:, None] + np.arange(steps)
    index.append(local + first[-1])
    first.append(first[-1] + int(local.max()) + 1)
  n = np.arange(steps)
  weight = np.minimum(n + 1, steps - n).astype(np.float32)
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
  count = xp.where(count > 0, count, 1)  # rows of windows that are only there to fill the batch
  return total / count.reshape((rows,) + (1,) * (values.ndim - 2))
