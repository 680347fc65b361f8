"""Level of generated audio, before it is written: nothing is clipped, and it may be set.

`sample.level`: as_made (scaled down only where it exceeds full scale), peak (its highest sample at
−1 dBFS), or a loudness such as −16 LUFS by ITU-R BS.1770, as FFmpeg's `ebur128` measures it. A gain
is at most MOST decibels and leaves the peak at −1 dBFS, and what is silent stays so: noise is not
raised to full scale.
"""

import re
from fractions import Fraction

import av
import numpy as np

from avlink_jax.errors import UserError
from avlink_jax.metrics.onset import SILENCE_PEAK

CEILING = 10 ** (-1 / 20)  # of a peak, where the level is changed
MOST = 20.0  # decibels of gain
LOUDNESS = re.compile(r'(-\d+(\.\d+)?) ?LUFS', re.IGNORECASE)
CHUNK = 4800  # samples that the filter is given at a time


def check(level: str) -> None:
  """Raises UserError: `level` is none that there is."""
  if level not in ('as_made', 'peak') and not LOUDNESS.fullmatch(level):
    raise UserError(f'sample.level={level!r}: use as_made, peak, or a loudness such as -16LUFS')


def levelled(wave: np.ndarray, sample_rate: int, level: str) -> tuple[np.ndarray, dict]:
  """Wave (S,) at a level, within full scale, and what was done: {'peak', 'rms', 'gain_db'}, of
  which the first two are of the wave as it was made, 1 being full scale.

  Raises UserError: unknown level.
  """
  check(level)
  wave = np.asarray(wave, np.float32)
  peak = float(np.abs(wave).max(initial=0))
  rms = float(np.sqrt(np.mean(np.square(wave, dtype=np.float64)))) if len(wave) else 0.0
  gain = 1.0
  if peak >= SILENCE_PEAK and level != 'as_made':
    target = LOUDNESS.fullmatch(level)
    wanted = CEILING / peak
    if target and (found := loudness(wave, sample_rate)) is not None:
      wanted = min(wanted, 10 ** ((float(target[1]) - found) / 20))
    gain = min(wanted, 10 ** (MOST / 20))
  if gain * peak > 1:
    gain = CEILING / peak
  return wave * np.float32(gain), {'peak': round(peak, 5), 'rms': round(rms, 6),
                                   'gain_db': round(20 * np.log10(gain), 2)}


def loudness(wave: np.ndarray, sample_rate: int) -> float | None:
  """Integrated loudness in LUFS of a wave (S,); None of one that is too short or too quiet."""
  graph = av.filter.Graph()
  source = graph.add('abuffer', f'time_base=1/{sample_rate}:sample_rate={sample_rate}:'
                                'sample_fmt=flt:channel_layout=mono')
  meter, sink = graph.add('ebur128', 'metadata=1:framelog=quiet'), graph.add('abuffersink')
  source.link_to(meter)
  meter.link_to(sink)
  graph.configure()
  found = None
  for first in [*range(0, len(wave), CHUNK), None]:
    frame = None if first is None else _frame(wave[first:first + CHUNK], sample_rate, first)
    graph.push(frame)
    while True:
      try:
        found = graph.pull().metadata.get('lavfi.r128.I', found)
      except (av.error.BlockingIOError, EOFError):
        break
  quietest = -70.0  # below which nothing counts
  return None if found is None or float(found) <= quietest else float(found)


def _frame(samples, sample_rate, first):
  frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples)[None], 'flt', 'mono')
  frame.sample_rate, frame.pts, frame.time_base = sample_rate, first, Fraction(1, sample_rate)
  return frame
