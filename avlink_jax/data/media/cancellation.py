"""Where the channels of audio cancel each other in their mix.

Energies of the mix and of each channel are summed over blocks of the file's clock. Channels cancel
where the mix has less than CANCELLED of the loudest channel's level: in all of the audio, or over a
WINDOW, from which the stretch goes on as long as block by block less than WEAK is left, and over
silence. Two thresholds, since around a single one the audio would jump to and fro; a window, since
in any recording of slow rumble one block or another cancels.
"""

import collections
import math
from typing import NamedTuple

import numpy as np

from avlink_jax.data.media.silence import BLOCK, SILENCE

CANCELLED, WEAK = 0.1, 0.3  # level of the mix over that of the loudest channel
WINDOW = 10  # blocks of BLOCK seconds
PIECES = 50  # that are summed up at once
FADE = 0.02  # seconds in which a channel takes the mix's place


class Stretch(NamedTuple):
  """Time in which one channel is heard alone: seconds on the file's clock, and its number."""
  begin: float
  end: float
  channel: int


class Energies:
  """Energies of a mix and its channels, by blocks. Audio that is added twice changes no ratio."""

  def __init__(self):
    self._samples: collections.Counter = collections.Counter()  # by block, as _sums
    self._sums: dict[int, np.ndarray] = {}  # (2, 1 + C): of the values and their squares
    self._weights = np.zeros(0)
    # Pieces that follow each other, not summed up yet: that is quicker for many at once.
    self._pieces: list = []
    self._begin, self._end, self._like = 0.0, 0.0, (0, 0)

  def add(self, mix, data, weights, begin: float, sample_rate: int):
    """Adds a mix float (S,) of channels (C, S) by weights (C,); the first sample is at `begin`
    seconds."""
    if len(weights) > len(self._weights):
      self._weights = np.asarray(weights)
    like = len(data), sample_rate
    if like != self._like or abs(begin - self._end) > 1e-6 or len(self._pieces) == PIECES:
      self._sum_up()
      self._begin, self._like = begin, like
    self._pieces.append(np.concatenate([mix[None], data]))
    self._end = begin + len(mix) / sample_rate

  def _sum_up(self):
    """Adds the pieces to the blocks."""
    if not self._pieces:
      return
    values, (_, sample_rate) = np.concatenate(self._pieces, axis=1, dtype=np.float64), self._like
    self._pieces, length = [], values.shape[1]
    first, last = (math.floor(time / BLOCK + 1e-6) for time in (
        self._begin, self._begin + (length - 1) / sample_rate))
    at = np.round((np.arange(first, last + 1) * BLOCK - self._begin) * sample_rate).astype(int)
    at = np.clip(at, 0, length - 1)
    sums = np.add.reduceat(np.stack([values, np.square(values)]), at, axis=-1)
    for n, samples in enumerate(np.diff(at, append=length)):
      if samples:
        self._samples[first + n] += int(samples)
        own, before = sums[..., n], self._sums.get(first + n)
        self._sums[first + n] = own if before is None else _added(own, before)

  def stretches(self) -> tuple[Stretch, ...]:
    """Stretches, in order, in which the channels cancel each other."""
    self._sum_up()
    blocks = sorted(self._sums)  # a hole in the audio ends no stretch
    if not blocks:
      return ()
    samples = np.array([self._samples[block] for block in blocks])
    sums = np.zeros((len(blocks), 2, 1 + len(self._weights)))
    for row, block in zip(sums, blocks, strict=True):
      row[:, :self._sums[block].shape[1]] = self._sums[block]
    # Around the block's mean: below 20 Hz a moment of two recordings of wind has any ratio.
    energies = sums[:, 1] - np.square(sums[:, 0]) / samples[:, None]
    mixed, single = energies[:, 0], energies[:, 1:]
    if mixed.sum() < CANCELLED ** 2 * single.sum(axis=0).max():
      return (Stretch(-math.inf, math.inf, _loudest(single)),)
    single = single * (self._weights > 0)  # what the mix leaves out for good does not cancel
    # A block more at both ends, whose part beyond the seam has not cancelled enough.
    return tuple(Stretch((blocks[begin] - 1) * BLOCK, (blocks[end - 1] + 2) * BLOCK,
                         _loudest(single[begin:end]))
                 for begin, end in _runs(samples, mixed, single))


def _added(a, b):
  """Sum of two arrays (2, C), C differing."""
  a, b = sorted((a, b), key=lambda sums: sums.shape[1])
  return b + np.pad(a, ((0, 0), (0, b.shape[1] - a.shape[1])))


def _loudest(single) -> int:
  """Number of the loudest channel by energies (N, C); of nearly equal ones always the first."""
  total = single.sum(axis=0)
  return int(np.argmax(total >= 0.9 * total.max()))


def _runs(samples, mixed, single) -> list[tuple[int, int]]:
  """Runs [begin, end) of blocks in which channels cancel: samples, mixed (N,), single (N, C)."""
  loudest = single.max(axis=1)
  heard = loudest >= SILENCE ** 2 * samples
  weak = ~heard | (mixed < WEAK ** 2 * loudest)
  cancelled = heard & weak & (
      _windowed(mixed) < CANCELLED ** 2 * _windowed(single).max(axis=1))
  edges = np.flatnonzero(np.diff(weak, prepend=False, append=False)).reshape(-1, 2)
  return [(begin, end) for begin, end in edges.tolist() if cancelled[begin:end].any()]


def _windowed(values):
  """Sums over the WINDOW around each block, of values (N, ...)."""
  sums = np.concatenate([np.zeros_like(values[:1]), np.cumsum(values, axis=0)])
  at = np.arange(len(values))
  return (sums[np.minimum(at + WINDOW // 2, len(values))]
          - sums[np.maximum(at - WINDOW // 2, 0)])


def replaced(mix, data, stretches, begin: float, sample_rate: int) -> np.ndarray:
  """Mix float32 (S,) of channels (C, S) with the channel of each stretch in its place, faded in and
  out over FADE beyond the stretch; the first sample is at `begin` seconds."""
  end = begin + len(mix) / sample_rate
  for stretch in stretches:
    if stretch.begin - FADE < end and stretch.end + FADE > begin:
      times = begin + np.arange(len(mix)) / sample_rate
      inside = np.minimum(times - stretch.begin, stretch.end - times)
      share = np.clip(1 + inside / FADE, 0, 1)
      own = data[min(stretch.channel, len(data) - 1)]
      mix = own if share.min() == 1 else mix + share * (own - mix)
  return np.ascontiguousarray(mix, np.float32)
