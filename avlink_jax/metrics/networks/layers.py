"""Layers of frozen networks as pure functions of weights under their public names.

A network here is `forward(weights, x)` with `weights` {name: array} as its public checkpoint has
them (torch's `state_dict` names and layouts), so that no mapping can be wrong. Images and
spectrograms are channels-last; kernels (out, in / groups, *window).
"""

import jax
import jax.numpy as jnp
from jax import lax

SAME = 'SAME'  # TensorFlow's: odd padding goes below and right


def conv(weights, name, x, stride=1, padding=0, groups=1):
  """Convolution of x (B, *space, C) -> (B, *space', C'), with `NAME.bias` where there is one.

  `stride`: a number or one an axis. `padding`: SAME, a number, or (before, after) an axis.
  """
  kernel = weights[f'{name}.weight']
  space = kernel.ndim - 2
  axes = 'DHW'[3 - space:] if space > 1 else 'W'
  strides = (stride,) * space if isinstance(stride, int) else stride
  pads = [(padding, padding)] * space if isinstance(padding, int) else padding
  x = lax.conv_general_dilated(
      x, kernel, strides, pads, feature_group_count=groups,
      dimension_numbers=(f'N{axes}C', f'OI{axes}', f'N{axes}C'))
  bias = weights.get(f'{name}.bias')
  return x if bias is None else x + bias


def batch_norm(weights, name, x, eps):
  """Normalises by the running statistics; without `NAME.weight` the scale is 1."""
  mean, var = weights[f'{name}.running_mean'], weights[f'{name}.running_var']
  scale = weights.get(f'{name}.weight', 1) * lax.rsqrt(var + eps)
  return (x - mean) * scale + weights[f'{name}.bias']


def linear(weights, name, x):
  """Affine map (..., C) -> (..., C')."""
  return x @ weights[f'{name}.weight'].T + weights[f'{name}.bias']


def max_pool(x, window, stride, padding=0):
  """Maximum over windows; window, stride and padding as in `conv`."""
  return _pool(x, -jnp.inf, lax.max, window, stride, padding)


def mean_pool(x, window, stride, padding=0):
  """Mean over windows; padding does not count, as in TensorFlow."""
  ones = jnp.ones((1, *x.shape[1:-1], 1), x.dtype)
  total = [_pool(array, 0.0, lax.add, window, stride, padding) for array in (x, ones)]
  return total[0] / total[1]


def _pool(x, start, function, window, stride, padding):
  space = x.ndim - 2
  window, stride = [(size,) * space if isinstance(size, int) else size
                    for size in (window, stride)]
  pads = padding
  if isinstance(padding, int):
    pads = [(0, 0), *[(padding, padding)] * space, (0, 0)]
  return lax.reduce_window(x, start, function, (1, *window, 1), (1, *stride, 1), pads)


relu, relu6 = jax.nn.relu, jax.nn.relu6
