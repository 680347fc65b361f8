"""Training of the latent upsampler: the base video model with low-resolution video as an input
(Sec. 3.2)."""

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

WINDOW = (3, 16, 16)  # latents in time, rows, columns that are decoded for the loss
SMOOTHING = 4.0  # pixels at 512×288: deviation of the window of a residual's local power


@dataclasses.dataclass(frozen=True)
class UpsamplerTask(FlowTask):
  """T2V in the latents of the video autoencoder, guided by the low-resolution video.

  The latents have the grid of the base model's frames: latent n covers frames 4n … 4n + 3 of the
  large video, and low-resolution frame n is frame 4n averaged over 8×8 pixels. So the tower is the
  base model's with more input channels, and with its weights (train.init_from) it starts as the
  base model applied to the low-resolution video.

  A tower that predicts the residual (towers.video.prediction) also gets the latents of the enlarged
  low-resolution video and starts from them: narrow towers lack the capacity to learn enlarging.
  """
  kept_media = ('audio',)  # if the clip has any
  conditions = ('video',)
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
        valid = [n for n in (below, below + stride) if n]
        unit = 'pixels'
        if key == 'data.seconds':
          valid, unit = [f'{n / layout.fps:.4g}' for n in valid], f'frames at {layout.fps:g} fps'
        raise UserError(f'{key} makes {size} {unit}, and {stride} of them are one latent: '
                        f'{" or ".join(map(str, valid))} works')

  @property
  def guide(self):
    return LowVideo(self.codec('video'), 'video', self.models.layout, self.config,
                    self.config.towers.video.prediction == 'residual')

  @property
  def condition_layout(self):
    vae, layout = self.codec('video').vae, self.models.layout.clip
    return dataclasses.replace(layout, fps=layout.fps / vae.time_stride,
                               height=layout.height // vae.space_stride,
                               width=layout.width // vae.space_stride)

  def finish(self, frozen, name, decoded, clip):
    latents, count = self.codec(name).trim(decoded, clip.duration, self.models.layout)
    small = self.guide.frames(clip, len(latents))
    return as_uint8(self.large(frozen, latents, small))[:count]

  def large(self, frozen, latents, small):
    """Large video (N, …, 3) in [−1, 1] from latents (T, H, W, C) and low-resolution video uint8
    (T, H, W, 3).

    With residuals, only the decoded difference to the enlarged low-resolution video is added to it,
    as far as it exceeds `sample.residual_noise`, so that the codec's losses do not affect it."""
    codec, weights = self.codec('video'), frozen['video_codec']
    weights = weights['params'], weights['std']
    video = codec.vae.decode_in_parts(*weights, latents[None])
    if self.guide.residual:
      plain = np.asarray(self.guide.enlarged(
          self.guide.small({NAME: small[None]}), jnp.ones((1, len(small)), bool)))
      residual = video - codec.vae.decode_in_parts(
          *weights, codec.vae.encode_in_parts(*weights, plain))
      video = plain + denoised(residual, self.config.sample.residual_noise / 127.5)
    return video[0]

  def terms(self, frozen, inputs, velocities, targets, counted, part, key):
    """Terms of the loss, with an additional 'pixels': the mean absolute difference between decoded
    predicted and true latents, and of its differences along time, rows and columns.

    It uses a random window of the grid for each batch, to be cheap. Latent errors of equal size
    differ in visibility, and ambiguous content should come out smooth."""
    terms = super().terms(frozen, inputs, velocities, targets, counted, part, key)
    weight, name = self.config.flow.pixel_weight, 'video'
    if not weight:
      return terms
    predicted, true = (data_from_velocity(inputs[name].x, v, inputs[name].t)
                       for v in (velocities[name], targets[name]))
    size = [min(n, limit) for n, limit in zip(predicted.shape[1:4], WINDOW, strict=True)]
    keys = jax.random.split(key, 3)
    first = [jax.random.randint(k, (), 0, n - side + 1)
             for k, n, side in zip(keys, predicted.shape[1:4], size, strict=True)]
    vae, weights = self.codec(name).vae, frozen['video_codec']

    def decoded(x):
      window = jax.lax.dynamic_slice(x, (0, *first, 0), (len(x), *size, x.shape[-1]))
      return vae.decode(weights['params'], weights['std'], window)

    difference, counted = decoded(predicted) - decoded(true), counted[name]
    real = jax.lax.dynamic_slice(counted, (0, first[0]), (len(counted), size[0]))
    real = jnp.repeat(real, vae.time_stride, axis=1)
    first_of = lambda axis: jax.lax.slice_in_dim(difference, 0, 1, axis=axis)  # noqa: E731
    steps = [jnp.diff(difference, axis=axis, prepend=first_of(axis)) for axis in (1, 2, 3)]
    value = sum(masked_mean(jnp.abs(x), part(real), real) for x in (difference, *steps))
    return terms | {'pixels': (weight, value)}


def denoised(residual, noise):
  """Multiplies each pixel of a residual video (B, T, H, W, C) by e / (e + noise²), e the local mean
  square: the Wiener gain for additive noise of that deviation (Lee, Digital Image Enhancement and
  Noise Filtering by Use of Local Statistics, 1980).

  In flat areas a codec produces faint blotches, which hardly matter in a mean square but are
  clearly visible."""
  result = np.empty_like(residual)
  for index in np.ndindex(residual.shape[:2]):  # one frame at a time: a clip may be long
    frame = residual[index]
    power = scipy.ndimage.gaussian_filter(np.mean(np.square(frame), axis=-1), SMOOTHING)
    gain = power / np.maximum(power + noise**2, np.finfo(power.dtype).tiny)
    result[index] = frame * gain[..., None]
  return result
