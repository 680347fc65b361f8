"""Log-mels as of Kaldi and of torchaudio's `compliance.kaldi.fbank`.

16 kHz, 25 ms every 10 ms without centring; each frame minus its mean, then pre-emphasis of 0.97;
symmetric Hann, FFT of 512, power, triangles linear in mel from 20 to 8000 Hz, log. No dither.
"""

import numpy as np

from avlink_jax.metrics.networks.log_mel_patches import mel_matrix

SAMPLE_RATE = 16000
WINDOW, HOP, N_FFT = 400, 160, 512  # samples
LOWEST, HIGHEST = 20.0, 8000.0
PREEMPHASIS = 0.97
FLOOR = np.finfo(np.float32).eps  # of power


def log_mel(wave, bands):
  """Log-mel float64 (T, bands), T >= 1, of audio (S,) at 16 kHz, minus its mean."""
  wave = wave - wave.mean() if len(wave) else wave
  wave = np.pad(wave, (0, max(0, WINDOW - len(wave))))
  frames = np.lib.stride_tricks.sliding_window_view(wave, WINDOW)[::HOP]
  frames = frames - frames.mean(1, keepdims=True)
  before = np.concatenate([frames[:, :1], frames[:, :-1]], 1)
  frames = (frames - PREEMPHASIS * before) * np.hanning(WINDOW)
  power = np.abs(np.fft.rfft(frames, N_FFT)) ** 2
  return np.log(np.maximum(power @ mel_matrix(bands, LOWEST, HIGHEST), FLOOR))
