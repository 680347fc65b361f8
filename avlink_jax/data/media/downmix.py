"""One channel of several, in which no sound is lost.

Of two channels it is the mean, of surround channels the customary downmix (ITU-R BS.775-3, table 2,
to one channel), which leaves out the one of low frequencies. Channels in counter-phase would cancel
each other in either; then the loudest one is heard alone.
"""

import av
import numpy as np

CANCELLED = 0.1  # level of the mix over that of the loudest channel, below which they cancel
WEIGHTS = {'FL': 0.5, 'FR': 0.5, 'FC': 0.5 ** 0.5, 'LFE': 0.0}  # by FFmpeg's names of channels
BESIDE = 0.5 ** 1.5  # of those at the sides and behind


class Downmix:
  """Mix of an AVFrame's channels, float32 (samples,); with `only` no mix but that channel.

  Attributes, of all frames so far:
    lost: number of the loudest channel where channels cancel each other in the mix, else None.
  """

  def __init__(self, only=None):
    self._only, self._mixed, self._channels = only, 0.0, np.zeros(0)

  def __call__(self, frame) -> np.ndarray:
    data = channels(frame)
    if self._only is not None:
      return np.ascontiguousarray(data[min(self._only, len(data) - 1)], np.float32)
    mix = weighted(data, frame.layout)
    if len(data) > 1:
      self._add(mix, data)
    return mix

  def _add(self, mix, data):
    """Adds energies."""
    if len(data) > len(self._channels):
      self._channels = np.pad(self._channels, (0, len(data) - len(self._channels)))
    self._mixed += np.square(mix, dtype=np.float64).sum()
    self._channels[:len(data)] += np.square(data, dtype=np.float64).sum(axis=1)

  @property
  def lost(self) -> int | None:
    if self._mixed >= CANCELLED ** 2 * self._channels.max(initial=0):
      return None
    return int(self._channels.argmax())


def mono(wave: np.ndarray) -> np.ndarray:
  """Mix float32 (S,) of a wave float (S, C), of which no more is known."""
  mix, energies = wave.mean(axis=1, dtype=np.float32), np.square(wave, dtype=np.float64).sum(axis=0)
  if np.square(mix, dtype=np.float64).sum() >= CANCELLED ** 2 * energies.max(initial=0):
    return mix
  return np.ascontiguousarray(wave[:, energies.argmax()], np.float32)


def mono_or_stereo(frame) -> np.ndarray:
  """AudioFrame -> float32 (samples, 1 or 2): more channels are mixed."""
  data = channels(frame)
  data = data if len(data) <= 2 else weighted(data, frame.layout)[None]
  return np.ascontiguousarray(data.T, np.float32)


def weighted(data: np.ndarray, layout) -> np.ndarray:
  """Mix float32 (samples,) of float (channels, samples) that are laid out so."""
  names = [channel.name for channel in layout.channels]
  if len(data) <= 2 or len(names) != len(data) or 'FL' not in names:
    return data.mean(axis=0, dtype=np.float32)
  weights = np.array([WEIGHTS.get(name, BESIDE) for name in names], np.float32)
  return (weights @ data).astype(np.float32, copy=False)


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
