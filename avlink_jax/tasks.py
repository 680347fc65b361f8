"""What each task trains, what it keeps frozen, and its loss.

A task is an object with

    init(key)                                       -> trainable parameters
    init_stats()                                    -> running statistics that are not trained
    loss(params, stats, frozen, batch, key)         -> scalar, (metrics, stats)
    modalities, generate                            what it reads of a clip, what it makes
    frozen_parts                                    what it needs of `weights.load_frozen`

and the trainer knows nothing else of it. `frozen` is {'codec': {'params', 'std'},
'towers': {name: {'dit', 'text'}}}, as much of it as the task needs.
"""

import dataclasses

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from avlink_jax import flow
from avlink_jax.codecs import mel_vae, text
from avlink_jax.model.dit import Input
from avlink_jax.models import Models
from avlink_jax.noise import gaussian


@dataclasses.dataclass(frozen=True)
class MelVAETask:
  """The 1D-VAE: L1 on the log-mel, KL as a mean over elements times its weight (ref. 27)."""
  models: Models
  config: ConfigDict
  modalities = generate = ('audio',)
  frozen_parts = ()

  def init(self, key):
    return self.models.codec.init(key)

  def init_stats(self):
    return {'std': jnp.ones(())}

  def loss(self, params, stats, frozen, batch, key):
    """`stats.std` follows the latents' deviation, by which the flow models' data is divided."""
    del frozen
    codec, mask = self.models.codec, batch['audio_mask'][..., None]
    mean, log_variance = codec.moments(params, batch['mel'])
    z = mean + jnp.exp(0.5 * log_variance) * gaussian(key, mean.shape)
    reconstruction = codec.decode(params, 1.0, z)
    l1 = jnp.sum(jnp.abs(reconstruction - batch['mel']) * mask) / (
        jnp.sum(mask) * batch['mel'].shape[-1])
    kl = mel_vae.kl_divergence(mean, log_variance)
    decay = self.config.codec.std_decay
    std = decay * stats['std'] + (1 - decay) * jax.lax.stop_gradient(jnp.std(mean))
    return (l1 + self.config.codec.kl_weight * kl,
            ({'l1': l1, 'kl': kl, 'latent_std': std}, {'std': std}))


@dataclasses.dataclass(frozen=True)
class FlowTask:
  """Every flow-matching task: T2A and T2V (a tower alone), and whatever AV-Link generates.

  `config.generate` names the modalities that are generated; with Fusion Blocks the others
  condition. What differs between V2A, A2V and generating both is only that.
  """
  models: Models
  config: ConfigDict

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

  def loss(self, params, stats, frozen, batch, key):
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


def make(config, models):
  """The task that `config.task` names."""
  return MelVAETask(models, config) if config.task == 'mel_vae' else FlowTask(models, config)
