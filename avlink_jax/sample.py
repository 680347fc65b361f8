"""MODE sample: clips with generated sound or picture, in a folder with a gallery.

`export_samples` is the same thing for a run that trains, with scores.
"""

import dataclasses
import json
import pathlib
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from avlink_jax import models as model_builder
from avlink_jax import tasks, weights
from avlink_jax.codecs.griffin_lim import griffin_lim
from avlink_jax.codecs.mel import log_mel, normalise
from avlink_jax.data import batch as batches
from avlink_jax.data import media, pipeline
from avlink_jax.data.folder import Folder, clean_caption
from avlink_jax.errors import MediaError, UserError
from avlink_jax.evaluate import evaluate, summary
from avlink_jax.export import file_stem, make_folder, write_sample
from avlink_jax.gallery import spectrogram_image, write_gallery
from avlink_jax.sampler import Sampler
from avlink_jax.training import checkpoint
from avlink_jax.training import step as training
from avlink_jax.training.log import clock


def sample(config, workdir, *, input_path=None, prompt=None, output, seed=0):
  """Generates for the user's own clips, or for clips of the data source's test split."""
  output = make_folder(output)
  models = model_builder.build(
      config, jnp.float32 if jax.default_backend() == 'cpu' else jnp.bfloat16)
  prompt = check_prompt(prompt, models.text)
  task = tasks.make(config, models)
  layout, own_input = models.layout, input_path is not None
  if own_input:
    source = Folder(input_path, height=layout.height, width=layout.width,
                    sample_rate=layout.mel.sample_rate, max_fps=layout.fps,
                    need_audio='audio' in set(task.modalities) - set(task.generate))
  else:
    source = pipeline.open_source(config, layout, 'test')
  clips, skipped = read_clips(source, len(source) if own_input else config.sample.count,
                              None if own_input else layout)
  frozen = weights.load_frozen(config, models, task.frozen_parts, workdir=workdir)
  params, stats, origin = trained_weights(task, config, workdir)
  print(f'weights: {origin}', file=sys.stderr)
  return export(task, params, stats, frozen, config, clips, skipped, output, seed,
                prompt=prompt, own_input=own_input)


def check_prompt(prompt, text):
  """The prompt cleaned, or None; UserError where the text encoder cannot take it whole."""
  if prompt is None:
    return None
  if any(ord(c) < 32 and c not in '\t\n' or ord(c) == 127 for c in prompt):
    raise UserError('--prompt has control characters: give plain text')
  prompt = clean_caption(prompt)
  if len(prompt.encode()) > text.room:
    raise UserError(f'--prompt is {len(prompt.encode()):,} bytes long: this model reads at most '
                    f'{text.room}')
  return prompt


def trained_weights(task, config, workdir):
  """(params, stats, where from): the workdir's newest checkpoint, else the bundled weights."""
  if (pathlib.Path(workdir) / 'checkpoints').is_dir():
    checkpoints = checkpoint.Checkpoints(workdir, create=False)
    if checkpoints.latest_step is not None:
      optimizer = training.make_optimizer(config)
      like = jax.eval_shape(lambda: training.init(task, optimizer, config.seed))
      state = checkpoints.restore(like)
      checkpoints.close()
      return state.ema, state.stats, f'{workdir}, step {int(state.step)}'
  path = weights.BUNDLED / config.scale / f'{config.task}.safetensors'
  if not path.exists():
    raise UserError(f'{workdir} has no checkpoint, and no weights for {config.task} at scale '
                    f'{config.scale} are bundled: train first, or give --workdir')
  tree, _ = weights.read(path)
  like = jax.eval_shape(task.init, jax.random.key(0))
  return weights.fit(tree['params'], like, path), tree.get('stats', {}), f'bundled {path.name}'


class Reconstructor:
  """The 1D-VAE's samples: its own reconstruction of each clip's first seconds."""

  def __init__(self, task, params, stats, frozen, config):
    del frozen
    self.task, self.config, self._params, self._stats = task, config, params, stats
    self._reconstruct = jax.jit(lambda p, std, mel: task.models.codec.decode(
        p, std, task.models.codec.encode(p, std, mel)))

  def batches(self, clips):
    return [[i] for i in range(len(clips))]

  def __call__(self, clips, prompts, seed):
    del prompts, seed
    layout = self.task.models.layout
    for clip in clips:
      mel, _ = batches.sound(clip, 0.0, layout)
      mel = np.asarray(self._reconstruct(self._params, self._stats['std'], mel[None]))[0]
      yield {'audio': griffin_lim(mel, layout.mel)}


def make_sampler(task, *args):
  """What makes this task's samples."""
  return (Reconstructor if task.config.task == 'mel_vae' else Sampler)(task, *args)


