"""A way past a narrow tower, for patches wider than it (nano's video).

What one linear map to `width` numbers and back cannot carry, where in a patch a small thing is,
goes through a nonlinear layer from the noisy patch to the clean one, as the token says.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from avlink_jax.model.axes import constrain
from avlink_jax.model.dit import MLP, DiT, last_modulation
from avlink_jax.model.patches import patchify, unpatchify
from avlink_jax.model.tower import Wrapper


class WideEmbed(nn.Module):
  """An MLP from patches to tokens, beside the linear map; 0 at initialisation."""
  hidden: int
  width: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, patches):
    return MLP(self.hidden, self.width, self.dtype, zero_init=True, name='wide')(patches)


class WideHead(nn.Module):
  """dit.Head with a layer beside it that looks at token and noisy patch together, the patch more or
  less by flow time; zero at initialisation."""
  hidden: int
  out: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, tokens, time, patches):
    dense = functools.partial(nn.Dense, dtype=self.dtype)
    zero_dense = functools.partial(dense, kernel_init=nn.initializers.zeros)
    time = nn.silu(time)
    x = last_modulation(tokens, time, self.dtype)
    seen = dense(self.hidden, name='seen')(patches)
    seen *= 1 + zero_dense(self.hidden, name='gate')(time)[:, None]
    wide = nn.gelu(dense(self.hidden, name='wide')(x) + seen)
    out = zero_dense(self.out, name='out')(x) + zero_dense(self.out, name='wide_out')(wide)
    return out.astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class Wide(Wrapper):
  """A DiT with the way past it.

  Attributes:
    hidden: width of that way.
  """
  tower: DiT
  hidden: int

  @property
  def _embedder(self):
    return WideEmbed(self.hidden, self.width, self.tower.dtype)

  @property
  def _header(self):
    return WideHead(self.hidden, self.tower.header.out, self.tower.dtype)

  def init(self, key):
    params, keys = self.tower.init(key), jax.random.split(key, 3)
    tokens, time, patches = self.tower.example()
    return params | {
        'embed': params['embed'] | self._embedder.init(keys[0], patches)['params'],
        'head': self._header.init(keys[2], tokens, time, patches)['params']}

  def embed(self, params, input):
    stream = self.tower.embed(params, input)
    wide = self._embedder.apply(
        {'params': params['embed']}, patchify(input.x, self.tower.patch))
    return stream.replace(tokens=constrain(stream.tokens + wide, 'batch', self.axis, None))

  def head(self, params, stream):
    x = stream.input.x
    out = self._header.apply({'params': params['head']}, stream.tokens, stream.time,
                             patchify(x, self.tower.patch))
    return unpatchify(out, self.tower.patch, x.shape[1:-1])
