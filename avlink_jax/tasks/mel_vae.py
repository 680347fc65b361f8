"""The 1D-VAE as a task (ref. 27)."""

import dataclasses

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from avlink_jax.codecs import mel_vae
from avlink_jax.models import Models
from avlink_jax.noise import gaussian


@dataclasses.dataclass(frozen=True)
class MelVAETask:
  """The 1D-VAE: L1 on the log-mel, KL as a mean over elements times its weight (ref. 27)."""
  models: Models
  config: ConfigDict
  modalities = generate = ('audio',)
  frozen_parts = players = ()

  def init(self, key):
    return self.models.codec.init(key)

  def sampled(self, params):
    return params

  def init_stats(self):
    return {'std': jnp.ones(())}

  def loss(self, params, stats, frozen, batch, key, step=None, player=None):
    """`stats.std` follows the latents' deviation, by which the flow models' data is divided."""
    del frozen, step, player
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
