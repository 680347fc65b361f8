"""A tower that looks at a second input on its data's own grid (the latent upsampler, Sec. 3.2)."""

import dataclasses

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp

from avlink_jax.model.dit import MLP, time_features
from avlink_jax.model.tower import Input, Wrapper


@flax.struct.dataclass
class GuidedInput(Input):
  """And guide (B, T, H, W, G), noisy at flow time guide_t (B,), which the tower looks at too."""
  guide: jax.Array | None = None
  guide_t: jax.Array | None = None


class LatentTime(nn.Module):
  """An MLP of the data's flow time, beside that of the guide's; 0 at initialisation."""
  width: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, t):
    return MLP(self.width, self.width, self.dtype, zero_init=True, name='latent_time')(
        time_features(t))


@dataclasses.dataclass(frozen=True)
class Guided(Wrapper):
  """A tower whose input channels are the guide's, then the data's, and whose time is the guide's.

  Widened so (weights.overlay), a tower sees its old data in the guide: the new kernels' rows and
  the MLP of the data's time are 0, so that it does at first what it did on that.
  """
  dtype: jnp.dtype = jnp.float32

  @property
  def _latent_time(self):
    return LatentTime(self.width, self.dtype)

  def init(self, key):
    params = self.tower.init(key)
    own = self._latent_time.init(jax.random.split(key, 3)[0], jnp.zeros(1))['params']
    return params | {'embed': params['embed'] | own}

  def embed(self, params, input):
    stream = self.tower.embed(params, self._inner(input))
    time = self._latent_time.apply({'params': params['embed']}, input.t)
    return stream.replace(time=stream.time + time, input=input)

  def head(self, params, stream):
    return self.tower.head(params, stream.replace(input=self._inner(stream.input)))

  def _inner(self, input):
    """The input as the tower inside knows it."""
    return Input(jnp.concatenate([input.guide, input.x], axis=-1), input.guide_t, input.text,
                 input.text_mask, input.mask)
