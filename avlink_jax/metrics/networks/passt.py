"""PaSST: a transformer that classifies ten seconds of audio into AudioSet's 527 classes.

Log-mels of power at 32 kHz, patches of 16 × 16 every 10 bands and frames, with a position of their
band and one of their time; a token for the class and one for distillation, whose mean is the
embedding (768). Nothing is dropped outside of training.

Shorter audio is followed by silence, longer is cut, as av-benchmark does it. Source: Koutini et
al. 2022, `kkoutini/passt_hear21` (base.py, wrapper.py, models/); names as in its checkpoint
`passt-s-f128-p16-s10-ap.476-swa.pt`.
"""

import jax.numpy as jnp
import numpy as np
from einops import rearrange, repeat

from avlink_jax.metrics.networks import transformer
from avlink_jax.metrics.networks.layers import conv, linear
from avlink_jax.metrics.networks.log_mel_patches import mel_matrix

SAMPLE_RATE = 32000
SECONDS = 10
PREEMPHASIS = 0.97
WINDOW, HOP, N_FFT = 800, 320, 1024  # samples
BANDS, LOWEST, HIGHEST = 128, 0.0, 15000.0
OFFSET = 1e-5  # of power
MEAN, STD = -4.5, 5.0  # of the log
STRIDE = 10
HEADS = 12
HEAD_EPS = 1e-5


def prepare(wave):
  """Log-mel float32 (1, 128, 1000, 1) of the first ten seconds of audio (S,) at 32 kHz."""
  wave = np.asarray(wave, np.float64)[:SECONDS * SAMPLE_RATE]
  wave = np.pad(wave, (0, SECONDS * SAMPLE_RATE - len(wave)))
  wave = np.pad(wave[1:] - PREEMPHASIS * wave[:-1], N_FFT // 2, 'reflect')
  frames = np.lib.stride_tricks.sliding_window_view(wave, N_FFT)[::HOP]
  window = np.pad(np.hanning(WINDOW), (N_FFT - WINDOW) // 2)
  power = np.abs(np.fft.rfft(frames * window)) ** 2
  mel = np.log(power @ mel_matrix(BANDS, LOWEST, HIGHEST, SAMPLE_RATE, N_FFT) + OFFSET)
  return ((mel.T - MEAN) / STD).astype(np.float32)[None, ..., None]


def rename(arrays):
  """Removes the prefix `model` that some copies of the checkpoint have."""
  return {name.removeprefix('model.'): array for name, array in arrays.items()}


def forward(weights, x):
  """Embeds log-mels (B, bands, T, 1): {'embedding': (B, 768), 'logits': (B, 527)}."""
  x = conv(weights, 'patch_embed.proj', x, STRIDE)  # (B, bands', T', C)
  band, time = (jnp.moveaxis(weights[f'{axis}_new_pos_embed'], 1, -1) for axis in ('freq', 'time'))
  x = rearrange(x + time[:, :, :x.shape[2]] + band, 'b f t c -> b (f t) c')
  tokens = jnp.concatenate([weights['cls_token'], weights['dist_token']], 1)
  tokens = repeat(tokens + weights['new_pos_embed'], '1 l c -> b l c', b=len(x))
  x = jnp.concatenate([tokens, x], 1)
  for name in transformer.numbered(weights, 'blocks', 'norm1.weight'):
    q, k, v = jnp.split(linear(
        weights, f'{name}.attn.qkv', transformer.layer_norm(weights, f'{name}.norm1', x)), 3, -1)
    x = x + linear(weights, f'{name}.attn.proj', transformer.attend(q, k, v, HEADS))
    x = x + transformer.mlp(weights, f'{name}.mlp.fc1', f'{name}.mlp.fc2',
                            transformer.layer_norm(weights, f'{name}.norm2', x))
  embedding = transformer.layer_norm(weights, 'norm', x[:, :2]).mean(1)
  normal = transformer.layer_norm(weights, 'head.0', embedding, HEAD_EPS)
  return {'embedding': embedding, 'logits': linear(weights, 'head.1', normal)}
