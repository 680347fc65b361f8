"""Convolutions behind a tower's head, in which neighbouring patches agree.

A head writes each patch from its own token. What two tokens do not know of each other is seen as a
seam between their patches, and as grain where a background is flat. Here each place of the data
looks at what was written around it, and at the noisy data there.
"""

import dataclasses
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp

from avlink_jax.model.dit import DiT
from avlink_jax.model.tower import Wrapper


def around(x, reach):
  """Neighbourhoods of every place: (B, T, H, W, C) -> (B, T, H, W, places · C), with 0 beyond the
  edges. reach: how many places to either side, of each axis (time, height, width)."""
  shape = x.shape[1:4]
  x = jnp.pad(x, [(0, 0), *((r, r) for r in reach), (0, 0)])
  shifts = itertools.product(*(range(2 * r + 1) for r in reach))
  return jnp.concatenate([x[:, t:t + shape[0], h:h + shape[1], w:w + shape[2]]
                          for t, h, w in shifts], axis=-1)


class Refine(nn.Module):
  """Convolutions of 3×3×3 and 1×3×3 places, as matrices of neighbourhoods, and the way back; 0 at
  initialisation. Flow time says how much each number of the first one counts."""
  hidden: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, written, x, time):
    """written, x (B, T, H, W, C), time (B, width of the tower) -> (B, T, H, W, C), float32."""
    dense = lambda width, **options: nn.Dense(width, dtype=self.dtype, **options)  # noqa: E731
    zero_init = dict(kernel_init=nn.initializers.zeros)
    gate = dense(self.hidden, **zero_init, name='gate')(nn.silu(time))
    seen = around(jnp.concatenate([written, x], axis=-1), (1, 1, 1))
    y = dense(self.hidden, name='first')(seen) * (1 + gate[:, None, None, None])
    y = dense(self.hidden, name='second')(around(nn.gelu(y), (0, 1, 1)))
    return dense(x.shape[-1], **zero_init, name='out')(nn.gelu(y)).astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class Refined(Wrapper):
  """A DiT of video with these convolutions behind its head.

  Attributes:
    hidden: channels of the convolutions.
  """
  tower: DiT
  hidden: int

  @property
  def _refiner(self):
    return Refine(self.hidden, self.tower.dtype)

  def init(self, key):
    params, (_, time, _) = self.tower.init(key), self.tower.example()
    x = jnp.zeros((1, 2, 2, 2, self.channels))
    refine = self._refiner.init(jax.random.split(key, 3)[2], x, x, time)['params']
    return params | {'head': params['head'] | {'refine': refine}}

  def head(self, params, stream):
    written = self.tower.head(params, stream)
    return written + self._refiner.apply(
        {'params': params['head']['refine']}, written, stream.input.x, stream.time)
