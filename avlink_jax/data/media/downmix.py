"""One channel of several, in which no sound is lost.

Of two channels it is the mean, of surround channels the customary downmix (ITU-R BS.775-3, table 2,
to one channel), which leaves out the one of low frequencies. Channels in counter-phase would cancel
each other in either; where they do, in all of the audio or in stretches of it, the loudest one is
heard alone (cancellation.py).
"""

import av
import numpy as np

from avlink_jax.data.media.cancellation import Energies, Stretch, replaced

WEIGHTS = {'FL': 0.5, 'FR': 0.5, 'FC': 0.5 ** 0.5, 'LFE': 0.0}  # by FFmpeg's names of channels
BESIDE = 0.5 ** 1.5  # of those at the sides and behind
JITTER = 0.005  # seconds by which timestamps may differ from the count of samples


class Downmix:
  """Mix of AVFrames' channels, float32 (samples,), with one channel alone in the `stretches`; with
  `keep_stereo` float32 (samples, 1 or 2), where only more channels than two are mixed.

  Attributes:
    energies: of what was mixed so far, where there were no stretches; on the file's clock.
  """

  def __init__(self, stretches: tuple[Stretch, ...] = (), keep_stereo=False):
    self.energies, self._stretches = Energies(), stretches
    self._keep_stereo, self._end = keep_stereo, None

  def __call__(self, frame) -> np.ndarray:
    data = channels(frame)
    if self._keep_stereo:
      mixed = data if len(data) <= 2 else self._mixed(data, frame)[None]
      return np.ascontiguousarray(mixed.T, np.float32)
    return self._mixed(data, frame)

  def _mixed(self, data, frame):
    """Mix float32 (samples,) of a frame's channels (C, samples)."""
    weights = weights_of(len(data), frame.layout)
    mix = (data.mean(axis=0, dtype=np.float32) if np.ptp(weights) == 0
           else (weights @ data).astype(np.float32, copy=False))
    if len(data) == 1:
      return mix
    begin = self._begin(frame)
    self._end = begin + len(mix) / frame.sample_rate
    if self._stretches:
      return replaced(mix, data, self._stretches, begin, frame.sample_rate)
    self.energies.add(mix, data, weights, begin, frame.sample_rate)
    return mix

  def _begin(self, frame) -> float:
    """Seconds at which a frame begins, without the jitter of timestamps."""
    if self._end is not None and (frame.time is None or abs(frame.time - self._end) < JITTER):
      return self._end
    return frame.time or 0.0


def mono(wave: np.ndarray, sample_rate: int) -> np.ndarray:
  """Mix float32 (S,) of a wave float (S, C) at `sample_rate`, of which no more is known."""
  return replaced(wave.mean(axis=1, dtype=np.float32), wave.T, cancelled(wave, sample_rate), 0.0,
                  sample_rate)


def cancelled(wave: np.ndarray, sample_rate: int) -> tuple[Stretch, ...]:
  """Stretches of a wave float (S, C) in which its channels cancel each other in their mean."""
  energies = Energies()
  energies.add(wave.mean(axis=1, dtype=np.float32), wave.T, np.ones(wave.shape[1]), 0.0,
               sample_rate)
  return energies.stretches()


def weights_of(count: int, layout) -> np.ndarray:
  """Weights float32 (C,) of so many channels in their mix, laid out so."""
  names = [channel.name for channel in layout.channels]
  if count <= 2 or len(names) != count or 'FL' not in names:
    return np.full(count, 1 / count, np.float32)
  return np.array([WEIGHTS.get(name, BESIDE) for name in names], np.float32)


def channels(frame) -> np.ndarray:
  """AudioFrame -> float (channels, samples) in [-1, 1]."""
  if frame.format.is_planar and frame.layout.nb_channels >= 8:
    # PyAV 18 finds a frame's planes by reading on to a null pointer, which there is none of
    # from 8 channels on: it crashes. Interleaved sound is a single plane.
    frame, = av.AudioResampler(format='flt', layout=frame.layout,
                               rate=frame.sample_rate).resample(frame)
  data = frame.to_ndarray()
  if not frame.format.is_planar:
    data = data.reshape(-1, frame.layout.nb_channels).T
  if data.dtype == np.uint8:
    data = (data.astype(np.float32) - 128) / 128
  elif data.dtype.kind == 'i':
    data = data / np.float32(-float(np.iinfo(data.dtype).min))
  return data
