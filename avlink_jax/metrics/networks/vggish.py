"""VGGish: the network of the first Fréchet audio distance; 128 dimensions, a row for each 0.96 s.

A VGG with four poolings on log-mels. The embedding is taken before its last ReLU and without the
PCA that AudioSet's published features went through, as `frechet_audio_distance` does. Source:
Hershey et al. 2017, TensorFlow's `models/research/audioset/vggish`; names as in `torchvggish`.
"""

from avlink_jax.metrics.networks.layers import conv, linear, max_pool, relu
from avlink_jax.metrics.networks.log_mel_patches import patches

LOG_OFFSET = 0.01
HOP = 96  # frames: patches do not overlap
LAYERS = (0, 'pool', 3, 'pool', 6, 8, 'pool', 11, 13, 'pool')  # numbers are names


def prepare(wave):
  """Log-mel patches float32 (P, 96, 64) of audio (S,) at 16 kHz."""
  return patches(wave, LOG_OFFSET, HOP)


def forward(weights, x):
  """Embeds log-mel patches (B, 96, 64): {'embedding': (B, 128)}."""
  x = x[..., None]
  for layer in LAYERS:
    x = max_pool(x, 2, 2) if layer == 'pool' else relu(
        conv(weights, f'features.{layer}', x, padding=1))
  x = x.reshape(len(x), -1)
  x = relu(linear(weights, 'embeddings.0', x))
  x = relu(linear(weights, 'embeddings.2', x))
  return {'embedding': linear(weights, 'embeddings.4', x)}
