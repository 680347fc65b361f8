"""The latent upsampler as a task: the base video model, looking at its own frames (Sec. 3.2)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage

from avlink_jax.codecs.pixels import as_uint8
from avlink_jax.errors import UserError
from avlink_jax.model.estimate import data_from_velocity
from avlink_jax.model.frames import masked_mean
from avlink_jax.model.guided import GuidedInput
from avlink_jax.tasks.flow import FlowTask
from avlink_jax.tasks.low_video import NAME, LowVideo

WINDOW = (3, 16, 16)  # latents, rows, columns that are decoded for the loss
AROUND = 4.0  # pixels of 512×288: deviation of the place over which a residual is as loud as it is


@dataclasses.dataclass(frozen=True)
class UpsamplerTask(FlowTask):
  """T2V in the latents of the video autoencoder, guided by the low-resolution video.

  The latents lie on the very grid of the base model's frames: latent n holds frames 4n … 4n + 3
  of the large video, frame n of the small one is frame 4n with the mean of 8×8 pixels as one. So
  the tower is the base model's with more channels at its input, and at its start, with the weights
  of the base (train.init_from), it is the base that looks at the small video.

  A tower that names the residual (towers.video.prediction) is given besides what the small video
  enlarged is in latents, and begins there: narrow towers have no room to learn how to enlarge.
  """
  beside = ('audio',)  # the clip's own, where it has any
  given = ('video',)
  input_type = GuidedInput
  upsampled = False

  def __post_init__(self):
    super().__post_init__()
    layout, vae = self.models.layout, self.codec('video').vae
    for key, size, stride in (('data.seconds', layout.frames, vae.time_stride),
                              ('data.height', layout.height, vae.space_stride),
                              ('data.width', layout.width, vae.space_stride)):
      if size % stride:
        below = size - size % stride
        works = [n for n in (below, below + stride) if n]
        unit = 'pixels'
        if key == 'data.seconds':
          works, unit = [f'{n / layout.fps:.4g}' for n in works], f'frames at {layout.fps:g} fps'
        raise UserError(f'{key} makes {size} {unit}, and {stride} of them are one latent: '
                        f'{" or ".join(map(str, works))} works')

  @property
  def guide(self):
    return LowVideo(self.codec('video'), 'video', self.models.layout, self.config,
                    self.config.towers.video.prediction == 'residual')

  @property
  def given_layout(self):
    vae, layout = self.codec('video').vae, self.models.layout.clip
    return dataclasses.replace(layout, fps=layout.fps / vae.time_stride,
                               height=layout.height // vae.space_stride,
                               width=layout.width // vae.space_stride)

  def finish(self, frozen, name, decoded, clip):
    latents, count = self.codec(name).kept(decoded, clip.duration, self.models.layout)
    small = self.guide.whole(clip, len(latents))
    return as_uint8(self.large(frozen, latents, small))[:count]

  def large(self, frozen, latents, small):
    """Latents (T, H, W, C) and the small video uint8 (T, H, W, 3) -> the large one (N, …, 3) in
    [−1, 1]. Of a residual only what it changes is decoded, and of that what stands out of
    `sample.residual_noise`: what the codec loses of the small video enlarged is not lost."""
    codec, weights = self.codec('video'), frozen['video_codec']
    weights = weights['params'], weights['std']
    video = codec.vae.decode_in_parts(*weights, latents[None])
    if self.guide.guesses:
      plain = np.asarray(self.guide.enlarged(
          self.guide.small({NAME: small[None]}), jnp.ones((1, len(small)), bool)))
      residual = video - codec.vae.decode_in_parts(
          *weights, codec.vae.encode_in_parts(*weights, plain))
      video = plain + quieted(residual, self.config.sample.residual_noise / 127.5)
    return video[0]

  def terms(self, frozen, inputs, velocities, targets, counted, part, key):
    """Beside the latents' error the mean absolute difference of what named and true latents decode
    to, and of its steps along time, rows and columns: in a window of the grid, which is cheap,
    drawn for each batch. Equal errors of latents show very differently; and what is open between
    them shall be smooth."""
    terms = super().terms(frozen, inputs, velocities, targets, counted, part, key)
    weight, name = self.config.flow.pixel_weight, 'video'
    if not weight:
      return terms
    named, true = (data_from_velocity(inputs[name].x, v, inputs[name].t)
                   for v in (velocities[name], targets[name]))
    size = [min(n, most) for n, most in zip(named.shape[1:4], WINDOW, strict=True)]
    keys = jax.random.split(key, 3)
    first = [jax.random.randint(k, (), 0, n - kept + 1)
             for k, n, kept in zip(keys, named.shape[1:4], size, strict=True)]
    vae, weights = self.codec(name).vae, frozen['video_codec']

    def decoded(x):
      window = jax.lax.dynamic_slice(x, (0, *first, 0), (len(x), *size, x.shape[-1]))
      return vae.decode(weights['params'], weights['std'], window)

    difference, counted = decoded(named) - decoded(true), counted[name]
    real = jax.lax.dynamic_slice(counted, (0, first[0]), (len(counted), size[0]))
    real = jnp.repeat(real, vae.time_stride, axis=1)
    first_of = lambda axis: jax.lax.slice_in_dim(difference, 0, 1, axis=axis)  # noqa: E731
    steps = [jnp.diff(difference, axis=axis, prepend=first_of(axis)) for axis in (1, 2, 3)]
    value = sum(masked_mean(jnp.abs(x), part(real), real) for x in (difference, *steps))
    return terms | {'pixels': (weight, value)}


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
