"""The game that the autoencoders of sound and of pictures are trained in, by VQGAN's recipe.

What differs between them, data, codec, losses of the reconstruction, discriminator, stands in the
tasks that build on this: `mel_vae.py` and `video_vae.py`.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from avlink_jax.codecs import mel_vae, patchgan, perceptual
from avlink_jax.model.noise import gaussian
from avlink_jax.tasks.task import Task


@dataclasses.dataclass(frozen=True)
class Autoencoder(Task):
  """A codec and, if `codec_loss.adversarial`, the discriminator it is trained against.

  The generator minimises `fit` + KL (a mean over elements), and from step `codec_loss.disc_after`
  on λ · `disc_weight` times what its adversary says. The discriminator moves first in a step, and
  from that step on too. Both are Adams of `config.train`; its weight decay has to be 0, since it
  would move a discriminator that waits.

  A task says of its codec

    codec, sizes                       the codec and the config that describes it
    discriminator                      (params, what `view` gives) -> logits
    data(batch)                        what the codec encodes
    decode(params, z, batch)           what it makes of latents, of the shape of `data`
    view(data, batch, key)             what the discriminator sees of data, real or made
    fit(made, batch, key)              -> scalar, metrics: how far off a reconstruction is
    last_kernel(params)                (params as a function of the decoder's last kernel, it)
  """
  @property
  def groups(self):
    return ('discriminator', 'generator') if self.config.codec_loss.adversarial else ('generator',)

  @functools.cached_property
  def perceptual(self):
    """Read when a loss is first computed: sampling does not need it."""
    return perceptual.load(self.config.codec_loss.perceptual)

  def lr_scale(self, group):
    """A discriminator that begins late, against a codec that is already good, gives up at a high
    rate: what it sees tells nothing yet, and it learns to see nothing."""
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
    """`stats.std` follows the latents' deviation, by which the flow models' data is divided."""
    del frozen
    own = {'discriminator': self._discriminator_loss, 'generator': self._generator_loss}[group]
    return own(params, stats, batch, key, step)

  def _encode(self, params, data, key):
    """Posterior mean, its log-variance, and latents drawn from it."""
    mean, log_variance = self.codec.moments(params, data)
    return mean, log_variance, mean + jnp.exp(0.5 * log_variance) * gaussian(key, mean.shape)

  def regularise(self, mean, log_variance):
    """What latents are to be like: the weighted KL from N(0, 1) (scalar), metrics."""
    kl = mel_vae.kl_divergence(mean, log_variance)
    return self.sizes.kl_weight * kl, {'kl': kl}

  def handed_on(self, mean):
    """What the flow models are to see of the posterior's mean."""
    return mean

  def adversarial(self, discriminator, made, batch, key):
    """What the generator minimises against the discriminator: scalar."""
    return patchgan.generator_hinge(self.discriminator(discriminator, self.view(made, batch, key)))

  def begun(self, step):
    """1 from `codec_loss.disc_after` on, 0 before: a factor, since XLA's convolutions on a CPU take
    3 to 14 times as long inside a `lax.cond` as outside."""
    return jnp.where(step >= self.config.codec_loss.disc_after, 1.0, 0.0)

  def _generator_loss(self, params, stats, batch, key, step):
    own, loss = params['generator'], self.config.codec_loss
    mean, log_variance, z = self._encode(own, self.data(batch), key)
    put, kernel = self.last_kernel(own)
    made, to_kernel = jax.vjp(lambda k: self.decode(put(k), z, batch), kernel)
    # The losses are differentiated here, as far as the reconstruction, and once: their slopes give
    # both the adaptive weight and, put together, all that the generator's gradient needs of them.
    seen, to_kernel = jax.lax.stop_gradient((made, to_kernel))
    (value, said), slope = jax.value_and_grad(self.fit, has_aux=True)(seen, batch, key)
    if loss.adversarial:
      hinge, push = jax.value_and_grad(self.adversarial, argnums=1)(
          params['discriminator'], seen, batch, key)
      weight = self.begun(step) * loss.disc_weight * patchgan.adaptive_weight(
          to_kernel(slope), to_kernel(push))
      value, slope = value + weight * hinge, slope + weight * push
      said |= {'adversarial': hinge, 'adversarial_weight': weight}
    value, slope = jax.lax.stop_gradient((value, slope))
    penalty, regular = self.regularise(mean, log_variance)
    decay = self.sizes.std_decay
    std = decay * stats['std'] + (1 - decay) * jax.lax.stop_gradient(jnp.std(self.handed_on(mean)))
    return (value + jnp.sum(slope * (made - seen)) + penalty,
            ({**said, **regular, 'latent_std': std}, {'std': std}))

  def _discriminator_loss(self, params, stats, batch, key, step):
    z = self._encode(params['generator'], self.data(batch), key)[-1]
    made = self.decode(params['generator'], z, batch)
    real, fake = (self.discriminator(params['discriminator'], self.view(data, batch, key))
                  for data in (self.data(batch), made))
    return (self.begun(step) * patchgan.discriminator_hinge(real, fake),
            ({'logits_real': jnp.mean(real), 'logits_fake': jnp.mean(fake)}, stats))
