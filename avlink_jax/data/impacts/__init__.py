"""`impacts`: an endless procedural world in which objects sound when they touch.

A clip is a function of (seed, split, index). Reading order: `__init__` (the source) -> `scenes` ->
`kinds` (what moves how) -> `motion` (when) and `bodies` (shapes); then `render`, `audio` and
`captions` turn a scene into a clip.
"""

import dataclasses

import numpy as np

from avlink_jax.data.clip import Clip, frames_of, samples_of
from avlink_jax.data.impacts import audio as impact_audio
from avlink_jax.data.impacts import render, scenes
from avlink_jax.errors import UserError

# First index and default size of each split in one space of indices.
SPLITS = {'train': (0, 1_000_000), 'validation': (10 ** 9, 4096), 'test': (2 * 10 ** 9, 4096)}
ROOM = 10 ** 9     # indices a split may use
SHORTEST = 2.      # seconds: two contacts and their surroundings must fit
LONGEST = 3600.0


class Impacts:
  """Data source `impacts`; `data/clip.py` defines a source.

  Args:
    split: 'train', 'validation' or 'test'; they share no clip.
    seed: non-negative; another seed is another world.
    size: number of clips, by default a million to train and 4096 of the others.
    duration: seconds, at least 2.
    height, width: pixels. The scenes are made for 16:9 or wider.
    fps: frames a second; frame n shows the instant n / fps.
    sample_rate: Hz.
    need_audio: False: clips come without sound, and save the time of its synthesis.

  Raises:
    UserError: an unknown split or a number out of range.
  """

  def __init__(self, split: str, seed: int = 0, size: int | None = None, duration: float = 5.16,
               height: int = 36, width: int = 64, fps: float = 6., sample_rate: int = 16000,
               need_audio: bool = True):
    if split not in SPLITS:
      raise UserError(f'impacts has no split {split!r}; choose one of {", ".join(SPLITS)}.')
    first, default = SPLITS[split]
    size = default if size is None else size
    if not 0 < size <= ROOM:
      raise UserError(f'impacts: size must lie in 1..{ROOM}, not {size}.')
    if not SHORTEST <= duration <= LONGEST:
      raise UserError(f'impacts: clips last {SHORTEST} to {LONGEST} s, not {duration} s.')
    if seed < 0:
      raise UserError(f'impacts: the seed must not be negative ({seed}).')
    self.split, self.seed, self.first, self.size = split, seed, first, size
    self.duration, self.sample_rate = duration, sample_rate
    self.height, self.width, self.need_audio = height, width, need_audio
    self.frame_times = self._times(fps)

  def __len__(self) -> int:
    return self.size

  @property
  def identity(self):
    """What the clips are (data/identity.py)."""
    return ['impacts', self.split, self.seed, self.size]

  def name(self, i: int) -> str:
    """Id of clip i, such as impacts-test-000012."""
    return f'impacts-{self.split}-{self._check(i):06d}'

  def scene(self, i: int) -> scenes.Scene:
    """Scene of clip i, to be rendered at any size and rate. Raises IndexError: no such clip."""
    return scenes.draw(self.chance(i, 0), self.duration)

  def load(self, i: int) -> Clip:
    """Renders clip i, the same in every process. Raises IndexError: no such clip."""
    return self._clip(i, self.frame_times, 0., self.duration)

  def seconds(self, i: int) -> float:
    """Length in seconds of clip i, as of all."""
    self._check(i)
    return self.duration

  def original(self, i: int, clip: Clip, layout) -> Clip | None:
    """Frames of `clip`, which is clip i or its beginning, rendered in the size and at the rate of
    `layout` (data/batch.py); None where they are so. Raises IndexError: no such clip."""
    times = self._times(layout.fps)
    if (layout.height, layout.width) == (self.height, self.width) and np.array_equal(
        self.frame_times, times):
      return None
    times = times[times < clip.duration]
    return dataclasses.replace(
      clip, frames=render.render(self.scene(i), times, layout.height, layout.width),
      frame_times=times, source_fps=layout.fps)

  def load_part(self, i: int, start: float, seconds: float, window=None) -> Clip:
    """Renders just what `clip.part` cuts out of clip i. Raises IndexError: no such clip."""
    seconds = min(seconds, self.duration - start)
    times = self.frame_times[frames_of(self.frame_times, start, seconds)]
    return self._clip(i, times, start, seconds, window)

  def _times(self, fps):
    """Times of the frames that start within a clip."""
    # The small number forgives 5.5 * 6 = 32.99999.
    return np.arange(int(self.duration * fps + 1e-6) + 1) / fps

  def _clip(self, i, times, start, seconds, window=None) -> Clip:
    """Clip with the frames at `times` and the audio of [start, start + seconds), from 0 s on."""
    scene, audio = self.scene(i), np.zeros(0, np.float32)
    if self.need_audio:
      audio = impact_audio.synthesise(scene, self.chance(i, 1), self.duration, self.sample_rate)[
        samples_of(self.sample_rate, start, seconds)]
    return Clip(
      id=self.name(i), duration=seconds,
      frames=render.render(scene, times, self.height, self.width, window),
      frame_times=np.maximum(times - start, 0), audio=audio, sample_rate=self.sample_rate,
      audio_caption=scene.audio_caption, video_caption=scene.video_caption,
      events=scene.events - start, source='impacts', start=start)

  def chance(self, i: int, stream: int) -> np.random.Generator:
    """Random generator of clip i; scene and audio have streams of their own, so that one can change
    without the other."""
    return np.random.default_rng((self.seed, self.first + self._check(i), stream))

  def _check(self, i: int) -> int:
    if not 0 <= i < self.size:
      raise IndexError(f'impacts {self.split} has clips 0..{self.size - 1}, not {i}.')
    return int(i)
