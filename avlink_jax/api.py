"""AV-Link from Python: sound for a video, video for a sound, in three lines.

    import avlink_jax
    model = avlink_jax.load('v2a:nano')
    model(video='my.mp4', prompt='a hammer strikes metal')[0].save('out.mp4')

Mode `sample` (sample.py) is made of the same calls. Nothing is written but by `save`.
"""

import collections
import dataclasses
import functools
import hashlib
import itertools
import json
import os
import pathlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import librosa
import numpy as np
from ml_collections import ConfigDict

from avlink_jax import build as model_builder
from avlink_jax import tasks
from avlink_jax.cli import model_names
from avlink_jax.codecs import finite
from avlink_jax.data.clip import Clip
from avlink_jax.data.media import downmix, mux, original
from avlink_jax.errors import UserError
from avlink_jax.hardware import compile_cache, precision
from avlink_jax.sampling import inputs as sampling_inputs
from avlink_jax.sampling import trained, upsampling
from avlink_jax.sampling.export import Exporter, one_way
from avlink_jax.tasks import frozen as frozen_parts
from avlink_jax.training import sharding

Path = str | os.PathLike


@dataclasses.dataclass(frozen=True)
class Sample:
  """One generated clip.

  Attributes:
    id: name: the file's stem, with _1, _2, … of several takes.
    audio: float32 (S,) in [-1, 1], generated or given; None without sound.
    sample_rate: Hz of `audio`.
    frames: uint8 (N, H, W, 3) RGB, generated or, at the model's rate and size, given; None without
      a picture.
    fps: frames a second of `frames`.
    prompts: {modality: prompt}.
    seed: of the noise.
    source: file that was given, '' of arrays and prompts.
    generated: which of 'audio' and 'video' were generated.
    av_align: AV-Align of picture and sound, to compare takes by; None of a single take, or where
      one of the two is missing.
  """
  id: str
  audio: np.ndarray | None
  sample_rate: int
  frames: np.ndarray | None
  fps: float
  prompts: Mapping[str, str]
  seed: int
  source: str
  generated: tuple[str, ...]
  av_align: float | None = None

  def save(self, path: Path, original_sound: str = 'drop') -> pathlib.Path:
    """Writes the clip as .mp4, or its sound as .wav. What was given as a file is kept unchanged:
    the video under generated audio, or the audio under generated video. Returns the path.

    original_sound: what becomes of a given video's own sound: drop, mix or second_track.

    Raises UserError: another suffix or choice, or no sound for a .wav; MediaError: the file that
    was given cannot be read any more.
    """
    path = pathlib.Path(path)
    if path.suffix.lower() not in ('.mp4', '.wav'):
      raise UserError(f'{path}: give a name that ends in .mp4 or .wav')
    original.check(original_sound)
    if path.suffix.lower() == '.wav':
      if self.audio is None:
        raise UserError(f'{path}: this clip has no sound')
      mux.write_wav(path, self.audio, self.sample_rate)
    elif self.source and self.generated == ('audio',):
      mux.replace_audio(self.source, path, self.audio, self.sample_rate, original_sound)
    else:
      kept = self.source if self.source and self.generated == ('video',) else None
      mux.write_mp4(path, frames=self.frames, fps=self.fps, sample_rate=self.sample_rate,
                    audio=None if kept else self.audio, source_audio=kept)
    return path


