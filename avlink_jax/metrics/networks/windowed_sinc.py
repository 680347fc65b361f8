"""Resampling by a windowed sinc, as torchaudio's default does it.

    y(t) = sum over n of x(n / old) · h(t - n / old)
    h(s) = c / old · sinc(c s) · cos²(π c s / 12) for |c s| < 6, 0 beyond; c = 0.99 min(old, new)

Six zero crossings on either side, a cosine's square as window. It lets images through that better
filters stop, and networks see them; so figures compare only with those of the same filter.
"""

import math

import numpy as np
import soxr

CROSSINGS, ROLLOFF = 6, 0.99
LARGEST = 2 ** 22  # numbers in a filter bank; rates without a common divisor would need gigabytes


def resample(wave, old: int, new: int):
  """Resamples audio (S,) from `old` to `new` Hz: float32 (ceil(S · new / old),).

  Rates that have next to no divisor in common are resampled by soxr instead."""
  divisor = math.gcd(old, new)
  old, new = old // divisor, new // divisor
  if old == new or not len(wave):
    return np.asarray(wave, np.float32)
  cutoff = ROLLOFF * min(old, new)
  reach = math.ceil(CROSSINGS * old / cutoff)  # samples
  if new * (2 * reach + old) > LARGEST:
    return soxr.resample(wave, old, new).astype(np.float32)
  # A row for each of the `new` places between samples 0 and `old`.
  apart = np.arange(-reach, reach + old) / old - np.arange(new)[:, None] / new
  crossing = np.clip(apart * cutoff, -CROSSINGS, CROSSINGS)
  bank = np.sinc(crossing) * np.cos(crossing * np.pi / CROSSINGS / 2) ** 2 * cutoff / old
  padded = np.pad(np.asarray(wave, np.float64), (reach, reach + old))
  windows = np.lib.stride_tricks.sliding_window_view(padded, bank.shape[1])[::old]
  return (windows @ bank.T).reshape(-1)[:math.ceil(len(wave) * new / old)].astype(np.float32)
