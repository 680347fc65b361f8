"""Training of the video autoencoder on crops of video at full rate and resolution."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from einops import rearrange

from avlink_jax.codecs import finite, lfq, patchgan, perceptual
from avlink_jax.codecs.pixels import as_float, as_uint8
from avlink_jax.data import batch as batches
from avlink_jax.errors import UserError
from avlink_jax.model.frames import masked_mean, random_stretch
from avlink_jax.tasks.autoencoder import Autoencoder


@dataclasses.dataclass(frozen=True)
class VideoVAETask(Autoencoder):
  """Autoencoder of video: L1 + perceptual distance of frames, over those that are not padding."""
  modalities = generate = ('video',)

  @property
  def readers(self):
    return (self.models.modalities['video'].codec,)

  @property
  def codec(self):
    return self.models.modalities['video'].codec.vae

  @property
  def codec_config(self):
    return self.config.video_codec

  @functools.cached_property
  def perceptual(self):
    if self.config.codec_loss.perceptual == 'bundled':
      raise UserError("codec_loss.perceptual=bundled is a network for audio: for video give "
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
    """Regularisation of the latents: scalar, metrics.

    With quantisation: low entropy of each code, high entropy of their mean (nats per bit), and the
    commitment loss (MAGVIT-v2, Eq. 6)."""
    if self.codec.quantise == 'none':
      return super().regularise(mean, log_variance)
    c = self.codec_config
    entropy, entropy_of_mean = lfq.entropies(mean)
    commitment = lfq.commitment(mean)
    return (c.entropy_weight * (entropy - entropy_of_mean) + c.commitment_weight * commitment,
            {'entropy': entropy, 'entropy_of_mean': entropy_of_mean, 'commitment': commitment})

  def flow_data(self, mean):
    return self.codec.code(mean)

  def view(self, video, batch, key):
    """Video with padding frames replaced by grey, in real and reconstructed ones alike."""
    del key
    return jnp.where(batch['video_mask'][..., None, None, None], video, 0.0)

  def reconstruction_loss(self, reconstruction, batch, key):
    """L1 over frames that are not padding, plus their perceptual distance: scalar, metrics."""
    video, mask, loss = self.data(batch), batch['video_mask'], self.config.codec_loss
    l1 = masked_mean(jnp.mean(jnp.abs(reconstruction - video), axis=(2, 3, 4)), mask)
    if self.perceptual is None:
      return l1, {'l1': l1}
    video, reconstruction, mask = (random_stretch(jax.random.fold_in(key, 1), x, loss.frames)
                                   for x in (video, reconstruction, mask))
    frames = [rearrange(x, 'b t h w c -> (b t) h w c') / 2 + 0.5 for x in (video, reconstruction)]
    distance = perceptual.distance(self.perceptual, *frames).reshape(mask.shape)
    distance = masked_mean(distance, mask)
    return l1 + loss.perceptual_weight * distance, {'l1': l1, 'perceptual': distance}

  def last_kernel(self, params):
    """Pair (function kernel -> params, the decoder's last kernel (t, h, w, width, cell))."""
    decoder = params['decoder']
    with_kernel = lambda kernel: {**params, 'decoder': {  # noqa: E731
        **decoder, 'last': {**decoder['last'], 'kernel': kernel}}}
    return with_kernel, decoder['last']['kernel']

  def decoding(self, clips):
    """All frames of a clip at once; `reconstructor` decodes in parts (codecs/video_parts.py)."""
    clip = self.models.layout.clip
    size = clip.frames, clip.height, clip.width
    weights = jax.eval_shape(lambda: (self.codec.init(jax.random.key(0)), jnp.ones(())))
    latents = jax.eval_shape(self.codec.encode, *weights, jax.ShapeDtypeStruct(
        (clips, *size, 3), jnp.uint8))
    return lambda *args: self.codec.decode(*args, *size), weights, latents

  def reconstructor(self):
    def reconstruct(params, stats, clip):
      video = batches.all_frames(clip, self.models.layout.fps)[None]
      latents = self.codec.encode_in_parts(params, stats['std'], video)
      decoded = self.codec.decode_in_parts(params, stats['std'], latents, *video.shape[1:4])
      return {'video': as_uint8(finite.checked(decoded, 'video')[0])}

    return reconstruct
