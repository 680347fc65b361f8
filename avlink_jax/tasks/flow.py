"""Every flow-matching task, whatever it generates and whatever conditions it."""

import dataclasses

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from avlink_jax import flow
from avlink_jax.codecs import text
from avlink_jax.model.dit import Input
from avlink_jax.models import Models
from avlink_jax.noise import gaussian


@dataclasses.dataclass(frozen=True)
class FlowTask:
  """Every flow-matching task: T2A and T2V (a tower alone), and whatever AV-Link generates.

  `config.generate` names the modalities that are generated; with Fusion Blocks the others
  condition. What differs between V2A, A2V and generating both is only that.
  """
  models: Models
  config: ConfigDict

  players = ()

  @property
  def linked(self):
    return self.models.link is not None

  @property
  def generate(self):
    return tuple(self.config.generate)

  @property
  def modalities(self):
    return tuple(self.models.towers) if self.linked else self.generate

  @property
  def frozen_parts(self):
    codec = ('codec',) if 'audio' in self.modalities else ()
    return codec + (tuple(self.models.towers) if self.linked else ())

  def init(self, key):
    if self.linked:
      return self.models.link.init(key)
    name, = self.generate
    keys = jax.random.split(key)
    return {'dit': self.models.towers[name].init(keys[0]), 'text': self.models.text.init(keys[1])}

  def sampled(self, params):
    return params

  def init_stats(self):
    return {}

  def towers(self, params, frozen):
    """{name: {'dit', 'text'}} of all towers this task runs."""
    return frozen['towers'] if self.linked else {self.generate[0]: params}

  def velocity(self, params, frozen, inputs):
    """Velocities {name: v} of the generated modalities."""
    dits = {name: tower['dit'] for name, tower in self.towers(params, frozen).items()}
    if self.linked:
      return self.models.link.velocity(params, dits, inputs, self.generate)
    return {name: self.models.towers[name].velocity(dits[name], inputs[name])
            for name in self.generate}

  def clean(self, frozen, batch, name):
    """X_1 of a modality, (B, T, ...): pictures in [−1, 1], or the frozen codec's latents."""
    if name == 'video':
      return batch['video'].astype(jnp.float32) / 127.5 - 1
    codec, mel = self.models.codec, batch['mel']
    mel = jnp.pad(mel, ((0, 0), (0, -mel.shape[1] % codec.stride), (0, 0)),
                  constant_values=self.models.layout.mel.silence)
    return codec.encode(frozen['codec']['params'], frozen['codec']['std'], mel)

  def mask(self, batch, name):
    """Where `clean` is real, not padding: bool (B, T)."""
    mask = batch[f'{name}_mask']
    if name == 'video':
      return mask
    stride = self.models.codec.stride
    mask = jnp.pad(mask, ((0, 0), (0, -mask.shape[1] % stride)))
    return mask.reshape(mask.shape[0], -1, stride).any(-1)

  def loss(self, params, stats, frozen, batch, key, step=None, player=None):
    """Eq. 5: mean squared error of the velocity, over real (not padded) data."""
    laws, towers = self.config.flow, self.towers(params, frozen)
    inputs, targets = {}, {}
    for i, name in enumerate(self.modalities):
      x1 = self.clean(frozen, batch, name)
      noise, time, prompt = jax.random.split(jax.random.fold_in(key, i), 3)
      size = x1.shape[:1]
      if name in self.generate:
        t = flow.logit_normal(time, size, laws.location, laws.scale)
        drop_rate = laws.drop_generated
      else:
        t = jnp.full(size, laws.condition_time[name])
        drop_rate = laws.drop_condition
      x0 = gaussian(noise, x1.shape)
      null = jnp.asarray(self.models.text.tokenize([''])[0])
      tokens = text.drop(prompt, batch[f'{name}_text'], null, drop_rate)
      embedding, text_mask = self.models.text.encode(towers[name]['text'], tokens)
      inputs[name] = Input(flow.interpolate(x1, x0, t), t, embedding, text_mask,
                           self.mask(batch, name))
      targets[name] = flow.target(x1, x0)
    velocities = self.velocity(params, frozen, inputs)
    metrics = {f'mse_{name}': masked_mse(v, targets[name], inputs[name].mask)
               for name, v in velocities.items()}
    return sum(metrics.values()), (metrics, stats)


def masked_mse(x, y, mask):
  """Mean of (x − y)² over the frames (axis 1) where mask (B, T) is True."""
  weight = mask.reshape(mask.shape + (1,) * (x.ndim - 2)).astype(x.dtype)
  return jnp.sum((x - y) ** 2 * weight) / (jnp.sum(weight) * x[0, 0].size)
