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

NAME = 'low'  # in a batch, and of its noise


@dataclasses.dataclass(frozen=True)
class LowVideo:
  """What the tower looks at beside its noisy latents: the small video, with noise of its own.

  It comes with as much noise as its own flow time says, which the tower is told: in training
  anything from none down to `flow.guide_time.low`, so that a sampler can pass on what a base model
  made of it, with its faults, at `sample.guide_time`.

  Attributes:
    codec: whose latents it goes with; it lies on their grid.
    name: of the modality that it guides.
    guesses: whether the tower names the residual beyond it, and is given besides what the small
      video enlarged is in latents.
  """
  codec: VideoLatents
  name: str
  layout: Layout
  config: ConfigDict
  guesses: bool

  noise = NAME  # of its array in a batch, and of the stream that its noise is drawn from

  @property
  def shape(self):
    """Of an example's small video: (T, H, W, 3)."""
    return *self.codec.grid(self.layout), 3

  def window(self, clip, start):
    """What a batch holds of a window that begins at `start` seconds of a clip."""
    return {NAME: batches.low_video(clip, start, self.shape, self.codec.rate)}

  def whole(self, clip, count):
    """The first `count` small frames of a clip: uint8 (count, H, W, 3)."""
    return batches.low_video(clip, 0.0, (count, *self.shape[1:]), self.codec.rate)

  def of_media(self, clip, large):
    """The small frames that go with a clip's `large` ones, uint8 (N, H, W, 3)."""
    return self.whole(clip, -(-len(large) // self.codec.vae.time_stride))

  def small(self, batch):
    """The small video (B, T, H, W, 3) in [−1, 1], on the latents' grid: as it was given, or of the
    large one what the base model would have seen."""
    if NAME in batch:
      return batch[NAME].astype(jnp.float32) / 127.5 - 1
    vae = self.codec.vae
    shown = batch[self.name][:, ::vae.time_stride]
    size = (n // vae.space_stride for n in shown.shape[2:4])
    return box_mean(shown, *size) / 127.5 - 1

  def enlarged(self, small, mask):
    """The small video (B, T, H, W, 3) enlarged to (B, stride · T, …, 3): bicubic in space, linear
    in time, where the last frame stays that `mask` (B, T) calls real."""
    vae = self.codec.vae
    size, frames, height, width, _ = small.shape
    large = jax.image.resize(small, (size, frames, height * vae.space_stride,
                                     width * vae.space_stride, 3), 'cubic')
    last = jnp.maximum(mask.sum(1) - 1, 0)[:, None]
    after = jnp.minimum(jnp.arange(frames) + 1, last)[:, :, None, None, None]
    after = jnp.take_along_axis(large, after, axis=1)
    part = (jnp.arange(vae.time_stride) / vae.time_stride)[:, None, None, None]
    video = rearrange(large[:, :, None] * (1 - part) + after[:, :, None] * part,
                      'b t s h w c -> b (t s) h w c')
    return jnp.clip(video, -1, 1)

  def draw(self, frozen, batch, key, size, part):
    """The guide in training, as fields of the tower's input: drawn for `size` examples, of which
    `part` takes those of `batch`."""
    level, noise = jax.random.split(key)
    small = self.small(batch)
    t = jax.random.uniform(level, size, minval=self.config.flow.guide_time.low)
    return self._fields(frozen, batch, small, part(gaussian(noise, size + small.shape[1:])),
                        part(t))

  def fixed(self, frozen, batch, noise):
    """The guide while something is generated; `noise` {name: X_0}, its own among them."""
    small = self.small(batch)
    t = jnp.full(len(small), self.config.sample.guide_time)
    return self._fields(frozen, batch, small, noise[self.noise], t)

  def _fields(self, frozen, batch, small, noise, t):
    guide = flow.interpolate(small, noise, t)
    if self.guesses:
      weights = frozen[self.codec.part]
      enlarged = self.codec.vae.encode(weights['params'], weights['std'],
                                       self.enlarged(guide, self.codec.mask(batch)))
      guide = jnp.concatenate([guide, enlarged], axis=-1)
    return {'guide': guide, 'guide_t': t}
