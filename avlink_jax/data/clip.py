"""Clips: what a data source gives, and what a clip shows and sounds like at given times.

Every source (`impacts/`, `folder.py`, ...) is an object with

    len(source)          number of clips
    source.name(i)       the clip's id: a file name's stem, or `impacts-test-000012`
    source.load(i)       -> Clip; raises MediaError where the clip is unusable

and, so that a run knows its data again elsewhere, `source.identity` (identity.py). `load` is a pure
function of i (same i, same clip, in any process). A source of large frames, of which an example is
a crop (config.data.crop_height), must also have

    source.seconds(i)    length of clip i; raises MediaError
    source.load_part(i, start, seconds, window=None)
                         -> Clip: `part` of clip i, without rendering or decoding more than that

and so may one of files that take long to decode, which then says how much memory a clip takes:

    source.bytes_per_second    of a clip, at most; 0: parts of clips are not to be read

and one whose clips are sampled for, and which has more of them than the models see,

    source.original(i, clip, layout)
                         -> Clip: the media of `clip`, which is clip i or its beginning, as it
                         has them (frames at `source_fps`), or, where it renders them, as `layout`
                         says; None: there is no more than in `clip`
"""

import dataclasses
import typing

import numpy as np

from avlink_jax.errors import MediaError

EPSILON = 1e-6  # seconds: timestamps closer than this are the same moment


@dataclasses.dataclass(frozen=True)
class Clip:
  """One decoded clip with video, audio or both, on a clock that starts at 0 s.

  Attributes:
    id: unique name within its source.
    duration: seconds; the clip is [0, duration).
    frames: uint8 (N, H, W, 3) RGB, already at the model's height and width; N is 0 where the
      file has no video.
    frame_times: float64 (N,) seconds, increasing: when each frame starts to show. The first
      is 0; frame rates may vary.
    audio: float32 (S,) mono in [-1, 1]; sample 0 is at 0 s. S = 0 where there is no audio.
    sample_rate: Hz of `audio`.
    audio_caption, video_caption: descriptions of audio and video; '' where unknown.
    events: float64 (E,) exact times in seconds of audible events, None where unknown.
    features: float32 (N, C) external vectors, `features_rate` a second, None where not read.
    latents: {modality: float32 (T, …, C)}, what its codec makes of the clip, where it was prepared
      with them (data/sources/records.py).
    source: its origin (a path, or `impacts`).
    start: seconds of its source at which the clip begins.
    source_fps, source_rate: frames a second and Hz of the source itself; 0 where unknown.
    licence: by the source's list; '' where it names none.
    noise: what its noise in sampling is drawn from, beside the seed; '': its id.
    original: layout -> `source.original` of this clip; None: there is no more than this.
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
  latents: dict = dataclasses.field(default_factory=dict)
  start: float = 0.0
  source_fps: float = 0.0
  source_rate: int = 0
  licence: str = ''
  noise: str = ''
  original: typing.Callable[[typing.Any], 'Clip'] | None = None

  @property
  def media(self) -> tuple[str, ...]:
    """The media that it has: some of 'audio', 'video'."""
    return tuple(name for name, values in (('audio', self.audio), ('video', self.frames))
                 if len(values))


def part(clip: Clip, start: float, seconds: float,
         window: tuple[int, int, int, int] | None = None) -> Clip:
  """Cuts [start, start + seconds) out of a clip; the part's clock is 0 at `start`.

  `window` (top, left, height, width) is the crop of its frames; None: all. The clip's events all
  stay, on the new clock. A clip with features or latents has no parts.
  """
  if clip.features is not None or clip.latents:
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
  """Slice of the frames, starting to show at `times`, that are on in [start, start + seconds)."""
  first = np.searchsorted(times, start + EPSILON, side='right') - 1
  return slice(max(int(first), 0), int(np.searchsorted(times, start + seconds - EPSILON)))


def samples_of(sample_rate: int, start: float, seconds: float) -> slice:
  """Slice of the samples in [start, start + seconds), of audio that starts at 0 s."""
  first = round(start * sample_rate)
  return slice(first, first + round(seconds * sample_rate))


def pixels_of(window: tuple[int, int, int, int] | None) -> tuple[slice, slice]:
  """Slices of rows and columns of a window (top, left, height, width); None: all."""
  if window is None:
    return slice(None), slice(None)
  top, left, height, width = window
  return slice(top, top + height), slice(left, left + width)


def resample_frames(clip: Clip, start: float, count: int,
                    fps: float) -> tuple[np.ndarray, np.ndarray]:
  """Frames that are on at start + n / fps seconds, n in [0, count): sample and hold.

  Returns:
    frames: uint8 (count, H, W, 3). Past the clip's end the last frame is repeated.
    mask: bool (count,), False past the clip's end: padding, the clip is never stretched.

  Raises:
    MediaError: the clip has no video.
  """
  if not len(clip.frames):
    raise MediaError(clip.source, 'no video stream')
  times = start + np.arange(count) / fps
  shown = np.searchsorted(clip.frame_times, times + EPSILON, side='right') - 1
  return clip.frames[np.maximum(shown, 0)], times < clip.duration - EPSILON


def crop_audio(clip: Clip, start: float, samples: int) -> tuple[np.ndarray, np.ndarray]:
  """Audio from `start` seconds on: float32 (samples,), and bool (samples,) where it is real.

  Outside the clip there are zeros and the mask is False.
  """
  first = round(start * clip.sample_rate)
  taken = np.arange(first, first + samples)
  mask = (taken >= 0) & (taken < len(clip.audio))
  audio = np.zeros(samples, np.float32)
  audio[mask] = clip.audio[taken[mask]]
  return audio, mask
