"""The 1D-VAE as a task (ref. 27), by VQGAN's recipe: the mel is an image that shall look real."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from avlink_jax.codecs import mel_vae, patchgan, perceptual
from avlink_jax.models import Models
from avlink_jax.noise import gaussian


@dataclasses.dataclass(frozen=True)
class MelVAETask:
  """The 1D-VAE and, if `codec_loss.adversarial`, the discriminator it is trained against.

  The generator minimises L1 on the log-mel + perceptual distance + KL (a mean over elements), and
  from step `codec_loss.disc_after` on λ · `disc_weight` times what its adversary says. The
  discriminator moves first in a step, and from that step on too. Both are Adams of `config.train`;
  its weight decay has to be 0, since it would move a discriminator that waits.
  """
  models: Models
  config: ConfigDict
  reads = ('mel',)
  modalities = generate = ('audio',)
  frozen_parts = ()

  @property
  def players(self):
    return ('discriminator', 'generator') if self.config.codec_loss.adversarial else ('generator',)

  @functools.cached_property
  def perceptual(self):
    """Read when a loss is first computed: sampling does not need it."""
    return perceptual.load(self.config.codec_loss.perceptual)

  @property
  def discriminator(self):
    return patchgan.PatchGAN(self.config.codec_loss.disc_width, self.config.codec_loss.disc_layers)

  def pace(self, player):
    """A discriminator that begins late, against a codec that is already good, gives up at a high
    rate: what it sees tells nothing yet, and it learns to see nothing."""
    return self.config.codec_loss.disc_rate if player == 'discriminator' else 1.0

  def init(self, key, frozen):
    del frozen
    params = {'generator': self.models.codec.init(key)}
    if self.config.codec_loss.adversarial:
      params['discriminator'] = self.discriminator.init(jax.random.fold_in(key, 1))
    return params

  def sampled(self, params):
    return params['generator']

  def init_stats(self):
    return {'std': jnp.ones(())}

  def loss(self, params, stats, frozen, batch, key, step, player):
    """`stats.std` follows the latents' deviation, by which the flow models' data is divided."""
    del frozen
    own = {'discriminator': self._discriminator_loss, 'generator': self._generator_loss}[player]
    return own(params, stats, batch, key, step)

  def _encode(self, params, mel, key):
    """Posterior mean, its log-variance, and latents drawn from it."""
    mean, log_variance = self.models.codec.moments(params, mel)
    return mean, log_variance, mean + jnp.exp(0.5 * log_variance) * gaussian(key, mean.shape)

  def image(self, mel, mask, key):
    """Log-mel (B, T, n_mels) -> what the networks see of it: (B, frames, n_mels, 1).

    0 is silence and 1 a magnitude of one. Padding is silence on both sides, and teaches nothing.
    `codec_loss.frames` of T are looked at (0: all), from the same random frame on in the whole
    batch: patches are judged one by one, and a part of them is as good an estimate in less time.
    """
    frames, silence = self.config.codec_loss.frames, self.models.codec.silence
    image = jnp.where(mask[..., None], 1 - mel / silence, 0)[..., None]
    if not 0 < frames < mel.shape[1]:
      return image
    start = jax.random.randint(jax.random.fold_in(key, 1), (), 0, mel.shape[1] - frames + 1)
    return jax.lax.dynamic_slice_in_dim(image, start, frames, axis=1)

  def fit(self, reconstruction, batch, key):
    """L1 over what is real, plus the perceptual distance: scalar, metrics."""
    mel, mask, loss = batch['mel'], batch['audio_mask'], self.config.codec_loss
    l1 = jnp.sum(jnp.abs(reconstruction - mel) * mask[..., None]) / (
        jnp.sum(mask) * mel.shape[-1])
    if self.perceptual is None:
      return l1, {'l1': l1}
    looks = jnp.mean(perceptual.distance(
        self.perceptual, self.image(mel, mask, key), self.image(reconstruction, mask, key)))
    return l1 + loss.perceptual_weight * looks, {'l1': l1, 'perceptual': looks}

  def adversarial(self, discriminator, reconstruction, batch, key):
    """What the generator minimises against the discriminator: scalar."""
    seen = self.image(reconstruction, batch['audio_mask'], key)
    return patchgan.generator_hinge(self.discriminator(discriminator, seen))

  def begun(self, step):
    """1 from `codec_loss.disc_after` on, 0 before: a factor, since XLA's convolutions on a CPU take
    3 to 14 times as long inside a `lax.cond` as outside."""
    return jnp.where(step >= self.config.codec_loss.disc_after, 1.0, 0.0)

  def last_kernel(self, params):
    """(params as a function of the decoder's last kernel, that kernel (3, width, n_mels))."""
    decoder = params['decoder']
    last = f'Conv_{len(self.models.codec.multipliers)}'  # one before, one at each doubling
    put = lambda kernel: {**params, 'decoder': {  # noqa: E731
        **decoder, last: {**decoder[last], 'kernel': kernel}}}
    return put, decoder[last]['kernel']

  def _generator_loss(self, params, stats, batch, key, step):
    own, codec, loss = params['generator'], self.models.codec, self.config.codec_loss
    mean, log_variance, z = self._encode(own, batch['mel'], key)
    put, kernel = self.last_kernel(own)
    made, to_kernel = jax.vjp(lambda k: codec.decode(put(k), 1.0, z), kernel)
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
    kl = mel_vae.kl_divergence(mean, log_variance)
    decay = self.config.codec.std_decay
    std = decay * stats['std'] + (1 - decay) * jax.lax.stop_gradient(jnp.std(mean))
    return (value + jnp.sum(slope * (made - seen)) + self.config.codec.kl_weight * kl,
            ({**said, 'kl': kl, 'latent_std': std}, {'std': std}))

  def _discriminator_loss(self, params, stats, batch, key, step):
    z = self._encode(params['generator'], batch['mel'], key)[-1]
    made = self.models.codec.decode(params['generator'], 1.0, z)
    real, fake = (self.discriminator(params['discriminator'],
                                     self.image(mel, batch['audio_mask'], key))
                  for mel in (batch['mel'], made))
    return (self.begun(step) * patchgan.discriminator_hinge(real, fake),
            ({'logits_real': jnp.mean(real), 'logits_fake': jnp.mean(fake)}, stats))
