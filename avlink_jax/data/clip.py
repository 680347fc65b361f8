"""What a data source gives: one clip, decoded, on one clock.

Every source (`impacts/`, `folder.py`, ...) is an object with

    len(source)          how many clips it has
    source.name(i)       the clip's id: a file name's stem, or `impacts-test-000012`
    source.load(i)       -> Clip; raises MediaError where the clip is unusable

and nothing else. `load` is a pure function of i (same i, same clip, in any process). A source of
large pictures, of which an example shows little (config.data.crop_height), must also have

    source.seconds(i)    how long clip i is; raises MediaError
    source.load_part(i, start, seconds, window=None)
                         -> Clip: what `part` below cuts out of clip i, and no more is painted or
                         decoded than that takes
"""

import dataclasses

import numpy as np

from avlink_jax.errors import MediaError

EPSILON = 1e-6  # seconds: timestamps closer than this are the same moment


@dataclasses.dataclass(frozen=True)
class Clip:
  """One clip with picture, sound or both, on a clock that starts at 0 s.

  Attributes:
    id: unique name within its source.
    duration: seconds; the clip is [0, duration).
    frames: uint8 (N, H, W, 3) RGB, already at the model's height and width; N may be 0
      where the file has no picture.
    frame_times: float64 (N,) seconds, increasing: when each frame starts to show. The first
      is 0; frame rates may vary.
    audio: float32 (S,) mono in [-1, 1]; sample 0 sounds at 0 s. S = 0 where there is no sound.
    sample_rate: Hz of `audio`.
    audio_caption, video_caption: what is heard, what is seen; '' where unknown.
    events: float64 (E,) exact times in seconds of what makes a sound, None where unknown.
    features: float32 (N, C) vectors from outside, `features_rate` a second, None where not read.
    latents: float32 (T, C), the 1D-VAE's scaled latents of the clip's normalised sound,
      `latents_rate` a second, where it was prepared with them (data/sources/records.py); else None.
    source: where it came from (a path, or `impacts`).
    start: seconds of its source at which the clip begins.
    source_fps, source_rate: frames a second and Hz of the source itself; 0 where unknown.
    licence: what the source's list says of it; '' where it says nothing.
  """
  id: str
  duration: float
  frames: np.ndarray
  frame_times: np.ndarray
  audio: np.ndarray
  sample_rate: int
  audio_caption: str = ''
  video_caption: str = ''
  events: np.ndarray | None = None
  source: str = ''
  features: np.ndarray | None = None
  features_rate: float = 0.0
  latents: np.ndarray | None = None
  latents_rate: float = 0.0
  start: float = 0.0
  source_fps: float = 0.0
  source_rate: int = 0
  licence: str = ''


def part(clip: Clip, start: float, seconds: float, window=None) -> Clip:
  """What a clip shows and sounds like in [start, start + seconds), on a clock that is 0 at start.

  `window` (top, left, height, width) is the part of the pictures that is kept; None: all. Events
  of the whole clip stay, on the new clock. A clip with vectors or latents has no parts.
  """
  if clip.features is not None or clip.latents is not None:
    raise ValueError(f'{clip.id}: vectors and latents are of whole clips')
  seconds = min(seconds, clip.duration - start)
  shown = frames_of(clip.frame_times, start, seconds)
  rows, columns = pixels_of(window)
  return dataclasses.replace(
    clip, duration=seconds, frames=clip.frames[shown, rows, columns],
    frame_times=np.maximum(clip.frame_times[shown] - start, 0), start=clip.start + start,
    audio=clip.audio[samples_of(clip.sample_rate, start, seconds)],
    events=None if clip.events is None else clip.events - start)


def frames_of(times: np.ndarray, start: float, seconds: float) -> slice:
  """Which frames, of those that start to show at `times`, are seen in [start, start + seconds)."""
  first = np.searchsorted(times, start + EPSILON, side='right') - 1
  return slice(max(int(first), 0), int(np.searchsorted(times, start + seconds - EPSILON)))


def samples_of(sample_rate: int, start: float, seconds: float) -> slice:
  """Which samples sound in [start, start + seconds), of those that start at 0 s."""
  first = round(start * sample_rate)
  return slice(first, first + round(seconds * sample_rate))


def pixels_of(window) -> tuple[slice, slice]:
  """Rows and columns of a window (top, left, height, width); None: all."""
  if window is None:
    return slice(None), slice(None)
  top, left, height, width = window
  return slice(top, top + height), slice(left, left + width)


def resample_frames(clip: Clip, start: float, count: int, fps: float):
  """The frames that show at start + n / fps seconds, n in [0, count): sample and hold.

  Returns:
    frames: uint8 (count, H, W, 3). Past the clip's end the last frame is repeated.
    mask: bool (count,), False past the clip's end: padding, the clip is never stretched.

  Raises:
    MediaError: the clip has no picture.
  """
  if not len(clip.frames):
    raise MediaError(clip.source, 'no video stream')
  times = start + np.arange(count) / fps
  shown = np.searchsorted(clip.frame_times, times + EPSILON, side='right') - 1
  return clip.frames[np.maximum(shown, 0)], times < clip.duration - EPSILON


def crop_audio(clip: Clip, start: float, samples: int):
  """Sound from `start` seconds on: float32 (samples,), and bool (samples,) where it is real.

  Outside the clip there are zeros and the mask is False.
  """
  first = round(start * clip.sample_rate)
  taken = np.arange(first, first + samples)
  mask = (taken >= 0) & (taken < len(clip.audio))
  audio = np.zeros(samples, np.float32)
  audio[mask] = clip.audio[taken[mask]]
  return audio, mask