def export(task, params, stats, frozen, config, clips, skipped, output, seed, *, prompt=None,
           own_input=False):
  """Samples for `clips` into `output`, with a gallery; `skipped` (name, reason) are listed.

  The references of a data set's clips are written to `output/reference/` too; of the user's
  own clips the picture is kept as it is. Returns the ids written.
  """
  layout, generate = task.models.layout, task.generate
  sampler = make_sampler(task, params, stats, frozen, config)
  started, done = time.monotonic(), 0
  for group in sampler.batches(clips):
    chosen = [clips[i] for i in group]
    prompts = [prompts_for(clip, prompt, generate) for clip in chosen]
    for clip, said, made in zip(chosen, prompts, sampler(chosen, prompts, seed), strict=True):
      record = dict(task=config.task, source=clip.source, prompt=said[generate[0]], seed=seed,
                    steps=config.sample.steps, guidance=config.sample.guidance,
                    events=clip.events)
      shown = dict(audio=made.get('audio', clip.audio if len(clip.audio) else None),
                   sample_rate=layout.mel.sample_rate, fps=layout.fps)
      keep_picture = own_input and 'video' not in generate
      write_sample(output, clip.id, frames=made.get('video', shown_frames(clip, layout)),
                   record=record, source_video=clip.source if keep_picture else None, **shown)
      if not own_input:
        write_sample(output / 'reference', clip.id, frames=shown_frames(clip, layout),
                     fps=layout.fps, audio=clip.audio, sample_rate=layout.mel.sample_rate,
                     record=dict(task='reference', source=clip.source, prompt=said[generate[0]],
                                 events=clip.events))
    done += len(group)
    left = (time.monotonic() - started) / done * (len(clips) - done)
    print(f'sampled {done}/{len(clips)} clips  {clock(left)} left', file=sys.stderr, flush=True)
  (output / 'skipped.json').write_text(json.dumps(skipped))
  write_gallery(output, reference=None if own_input else output / 'reference')
  return [clip.id for clip in clips]


def read_clips(source, count, layout):
  """The first `count` usable clips (cut to the model's length where `layout` is given), and
  (name, reason) of those that are not usable. Raises UserError where none is."""
  clips, skipped = [], []
  for i in range(len(source)):
    if len(clips) == count:
      break
    try:
      clip = source.load(i)
    except MediaError as error:
      skipped.append((source.name(i), error.reason))
      print(f'skipped {source.name(i)}: {error.reason}', file=sys.stderr, flush=True)
      continue
    clips.append(clip if layout is None else cut(clip, layout.seconds))
  if not clips:
    raise UserError(f'nothing to sample for: {skipped[0][0]}: {skipped[0][1]}' if skipped else
                    'nothing to sample for: sample.count is 0')
  return clips, skipped


def cut(clip, seconds):
  """A clip's first `seconds`, its sound normalised as the models hear it."""
  duration = min(seconds, clip.duration)
  shown = clip.frame_times < duration
  events = None if clip.events is None else clip.events[clip.events < duration]
  return dataclasses.replace(
      clip, duration=duration, frames=clip.frames[shown], frame_times=clip.frame_times[shown],
      audio=normalise(clip.audio[:round(duration * clip.sample_rate)]), events=events)


def shown_frames(clip, layout):
  """A clip's pictures at the model's rate, None where it has none: uint8 (N, H, W, 3)."""
  if not len(clip.frames):
    return None
  count = int(np.ceil(round(clip.duration * layout.fps, 6)))
  return batches.resample_frames(clip, 0.0, count, layout.fps)[0]


def prompts_for(clip, prompt, generate):
  """Prompts of both modalities: the clip's captions, the user's words for what is generated."""
  prompts = {'audio': clip.audio_caption, 'video': clip.video_caption}
  return prompts if prompt is None else prompts | dict.fromkeys(generate, prompt)


def export_samples(task, params, stats, frozen, config, workdir, step, log):
  """Samples of a training run at `step`, with scores where sound was made. Returns the scores."""
  folder = make_folder(pathlib.Path(workdir) / 'samples' / f'step_{step}')
  source = pipeline.open_source(config, task.models.layout, 'validation')
  clips, skipped = read_clips(source, config.sample.count, task.models.layout)
  ids = export(task, params, stats, frozen, config, clips, skipped, folder, config.seed)
  show(folder, ids[:2], task.models.layout, step, log)
  if 'audio' not in task.modalities:
    return {}
  scores = evaluate(str(folder), str(folder / 'reference'), str(folder / 'scores.json'))
  write_gallery(folder, reference=folder / 'reference', scores=scores)
  print(summary(scores), file=sys.stderr)
  log.scores(step, scores)
  return scores


def show(folder, ids, layout, step, log):
  """The first samples as pictures for TensorBoard: spectrogram, and every fifth frame in a row."""
  for clip_id in ids:
    clip = media.decode(folder / f'{file_stem(clip_id)}.mp4', need_audio=False)
    if len(clip.audio) > layout.mel.n_fft:
      log.image(f'spectrogram/{clip_id}', spectrogram_image(log_mel(clip.audio, layout.mel)), step)
    log.image(f'frames/{clip_id}', np.concatenate(list(clip.frames[::5]), axis=1), step)
