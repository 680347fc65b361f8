"""Log-mel patches by VGGish's recipe, which YAMNet's follows.

16 kHz, 25 ms periodic Hann every 10 ms without centring, FFT of 512, magnitude, 64 bands between
125 and 7500 Hz whose triangles are linear in mel (librosa's and torchaudio's are linear in Hz),
log(mel + offset). Source: TensorFlow's `models/research/audioset/vggish`, `mel_features.py`.
"""

import functools

import numpy as np

SAMPLE_RATE = 16000
WINDOW, HOP, N_FFT = 400, 160, 512  # samples
BANDS, LOWEST, HIGHEST = 64, 125.0, 7500.0
FRAMES = 96  # of a patch: 0.96 s


def patches(wave, log_offset, hop_frames):
  """Patches float32 (P, 96, 64), P >= 1, every `hop_frames` frames of audio (S,) at 16 kHz.

  The remainder at the end is dropped; audio shorter than a patch is padded with silence.
  """
  shortest = WINDOW + (FRAMES - 1) * HOP
  wave = np.pad(np.asarray(wave, np.float64), (0, max(0, shortest - len(wave))))
  frames = np.lib.stride_tricks.sliding_window_view(wave, WINDOW)[::HOP]
  hann = 0.5 - 0.5 * np.cos(2 * np.pi / WINDOW * np.arange(WINDOW))
  magnitude = np.abs(np.fft.rfft(frames * hann, N_FFT))
  log_mel = np.log(magnitude @ mel_matrix() + log_offset).astype(np.float32)
  return np.stack([log_mel[k:k + FRAMES]
                   for k in range(0, len(log_mel) - FRAMES + 1, hop_frames)])


@functools.cache
def mel_matrix(bands=BANDS, lowest=LOWEST, highest=HIGHEST, sample_rate=SAMPLE_RATE, n_fft=N_FFT):
  """Filters (n_fft / 2 + 1, bands); band k is a triangle in mel between its neighbours' centres."""
  def mel(hertz):
    return 1127 * np.log(1 + hertz / 700)
  bins = mel(np.linspace(0, sample_rate / 2, n_fft // 2 + 1))[:, None]
  edges = np.linspace(mel(lowest), mel(highest), bands + 2)
  low, centre, high = edges[:-2], edges[1:-1], edges[2:]
  matrix = np.maximum(0, np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)))
  matrix[0] = 0  # no direct current
  return matrix
