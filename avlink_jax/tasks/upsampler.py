"""The latent upsampler as a task: the base video model, looking at its own pictures (Sec. 3.2)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage
from einops import rearrange

from avlink_jax import flow
from avlink_jax.data.boxes import box_mean
from avlink_jax.errors import UserError
from avlink_jax.model.frames import masked_mean
from avlink_jax.model.noise import gaussian
from avlink_jax.tasks.flow import FlowTask

WINDOW = (3, 16, 16)  # latents, rows, columns that are decoded for the loss
AROUND = 4.0  # pixels of 512×288: deviation of the place over which a residual is as loud as it is


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

  A tower that names the residual (DiT.prediction) is given besides what the small video enlarged is
  in latents, and begins there: narrow towers have no room to learn how to enlarge.
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
  def names_residual(self):
    return self.models.towers['video'].prediction == 'residual'

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
    shown = batch['video'][:, ::codec.time_stride]
    size = (n // codec.space_stride for n in shown.shape[2:4])
    return box_mean(shown, *size) / 127.5 - 1

  def enlarged(self, low, mask):
    """The small video (B, T, H, W, 3) enlarged to (B, stride · T, …, 3): bicubic in space, linear
    in time, where the last picture stays that `mask` (B, T) calls real."""
    codec = self.models.video_codec
    size, frames, height, width, _ = low.shape
    large = jax.image.resize(low, (size, frames, height * codec.space_stride,
                                   width * codec.space_stride, 3), 'cubic')
    last = jnp.maximum(mask.sum(1) - 1, 0)[:, None]
    after = jnp.minimum(jnp.arange(frames) + 1, last)[:, :, None, None, None]
    after = jnp.take_along_axis(large, after, axis=1)
    part = (jnp.arange(codec.time_stride) / codec.time_stride)[:, None, None, None]
    video = rearrange(large[:, :, None] * (1 - part) + after[:, :, None] * part,
                      'b t s h w c -> b (t s) h w c')
    return jnp.clip(video, -1, 1)

  def pictures(self, frozen, latents, low):
    """Latents (T, H, W, C) and the small video uint8 (T, H, W, 3) -> the large one (N, …, 3) in
    [−1, 1]. Of a residual only what it changes is decoded, and of that what stands out of
    `sample.residual_noise`: what the codec loses of the small video enlarged is not lost."""
    codec, given = self.models.video_codec, frozen['video_codec']
    weights = given['params'], given['std']
    made = codec.decode_in_parts(*weights, latents[None])
    if self.names_residual:
      plain = np.asarray(self.enlarged(self.low({'low': low[None]}), jnp.ones((1, len(low)), bool)))
      residual = made - codec.decode_in_parts(*weights, codec.encode_in_parts(*weights, plain))
      made = plain + quieted(residual, self.config.sample.residual_noise / 127.5)
    return made[0]

  def shown_loss(self, frozen, name, inputs, velocity, target, counted, part, key):
    """The mean absolute difference of what named and true latents decode to, and of its steps along
    time, rows and columns: in a window of the grid, which is cheap, drawn for each batch. Equal
    errors of latents show very differently; and what is open between them shall be smooth."""
    weight = self.config.flow.pixel_weight
    if not weight:
      return {}
    named, true = (flow.data_from_velocity(inputs.x, v, inputs.t) for v in (velocity, target))
    size = [min(n, most) for n, most in zip(named.shape[1:4], WINDOW, strict=True)]
    keys = jax.random.split(key, 3)
    first = [jax.random.randint(k, (), 0, n - kept + 1)
             for k, n, kept in zip(keys, named.shape[1:4], size, strict=True)]
    codec, given = self.models.video_codec, frozen['video_codec']

    def decoded(x):
      window = jax.lax.dynamic_slice(x, (0, *first, 0), (len(x), *size, x.shape[-1]))
      return codec.decode(given['params'], given['std'], window)

    difference = decoded(named) - decoded(true)
    real = jax.lax.dynamic_slice(counted, (0, first[0]), (len(counted), size[0]))
    real = jnp.repeat(real, codec.time_stride, axis=1)
    first_of = lambda axis: jax.lax.slice_in_dim(difference, 0, 1, axis=axis)  # noqa: E731
    steps = [jnp.diff(difference, axis=axis, prepend=first_of(axis)) for axis in (1, 2, 3)]
    value = sum(masked_mean(jnp.abs(x), part(real), real) for x in (difference, *steps))
    return {'pixels': (weight, value)}

  def drawn_guide(self, frozen, batch, key, size, part):
    level, noise = jax.random.split(key)
    low = self.low(batch)
    t = jax.random.uniform(level, size, minval=self.config.flow.guide_time.low)
    return self._guide(frozen, batch, low, part(gaussian(noise, size + low.shape[1:])), part(t))

  def fixed_guide(self, frozen, batch, noise):
    low = self.low(batch)
    t = jnp.full(len(low), self.config.sample.guide_time)
    return self._guide(frozen, batch, low, noise['low'], t)

  def _guide(self, frozen, batch, low, noise, t):
    guide = flow.interpolate(low, noise, t)
    if self.names_residual:
      codec = frozen['video_codec']
      enlarged = self.models.video_codec.encode(
          codec['params'], codec['std'], self.enlarged(guide, self.mask(batch, 'video')))
      guide = jnp.concatenate([guide, enlarged], axis=-1)
    return {'guide': guide, 'guide_t': t}


def quieted(residual, noise):
  """A residual of pictures (B, T, H, W, C), each pixel times e / (e + noise²), e the mean square
  around it: Wiener's gain for what is expected to hold noise of that deviation (Lee, Digital Image
  Enhancement and Noise Filtering by Use of Local Statistics, 1980). On flat ground a codec makes
  faint blotches of next to nothing, which cost little in a mean square and are plain to see."""
  quiet = np.empty_like(residual)
  for index in np.ndindex(residual.shape[:2]):  # one picture at a time: a clip may be long
    picture = residual[index]
    loud = scipy.ndimage.gaussian_filter(np.mean(np.square(picture), axis=-1), AROUND)
    quiet[index] = picture * (loud / np.maximum(loud + noise**2, np.finfo(loud.dtype).tiny))[
        ..., None]
  return quiet
