"""Video as pixels, the paper's base model (Sec. 3.2): frames of a small size, in [−1, 1]."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np

from avlink_jax.codecs.codec import Codec


def build(name, config, context):
  """Codec of pixels at the frame rate of `config.data`."""
  del context
  return Pixels(name, config.data.fps)


def as_float(video):
  """Converts uint8 video to [−1, 1]; floats are returned as they are."""
  return video / 127.5 - 1.0 if video.dtype == jnp.uint8 else video


def as_uint8(video):
  """Converts video in [−1, 1] to uint8, numpy or jax."""
  return ((video + 1) * 127.5 + 0.5).clip(0, 255).astype('uint8')


def frame_count(seconds, fps):
  """Number of frames shown during `seconds`."""
  return math.ceil(round(seconds * fps, 6))


@dataclasses.dataclass(frozen=True)
class Frames(Codec):
  """Base of video codecs: a batch has frames uint8 (B, F, H, W, 3) and their mask (B, F)."""
  name: str
  fps: float
  medium = 'video'

  def arrays(self, layout):
    return {self.name: (np.uint8, (layout.frames, layout.height, layout.width, 3)),
            self.mask_name: (np.bool_, (layout.frames,))}

  def read(self, media, mask, layout):
    del layout
    return {self.name: media, self.mask_name: mask}

  def covered(self, layout):
    return layout.frames / self.fps

  def blank(self, seconds, layout):
    return {self.mask_name: np.arange(layout.frames) < frame_count(seconds, self.fps)}


@dataclasses.dataclass(frozen=True)
class Pixels(Frames):
  """Codec whose data are the frames themselves: (F, H, W, 3)."""
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
    """Converts a clip's frames (F, H, W, 3) in [−1, 1] to uint8, cut to `seconds`."""
    del weights, layout
    return as_uint8(decoded)[:frame_count(seconds, self.fps)]
