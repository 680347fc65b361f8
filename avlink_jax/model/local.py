"""A way past a tower, place by place: what lies right around each place of the grid decides there.

For a tower with a guide on its data's own grid (the upsampler). Where an edge runs within a pixel
of the small picture, and how it moves until the next one, the few pixels around say; a patch of
many places in a narrow token has no room for that.
"""

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange

REACH = 2  # pixels to every side
INSTANTS = (-1, 0, 1, 2)  # pictures: latent n of the large video lies between those n and n + 1


def neighbours(channels):
  """Numbers of a neighbourhood in a guide of so many channels."""
  return len(INSTANTS) * (2 * REACH + 1) ** 2 * channels


def around(guide, mask):
  """The neighbourhood of every place: (B, T, H, W, G), (B, T) -> (B, T, H, W, neighbours(G)), by
  instants, rows, columns. Beyond the edges, and after the last picture that `mask` calls real,
  stands what is nearest to them."""
  frames, height, width = guide.shape[1:4]
  padded = jnp.pad(guide, [(0, 0), (0, 0), (REACH, REACH), (REACH, REACH), (0, 0)], mode='edge')
  last = jnp.maximum(mask.sum(1) - 1, 0)[:, None]
  shown = []
  for n in INSTANTS:
    at = jnp.clip(jnp.arange(frames) + n, 0, last)
    moment = jnp.take_along_axis(padded, at[:, :, None, None, None], axis=1)
    shown += [moment[:, :, i:i + height, j:j + width]
              for i in range(2 * REACH + 1) for j in range(2 * REACH + 1)]
  return jnp.concatenate(shown, axis=-1)


class Local(nn.Module):
  """Two layers of `width` for each place; 0 at initialisation.

  They look at the place's neighbourhood in the guide and at its own noisy data, more or less by
  flow time, and at what the tower's token says to it.
  """
  width: int
  out: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, seen, tokens, time):
    """seen (B, N, places, ·), tokens (B, N, C), silu(time) (B, C) -> (B, N, places · out)."""
    dense = lambda width, **told: nn.Dense(width, dtype=self.dtype, **told)  # noqa: E731
    silent = dict(kernel_init=nn.initializers.zeros)
    places = seen.shape[2]
    said = dense(places * self.width, **silent, name='token')(tokens)
    x = dense(self.width, name='seen')(seen)
    x *= 1 + dense(self.width, **silent, name='gate')(time)[:, None, None]
    x = nn.gelu(x + rearrange(said, 'b n (p c) -> b n p c', p=places))
    x = nn.gelu(dense(self.width, name='wide')(x))
    return rearrange(dense(self.out, **silent, name='out')(x), 'b n p c -> b n (p c)')
