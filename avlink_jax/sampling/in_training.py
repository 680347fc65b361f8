"""Samples of a training run, with scores: at intervals and at its end."""

import hashlib
import json
import sys

import jax
import numpy as np

from avlink_jax.codecs.mel import MelSpec, log_mel
from avlink_jax.data import pipeline
from avlink_jax.data.media.decode import decode
from avlink_jax.evaluate import evaluate, summary
from avlink_jax.samples.folder import file_stem
from avlink_jax.samples.gallery import write_gallery
from avlink_jax.samples.spectrogram import spectrogram_image
from avlink_jax.sampling.export import Exporter, folder_of_samples, one_way
from avlink_jax.sampling.inputs import Inputs, read_clips
from avlink_jax.sampling.trained import Trained

SHOWN = 2  # clips whose images go to TensorBoard


class TrainingSamples:
  """Exports samples repeatedly during a run; clips are read and samplers built once.

  Args: the run's task, frozen tree, workdir on this machine, and mesh.

  Attributes:
    source: of the clips, opened at once: what is wrong with it is a mistake before the first step.
  """

  def __init__(self, task, frozen, workdir, mesh=None):
    self.task, self.config = task, task.config
    self._frozen, self._workdir, self._mesh = frozen, workdir, mesh
    self._inputs, self._exporters = None, {}
    self.source = pipeline.open_source(
        self.config, task.models.layout, 'validation', task.modalities)

  def export(self, params, stats, step, log):
    """Exports samples with the weights of `step` to `samples/step_N/`, scored if there is audio.
    Returns the scores.

    A task with several directions has a folder for each (`step_N/audio`, `step_N/video`), and its
    scores have their names as prefixes.
    """
    folder = self._workdir / 'samples' / f'step_{step}'
    trained = Trained(params, stats, f'step {step}', self._name(step))
    directions, scores = self.task.directions, {}
    for direction in directions:
      name = '+'.join(direction) if len(directions) > 1 else ''
      scores |= {f'{name}_{key}' if name else key: value for key, value in self._export_direction(
          name, trained, folder_of_samples(folder / name), step, log).items()}
    if scores:
      log.scores(step, scores)
    return scores

  def _name(self, step):
    """Identity of a step's weights; a run is a function of its config."""
    text = json.dumps(self.config.to_dict(), sort_keys=True)
    return f'step {step} of {hashlib.sha256(text.encode()).hexdigest()}'

  def _export_direction(self, name, trained, folder, step, log):
    if name not in self._exporters:
      self._exporters[name] = Exporter(
          one_way(self.task, name), self._frozen, self._workdir, mesh=self._mesh)
    exporter = self._exporters[name]
    ids = exporter.export(trained, self._validation(), folder, self.config.seed)
    if jax.process_index() > 0:
      return {}
    show(folder, ids[:SHOWN], step, log, '+'.join(exporter.task.generate))
    if not exporter.task.scored:
      return {}
    scores = evaluate(str(folder), str(folder / 'reference'), str(folder / 'scores.json'))
    write_gallery(folder, reference=folder / 'reference', scores=scores)
    print(summary(scores), file=sys.stderr)
    return scores

  def _validation(self):
    """Inputs from the validation split, read once."""
    if self._inputs is None:
      self._inputs = Inputs(*read_clips(self.source, self.config.sample.count, self.task.models))
    return self._inputs


def show(folder, ids, step, log, generated):
  """Logs samples to TensorBoard: audio, its spectrogram, and every fifth frame in a row."""
  spec = MelSpec()
  for clip_id in ids:
    clip = decode(folder / f'{file_stem(clip_id)}.mp4', need_audio=False,
                  sample_rate=spec.sample_rate)
    if len(clip.audio) > spec.n_fft:
      log.image(f'{generated}/spectrogram/{clip_id}',
                spectrogram_image(log_mel(clip.audio, spec)), step)
      log.audio(f'{generated}/audio/{clip_id}', clip.audio, clip.sample_rate, step)
    log.image(f'{generated}/frames/{clip_id}', np.concatenate(list(clip.frames[::5]), axis=1),
              step)
