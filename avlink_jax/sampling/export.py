"""Samples into a folder with a gallery, going on where an interrupted export left it."""

import json
import pathlib

import jax
import numpy as np

from avlink_jax.data import batch as batches
from avlink_jax.errors import UserError
from avlink_jax.samples.folder import complete, make_folder, write_sample
from avlink_jax.samples.gallery import write_gallery
from avlink_jax.sampling import resume
from avlink_jax.sampling.reconstruction import Reconstruction
from avlink_jax.sampling.sampler import Sampler
from avlink_jax.storage.atomic import sweep, write_text
from avlink_jax.storage.console import Progress, say
from avlink_jax.tasks import frozen as frozen_parts
from avlink_jax.training import hosts, memory

SAMPLERS = {'flow': Sampler, 'reconstruction': Reconstruction}  # by task.sampler
# How `write_sample` is given a clip's own medium: decoded, or as the user's file has it.
ARGUMENTS = {'audio': ('audio', 'source_audio'), 'video': ('frames', 'source_video')}


class Exporter:
  """What makes one task's samples, and writes them; built once in a run.

  Args:
    task: with the one direction that it goes.
    frozen: its frozen tree. workdir: whose copies of it count (tasks/frozen.py).
    upsampler: upsampling.Upsampler of its frames; None: they are written as they are.
  """

  def __init__(self, task, frozen, workdir=None, upsampler=None, mesh=None):
    self.task, self.config, self.upsampler = task, task.config, upsampler
    self._sampler = SAMPLERS[task.sampler](task, frozen, mesh)
    self._workdir = workdir
    self._first = jax.process_index() == 0

  def export(self, trained, inputs, output, seed):
    """Samples for `inputs` (inputs.Inputs) with the weights `trained` (trained.Trained) into the
    folder `output`, with a gallery; what was skipped is listed.

    The references of a data set's clips are written to `output/reference/` too. With an upsampler
    the small frames are written beside the large ones. Clips that are there already, whole and
    made of the same (resume.py), are kept. Returns the ids of all. Of several processes all sample
    and the first one writes.
    """
    clips, generate = inputs.clips, self.task.generate
    folders = [output] if inputs.own else [output, output / 'reference']
    made_of = self._made_of(trained, inputs, seed) if self._first else {}
    missing = self._missing(clips, folders, made_of)
    if len(missing) < len(clips):
      say(f'{len(clips) - len(missing)} of {len(clips)} clips are in {output} already, made of '
          'the same: kept')
    for clip, prompts, sample in self._samples(trained, missing, inputs, seed):
      if not self._first:
        continue
      record = dict(source=clip.source, prompt=prompts[generate[0]], events=clip.events,
                    made_of=made_of[clip.id])
      if len(generate) > 1:
        record['prompts'] = prompts
      write_sample(output, clip.id, generated=generate, **self._shown(clip, sample, inputs.own),
                   record=dict(task=self.config.task, seed=seed, steps=self.config.sample.steps,
                               guidance=self.config.sample.guidance, **record))
      if not inputs.own:
        self._write_reference(output / 'reference', clip, record)
    if self._first:
      write_text(output / 'skipped.json', json.dumps(inputs.skipped))
      write_gallery(output, reference=None if inputs.own else output / 'reference')
    return [clip.id for clip in clips]

  def _made_of(self, trained, inputs, seed):
    """{clip id: what its sample is made of}."""
    parts = frozen_parts.digests(self.config, self.task.frozen_parts, self._workdir)
    names = [trained.name, parts] + (
        [] if self.upsampler is None else [self.upsampler.name(seed)])
    run = resume.of_run(self.task, names, seed)
    return {clip.id: resume.of_sample(
        run, self.task, clip, inputs.prompts(clip, self.task.generate), inputs.own)
        for clip in inputs.clips}

  def _missing(self, clips, folders, made_of):
    """The clips that are not in all the folders yet, made of the same: on all processes what the
    first one sees."""
    wanted = np.ones(len(clips), bool)
    if self._first:
      for folder in folders:
        sweep(folder)
      there = [complete(folder) for folder in folders]
      wanted = np.array([any(rows.get(clip.id, {}).get('made_of') != made_of[clip.id]
                             for rows in there) for clip in clips])
    return [clip for clip, want in zip(clips, hosts.as_the_first(wanted), strict=True) if want]

  def _samples(self, trained, clips, inputs, seed):
    """Yields (clip, its prompts, its sample) as they come, and says how far it is."""
    task, upsampler = self.task, self.upsampler
    sampled, enlarged = (Progress(verb, len(clips), every=0.0, write=self._first)
                         for verb in ('sampled', 'upsampled'))
    for group in self._sampler.batches(clips):
      chosen = [clips[i] for i in group]
      prompts = [inputs.prompts(clip, task.generate) for clip in chosen]
      with memory.told(memory.for_sampling, self.config):
        samples = self._sampler(trained, chosen, prompts, seed)
      if upsampler is not None:
        sampled.add(len(group))
        samples = upsampler(chosen, prompts, samples, seed)
      for clip, prompt, sample in zip(chosen, prompts, samples, strict=True):
        (sampled if upsampler is None else enlarged).add(1)
        yield clip, prompt, sample

  def _shown(self, clip, sample, own):
    """A sample's media as `write_sample` takes them: what was generated, and beside it what the
    clip itself has to show."""
    layout = self.task.models.layout
    out = dict(sample_rate=layout.sample_rate, fps=layout.fps, audio=sample.get('audio'),
               frames=sample.get('video'))
    if 'low' in sample:
      out |= dict(low=sample['low'])
      large = self.task if self.upsampler is None else self.upsampler.task
      out |= dict(fps=large.models.layout.fps, low_fps=large.given_layout.fps)
    for medium in self.task.beside:
      decoded, source = ARGUMENTS[medium]
      if not own:
        out[decoded] = self._original(clip, medium)
      elif medium in self.task.given or medium in clip.media:
        out[source] = clip.source
    return out

  def _original(self, clip, medium):
    """A clip's own medium at the model's rate, None where it has none."""
    if medium not in clip.media:
      return None
    layout = self.task.models.layout
    return {'audio': lambda: clip.audio,
            'video': lambda: batches.all_frames(clip, layout.fps)}[medium]()

  def _write_reference(self, folder, clip, record):
    layout = self.task.models.layout
    write_sample(folder, clip.id, frames=self._original(clip, 'video'), fps=layout.fps,
                 audio=self._original(clip, 'audio'), sample_rate=layout.sample_rate,
                 record=dict(task='reference', **record))


def folder_of_samples(path):
  """The folder, which the first process makes; the others have nothing to write there."""
  return make_folder(path) if jax.process_index() == 0 else pathlib.Path(path)


def one_way(task, direction=''):
  """A task that generates one thing: of a joint one the way that `direction` says, or its first.

  Raises UserError for a direction that the task does not have."""
  if len(task.directions) == 1:
    return task
  known = ['+'.join(names) for names in task.directions]
  if direction and direction not in known:
    raise UserError(f'sample.direction={direction!r}: {task.config.task} generates '
                    f'{" or ".join(known)}')
  return task.toward(direction or known[0])
