"""Export of samples into a folder with a gallery; an interrupted export can be resumed."""

import dataclasses
import json
import pathlib

import jax
import numpy as np

from avlink_jax.codecs import finite
from avlink_jax.data import batch as batches
from avlink_jax.data.media.original import check as check_original
from avlink_jax.errors import UserError
from avlink_jax.metrics import av_align
from avlink_jax.samples.folder import complete, make_folder, write_sample
from avlink_jax.samples.gallery import write_gallery
from avlink_jax.samples.level import check as check_level
from avlink_jax.samples.level import levelled
from avlink_jax.sampling import resume
from avlink_jax.sampling.reconstruction import Reconstruction
from avlink_jax.sampling.sampler import Sampler
from avlink_jax.storage.atomic import sweep, write_text
from avlink_jax.storage.console import Progress, say
from avlink_jax.tasks import frozen as frozen_parts
from avlink_jax.training import hosts, memory

SAMPLERS = {'flow': Sampler, 'reconstruction': Reconstruction}  # by task.sampler
# `write_sample`'s arguments for a clip's own medium: decoded, or the path of the user's file.
ARGUMENTS = {'audio': ('audio', 'source_audio'), 'video': ('frames', 'source_video')}
RATES = {'audio': 'sample_rate', 'video': 'fps'}  # of a decoded medium


