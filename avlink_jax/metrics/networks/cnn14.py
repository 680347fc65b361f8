"""PANNs' CNN14 at 16 kHz: classifies a clip's audio into AudioSet's 527 classes.

Log-mels of power (window 512, hop 160, 64 bands 50–8000 Hz, Slaney's, in dB), six blocks of two
convolutions, mean over bands, mean plus maximum over time. The embedding (2048) is `fc1`; the
classes are its sigmoid's logits. Source: Kong et al. 2020, `audioset_tagging_cnn`
(pytorch/models.py); names as in its checkpoint `Cnn14_16k_mAP=0.438.pth`.
"""

import librosa
import numpy as np

from avlink_jax.metrics.networks.layers import batch_norm, conv, linear, mean_pool, relu

SAMPLE_RATE = 16000
WINDOW, HOP, BANDS, LOWEST, HIGHEST = 512, 160, 64, 50, 8000
FLOOR = 1e-10  # of power
NORM_EPS = 1e-5
BLOCKS = 6
SHORTEST = 2 ** 5 * HOP  # samples: five poolings leave one frame


def prepare(wave):
  """Log-mel float32 (1, T, 64), dB, of all of a clip's audio (S,) at 16 kHz."""
  wave = np.pad(np.asarray(wave, np.float32), (0, max(0, SHORTEST - len(wave))))
  mel = librosa.feature.melspectrogram(
      y=wave, sr=SAMPLE_RATE, n_fft=WINDOW, hop_length=HOP, center=True, pad_mode='reflect',
      n_mels=BANDS, fmin=LOWEST, fmax=HIGHEST, power=2.0)
  return 10 * np.log10(np.maximum(mel.T, FLOOR))[None].astype(np.float32)


def rename(arrays):
  """Removes the prefix `model` of the checkpoint."""
  return {name.removeprefix('model.'): array for name, array in arrays.items()}


def forward(weights, x):
  """Embeds log-mels (B, T, 64): {'embedding': (B, 2048), 'logits': (B, 527)}."""
  x = batch_norm(weights, 'bn0', x, NORM_EPS)[..., None]
  for block in range(1, BLOCKS + 1):
    for k in (1, 2):
      name = f'conv_block{block}'
      x = conv(weights, f'{name}.conv{k}', x, padding=1)
      x = relu(batch_norm(weights, f'{name}.bn{k}', x, NORM_EPS))
    x = mean_pool(x, 2, 2) if block < BLOCKS else x
  x = x.mean(2)
  embedding = relu(linear(weights, 'fc1', x.max(1) + x.mean(1)))
  return {'embedding': embedding, 'logits': linear(weights, 'fc_audioset', embedding)}
