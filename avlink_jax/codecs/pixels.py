"""Video as pixels, the paper's base model (Sec. 3.2): frames of a small size, in [−1, 1]."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np

from avlink_jax.codecs.codec import Codec


def build(name, config, context):
  """Pixels at the frame rate of `config.data`."""
  del context
  return Pixels(name, config.data.fps)


def as_float(video):
  """Pixels as models count them: uint8 becomes [−1, 1]; what is so already is left."""
  return video / 127.5 - 1.0 if video.dtype == jnp.uint8 else video


def as_uint8(video):
  """Video in [−1, 1] -> pixels that can be shown, numpy or jax."""
  return ((video + 1) * 127.5 + 0.5).clip(0, 255).astype('uint8')


def frame_count(seconds, fps):
  """Frames that are shown during `seconds`."""
  return math.ceil(round(seconds * fps, 6))


@dataclasses.dataclass(frozen=True)
class Frames(Codec):
  """What codecs of video have in common: frames uint8 (B, F, H, W, 3) in a batch, a mask (B, F)."""
  name: str
  fps: float
  medium = 'video'

  def arrays(self, layout):
    return {self.name: (np.uint8, (layout.frames, layout.height, layout.width, 3)),
            self.mask_name: (np.bool_, (layout.frames,))}

  def read(self, media, mask, layout):
    del layout
    return {self.name: media, self.mask_name: mask}

  def blank(self, seconds, layout):
    return {self.mask_name: np.arange(layout.frames) < math.ceil(seconds * self.fps)}


@dataclasses.dataclass(frozen=True)
class Pixels(Frames):
  """The frames themselves as data: (F, H, W, 3)."""
  channels = 3

  @property
  def rate(self):
    return self.fps

  def shape(self, layout):
    return layout.frames, layout.height, layout.width, self.channels

  def encode(self, weights, batch):
    del weights
    return batch[self.name].astype(jnp.float32) / 127.5 - 1

  def finish(self, weights, decoded, seconds, layout):
    """A clip's frames (F, H, W, 3) in [−1, 1] -> uint8, as many as it shows."""
    del weights, layout
    return as_uint8(decoded)[:frame_count(seconds, self.fps)]
