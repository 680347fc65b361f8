"""The video autoencoder as a task: pictures at full rate and size, in crops, through 4 × 8 × 8."""

import dataclasses

import jax.numpy as jnp

from avlink_jax.codecs import patchgan
from avlink_jax.codecs.video_vae import as_float
from avlink_jax.tasks.autoencoder import Autoencoder


@dataclasses.dataclass(frozen=True)
class VideoVAETask(Autoencoder):
  """Reconstruction is L1 over the frames that a clip has."""
  reads = ('video',)
  modalities = generate = ('video',)

  @property
  def codec(self):
    return self.models.video_codec

  @property
  def sizes(self):
    return self.config.video_codec

  @property
  def discriminator(self):
    loss = self.config.codec_loss
    return patchgan.PatchGAN3D(loss.disc_width, loss.disc_layers, self.codec.planes)

  def data(self, batch):
    return as_float(batch['video'])

  def decode(self, params, z, batch):
    return self.codec.decode(params, 1.0, z, *batch['video'].shape[1:4])

  def view(self, video, batch, key):
    """Frames that a clip lacks are grey on both sides, and teach nothing."""
    del key
    return jnp.where(batch['video_mask'][..., None, None, None], video, 0.0)

  def fit(self, made, batch, key):
    """L1 over what is real: scalar, metrics."""
    del key
    mask = batch['video_mask']
    errors = jnp.mean(jnp.abs(made - self.data(batch)), axis=(2, 3, 4))
    l1 = jnp.sum(errors * mask) / jnp.maximum(jnp.sum(mask), 1)
    return l1, {'l1': l1}

  def last_kernel(self, params):
    """(params as a function of the decoder's last kernel, that kernel (t, h, w, width, cell))."""
    decoder = params['decoder']
    put = lambda kernel: {**params, 'decoder': {  # noqa: E731
        **decoder, 'last': {**decoder['last'], 'kernel': kernel}}}
    return put, decoder['last']['kernel']

