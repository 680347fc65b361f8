"""Causal 3-D convolutions that keep state between parts of a video, and the matching normalisation.

An output depends on no later frame than its own. In front of the first frame stand repeats of it,
as if the past had been still, so a single frame is encoded like a still video; or zeros. When a
video is processed in parts, each convolution keeps its last inputs in the variables 'past', and the
parts together give the same output as the video in one piece.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

PAST = 'past'  # the collection of variables


def convolve(x, kernel, strides=(1, 1, 1)):
  """x (B, T, H, W, C) over kernel (t, h, w, C, O): (B, (T − t)/s + 1, H/s, W/s, O).

  No padding in time. In space h − s zeros in all, at least as many after as before.
  """
  padding = [((k - s) // 2, (k - s + 1) // 2)
            for k, s in zip(kernel.shape[1:3], strides[1:], strict=True)]
  return jax.lax.conv_general_dilated(x, kernel, strides, [(0, 0), *padding],
                                      dimension_numbers=('NDHWC', 'DHWIO', 'NDHWC'))


def convolve_planes(x, kernel, strides=(1, 1, 1)):
  """Equivalent of `convolve` as a sum of 2-D convolutions, one for each frame of the kernel.

  XLA's 3-D convolutions on a CPU are slow, and their gradients slower: 12 and 6 GFLOP/s on a core
  where 2-D ones reach 63. Strided 2-D ones have no fast gradient either, so with stride 2 each
  2 × 2 pixels become channels first.
  """
  frames, step = kernel.shape[0], strides[0]
  length = (x.shape[1] - frames) // step + 1
  if strides[1] == 2:
    x, kernel = _strided_to_dense(x, kernel)
    padding = 'VALID'
  else:
    padding = 'SAME'
  planes = 0
  for i in range(frames):
    inputs = x[:, i:i + (length - 1) * step + 1:step]
    planes += jax.lax.conv_general_dilated(
        rearrange(inputs, 'b t h w c -> (b t) h w c'), kernel[i], (1, 1), padding,
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
  return rearrange(planes, '(b t) h w c -> b t h w c', t=length)


def _strided_to_dense(x, kernel):
  """Stride 2 over 3 × 3 pixels as stride 1 over 2 × 2 cells of 2 × 2 pixels each."""
  if kernel.shape[1:3] != (3, 3):
    raise ValueError(f'a kernel that strides is 3 × 3, not {kernel.shape[1:3]}')
  padding = [(0, 2 - size % 2) for size in x.shape[2:4]]
  x = jnp.pad(x, ((0, 0), (0, 0), *padding, (0, 0)))
  kernel = jnp.pad(kernel, ((0, 0), (0, 1), (0, 1), (0, 0), (0, 0)))
  return (rearrange(x, 'b t (h p) (w q) c -> b t h w (p q c)', p=2, q=2),
          rearrange(kernel, 't (h p) (w q) i o -> t h w (p q i) o', p=2, q=2))


class CausalConv(nn.Module):
  """Convolution (B, T, H, W, C) -> (B, T/s, H/s, W/s, features); output n depends on the inputs up
  to number s·n + s − 1.

  The collection 'past', if given, holds the inputs before x; if it is mutable, the inputs that the
  next part needs are stored there. planes: use `convolve_planes`. zeros: zeros stand in front of
  the first frame, not repeats of it.
  """
  features: int
  kernel: tuple[int, int, int] = (3, 3, 3)
  strides: tuple[int, int, int] = (1, 1, 1)
  planes: bool = False
  dtype: Any = jnp.float32
  zeros: bool = False

  @nn.compact
  def __call__(self, x):
    kernel = self.param('kernel', nn.initializers.lecun_normal(),
                        (*self.kernel, x.shape[-1], self.features))
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    x, kernel, bias = (a.astype(self.dtype) for a in (x, kernel, bias))
    before = self.kernel[0] - self.strides[0]
    if before > 0:
      still = jnp.zeros_like(x[:, :1]) if self.zeros else x[:, :1]
      past = (self.get_variable(PAST, 'inputs') if self.has_variable(PAST, 'inputs')
              else jnp.repeat(still, before, axis=1))
      x = jnp.concatenate([past, x], axis=1)
      if self.is_mutable_collection(PAST):
        self.put_variable(PAST, 'inputs', x[:, -before:])
    return (convolve_planes if self.planes else convolve)(x, kernel, self.strides) + bias


class LocalNorm(nn.Module):
  """GroupNorm over the channels of a group at one position; a group has at least 16 channels.

  MAGVIT-v2 also averages over time and space; that would include later frames and pixels outside
  a tile. (Wan's and other autoencoders normalise locally too.)
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