class Model:
  """A trained model, ready to generate. Weights are read at the first call.

  Args:
    config: ConfigDict of a task.
    workdir: run whose newest checkpoint has the weights; without one there, bundled ones.
    here: `workdir` on this machine, if that is in a bucket.
    explicit: whether the workdir must have a checkpoint, or a weights file.
    unlinked: whether published towers may have Fusion Blocks that are not trained.
  """

  def __init__(self, config: ConfigDict, workdir: Path, here: Path | None = None,
               explicit: bool = False, unlinked: bool = False):
    compile_cache.use(config.compile_cache)
    self.config, self._workdir = config, workdir
    self._explicit, self._unlinked = explicit, unlinked
    self._here = workdir if here is None else here
    self._policy = precision.of()
    self._models = model_builder.build(config, self._policy.compute)
    self.task = one_way(tasks.make(config, self._models), config.sample.direction)
    self.task.check_samples()
    self.mesh = sharding.make_mesh(**config.mesh)
    sharding.check_tokens(self.task, self.mesh)
    self._exporters: dict[Any, Exporter] = {}

  @functools.cached_property
  def _frozen(self):
    place = functools.partial(sharding.shardings, mesh=self.mesh)
    return sharding.shard(frozen_parts.load(
        self.config, self._models, self.task.frozen_parts, self._policy.frozen, self._here, place),
        self.mesh)

  @functools.cached_property
  def _upsampler(self):
    return upsampling.load(self.task)

  @functools.cached_property
  def trained(self) -> trained.Trained:
    """Weights and their origin."""
    return trained.find_weights(self.task, self._workdir, self._frozen, self.mesh,
                                self._explicit, self._unlinked)

  def exporter(self, **changes) -> Exporter:
    """Exporter for a sampler with `changes` of `config.sample`; each is made and compiled once."""
    key = json.dumps(changes, sort_keys=True)
    if key not in self._exporters:
      task = self.task
      if changes:
        config = self.config.copy_and_resolve_references()
        config.sample.update(changes)
        task = dataclasses.replace(task, config=config)
      self._exporters[key] = Exporter(task, self._frozen, self._here, self._upsampler, self.mesh)
    return self._exporters[key]

  def __call__(self, *, video: Any = None, audio: Any = None,
               prompt: str | Sequence[str] | None = None,
               condition_prompt: str | None = None, negative_prompt: str | None = None,
               fps: float | None = None, sample_rate: int | None = None, seed: int = 0,
               takes: int = 1, steps: int | None = None, guidance: float | None = None,
               progress: Callable[[int, int], None] | None = None,
               on_step: Callable[[int, int], None] | None = None) -> list[Sample]:
    """Generates for videos, sounds or prompts.

    Args:
      video: of tasks that video conditions: a file, a folder, or frames uint8 (N, H, W, 3) at
        `fps`; or a list of these.
      audio: of tasks that audio conditions: a file, a folder, or a wave float (S,) at `sample_rate`
        (Hz); or a list of these.
      prompt: what to generate, in words; of tasks that words alone condition one or several.
      condition_prompt: what conditions, in words; default: captions beside the files.
      negative_prompt: what not to generate.
      seed: of the noise.
      takes: how many to make of each clip.
      steps, guidance: instead of the config's.
      progress: called with (windows done, windows in all).
      on_step: called after each step, or of a clip of many windows each pass, with (done, in all).
        What it raises ends the work there. Steps are then driven from here, and not one program.
    Returns:
      a Sample for each clip and take, in order.

    Raises UserError: what is given does not fit the task, or a sample is not finite; MediaError: a
    file cannot be read.
    """
    changes = {name: value for name, value in (('steps', steps), ('guidance', guidance))
               if value is not None}
    exporter = self.exporter(**changes)
    task = exporter.task
    given = self._inputs(task, video, audio, prompt, condition_prompt, negative_prompt, fps,
                         sample_rate, takes)
    count, done = sum(map(exporter.windows, given.clips)), 0

    def report(windows):
      nonlocal done
      done += windows
      if progress is not None:
        progress(done, count)

    finished, in_all = itertools.count(1), exporter.steps(given.clips) if on_step else 0

    def stepped():
      on_step(next(finished), in_all)

    samples = {clip.id: sample and self._sample(
        exporter, clip, prompts, sample, seed, given.takes > 1)
               for clip, prompts, sample in exporter.samples(
                   self.trained, given.clips, given, seed, report,
                   stepped=stepped if on_step else None)}
    if broken := [name for name, sample in samples.items() if sample is None]:
      raise finite.Broken(broken, len(samples))
    return [samples[clip.id] for clip in given.clips]

  def _inputs(self, task, video, audio, prompt, condition_prompt, negative_prompt, fps, sample_rate,
              takes):
    """Inputs (sampling/inputs.py) of a call."""
    media = {name: value for name, value in (('video', video), ('audio', audio))
             if value is not None}
    for name in media:
      if name not in task.conditions:
        wanted = ' and '.join(task.conditions) or 'words alone'
        raise UserError(f'{name}=: {task.config.task} is conditioned on {wanted}')
    if missing := [name for name in task.conditions if name not in media]:
      raise UserError(f'{task.config.task} is conditioned on {missing[0]}: give {missing[0]}=')
    texts = [prompt] if prompt is None or isinstance(prompt, str) else list(prompt)
    if not media and texts == [None]:
      raise UserError(f'{task.config.task} is conditioned on words alone: give prompt=')
    if media and len(texts) > 1:
      raise UserError(f'{task.config.task} takes one prompt for all its clips')
    given = sampling_inputs.given_prompts(
        task, texts[0] if media else None, condition_prompt, negative_prompt)
    if media:
      clips = [clip for (name, value), in [media.items()] for clip in self._clips(
          task, name, value, fps, sample_rate)]
    else:
      clips = sampling_inputs.blank_clips(
          [sampling_inputs.read_prompt('prompt', text, task) for text in texts],
          task.models.layout)
    return sampling_inputs.Inputs(
        sampling_inputs.repeated(distinct(clips), takes), own=True, given=given, takes=takes)

  def _clips(self, task, name, value, fps, sample_rate):
    """List of Clip of files or arrays, or of a list of these."""
    layout = task.condition_layout
    if isinstance(value, (list, tuple)):
      return [clip for each in value for clip in self._clips(task, name, each, fps, sample_rate)]
    if isinstance(value, (str, os.PathLike)):
      source = sampling_inputs.own_clips(value, task.config, layout, task.conditions)
      return [source.load(i) for i in range(len(source))]
    of_array = {'video': (frames_clip, fps), 'audio': (wave_clip, sample_rate)}
    make, rate = of_array[name]
    return [make(np.asarray(value), rate, layout)]

  def _sample(self, exporter, clip, prompts, sample, seed, compared):
    """Sample of what the sampler made of a clip, to be `compared` with other takes or not."""
    media = exporter.media(dataclasses.replace(clip, source=''), sample, own=False)
    source = clip.source if pathlib.Path(clip.source).is_file() else ''
    return Sample(clip.id, media['audio'], media['sample_rate'], media['frames'], media['fps'],
                  prompts, seed, source, tuple(exporter.task.generate),
                  exporter.av_align(clip, sample) if compared else None)


