"""Vocoder without a network: least-squares inverse of the filterbank, then Griffin-Lim.

Signature of every vocoder: log-mel (T, n_mels) -> wave (T·hop,) float32 in [-1, 1].
"""

import librosa
import numpy as np


def griffin_lim(log_mel, spec, iterations=32, seed=0):
  """Wave whose spectrogram approximates `log_mel` (T, n_mels); deterministic in the seed."""
  inverse = np.linalg.pinv(spec.filters)
  magnitude = np.maximum(np.exp(log_mel.astype(np.float32)) @ inverse.T, 0.0)
  wave = librosa.griffinlim(
      magnitude.T, n_iter=iterations, hop_length=spec.hop, win_length=spec.n_fft,
      n_fft=spec.n_fft, window='hann', center=False, random_state=seed)
  # The first and last frames of an uncentred STFT extend beyond the clip's ends by the padding.
  wave = wave[spec.padding:spec.padding + len(log_mel) * spec.hop]
  peak = np.abs(wave).max(initial=0.0)
  return (wave / max(1.0, peak)).astype(np.float32)
