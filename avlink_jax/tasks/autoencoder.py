"""Adversarial training of the audio and video autoencoders, by VQGAN's recipe.

Data, codec, reconstruction losses and discriminator are defined by the tasks that build on it,
`mel_vae.py` and `video_vae.py`.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from avlink_jax.codecs import mel_vae, patchgan, perceptual
from avlink_jax.errors import UserError
from avlink_jax.model.noise import gaussian
from avlink_jax.tasks.task import Task


@dataclasses.dataclass(frozen=True)
class Autoencoder(Task):
  """Codec (the generator) and, if `codec_loss.adversarial`, its discriminator.

  The generator minimises `reconstruction_loss` + KL (a mean over elements) and, from step
  `codec_loss.disc_after` on, λ · `disc_weight` · the adversarial loss. The discriminator is updated
  first in a step, also from that step on. Both use Adam as in `config.train`, whose weight decay
  must be 0: it would change a discriminator that is still waiting.

  With `codec_loss.fixed_encoder` the encoder and the latents' deviation stay as they are, so that
  flow models trained on its latents still fit, and the decoder alone learns: with
  `codec_loss.latent_noise` from latents as inexact as those that a flow model makes.

  A subclass defines

    codec, codec_config                the codec and the section of the config that describes it
    discriminator                      (params, `view`'s result) -> logits
    data(batch)                        the codec's input
    decode(params, z, batch)           reconstruction from latents, of the shape of `data`
    view(data, batch, key)             the discriminator's input, from real or reconstructed data
    reconstruction_loss(reconstruction, batch, key)     -> scalar, metrics
    last_kernel(params)                (function kernel -> params, the decoder's last kernel)
  """

  @property
  def groups(self):
    return ('discriminator', 'generator') if self.config.codec_loss.adversarial else ('generator',)

  @functools.cached_property
  def perceptual(self):
    """Network of the perceptual loss; loaded when a loss is first computed."""
    return perceptual.load(self.config.codec_loss.perceptual)

  def check(self):
    """Raises UserError if the encoder that is to stay would be a random one."""
    if self.config.codec_loss.fixed_encoder and not self.config.train.init_from:
      raise UserError('codec_loss.fixed_encoder: set train.init_from to the weights whose encoder '
                      'stays as it is')

  def lr_scale(self, group):
    """Factor of a group's learning rate.

    A discriminator that starts late, against a codec that is already good, collapses at a high
    rate: its inputs hardly differ yet, and it learns to ignore them."""
    return self.config.codec_loss.disc_rate if group == 'discriminator' else 1.0

  def init(self, key, frozen):
    del frozen
    params = {'generator': self.codec.init(key)}
    if self.config.codec_loss.adversarial:
      params['discriminator'] = self.discriminator.init(jax.random.fold_in(key, 1))
    return params

  def exported(self, params):
    return params['generator']

  def init_stats(self):
    return {'std': jnp.ones(())}

  def loss(self, params, stats, frozen, batch, key, step, group):
    """Loss of a group; `stats.std` tracks the latents' deviation, which flow models divide by."""
    del frozen
    losses = {'discriminator': self._discriminator_loss, 'generator': self._generator_loss}
    return losses[group](params, stats, batch, key, step)

  def validate(self, params, stats, frozen, batch, key, share):
    """Reconstruction loss and regularisation, without the adversary."""
    del frozen, share
    mean, log_variance, z = self._encode(params, stats, self.data(batch), key)
    value, metrics = self.reconstruction_loss(self.decode(params, z, batch), batch, key)
    penalty, penalty_metrics = self.regularise(mean, log_variance)
    return {'loss': value + penalty, **metrics, **penalty_metrics}

  def _encode(self, params, stats, data, key):
    """Posterior mean, log-variance, and latents to decode: drawn from the posterior, and with
    `codec_loss.latent_noise`, in units of the latents' deviation."""
    mean, log_variance = self.codec.moments(params, data)
    if self.config.codec_loss.fixed_encoder:
      mean, log_variance = jax.lax.stop_gradient((mean, log_variance))
    z = mean + jnp.exp(0.5 * log_variance) * gaussian(key, mean.shape)
    if noise := self.config.codec_loss.latent_noise:
      z += noise * stats['std'] * gaussian(jax.random.fold_in(key, 2), z.shape)
    return mean, log_variance, z

  def regularise(self, mean, log_variance):
    """Regularisation of the latents: weighted KL divergence from N(0, 1) (scalar), metrics."""
    kl = mel_vae.kl_divergence(mean, log_variance)
    return self.codec_config.kl_weight * kl, {'kl': kl}

  def flow_data(self, mean):
    """Latents that flow models will get, unscaled, from the posterior's mean."""
    return mean

  def adversarial(self, discriminator, reconstruction, batch, key):
    """Adversarial loss of the generator: scalar."""
    return patchgan.generator_hinge(
        self.discriminator(discriminator, self.view(reconstruction, batch, key)))

  def adversary_active(self, step):
    """Factor: 1 from `codec_loss.disc_after` on, 0 before.

    It is no `lax.cond`, because XLA's convolutions on a CPU take 3 to 14 times as long in one."""
    return jnp.where(step >= self.config.codec_loss.disc_after, 1.0, 0.0)

  def _generator_loss(self, params, stats, batch, key, step):
    generator, loss = params['generator'], self.config.codec_loss
    mean, log_variance, z = self._encode(generator, stats, self.data(batch), key)
    with_kernel, kernel = self.last_kernel(generator)
    reconstruction, to_kernel = jax.vjp(
        lambda k: self.decode(with_kernel(k), z, batch), kernel)
    # The losses' gradients with respect to the reconstruction are computed once, here. They give
    # the adaptive weight and, as a linear term, the generator's gradient.
    fixed, to_kernel = jax.lax.stop_gradient((reconstruction, to_kernel))
    (value, metrics), gradient = jax.value_and_grad(self.reconstruction_loss, has_aux=True)(
        fixed, batch, key)
    if loss.adversarial:
      hinge, hinge_gradient = jax.value_and_grad(self.adversarial, argnums=1)(
          params['discriminator'], fixed, batch, key)
      weight = self.adversary_active(step) * loss.disc_weight * patchgan.adaptive_weight(
          to_kernel(gradient), to_kernel(hinge_gradient))
      value, gradient = value + weight * hinge, gradient + weight * hinge_gradient
      metrics |= {'adversarial': hinge, 'adversarial_weight': weight}
    value, gradient = jax.lax.stop_gradient((value, gradient))
    penalty, penalty_metrics = self.regularise(mean, log_variance)
    decay = 1.0 if loss.fixed_encoder else self.codec_config.std_decay
    std = decay * stats['std'] + (1 - decay) * jax.lax.stop_gradient(
        jnp.std(self.flow_data(mean)))
    return (value + jnp.sum(gradient * (reconstruction - fixed)) + penalty,
            ({**metrics, **penalty_metrics, 'latent_std': std}, {'std': std}))

  def _discriminator_loss(self, params, stats, batch, key, step):
    z = self._encode(params['generator'], stats, self.data(batch), key)[-1]
    reconstruction = self.decode(params['generator'], z, batch)
    real, fake = (self.discriminator(params['discriminator'], self.view(data, batch, key))
                  for data in (self.data(batch), reconstruction))
    return (self.adversary_active(step) * patchgan.discriminator_hinge(real, fake),
            ({'logits_real': jnp.mean(real), 'logits_fake': jnp.mean(fake)}, stats))