def load(name: Path, *, workdir: Path | None = None,
         config: Mapping[str, Any] | None = None) -> Model:
  """Loads a model.

  Args:
    name: 'TASK:SCALE' ('v2a:nano' is bundled), a config file ('my.py:nano'), a run's workdir or
      what is left of it without checkpoints (config.json, weights.safetensors, frozen/), or a hub
      name of such a folder.
    workdir: run with the weights of 'TASK:SCALE'; default: bundled ones, or published towers (with
      Fusion Blocks that are not trained, which says a line).
    config: changes of the config, {'frozen.video': FOLDER, 'sample.steps': 8}.

  Raises UserError: there is no such task, config, run, or key.
  """
  settings, run = model_names.find(str(name), config or {})
  if run is not None and workdir is not None:
    raise UserError(f'{name} is a workdir itself: leave workdir= out')
  workdir = run or workdir
  default = pathlib.Path(tempfile.gettempdir(), 'avlink_jax-no-run')  # bundled weights alone
  return Model(settings, default if workdir is None else workdir, explicit=workdir is not None,
               unlinked=True)


def frames_clip(frames, fps, layout):
  """Clip of frames uint8 (N, H, W, 3) at `fps`, scaled to cover the layout's size and cropped.

  Raises UserError: another type or shape, or no rate."""
  if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not len(frames):
    raise UserError(f'video=: frames are uint8 (N, H, W, 3), not {frames.dtype} {frames.shape}')
  if not fps or fps <= 0:
    raise UserError('video= with frames needs fps=, their number a second')
  return Clip(id='clip', duration=len(frames) / fps, frames=np.stack(
      [covering(frame, layout.height, layout.width) for frame in frames]),
      frame_times=np.arange(len(frames)) / fps, audio=np.zeros(0, np.float32),
      sample_rate=layout.sample_rate, source='', noise=noise_of_array(frames))


def covering(frame, height, width):
  """Frame scaled to cover height × width, and its middle of that size."""
  scale = max(height / frame.shape[0], width / frame.shape[1])
  rows, columns = (max(side, round(old * scale)) for side, old in zip(
      (height, width), frame.shape, strict=False))
  frame = cv2.resize(frame, (columns, rows),
                     interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
  top, left = (rows - height) // 2, (columns - width) // 2
  return frame[top:top + height, left:left + width]


def wave_clip(wave, sample_rate, layout):
  """Clip of a wave float (S,) or (S, C) at `sample_rate`, mixed to mono at the layout's rate.

  Raises UserError: another type or shape, no rate, or numbers that are not finite."""
  if wave.ndim not in (1, 2) or not np.issubdtype(wave.dtype, np.floating) or not len(wave):
    raise UserError(f'audio=: a wave is float (S,) or (S, C), not {wave.dtype} {wave.shape}')
  if not sample_rate or sample_rate <= 0:
    raise UserError('audio= with a wave needs sample_rate=, in Hz')
  if not np.isfinite(wave).all():
    raise UserError('audio=: the wave has numbers that are not finite')
  mono = wave.astype(np.float32) if wave.ndim == 1 else downmix.mono(wave, sample_rate)
  if sample_rate != layout.sample_rate:
    mono = librosa.resample(mono, orig_sr=sample_rate, target_sr=layout.sample_rate)
  return Clip(id='clip', duration=len(mono) / layout.sample_rate,
              frames=np.zeros((0, layout.height, layout.width, 3), np.uint8),
              frame_times=np.zeros(0), audio=mono, sample_rate=layout.sample_rate, source='',
              noise=noise_of_array(wave))


def noise_of_array(array):
  """What the noise of a given array is drawn from (Clip.noise): its content."""
  content = hashlib.sha256(f'{array.dtype} {array.shape}'.encode())
  content.update(np.ascontiguousarray(array).data)
  return content.hexdigest()


def distinct(clips):
  """Clips with names of their own: of equal ones NAME-2, NAME-3, …"""
  seen: collections.Counter = collections.Counter()
  result = []
  for clip in clips:
    seen[clip.id] += 1
    result.append(clip if seen[clip.id] == 1 else
                  dataclasses.replace(clip, id=f'{clip.id}-{seen[clip.id]}'))
  return result
