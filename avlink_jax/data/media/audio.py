"""The audio of a file: decoded pieces, laid onto one clock by their timestamps."""

import collections
import math

import numpy as np
import scipy.ndimage
import soxr

from avlink_jax.data.media.container import SeekFailed
from avlink_jax.data.media.limits import Unusable, check_rate
from avlink_jax.data.media.times import audio_end, jumps

DRIFT = 0.005  # seconds audio may stray from its timestamps before it is aligned again


class AudioTrack:
  """One audio stream at its own rate. `mix` turns an AVFrame into float32 (samples, ...).

  `zero` and `end` are on the file's own clock: when the first sample starts and the last ends.
  All methods raise Unusable where the file cannot be used.
  """

  decodes = True

  def __init__(self, stream, mix, allowance):
    self.stream, self.zero, self.end = stream, None, None
    self.pieces, self._times, self._rate, self._mix = [], [], None, mix
    self._allowance, self._seek_target = allowance, None
    self._until, self._channels = math.inf, 1

  @property
  def rate(self) -> int:
    """Hz of the audio in the file; 0 where there is none."""
    return self._rate or 0

  def restart(self, start):
    """Drops what was decoded, after a seek to before `start` on the file's clock."""
    self.pieces, self._times, self.end, self._seek_target = [], [], None, start

  def add(self, frame):
    check_rate(frame.sample_rate)
    self._rate = self._rate or frame.sample_rate
    piece, self._channels = self._mix(frame), frame.layout.nb_channels
    self._allowance.take(math.ceil(piece.nbytes * self._rate / frame.sample_rate))
    if frame.sample_rate != self._rate:
      piece = soxr.resample(piece, frame.sample_rate, self._rate)
    time = frame.time if frame.time is not None else self.end or 0.0
    if self._seek_target is not None and time > self._seek_target:
      raise SeekFailed
    self._seek_target = None
    if self.zero is None:
      self.zero = time
    elif self.end is not None and jumps(time - self.end):
      raise Unusable('timestamps jump')
    self.pieces.append(piece)
    self._times.append(time)
    self.end = time + len(piece) / self._rate

  def close(self):
    """Leaves the encoder's padding out, once the stream was read to its end."""
    if self.end is not None and (end := audio_end(self.stream, self.end)) < self.end:
      self.end = self._until = end

  def waveform(self, zero: float, length: float, sample_rate: int, samples: int,
            lead: int = 0) -> np.ndarray:
    """Audio float32 (samples, ...) from file time `zero` on, `length` seconds at sample_rate; once.

    `lead`: whole seconds before `zero` that the clip has too; they warm the resampler up.
    """
    # Some more than asked, so that the resampler's edges lie outside.
    channels, zero = self.pieces[0].shape[1:], zero - lead
    shape = (math.ceil((lead + length + 0.1) * self._rate), *channels)
    # Checked before allocating: the length a file declares may be wrong.
    self._allowance.take(4 * math.prod(shape) + 4 * math.prod((samples, *channels)))
    native = np.zeros(shape, np.float32)
    counted = np.cumsum([0] + [len(piece) for piece in self.pieces[:-1]]) / self._rate
    # Timestamps against the count of samples: holes are steps in it and stay where they are
    # under a median, while jitter (Matroska rounds to 1 ms, recorders are worse) goes away.
    offsets = scipy.ndimage.median_filter(np.array(self._times) - counted, 11, mode='nearest')
    anchor = offsets[0]
    pieces, self.pieces = collections.deque(self.pieces), []
    for count, offset in zip(counted, offsets, strict=True):
      piece = pieces.popleft()  # so that memory does not hold all of the audio twice
      if abs(offset - anchor) > DRIFT:
        anchor = offset
      _paste(native, round((anchor + count - zero) * self._rate), piece)
    audio = soxr.resample(native, self._rate, sample_rate)[lead * sample_rate:][:samples]
    # After resampling, which blurs an edge that is not in the sound.
    audio[round(min(max(0.0, self._until - lead - zero), length) * sample_rate):] = 0
    if missing := samples - len(audio):
      audio = np.concatenate([audio, np.zeros((missing, *channels), np.float32)])
    if not np.isfinite(audio).all():
      raise Unusable('its sound holds values that are not finite')
    if self._channels > 2:  # where surround channels add up to more than full scale
      return audio / max(1.0, np.abs(audio).max(initial=0))
    return np.clip(audio, -1, 1, out=audio)


def _paste(target: np.ndarray, at: int, piece: np.ndarray):
  """target[at:at + len(piece)] = piece, for the part that lies inside."""
  piece = piece[max(0, -at):]
  at = max(0, at)
  target[at:at + len(piece)] = piece[:max(0, len(target) - at)]
