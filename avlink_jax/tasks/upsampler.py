"""The latent upsampler as a task: the base video model, looking at its own pictures (Sec. 3.2)."""

import dataclasses

import jax
import jax.numpy as jnp
from einops import reduce

from avlink_jax import flow
from avlink_jax.errors import UserError
from avlink_jax.noise import gaussian
from avlink_jax.tasks.flow import FlowTask


@dataclasses.dataclass(frozen=True)
class UpsamplerTask(FlowTask):
  """T2V in the latents of the video autoencoder, guided by the low-resolution video.

  The latents lie on the very grid of the base model's pictures: latent n holds frames 4n … 4n + 3
  of the large video, picture n of the small one is frame 4n with the mean of 8×8 pixels as one. So
  the tower is the base model's with more channels at its input, and at its start, with the weights
  of the base (train.init_from), it is the base that looks at the small video.

  The small video comes with noise, as much as its own flow time says, which the tower is told: in
  training anything from none down to `flow.guide_time.low`, so that a sampler can pass on what a
  base model made of it, with its faults, at `sample.guide_time`.
  """

  def __post_init__(self):
    super().__post_init__()
    layout, codec = self.models.layout, self.models.video_codec
    for key, size, stride in (('data.seconds', layout.frames, codec.time_stride),
                              ('data.height', layout.height, codec.space_stride),
                              ('data.width', layout.width, codec.space_stride)):
      if size % stride:
        below = size - size % stride
        works = [n for n in (below, below + stride) if n]
        unit = 'pixels'
        if key == 'data.seconds':
          works, unit = [f'{n / layout.fps:.4g}' for n in works], f'frames at {layout.fps:g} fps'
        raise UserError(f'{key} makes {size} {unit}, and {stride} of them are one latent: '
                        f'{" or ".join(map(str, works))} works')

  @property
  def given(self):
    return ('video',)

  @property
  def given_layout(self):
    codec, layout = self.models.video_codec, self.models.layout.clip
    return dataclasses.replace(layout, fps=layout.fps / codec.time_stride,
                               height=layout.height // codec.space_stride,
                               width=layout.width // codec.space_stride)

  @property
  def noised(self):
    return ('video', 'low')

  @property
  def frozen_parts(self):
    return ('video_codec',)

  def clean(self, frozen, batch, name):
    """Scaled latents (B, T, H, W, C) of the large video."""
    codec = frozen['video_codec']
    return self.models.video_codec.encode(codec['params'], codec['std'], batch[name])

  def mask(self, batch, name):
    """Latents that hold a real frame: bool (B, T)."""
    mask = batch[f'{name}_mask']
    return mask.reshape(len(mask), -1, self.models.video_codec.time_stride).any(-1)

  def low(self, batch):
    """The low-resolution video (B, T, H, W, 3) in [−1, 1], on the latents' grid: as it was given,
    or of the large one what the base model would have seen."""
    if 'low' in batch:
      return batch['low'].astype(jnp.float32) / 127.5 - 1
    codec = self.models.video_codec
    shown = batch['video'][:, ::codec.time_stride].astype(jnp.float32)
    return reduce(shown, 'b t (h p) (w q) c -> b t h w c', 'mean',
                  p=codec.space_stride, q=codec.space_stride) / 127.5 - 1

  def drawn_guide(self, batch, key, size, part):
    level, noise = jax.random.split(key)
    low = self.low(batch)
    t = jax.random.uniform(level, size, minval=self.config.flow.guide_time.low)
    return self._guide(low, part(gaussian(noise, size + low.shape[1:])), part(t))

  def fixed_guide(self, batch, noise):
    low = self.low(batch)
    return self._guide(low, noise['low'], jnp.full(len(low), self.config.sample.guide_time))

  def _guide(self, low, noise, t):
    return {'guide': flow.interpolate(low, noise, t), 'guide_t': t}
