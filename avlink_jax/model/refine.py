"""A small convolutional network behind a tower's head, in which neighbouring patches agree.

A head writes each patch from its own token. What does not fit into a token is missing, and what two
tokens do not know of each other is seen as a seam between their patches. Here every place of the
data looks at what was written around it, and at the noisy data there: a U-Net (Ronneberger et al.
2015) without attention, whose frames hear their neighbours in time.

It can be trained alone, in a tower that stays as it is (`train.only=head/refine`): the tokens, and
so all that was trained on them, remain.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from avlink_jax.model.dit import layer_norm, modulate_normal
from avlink_jax.model.tower import Tower, Wrapper

zeros = nn.initializers.zeros


def merge(x, size):
  """Cells of size × size places: (B, T, H, W, C) -> (B, T, H/size, W/size, size² · C)."""
  return rearrange(x, 'b t (h p) (w q) c -> b t h w (p q c)', p=size, q=size)


def split(x, size):
  """The places of cells, the inverse of `merge`."""
  return rearrange(x, 'b t h w (p q c) -> b t (h p) (w q) c', p=size, q=size)


def convolve(features, dtype, name):
  """A convolution over 3 × 3 places of each frame by itself."""
  conv = nn.Conv(features, (3, 3), dtype=dtype, name=name)
  return lambda x: conv(x.reshape(-1, *x.shape[2:])).reshape(*x.shape[:-1], features)


class Mix(nn.Module):
  """Places look around: over 3 × 3 of their frame, then over three frames, beside a skip.

  Flow time modulates what is looked at (adaLN), not at all at initialisation.
  """
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, time):
    """x (B, T, H, W, C), silu(time) (B, ·) -> (B, T, H, W, C)."""
    width = x.shape[-1]
    shift, scale = jnp.split(nn.Dense(2 * width, kernel_init=zeros, dtype=self.dtype,
                                      name='modulation')(time)[:, None, None], 2, axis=-1)
    y = modulate_normal(layer_norm(x), shift, scale)
    y = nn.gelu(convolve(width, self.dtype, 'frame')(y))
    around = jnp.pad(y, ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)))
    y = jnp.concatenate([around[:, :-2], y, around[:, 2:]], axis=-1)
    return x + nn.Dense(width, dtype=self.dtype, name='frames')(y)


class Refine(nn.Module):
  """The U-Net; what it adds is 0 at initialisation.

  Attributes:
    width: channels of its finest level; each coarser one has twice as many.
    cell: rows and columns of data that are one place of the finest level.
    levels: how many; each has places of 2 × 2 of the one before.
  """
  width: int
  cell: int
  levels: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, written, x, time):
    """written, x (B, T, H, W, C), time (B, width of the tower) -> (B, T, H, W, C), float32."""
    mix = lambda x, name: Mix(self.dtype, name=name)(x, time)  # noqa: E731
    dense = lambda width, **options: nn.Dense(width, dtype=self.dtype, **options)  # noqa: E731
    time, (height, width) = nn.silu(time), x.shape[2:4]
    side = self.cell * 2 ** (self.levels - 1)
    y = jnp.pad(jnp.concatenate([written, x], axis=-1),
                ((0, 0), (0, 0), (0, -height % side), (0, -width % side), (0, 0)))
    y, finer = convolve(self.width, self.dtype, 'first')(merge(y, self.cell)), []
    for level in range(1, self.levels):
      finer.append(mix(y, f'down_{level}'))
      y = dense(2**level * self.width, name=f'merge_{level}')(merge(finer[-1], 2))
    y = mix(mix(y, 'middle_0'), 'middle_1')
    for level in reversed(range(1, self.levels)):
      y = split(dense(2 ** (level + 1) * self.width, name=f'split_{level}')(y), 2)
      y = mix(y + finer.pop(), f'up_{level}')
    out = dense(self.cell**2 * x.shape[-1], kernel_init=zeros, name='last')(
        nn.gelu(layer_norm(y)))
    return split(out, self.cell)[:, :, :height, :width].astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class Refined(Wrapper):
  """A tower of video with this network behind its head."""
  tower: Tower
  network: Refine

  def init(self, key):
    params = self.tower.init(key)
    x, time = jnp.zeros((1, 2, 2, 2, self.channels)), jnp.zeros((1, self.width))
    refine = self.network.init(jax.random.split(key, 3)[2], x, x, time)['params']
    return params | {'head': params['head'] | {'refine': refine}}

  def head(self, params, stream):
    written = self.tower.head(params, stream)
    return written + self.network.apply(
        {'params': params['head']['refine']}, written, stream.input.x, stream.time)
