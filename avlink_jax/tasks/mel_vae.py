"""Training of the 1D-VAE (ref. 27) by VQGAN's recipe, with the mel as an image."""

import dataclasses

import jax
import jax.numpy as jnp

from avlink_jax.codecs import finite, patchgan, perceptual
from avlink_jax.codecs.mel_codec import MelCodec
from avlink_jax.data import batch as batches
from avlink_jax.model.frames import masked_mean, random_stretch
from avlink_jax.tasks.autoencoder import Autoencoder


@dataclasses.dataclass(frozen=True)
class Mel(MelCodec):
  """MelCodec that reads the mel even if there are prepared latents."""
  reads = 'mel'

  @classmethod
  def of(cls, codec):
    """Copy of a MelCodec that reads mels."""
    return cls(codec.name, codec.vae, codec.spec, codec.load_vocoder)


@dataclasses.dataclass(frozen=True)
class MelVAETask(Autoencoder):
  """Autoencoder of log-mels: L1 + perceptual distance, over frames that are not padding."""
  modalities = generate = ('audio',)
  kept_media = ('video',)

  @property
  def readers(self):
    return (Mel.of(self.models.modalities['audio'].codec),)

  @property
  def codec(self):
    return self.models.modalities['audio'].codec.vae

  def check(self):
    super().check()
    self.models.modalities['audio'].codec.check()

  def check_samples(self):
    self.models.modalities['audio'].codec.check_samples()

  @property
  def decoder_weights(self):
    return self.models.modalities['audio'].codec.decoder_weights

  @property
  def codec_config(self):
    return self.config.codec

  @property
  def discriminator(self):
    return patchgan.PatchGAN(self.config.codec_loss.disc_width, self.config.codec_loss.disc_layers)

  def data(self, batch):
    return batch['mel']

  def decode(self, params, z, batch):
    del batch
    return self.codec.decode(params, 1.0, z)

  def view(self, mel, batch, key):
    return self.image(mel, batch['audio_mask'], key)

  def image(self, mel, mask, key):
    """Image for the networks from log-mel (B, T, n_mels): (B, frames, n_mels, 1).

    0 is silence and 1 a magnitude of one. Padding becomes silence in real and reconstructed mels,
    and has no effect. `codec_loss.frames` of the T frames are used (0: all), from a random frame on
    that the batch shares: patches are independent, so a part of them is as good an estimate in less
    time.
    """
    frames, silence = self.config.codec_loss.frames, self.codec.silence
    image = jnp.where(mask[..., None], 1 - mel / silence, 0)[..., None]
    return random_stretch(jax.random.fold_in(key, 1), image, frames)

  def reconstruction_loss(self, reconstruction, batch, key):
    """L1 over frames that are not padding, plus the perceptual distance: scalar, metrics."""
    mel, mask, loss = batch['mel'], batch['audio_mask'], self.config.codec_loss
    l1 = masked_mean(jnp.abs(reconstruction - mel), mask)
    if self.perceptual is None:
      return l1, {'l1': l1}
    distance = jnp.mean(perceptual.distance(
        self.perceptual, self.image(mel, mask, key), self.image(reconstruction, mask, key)))
    return l1 + loss.perceptual_weight * distance, {'l1': l1, 'perceptual': distance}

  def last_kernel(self, params):
    """Pair (function kernel -> params, the decoder's last kernel (3, width, n_mels))."""
    decoder = params['decoder']
    last = f'Conv_{len(self.codec.multipliers)}'  # one at the input, one per up-sampling
    with_kernel = lambda kernel: {**params, 'decoder': {  # noqa: E731
        **decoder, last: {**decoder[last], 'kernel': kernel}}}
    return with_kernel, decoder[last]['kernel']

  def reconstructor(self):
    decode = jax.jit(lambda params, std, mel: self.codec.decode(
        params, std, self.codec.encode(params, std, mel)))
    reader, = self.readers

    def reconstruct(params, stats, clip):
      mel = batches.read(clip, 0.0, self.models.layout, reader)['mel']
      mel = finite.checked(decode(params, stats['std'], mel[None]), 'audio')
      return {'audio': reader.vocoder(mel[0])}

    return reconstruct
