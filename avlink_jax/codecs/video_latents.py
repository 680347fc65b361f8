"""Video as latents of the video autoencoder, 4×8×8 at paper scale (Sec. 3.2, for the upsampler)."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from avlink_jax.codecs.pixels import Frames, as_uint8, frame_count
from avlink_jax.codecs.video_vae import VideoVAE


def build(name, config, context):
  """Codec described by `config.video_codec`."""
  vae = VideoVAE.of(config.video_codec, context.dtype, context.platform, context.remat)
  return VideoLatents(name, config.data.fps, vae,
                      frame_count(config.data.seconds, config.data.fps))


@dataclasses.dataclass(frozen=True)
class VideoLatents(Frames):
  """Codec whose data are scaled latents (T, H, W, C) of frames.

  Attributes:
    vae: the autoencoder.
    frames: how many an example has. What they lack to whole latents the autoencoder puts in front,
      repeats of the first.
  """
  vae: VideoVAE
  frames: int
  part = 'video_codec'

  @property
  def noise(self):
    """Noise stream other than that of the low-resolution video, which may have been generated."""
    return f'{self.name} latents'

  @property
  def channels(self):
    return self.vae.latent_channels

  @property
  def rate(self):
    return self.fps / self.vae.time_stride

  def seconds(self, count):
    """Mean times of each latent's own frames, without the repeats in front."""
    stride = self.vae.time_stride
    first = np.arange(count) * stride - -self.frames % stride
    return (np.maximum(first, 0) + first + stride - 1) / (2 * self.fps)

  def grid(self, layout):
    """Grid (T, H, W) of an example's latents."""
    strides = (self.vae.time_stride, *(self.vae.space_stride,) * 2)
    size = (layout.frames, layout.height, layout.width)
    return tuple(-(-n // stride) for n, stride in zip(size, strides, strict=True))

  def shape(self, layout):
    return *self.grid(layout), self.channels

  def mask(self, batch):
    """Mask of latents: True where any of its frames is real; padding is in front and repeats the
    first frame."""
    mask, stride = batch[self.mask_name], self.vae.time_stride
    mask = jnp.pad(mask, ((0, 0), (-mask.shape[1] % stride, 0)), mode='edge')
    return mask.reshape(len(mask), -1, stride).any(-1)

  @property
  def sizes(self):
    # Without what is about speed and memory alone.
    return dataclasses.replace(self.vae, planes=False, dtype=jnp.float32, remat=False)

  def encode(self, weights, batch):
    if self.latents_name in batch:
      return batch[self.latents_name]
    return self.vae.encode(weights['params'], weights['std'], batch[self.name])

  def padding(self, layout):
    """Number of frames that the autoencoder adds in front of an example, repeats of its first."""
    return -layout.frames % self.vae.time_stride

  def trim(self, decoded, seconds, layout):
    """Latents (T', …) that cover a clip's frames, and the number of its frames."""
    count = frame_count(seconds, self.fps)
    return decoded[:-(-(count + self.padding(layout)) // self.vae.time_stride)], count

  def finish(self, weights, decoded, seconds, layout):
    """Decodes a clip's latents (T, H, W, C) to its frames, uint8."""
    latents, count = self.trim(decoded, seconds, layout)
    video = self.vae.decode_in_parts(weights['params'], weights['std'], latents[None])[0]
    first = self.padding(layout)
    return as_uint8(video[first:first + count, :layout.height, :layout.width])

  def init(self, key):
    return {'params': self.vae.init(key), 'std': jnp.ones(())}
