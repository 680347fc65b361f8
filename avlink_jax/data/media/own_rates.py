"""A file's own size and rates, and its media in them: what references are, and models do not see.

A model's clips are decoded at its size, such as 64×36 at 6 frames a second. Beside those even a
perfect large video would score badly.
"""

import dataclasses
import math
import os
import typing

import numpy as np

from avlink_jax.data.clip import Clip, resample_frames
from avlink_jax.data.media.container import InMemory
from avlink_jax.data.media.decode import decode
from avlink_jax.data.media.limits import DECODE_SECONDS

HIGHEST = 288  # pixels: of the paper's 512×288, the largest that is generated
FASTEST = 60.0  # frames a second


class Shape(typing.NamedTuple):
  """Size of a file's frames as displayed, 0 without video; frames a second and Hz, 0: unknown."""
  height: int
  width: int
  fps: float
  sample_rate: int


def shape_of(path: str | os.PathLike | InMemory, need_video: bool = True) -> Shape:
  """Shape of a file, by its beginning. Raises MediaError."""
  first = decode(path, duration=0.01, need_video=need_video, need_audio=False)
  return Shape(*first.frames.shape[1:3], first.source_fps, first.source_rate)


def in_own_rates(path: str | os.PathLike | InMemory, clip: Clip, start: float = 0.0,
                 decode_seconds: float = DECODE_SECONDS) -> Clip:
  """Decodes once more the media that `clip` has of a file, from `start` seconds on: frames in their
  own size, at most HIGHEST high, at an even rate; audio at its own rate and level, mono.

  Raises MediaError.
  """
  shows, sounds = 'video' in clip.media, 'audio' in clip.media
  shape = shape_of(path, shows)
  own = decode(path, start=start, duration=clip.duration, need_video=shows, need_audio=sounds,
               height=min(shape.height, HIGHEST) if shows else None,
               sample_rate=shape.sample_rate or clip.sample_rate, decode_seconds=decode_seconds)
  audio = own.audio if sounds else clip.audio
  if not shows:
    return dataclasses.replace(clip, audio=audio, sample_rate=own.sample_rate)
  fps = min(shape.fps or FASTEST, FASTEST)
  count = math.ceil(round(own.duration * fps, 6))
  return dataclasses.replace(
      clip, frames=resample_frames(own, 0.0, count, fps)[0], frame_times=np.arange(count) / fps,
      source_fps=fps, audio=audio, sample_rate=own.sample_rate)
