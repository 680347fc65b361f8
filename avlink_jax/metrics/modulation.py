"""Fine detail that a reconstructed log-mel keeps: ratios of modulation energy.

An uncertain codec averages, and averaging smooths fast changes along time (attacks, roughness) and
narrow structure along frequency (partials). 1: as much detail as the original; below: blurred;
above: added detail. Its position does not count: the error measures that.
"""

import numpy as np

FAST = 12.5  # Hz: above the Nyquist rate of latents at 25 a second
NARROW = 1 / 8  # cycles a mel bin: structure that repeats within eight bins


def high_energy(x, axis, above, rate):
  """Energy of x (numpy, any shape) in modulations along `axis` strictly above a rate.

  Every line along the axis loses its mean and fades out at both ends (Hann), so that neither its
  level nor its ends count. `rate` is samples a unit, `above` cycles a unit. Returns a float.
  """
  x = np.moveaxis(np.asarray(x, np.float64), axis, -1)
  x = (x - x.mean(-1, keepdims=True)) * np.hanning(x.shape[-1] + 2)[1:-1]
  spectrum = np.abs(np.fft.rfft(x)) ** 2
  return float(spectrum[..., np.fft.rfftfreq(x.shape[-1], 1 / rate) > above].sum())


def energies(original, generated, frame_rate):
  """High modulation energy of two log-mels (T, n_mels) of `frame_rate` frames a second:
  {'time': (original, generated) above FAST, 'frequency': (original, generated) above NARROW}."""
  return {name: tuple(high_energy(mel, axis, above, rate) for mel in (original, generated))
          for name, axis, above, rate in (('time', 0, FAST, frame_rate),
                                          ('frequency', 1, NARROW, 1.0))}
