"""PANNs' CNN14, at 16 or at 32 kHz: classifies a clip's audio into AudioSet's 527 classes.

Log-mels of power (64 bands from 50 Hz, Slaney's, in dB), six blocks of two convolutions, mean over
bands, mean plus maximum over time. The embedding (2048) is `fc1`; the classes are its sigmoid's
logits. The two checkpoints differ in rate, window, hop and highest band alone. Source: Kong et al.
2020, `audioset_tagging_cnn` (pytorch/models.py); names as in its checkpoints
`Cnn14_16k_mAP=0.438.pth` and `Cnn14_mAP=0.431.pth`.
"""

import functools
import typing

import librosa
import numpy as np

from avlink_jax.metrics.networks.layers import batch_norm, conv, linear, mean_pool, relu

BANDS, LOWEST = 64, 50  # Hz
FLOOR = 1e-10  # of power
NORM_EPS = 1e-5
BLOCKS = 6
SHORTEST = 2 ** 5  # hops: five poolings leave one frame


class Recipe(typing.NamedTuple):
  """Log-mel of a checkpoint: Hz of the audio, samples of window and hop, Hz of the last band."""
  sample_rate: int
  window: int
  hop: int
  highest: int


AT_16K, AT_32K = Recipe(16000, 512, 160, 8000), Recipe(32000, 1024, 320, 14000)


def _log_mel(wave, recipe):
  """Log-mel float32 (1, T, 64), dB, of all of a clip's audio (S,) at the recipe's rate."""
  wave = np.asarray(wave, np.float32)
  wave = np.pad(wave, (0, max(0, SHORTEST * recipe.hop - len(wave))))
  mel = librosa.feature.melspectrogram(
      y=wave, sr=recipe.sample_rate, n_fft=recipe.window, hop_length=recipe.hop, center=True,
      pad_mode='reflect', n_mels=BANDS, fmin=LOWEST, fmax=recipe.highest, power=2.0)
  return 10 * np.log10(np.maximum(mel.T, FLOOR))[None].astype(np.float32)


prepare_16k, prepare_32k = (functools.partial(_log_mel, recipe=recipe)
                            for recipe in (AT_16K, AT_32K))


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
