"""Inception v3 as FID knows it: TensorFlow's of December 2015, 2048 dimensions.

It differs from torchvision's: average pooling does not count its padding, the last block pools by
maximum, and there are 1008 classes. Source: Szegedy et al. 2015 and `pytorch-fid` (inception.py);
names as in its checkpoint `pt_inception-2015-12-05-6726825d.pth`.
"""

import jax.numpy as jnp

from avlink_jax.metrics.networks.layers import batch_norm, conv, linear, max_pool, mean_pool, relu

SIZE = 299  # pixels
NORM_EPS = 1e-3
WIDE, TALL = [(0, 0), (3, 3)], [(3, 3), (0, 0)]  # padding of 1×7 and 7×1


def forward(weights, x):
  """Embeds images (B, 299, 299, 3) in [-1, 1]: {'embedding': (B, 2048), 'logits': (B, 1008)}."""
  def unit(name, x, stride=1, padding=0):
    x = conv(weights, f'{name}.conv', x, stride, padding)
    return relu(batch_norm(weights, f'{name}.bn', x, NORM_EPS))

  def chain(name, x, *paddings):
    """Convolutions `NAME_1`, `NAME_2`, ..., one for each padding, in a row."""
    for k, padding in enumerate(paddings):
      x = unit(f'{name}_{k + 1}', x, 1, padding)
    return x

  def mean3(x):
    return mean_pool(x, 3, 1, 1)

  def block_a(name, x):
    return jnp.concatenate([
        unit(f'{name}.branch1x1', x), chain(f'{name}.branch5x5', x, 0, 2),
        chain(f'{name}.branch3x3dbl', x, 0, 1, 1), unit(f'{name}.branch_pool', mean3(x))], -1)

  def block_c(name, x):
    return jnp.concatenate([
        unit(f'{name}.branch1x1', x), chain(f'{name}.branch7x7', x, 0, WIDE, TALL),
        chain(f'{name}.branch7x7dbl', x, 0, TALL, WIDE, TALL, WIDE),
        unit(f'{name}.branch_pool', mean3(x))], -1)

  def forked(name, number, x):
    """Two parallel convolutions, 1×3 and 3×1."""
    return [unit(f'{name}_{number}a', x, 1, [(0, 0), (1, 1)]),
            unit(f'{name}_{number}b', x, 1, [(1, 1), (0, 0)])]

  def block_e(name, x, pool):
    return jnp.concatenate([
        unit(f'{name}.branch1x1', x),
        *forked(f'{name}.branch3x3', 2, chain(f'{name}.branch3x3', x, 0)),
        *forked(f'{name}.branch3x3dbl', 3, chain(f'{name}.branch3x3dbl', x, 0, 1)),
        unit(f'{name}.branch_pool', pool(x))], -1)

  x = unit('Conv2d_2b_3x3', unit('Conv2d_2a_3x3', unit('Conv2d_1a_3x3', x, 2)), 1, 1)
  x = max_pool(x, 3, 2)
  x = max_pool(unit('Conv2d_4a_3x3', unit('Conv2d_3b_1x1', x)), 3, 2)
  for letter in 'bcd':
    x = block_a(f'Mixed_5{letter}', x)
  x = jnp.concatenate([
      unit('Mixed_6a.branch3x3', x, 2),
      unit('Mixed_6a.branch3x3dbl_3', chain('Mixed_6a.branch3x3dbl', x, 0, 1), 2),
      max_pool(x, 3, 2)], -1)
  for letter in 'bcde':
    x = block_c(f'Mixed_6{letter}', x)
  x = jnp.concatenate([
      unit('Mixed_7a.branch3x3_2', unit('Mixed_7a.branch3x3_1', x), 2),
      unit('Mixed_7a.branch7x7x3_4', chain('Mixed_7a.branch7x7x3', x, 0, WIDE, TALL), 2),
      max_pool(x, 3, 2)], -1)
  x = block_e('Mixed_7b', x, mean3)
  x = block_e('Mixed_7c', x, lambda x: max_pool(x, 3, 1, 1))
  embedding = x.mean((1, 2))
  return {'embedding': embedding, 'logits': linear(weights, 'fc', embedding)}
