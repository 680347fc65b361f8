"""The low-resolution video that guides the upsampler (Sec. 3.2)."""

import dataclasses

import jax
import jax.numpy as jnp
from einops import rearrange
from ml_collections import ConfigDict

from avlink_jax import flow
from avlink_jax.codecs.video_latents import VideoLatents
from avlink_jax.data import batch as batches
from avlink_jax.data.batch import Layout
from avlink_jax.data.boxes import box_mean
from avlink_jax.model.noise import gaussian

NAME = 'low'  # of its array in a batch and of its noise stream


@dataclasses.dataclass(frozen=True)
class LowVideo:
  """Low-resolution video as an additional tower input beside the noisy latents, with its own noise.

  Its noise level is its own flow time, another tower input: in training between
  `flow.guide_time.low` and 1 (no noise), so that a sampler can use a base model's imperfect output
  at `sample.guide_time`.

  Attributes:
    codec: the latents' codec, whose grid the low-resolution video has.
    name: modality that it guides.
    residual: whether the tower predicts the residual beyond the enlarged low-resolution video; then
      the latents of that video are an input as well.
  """
  codec: VideoLatents
  name: str
  layout: Layout
  config: ConfigDict
  residual: bool

  noise = NAME  # name of its array in a batch, and of its noise stream

  @property
  def shape(self):
    """Shape (T, H, W, 3) of an example's low-resolution video."""
    return *self.codec.grid(self.layout), 3

  def window(self, clip, start):
    """Batch array {name: uint8} of the window at `start` seconds of a clip."""
    return {NAME: batches.low_video(clip, start, self.shape, self.codec.rate)}

  def frames(self, clip, count):
    """First `count` low-resolution frames of a clip: uint8 (count, H, W, 3)."""
    return batches.low_video(clip, 0.0, (count, *self.shape[1:]), self.codec.rate)

  def of_media(self, clip, large):
    """Low-resolution frames for a clip's `large` ones, uint8 (N, H, W, 3)."""
    return self.frames(clip, -(-len(large) // self.codec.vae.time_stride))

  def small(self, batch):
    """Low-resolution video (B, T, H, W, 3) in [−1, 1], on the latents' grid.

    It is the batch's own or, in training, the large video shrunk to the base model's size."""
    if NAME in batch:
      return batch[NAME].astype(jnp.float32) / 127.5 - 1
    vae = self.codec.vae
    video = batch[self.name][:, ::vae.time_stride]
    size = (n // vae.space_stride for n in video.shape[2:4])
    return box_mean(video, *size) / 127.5 - 1

  def enlarged(self, small, mask):
    """Enlarges low-resolution video (B, T, H, W, 3) to (B, stride · T, …, 3).

    Bicubic in space, linear in time; the last frame that is True in `mask` (B, T) is held."""
    vae = self.codec.vae
    size, frames, height, width, _ = small.shape
    large = jax.image.resize(small, (size, frames, height * vae.space_stride,
                                     width * vae.space_stride, 3), 'cubic')
    last = jnp.maximum(mask.sum(1) - 1, 0)[:, None]
    following = jnp.minimum(jnp.arange(frames) + 1, last)[:, :, None, None, None]
    following = jnp.take_along_axis(large, following, axis=1)
    fraction = (jnp.arange(vae.time_stride) / vae.time_stride)[:, None, None, None]
    video = rearrange(large[:, :, None] * (1 - fraction) + following[:, :, None] * fraction,
                      'b t s h w c -> b (t s) h w c')
    return jnp.clip(video, -1, 1)

  def draw(self, frozen, batch, key, size, part):
    """Fields of the tower's input in training: drawn for `size` examples, of which `part` selects
    those in `batch`."""
    time_key, noise_key = jax.random.split(key)
    small = self.small(batch)
    t = jax.random.uniform(time_key, size, minval=self.config.flow.guide_time.low)
    return self._fields(frozen, batch, small,
                        part(gaussian(noise_key, size + small.shape[1:])), part(t))

  def fixed(self, frozen, batch, noise):
    """Fields of the tower's input in sampling; `noise` {name: X_0} includes its own."""
    small = self.small(batch)
    t = jnp.full(len(small), self.config.sample.guide_time)
    return self._fields(frozen, batch, small, noise[self.noise], t)

  def _fields(self, frozen, batch, small, noise, t):
    guide = flow.interpolate(small, noise, t)
    if self.residual:
      weights = frozen[self.codec.part]
      enlarged = self.codec.vae.encode(weights['params'], weights['std'],
                                       self.enlarged(guide, self.codec.mask(batch)))
      guide = jnp.concatenate([guide, enlarged], axis=-1)
    return {'guide': guide, 'guide_t': t}
