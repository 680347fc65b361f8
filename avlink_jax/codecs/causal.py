"""Causal 3-D convolutions, what they remember from one part of a video to the next, and the
normalisation that goes with them.

A convolution sees no later instant than its own. Before the first one it sees repeats of it, as of
a past that has always been still: a picture by itself is then coded as a still video is. Run over a
video in parts, each convolution hands on its last inputs in the variables 'past', and all parts
together say what the whole would have said.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

PAST = 'past'  # the collection of variables


def convolve(x, kernel, strides=(1, 1, 1)):
  """x (B, T, H, W, C) over kernel (t, h, w, C, O): (B, (T − t)/s + 1, H/s, W/s, O).

  Nothing is padded in time. In space zeros are, h − s in all and no fewer behind than before.
  """
  around = [((k - s) // 2, (k - s + 1) // 2)
            for k, s in zip(kernel.shape[1:3], strides[1:], strict=True)]
  return jax.lax.conv_general_dilated(x, kernel, strides, [(0, 0), *around],
                                      dimension_numbers=('NDHWC', 'DHWIO', 'NDHWC'))


def convolve_planes(x, kernel, strides=(1, 1, 1)):
  """`convolve` as a sum of convolutions of pictures, one for each instant of the kernel.

  XLA's 3-D convolutions on a CPU are slow, and their gradients slower: 12 and 6 GFLOP/s on a core
  on which its 2-D ones do 63. Those have no fast gradient either where they stride, so that each
  2 × 2 pixels become channels first.
  """
  instants, step = kernel.shape[0], strides[0]
  length = (x.shape[1] - instants) // step + 1
  if strides[1] == 2:
    x, kernel = _strided_to_dense(x, kernel)
    around = 'VALID'
  else:
    around = 'SAME'
  planes = 0
  for i in range(instants):
    seen = x[:, i:i + (length - 1) * step + 1:step]
    planes += jax.lax.conv_general_dilated(
        rearrange(seen, 'b t h w c -> (b t) h w c'), kernel[i], (1, 1), around,
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
  return rearrange(planes, '(b t) h w c -> b t h w c', t=length)


def _strided_to_dense(x, kernel):
  """Stride 2 over 3 × 3 pixels as stride 1 over 2 × 2 cells of 2 × 2 pixels each."""
  if kernel.shape[1:3] != (3, 3):
    raise ValueError(f'a kernel that strides is 3 × 3, not {kernel.shape[1:3]}')
  around = [(0, 2 - size % 2) for size in x.shape[2:4]]
  x = jnp.pad(x, ((0, 0), (0, 0), *around, (0, 0)))
  kernel = jnp.pad(kernel, ((0, 0), (0, 1), (0, 1), (0, 0), (0, 0)))
  return (rearrange(x, 'b t (h p) (w q) c -> b t h w (p q c)', p=2, q=2),
          rearrange(kernel, 't (h p) (w q) i o -> t h w (p q i) o', p=2, q=2))


class CausalConv(nn.Module):
  """(B, T, H, W, C) -> (B, T/s, H/s, W/s, features): output n sees the inputs up to the last of
  its own, s·n + s − 1.

  `past`, where it is handed in, holds the inputs before x; where the collection is mutable, those
  that the next part needs are left there. planes: by `convolve_planes`.
  """
  features: int
  kernel: tuple[int, int, int] = (3, 3, 3)
  strides: tuple[int, int, int] = (1, 1, 1)
  planes: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x):
    kernel = self.param('kernel', nn.initializers.lecun_normal(),
                        (*self.kernel, x.shape[-1], self.features))
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    x, kernel, bias = (a.astype(self.dtype) for a in (x, kernel, bias))
    before = self.kernel[0] - self.strides[0]
    if before > 0:
      past = (self.get_variable(PAST, 'inputs') if self.has_variable(PAST, 'inputs')
              else jnp.repeat(x[:, :1], before, axis=1))
      x = jnp.concatenate([past, x], axis=1)
      if self.is_mutable_collection(PAST):
        self.put_variable(PAST, 'inputs', x[:, -before:])
    return (convolve_planes if self.planes else convolve)(x, kernel, self.strides) + bias


class LocalNorm(nn.Module):
  """GroupNorm over the channels of a group at one position, none of fewer than 16 channels.

  Not over time or the picture, as MAGVIT-v2's is: a mean over those would see what comes later,
  and what lies outside a tile. (Wan's and others' autoencoders went the same way.)
  """
  affine: bool = True

  @nn.compact
  def __call__(self, x):
    channels = x.shape[-1]
    groups = min(32, max(1, channels // 16))
    h = x.astype(jnp.float32).reshape(*x.shape[:-1], groups, -1)
    h -= jnp.mean(h, axis=-1, keepdims=True)
    h *= jax.lax.rsqrt(jnp.mean(h**2, axis=-1, keepdims=True) + 1e-6)
    h = h.reshape(x.shape)
    if self.affine:
      h = (h * self.param('scale', nn.initializers.ones, (channels,))
           + self.param('bias', nn.initializers.zeros, (channels,)))
    return h.astype(x.dtype)
