"""A head that predicts a residual place by place: what lies right around each decides.

For a tower with a guide on its data's own grid (the upsampler). Where an edge runs within a pixel
of the small picture, and where a thing is between two of them, the few pixels around say; a patch
of many places in a narrow token has no room for that.

Where nothing changes around a place nothing is beyond its first guess, whatever its colour, and of
half the contrast half as much is. So places see differences, through layers without biases: what is
0 stays 0, and what is smooth stays smooth (Mohan et al., Robust and Interpretable Blind Image
Denoising via Bias-Free Convolutional Neural Networks, Sec. 3).
"""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from avlink_jax.model.dit import DiT, last_modulation
from avlink_jax.model.patches import unpatchify
from avlink_jax.model.tower import Wrapper

REACH = 4  # pixels to every side
INSTANTS = (-1, 0, 1, 2)  # pictures: latent n of the large video lies between those n and n + 1


def neighbours(channels):
  """Numbers of a neighbourhood in a guide of so many channels."""
  return len(INSTANTS) * (2 * REACH + 1) ** 2 * channels


def around(guide, mask):
  """The neighbourhood of every place, less the place itself: (B, T, H, W, G), (B, T) ->
  (B, T, H, W, neighbours(G)), by instants, rows, columns. Beyond the edges, and after the last
  picture that `mask` calls real, stands what is nearest to them."""
  frames, height, width = guide.shape[1:4]
  padded = jnp.pad(guide, [(0, 0), (0, 0), (REACH, REACH), (REACH, REACH), (0, 0)], mode='edge')
  last = jnp.maximum(mask.sum(1) - 1, 0)[:, None]
  shown = []
  for n in INSTANTS:
    at = jnp.clip(jnp.arange(frames) + n, 0, last)
    moment = jnp.take_along_axis(padded, at[:, :, None, None, None], axis=1)
    shown += [moment[:, :, i:i + height, j:j + width] - guide
              for i in range(2 * REACH + 1) for j in range(2 * REACH + 1)]
  return jnp.concatenate(shown, axis=-1)


def by_patch(x, patch):
  """(B, T, H, W, C) -> (B, N, places, C): a patch's places in its numbers' order; what ends within
  a patch is padded."""
  x = jnp.pad(x, [(0, 0), *((0, -n % p) for n, p in zip(x.shape[1:4], patch, strict=True)), (0, 0)])
  p, q, r = patch
  return rearrange(x, 'b (t p) (h q) (w r) c -> b (t h w) (p q r) c', p=p, q=q, r=r)


class Local(nn.Module):
  """Two layers of `width` for each place, and the way to its numbers; 0 at initialisation.

  They look at the place's neighbourhood in the guide and at what its noisy data show. Flow time and
  the tower's token say how much each number of the first one counts.
  """
  width: int
  out: int
  patch: tuple[int, int, int]
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, seen, tokens, time):
    """seen (B, T, H, W, ·), tokens (B, N, C), silu(time) (B, C) -> (B, N, places · out)."""
    dense = lambda width, **options: nn.Dense(width, dtype=self.dtype, **options)  # noqa: E731
    linear = lambda width, **options: dense(width, use_bias=False, **options)  # noqa: E731
    zero_init = dict(kernel_init=nn.initializers.zeros)
    places = math.prod(self.patch)
    by_token = rearrange(dense(places * self.width, **zero_init, name='token')(tokens),
                         'b n (p c) -> b n p c', p=places)
    x = by_patch(nn.relu(linear(self.width, name='seen')(seen)), self.patch)
    x *= (1 + dense(self.width, **zero_init, name='gate')(time)[:, None, None]) * (1 + by_token)
    x = nn.relu(linear(self.width, name='wide')(x))
    return rearrange(linear(self.out, **zero_init, name='out')(x), 'b n p c -> b n (p c)')


class Head(nn.Module):
  """Last adaLN, and `Local` in the place of dit.Head's way back to patches."""
  width: int
  out: int
  patch: tuple[int, int, int]
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, tokens, time, places):
    """tokens (B, N, C), time (B, C), places (B, T, H, W, ·) -> (B, N, numbers of a patch)."""
    time = nn.silu(time)
    x = last_modulation(tokens, time, self.dtype)
    local = Local(self.width, self.out, self.patch, self.dtype, name='local')
    return local(places, x, time).astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class LocalHead(Wrapper):
  """A guided tower with this head in the place of its own.

  Attributes:
    dit: the DiT inside.
    hidden: width of the head's layers.
    pictured: how many of the guide's channels, the first, are pixels to look around in.
  """
  dit: DiT
  hidden: int
  pictured: int

  @property
  def _header(self):
    return Head(self.hidden, self.channels, self.dit.patch, self.dit.dtype)

  def init(self, key):
    tokens, time, _ = self.dit.example()
    p, q, r = self.dit.patch
    places = jnp.zeros((1, 2 * p, q, r, neighbours(self.pictured) + self.channels))
    head = self._header.init(jax.random.split(key, 3)[2], tokens, time, places)['params']
    return self.tower.init(key) | {'head': head}

  def head(self, params, stream):
    input = stream.input
    places = jnp.concatenate(
        [around(input.guide[..., :self.pictured], input.mask), input.x], axis=-1)
    out = self._header.apply({'params': params['head']}, stream.tokens, stream.time, places)
    return unpatchify(out, self.dit.patch, input.x.shape[1:-1])
