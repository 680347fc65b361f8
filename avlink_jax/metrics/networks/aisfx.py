"""aiSFX: a network for sound effects; 512 dimensions, a row for each 100 frames, 2.3 s.

Four blocks of two convolutions on log-mels at 44.1 kHz, mean over bands, maximum over time.
Source: Ma et al., ISMIR 2022, the package `aisfx` (models/cnn2d.py, preprocessing.py), whose names
these are; the mels as its librosa variant makes them. It was trained on Essentia's, which differ
a little: compare its distances only with each other.
"""

import librosa
import numpy as np

from avlink_jax.metrics.networks.layers import batch_norm, conv, max_pool, relu

SAMPLE_RATE = 44100
WINDOW, HOP, BANDS = 2048, 1024, 96
LOUDEST = 9.457798957824707  # of the log-mels it was trained on
BLOCK, BLOCK_HOP = 100, 50  # frames
NORM_EPS = 1e-5
BLOCKS = 4
INSIDE = '0.embedding_net.'  # prefix in the checkpoint


def prepare(wave):
  """Log-mel blocks float32 (P, 100, 96), P >= 1, of audio (S,) at 44.1 kHz, peak-normalised."""
  wave = np.asarray(wave, np.float32)
  wave = np.pad(wave, (0, max(0, WINDOW - len(wave))))
  mel = librosa.feature.melspectrogram(
      y=wave / (np.abs(wave).max() or 1), sr=SAMPLE_RATE, n_fft=WINDOW, win_length=WINDOW,
      hop_length=HOP, n_mels=BANDS, norm=1.0, fmin=0.0, fmax=SAMPLE_RATE / 2, htk=True, power=2.0)
  log_mel = (np.log10(mel.T * 10000 + 1) / LOUDEST).astype(np.float32)
  log_mel = np.pad(log_mel, ((0, max(0, BLOCK - len(log_mel))), (0, 0)))
  return np.stack([log_mel[k:k + BLOCK] for k in range(0, len(log_mel) - BLOCK + 1, BLOCK_HOP)])


def rename(arrays):
  """Selects the embedding network of the checkpoint, without its classifiers."""
  return {name.removeprefix(INSIDE): array for name, array in arrays.items()
          if name.startswith(INSIDE)}


def forward(weights, x):
  """Embeds log-mel blocks (B, 100, 96): {'embedding': (B, 512)}."""
  x = x[..., None]
  for block in range(1, BLOCKS + 1):
    for k in (1, 2):
      x = conv(weights, f'conv_block{block}.conv{k}', x, padding=1)
      x = relu(batch_norm(weights, f'conv_block{block}.bn{k}', x, NORM_EPS))
    x = max_pool(x, 2, 2) if block < BLOCKS else x
  return {'embedding': x.mean(2).max(1)}