class Exporter:
  """Generates and writes the samples of a task; built once in a run.

  Args:
    task: a task with one direction.
    frozen: its frozen tree.
    workdir: run that may have copies of the frozen parts (tasks/frozen.py).
    upsampler: upsampling.Upsampler of its frames, or None.
    mesh: as in sampler.Sampler.
  """

  def __init__(self, task, frozen, workdir=None, upsampler=None, mesh=None):
    self.task, self.config, self.upsampler = task, task.config, upsampler
    check_level(self.config.sample.level)
    check_original(self.config.sample.original_sound)
    self._sampler = SAMPLERS[task.sampler](task, frozen, mesh)
    self._workdir = workdir
    self._first = jax.process_index() == 0

  def export(self, trained, inputs, output, seed):
    """Exports samples for `inputs` (inputs.Inputs), with weights `trained` (trained.Trained), to a
    folder `output`, with a gallery and a list of skipped clips. Returns all samples' ids. Raises
    finite.Broken, once the others are written: a sample is not finite.

    For clips of a data source, references are written to `output/reference/`. With an upsampler the
    low-resolution frames are written as well. Existing samples that are complete and have the same
    fingerprint (resume.py) are kept. All processes sample; the first one writes.
    """
    clips = inputs.clips
    folders = [output] if inputs.own else [output, output / 'reference']
    fingerprints = self._fingerprints(trained, inputs, seed) if self._first else {}
    missing = self._missing(clips, folders, fingerprints)
    if len(missing) < len(clips):
      say(f'{len(clips) - len(missing)} of {len(clips)} clips are in {output} already, made of '
          'the same: kept')
    count = sum(self._sampler.windows(clip) for clip in missing)
    sampled = Progress('sampled', count, 'windows', write=self._first)
    upsampled = Progress('upsampled', len(missing), every=0.0, write=self._first)
    sampled.begin('compiling')
    broken = []
    try:
      for clip, prompts, sample in self.samples(
          trained, missing, inputs, seed, sampled.add, upsampled.add):
        if sample is None:
          broken.append(clip.id)
        elif self._first:
          self._write(output, clip, prompts, sample, inputs, seed, fingerprints[clip.id])
    finally:  # an interrupted export has a page too
      if self._first:
        write_text(output / 'skipped.json', json.dumps(
            [*inputs.skipped, *((name, 'the sample is not finite') for name in broken)]))
        write_gallery(output, reference=None if inputs.own else output / 'reference')
    if broken:
      raise finite.Broken(broken, len(clips))
    return [clip.id for clip in clips]

  def _write(self, output, clip, prompts, sample, inputs, seed, fingerprint):
    """Writes a sample and, of a data source's clip, its reference."""
    generate, sampling = self.task.generate, self.config.sample
    record = dict(source=clip.source, prompt=prompts[generate[0]], events=clip.events,
                  made_of=fingerprint,
                  prompts={name: prompts[name] for name in self.task.modalities if name in prompts})
    if inputs.given.negative is not None:
      record['negative_prompt'] = inputs.given.negative
    if inputs.takes > 1:
      name, _, take = clip.id.rpartition('_')
      record |= {'clip': name, 'take': int(take), 'av_align': self.av_align(clip, sample)}
    level = {'level': sample['level']} if 'level' in sample else {}
    base = {'base': self.task.base} if self.task.base else {}
    clip = self._original(clip)
    write_sample(output, clip.id, generated=generate, **self.media(clip, sample, inputs.own),
                 record=dict(task=self.config.task, seed=seed, steps=sampling.steps,
                             guidance=sampling.guidance, **record, **level, **base))
    if not inputs.own:
      write_sample(output / 'reference', clip.id, **self._media_of(clip),
                   record=dict(task='reference', **record))

  def _fingerprints(self, trained, inputs, seed):
    """Mapping {clip id: fingerprint of its sample}."""
    parts = frozen_parts.digests(self.config, self.task.frozen_parts, self._workdir)
    names = [trained.name, parts] + (
        [] if self.upsampler is None else [self.upsampler.name(seed)])
    run = resume.of_run(self.task, names, seed)
    return {clip.id: resume.of_sample(
        run, self.task, clip, inputs.prompts(clip, self.task.generate), inputs.own)
        for clip in inputs.clips}

  def _missing(self, clips, folders, fingerprints):
    """Clips that some folder lacks with the same fingerprint; all processes get the first one's
    result."""
    missing = np.ones(len(clips), bool)
    if self._first:
      for folder in folders:
        sweep(folder)
      existing = [complete(folder) for folder in folders]
      missing = np.array([any(rows.get(clip.id, {}).get('made_of') != fingerprints[clip.id]
                              for rows in existing) for clip in clips])
    missing = hosts.as_the_first(missing)
    return [clip for clip, is_missing in zip(clips, missing, strict=True) if is_missing]

  def windows(self, clip):
    """Number of windows that a clip is sampled in."""
    return self._sampler.windows(clip)

  def steps(self, clips):
    """How often `stepped` is called for these clips."""
    return self._sampler.steps(clips) + sum(
        0 if self.upsampler is None else self.upsampler.steps([clips[i] for i in group])
        for group in self._sampler.batches(clips))

  def samples(self, trained, clips, inputs, seed, sampled=lambda windows: None,
              upsampled=lambda clips: None, stepped=None):
    """Yields (clip, prompts, sample) of some of `inputs`' clips as they are generated.

    A sample is the sampler's media with audio at `sample.level`, and 'level', what that took; None
    where it is not finite. `sampled` and `upsampled` are called with how many windows or clips are
    done since their last call, `stepped` after each step (sampler.Sampler)."""
    task = self.task
    for group in self._sampler.batches(clips):
      batch = [clips[i] for i in group]
      prompts = [inputs.prompts(clip, task.generate) for clip in batch]
      with memory.advice(memory.for_sampling, self.config):
        samples = list(self._sampler(trained, batch, prompts, seed, sampled, stepped))
      good = [i for i, sample in enumerate(samples) if sample is not None]
      yield from ((batch[i], prompts[i], None) for i in range(len(batch)) if i not in good)
      chosen = [[each[i] for i in good] for each in (batch, prompts, samples)]
      if self.upsampler is not None:
        chosen[2] = self.upsampler(*chosen, seed, stepped)
      for clip, prompt, sample in zip(*chosen, strict=True):
        if self.upsampler is not None:
          upsampled(1)
        yield clip, prompt, self._levelled(sample)

  def _levelled(self, sample):
    """Sample with its generated audio at `sample.level`."""
    if 'audio' not in sample:
      return sample
    wave, level = levelled(
        sample['audio'], self.task.models.layout.sample_rate, self.config.sample.level)
    return sample | {'audio': wave, 'level': level}

  def media(self, clip, sample, own):
    """Arguments of `write_sample` for a sample's media: generated ones, and those of the clip that
    are kept."""
    layout = self.task.models.layout
    out = dict(sample_rate=layout.sample_rate, fps=layout.fps, audio=sample.get('audio'),
               frames=sample.get('video'))
    if 'low' in sample:
      out |= dict(low=sample['low'])
      large = self.task if self.upsampler is None else self.upsampler.task
      out |= dict(fps=large.models.layout.fps, low_fps=large.condition_layout.fps)
    for medium in self.task.kept_media:
      decoded, source = ARGUMENTS[medium]
      if not own:
        of_clip = self._media_of(clip)
        out |= {name: of_clip[name] for name in (decoded, RATES[medium])}
      elif medium in self.task.conditions or medium in clip.media:
        out[source] = clip.source
        if source == 'source_video':
          out['original_sound'] = self.config.sample.original_sound
    return out

  def av_align(self, clip, sample):
    """AV-Align of a sample, with what is not generated from its clip, to compare takes by; None
    without onsets and motion, or where one of the media is missing."""
    layout = self.task.models.layout
    wave, frames = sample.get('audio', clip.audio), sample.get('low', sample.get('video'))
    frames = batches.all_frames(clip, layout.fps) if frames is None else frames
    if frames is None or not len(wave):
      return None
    motion = av_align.motion(frames, np.arange(len(frames)) / layout.fps, clip.duration)
    return av_align.score(av_align.audio_onsets(wave, layout.sample_rate), motion, clip.duration)

  def _original(self, clip):
    """Clip as its source has it; without `original` where that is no more than the model sees.
    What is put back together is compared with what was taken apart."""
    task = self.task if self.upsampler is None else self.upsampler.task
    own = None
    if clip.original is not None and self.task.sampler == 'flow':
      own = clip.original(task.models.layout)
    return dataclasses.replace(own or clip, original=own and clip.original)

  def _media_of(self, clip):
    """Arguments of `write_sample` for a clip's own media."""
    fps = self.task.models.layout.fps if clip.original is None else clip.source_fps
    return dict(frames=batches.all_frames(clip, fps), fps=fps,
                audio=clip.audio if 'audio' in clip.media else None, sample_rate=clip.sample_rate)


def folder_of_samples(path):
  """Path of the folder; the first process creates it, others do not write there."""
  return make_folder(path) if jax.process_index() == 0 else pathlib.Path(path)


def one_way(task, direction=''):
  """Task restricted to one direction: `direction`, or by default its first.

  Raises UserError: the task does not have that direction."""
  if len(task.directions) == 1:
    return task
  known = ['+'.join(names) for names in task.directions]
  if direction and direction not in known:
    raise UserError(f'sample.direction={direction!r}: {task.config.task} generates '
                    f'{" or ".join(known)}')
  return task.toward(direction or known[0])
