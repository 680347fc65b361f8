"""What a data source gives: one clip, decoded, on one clock.

Every source (`impacts/`, `folder.py`, ...) is an object with

    len(source)          how many clips it has
    source.name(i)       the clip's id: a file name's stem, or `impacts-test-000012`
    source.load(i)       -> Clip; raises MediaError where the clip is unusable

and nothing else. `load` is a pure function of i (same i, same clip, in any process).
"""

import dataclasses

import numpy as np


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
      `latents_rate` a second, where it was prepared with them (data/records.py); else None.
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
