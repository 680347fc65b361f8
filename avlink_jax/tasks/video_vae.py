"""The video autoencoder as a task: pictures at full rate and size, in crops, through 4 × 8 × 8."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from einops import rearrange

from avlink_jax.codecs import lfq, patchgan, perceptual
from avlink_jax.codecs.pixels import as_float
from avlink_jax.errors import UserError
from avlink_jax.model.frames import masked_mean, random_stretch
from avlink_jax.tasks.autoencoder import Autoencoder


@dataclasses.dataclass(frozen=True)
class VideoVAETask(Autoencoder):
  """Reconstruction is L1 + the perceptual distance of pictures, over the frames that a clip has."""
  modalities = generate = ('video',)

  @property
  def readers(self):
    return (self.models.modalities['video'].codec,)

  @property
  def codec(self):
    return self.models.modalities['video'].codec.vae

  @property
  def sizes(self):
    return self.config.video_codec

  @functools.cached_property
  def perceptual(self):
    if self.config.codec_loss.perceptual == 'bundled':
      raise UserError("codec_loss.perceptual=bundled is a network of sounds: for pictures give "
                      "'none', or the weights of VGG16 and of the LPIPS heads")
    return perceptual.load(self.config.codec_loss.perceptual)

  @property
  def discriminator(self):
    loss = self.config.codec_loss
    return patchgan.PatchGAN3D(loss.disc_width, loss.disc_layers, self.codec.planes)

  def data(self, batch):
    return as_float(batch['video'])

  def decode(self, params, z, batch):
    return self.codec.decode(params, 1.0, z, *batch['video'].shape[1:4])

  def regularise(self, mean, log_variance):
    """Of codes: certainty of each, variety of all (both entropies, of a bit in nats), and that they
    are not far from what they stand for (MAGVIT-v2, Eq. 6)."""
    if self.codec.quantise == 'none':
      return super().regularise(mean, log_variance)
    sure, varied = lfq.entropies(mean)
    far = lfq.commitment(mean)
    return (self.sizes.entropy_weight * (sure - varied) + self.sizes.commitment_weight * far,
            {'entropy': sure, 'entropy_of_mean': varied, 'commitment': far})

  def handed_on(self, mean):
    return self.codec.code(mean)

  def view(self, video, batch, key):
    """Frames that a clip lacks are grey on both sides, and teach nothing."""
    del key
    return jnp.where(batch['video_mask'][..., None, None, None], video, 0.0)

  def fit(self, made, batch, key):
    """L1 over what is real, plus the perceptual distance of single pictures: scalar, metrics."""
    video, mask, loss = self.data(batch), batch['video_mask'], self.config.codec_loss
    l1 = masked_mean(jnp.mean(jnp.abs(made - video), axis=(2, 3, 4)), mask)
    if self.perceptual is None:
      return l1, {'l1': l1}
    video, made, mask = (random_stretch(jax.random.fold_in(key, 1), x, loss.frames)
                         for x in (video, made, mask))
    pictures = [rearrange(x, 'b t h w c -> (b t) h w c') / 2 + 0.5 for x in (video, made)]
    looks = masked_mean(perceptual.distance(self.perceptual, *pictures).reshape(mask.shape), mask)
    return l1 + loss.perceptual_weight * looks, {'l1': l1, 'perceptual': looks}

  def last_kernel(self, params):
    """(params as a function of the decoder's last kernel, that kernel (t, h, w, width, cell))."""
    decoder = params['decoder']
    put = lambda kernel: {**params, 'decoder': {  # noqa: E731
        **decoder, 'last': {**decoder['last'], 'kernel': kernel}}}
    return put, decoder['last']['kernel']
