"""MODE sample: clips with generated sound or picture, in a folder with a gallery.

`export_samples` is the same thing for a run that trains, with scores.
"""

import dataclasses
import json
import pathlib
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np

from avlink_jax import build as model_builder
from avlink_jax import tasks
from avlink_jax.codecs import vocoder
from avlink_jax.codecs.mel import log_mel, normalise
from avlink_jax.codecs.video_vae import as_uint8
from avlink_jax.data import batch as batches
from avlink_jax.data import pipeline
from avlink_jax.data.clip import Clip
from avlink_jax.data.media import decode as media
from avlink_jax.data.sources.folder import LONGEST_CAPTION, Folder, clean_caption
from avlink_jax.errors import MediaError, UserError
from avlink_jax.evaluate import evaluate, summary
from avlink_jax.hardware import compile_cache
from avlink_jax.model import attention
from avlink_jax.samples.folder import complete, file_stem, make_folder, write_sample
from avlink_jax.samples.gallery import write_gallery
from avlink_jax.samples.spectrogram import spectrogram_image
from avlink_jax.sampling import resume as fingerprint
from avlink_jax.sampling import upsampling
from avlink_jax.sampling.sampler import Sampler
from avlink_jax.storage import bucket as storage
from avlink_jax.storage import weights
from avlink_jax.storage.atomic import sweep, write_text
from avlink_jax.storage.console import Progress
from avlink_jax.training import checkpoint, hosts, memory, sharding
from avlink_jax.training import step as training


def sample(config, workdir, *, input_path=None, prompt=None, output, seed=0):
  """Generates for the user's own clips or prompts, or for clips of the data source's test split.

  `workdir` and `output` may be in a bucket (storage/bucket.py).
  """
  with storage.Mirror(workdir) as run, storage.Mirror(output) as made:
    run.pull('frozen')
    if jax.process_index() == 0:
      made.pull('')
    return _sample(config, workdir, run.here, input_path, prompt, made.here, seed)


def _sample(config, workdir, kept, input_path, prompt, output, seed):
  """`sample`, into a folder, with the frozen parts that a folder `kept`."""
  output = folder_of_samples(output)
  on_cpu = jax.default_backend() == 'cpu'
  compile_cache.use(config.compile_cache)
  models = model_builder.build(config, jnp.float32 if on_cpu else jnp.bfloat16)
  task = one_way(tasks.make(config, models), config.sample.direction)
  given = set(task.given) if isinstance(task, tasks.FlowTask) else set()
  if not isinstance(task, tasks.FlowTask) and (input_path is not None or prompt is not None):
    raise UserError(f'{config.task} puts clips of its data source back together: leave --input '
                    'and --prompt out')
  prompts = read_prompts(prompt, models.text)
  if input_path is not None and not given:
    raise UserError(f'{config.task} is conditioned on words alone: leave --input out')
  if len(prompts) > 1 and given:
    raise UserError(f'--prompt={prompt} holds {len(prompts)} prompts: {config.task} takes one, '
                    'for all its clips')
  if input_path is not None:
    clips, skipped = read_clips(own_clips(input_path, config, task.given_layout, given))
  elif prompts and not given:
    clips, skipped = [blank_clip(i, said, models.layout) for i, said in enumerate(prompts)], []
  else:
    source = pipeline.open_source(config, models.layout, 'test', task.modalities)
    clips, skipped = read_clips(source, config.sample.count, models.layout)
  own = input_path is not None or bool(prompts and not given)
  mesh = sharding.make_mesh(**config.mesh)
  sharding.check_tokens(task, mesh)
  frozen = sharding.put(weights.load_frozen(
      config, models, task.frozen_parts, None if on_cpu else jnp.bfloat16, kept), mesh)
  params, stats, origin = trained_weights(task, config, workdir, frozen, mesh)
  upsampler = upsampling.load(config, task)
  print(f'{len(jax.devices())} {jax.default_backend()} device(s), mesh {dict(mesh.shape)}, '
        f'attention {attention.choose(config.attention)}; weights: {origin}', file=sys.stderr)
  return export(task, params, stats, frozen, config, clips, skipped, output, seed,
                prompt=prompts[0] if prompts and given else None, own=own, upsampler=upsampler)


def folder_of_samples(path):
  """The folder, which the first process makes; the others have nothing to write there."""
  return make_folder(path) if jax.process_index() == 0 else pathlib.Path(path)


def one_way(task, direction=''):
  """A task that generates one thing: of a joint one the way that `direction` says, or its first."""
  if not isinstance(task, tasks.FlowTask) or len(task.directions) == 1:
    return task
  if direction and direction not in task.config.generate:
    raise UserError(f'sample.direction={direction!r}: {task.config.task} generates '
                    f'{" or ".join(task.config.generate)}')
  return task.toward(direction or task.config.generate[0])


def read_prompts(prompt, text):
  """The prompts that --prompt gives, cleaned: itself, or the lines of the .txt file it names.

  Raises UserError where there is none in it, or the text encoder cannot take one whole.
  """
  if prompt is None:
    return []
  if prompt.endswith('.txt'):
    try:
      lines = pathlib.Path(prompt).read_text(encoding='utf-8-sig').splitlines()
    except (OSError, UnicodeDecodeError) as error:
      raise UserError(f'--prompt={prompt}: cannot be read as a text file ({error})') from None
    prompts = [line for line in lines if line.strip()]
    if not prompts:
      raise UserError(f'--prompt={prompt}: no prompt in it, one is wanted on each line')
  else:
    prompts = [prompt]
  for said in prompts:
    if len(said) > LONGEST_CAPTION:
      raise UserError(f'--prompt has {len(said):,} signs: give at most {LONGEST_CAPTION:,}')
    if any(ord(c) < 32 and c not in '\t\n' or ord(c) == 127 for c in said):
      raise UserError('--prompt has control characters: give plain text')
  prompts = [clean_caption(said) for said in prompts]
  for said in prompts:
    text.check(said)
  return prompts


def own_clips(path, config, layout, given):
  """The user's files, of which the modalities in `given` are needed."""
  return Folder(path, height=layout.height, width=layout.width,
                sample_rate=layout.mel.sample_rate, max_fps=layout.fps,
                need_audio='audio' in given, need_video='video' in given,
                features=config.towers.video.features, features_rate=layout.fps,
                decode_seconds=config.data.decode_seconds)


def blank_clip(i, prompt, layout):
  """A clip of which only a prompt is known."""
  stem = '_'.join(re.findall(r'\w+', prompt.lower())[:6])[:40]
  return Clip(id=f'{i:03d}_{stem}'.rstrip('_'), duration=layout.seconds,
              frames=np.zeros((0, layout.height, layout.width, 3), np.uint8),
              frame_times=np.zeros(0), audio=np.zeros(0, np.float32),
              sample_rate=layout.mel.sample_rate, audio_caption=prompt, video_caption=prompt,
              source='prompt')


def trained_weights(task, config, workdir, frozen, mesh):
  """(params, stats, where from): the workdir's newest checkpoint, else the bundled weights; what
  comes from a checkpoint lies on `mesh`."""
  with storage.reached(workdir):
    trained = storage.entries(storage.absolute(workdir) / 'checkpoints')
  if trained:
    checkpoints = checkpoint.Checkpoints(workdir, create=False)
    if checkpoints.latest_step is not None:
      optimizer = training.make_optimizer(config)
      like = jax.eval_shape(
          lambda frozen: training.init(task, optimizer, config.seed, frozen), frozen)
      state = checkpoints.restore(sharding.abstract(like, sharding.shardings(like, mesh)))
      checkpoints.close()
      return state.ema, state.stats, f'{workdir}, step {int(state.step)}'
  name = config.get('ablation', config.task)  # whose weights are not its task's (main.py)
  path = weights.BUNDLED / config.scale / f'{name}.safetensors'
  if not path.exists():
    raise UserError(f'{workdir} has no checkpoint, and no weights for {name} at scale '
                    f'{config.scale} are bundled: train first, or give --workdir')
  tree, _ = weights.read(path)
  like = jax.eval_shape(lambda key: task.sampled(task.init(key, frozen)), jax.random.key(0))
  return weights.fit(tree['params'], like, path), tree.get('stats', {}), f'bundled {path.name}'


class Reconstructor:
  """A codec's samples, the 1D-VAE's or the vocoder's: each clip's first seconds, through it."""

  def __init__(self, task, params, stats, frozen, config):
    del frozen
    params, stats = hosts.gather((params, stats))
    self._layout, codec = task.models.layout, task.models.codec
    if config.task == 'vocoder':
      self._codec = lambda mel: mel
      self.vocoder = vocoder.HiFiGANVocoder(
          task.vocoder, params, self._layout.mel, config.sample.vocoder_rounds)
    else:
      self._codec = jax.jit(lambda mel: codec.decode(
          params, stats['std'], codec.encode(params, stats['std'], mel)))
      self.vocoder = vocoder.load(config, self._layout.mel)

  def batches(self, clips):
    return [[i] for i in range(len(clips))]

  def __call__(self, clips, prompts, seed):
    del prompts, seed
    for clip in clips:
      mel, _ = batches.sound(clip, 0.0, self._layout)
      yield {'audio': self.vocoder(np.asarray(self._codec(mel[None]))[0])}


class VideoReconstructor:
  """The video autoencoder's samples: each clip's pictures through it, in parts."""
  vocoder = None

  def __init__(self, task, params, stats, frozen, config):
    del frozen, config
    self._params, self._std = hosts.gather((params, stats['std']))
    self._layout, self._codec = task.models.layout, task.models.video_codec

  def batches(self, clips):
    return [[i] for i in range(len(clips))]

  def __call__(self, clips, prompts, seed):
    del prompts, seed
    for clip in clips:
      video = shown_frames(clip, self._layout)[None]
      latents = self._codec.encode_in_parts(self._params, self._std, video)
      made = self._codec.decode_in_parts(self._params, self._std, latents, *video.shape[1:4])
      yield {'video': as_uint8(made[0])}


def make_sampler(task, *args):
  """What makes this task's samples."""
  if isinstance(task, tasks.FlowTask):
    return Sampler(task, *args)
  return (VideoReconstructor if 'video' in task.generate else Reconstructor)(task, *args)


def export(task, params, stats, frozen, config, clips, skipped, output, seed, *, prompt=None,
           own=False, upsampler=None):
  """Samples for `clips` into `output`, with a gallery; `skipped` (name, reason) are listed.

  Of the user's own clips what was given is kept as it is, picture or sound. The references of a
  data set's clips are written to `output/reference/` too. With an `upsampling.Upsampler` pictures
  are written as it enlarges them, the small ones beside. Clips that are there already, whole and
  made of the same (`sampling/resume.py`), are kept, so that what was interrupted goes on. Returns
  the ids of all. Of several processes all sample and the first one writes.
  """
  layout, generate = task.models.layout, task.generate
  folders = [output] if own else [output, output / 'reference']
  sampler = make_sampler(task, params, stats, frozen, config)
  run = fingerprint.of_run(task, [params, stats, frozen, getattr(sampler.vocoder, 'params', None)],
                           config, seed)
  if upsampler is not None:
    run.update(upsampler.fingerprint(seed))
  made_of = {clip.id: fingerprint.of_sample(run, task, clip, prompts_for(clip, prompt, generate),
                                            own) for clip in clips}
  first = jax.process_index() == 0
  for folder in folders if first else ():
    sweep(folder)
  there = [complete(folder) for folder in folders]
  wanted = hosts.as_the_first(np.array([any(
      rows.get(clip.id, {}).get('made_of') != made_of[clip.id] for rows in there)
      for clip in clips]))
  missing = [clip for clip, want in zip(clips, wanted, strict=True) if want]
  if len(missing) < len(clips):
    print(f'{len(clips) - len(missing)} of {len(clips)} clips are in {output} already, made of the '
          'same: kept', file=sys.stderr, flush=True)
  sampled, enlarged = (Progress(verb, len(missing), every=0.0, write=first)
                       for verb in ('sampled', 'upsampled'))
  for group in sampler.batches(missing):
    chosen = [missing[i] for i in group]
    prompts = [prompts_for(clip, prompt, generate) for clip in chosen]
    with memory.told(memory.for_sampling, config):
      samples = sampler(chosen, prompts, seed)
    if upsampler is not None:
      sampled.add(len(group))
      samples = upsampler(chosen, prompts, samples, seed)
    for clip, said, made in zip(chosen, prompts, samples, strict=True):
      (sampled if upsampler is None else enlarged).add(1)
      if not first:
        continue
      record = dict(source=clip.source, prompt=said[generate[0]], events=clip.events,
                    made_of=made_of[clip.id])
      if len(generate) > 1:
        record['prompts'] = said
      write_sample(output, clip.id, generated=generate, **shown(task, clip, made, own, upsampler),
                   record=dict(task=config.task, seed=seed, steps=config.sample.steps,
                               guidance=config.sample.guidance, **record))
      if not own:
        write_sample(output / 'reference', clip.id, frames=shown_frames(clip, layout),
                     fps=layout.fps, audio=clip.audio if len(clip.audio) else None,
                     sample_rate=layout.mel.sample_rate, record=dict(task='reference', **record))
  if first:
    write_text(output / 'skipped.json', json.dumps(skipped))
    write_gallery(output, reference=None if own else output / 'reference')
  return [clip.id for clip in clips]


def shown(task, clip, made, own, upsampler=None):
  """Picture and sound of a sample, as `write_sample` takes them: what was made, beside what
  conditioned it."""
  layout = task.models.layout
  given = set(getattr(task, 'modalities', ())) - set(task.generate)
  out = dict(sample_rate=layout.mel.sample_rate, fps=layout.fps, audio=made.get('audio'),
             frames=made.get('video'))
  if 'low' in made:
    last = (task if upsampler is None else upsampler.task).models
    out |= dict(low=made['low'], low_fps=last.towers['video'].rate, fps=last.layout.fps)
  if 'video' in given and own:
    out['source_video'] = clip.source
  elif 'video' not in task.generate and (
      'video' in given or not isinstance(task, tasks.FlowTask)):
    out['frames'] = shown_frames(clip, layout)
  if 'audio' in given and own:
    out['source_audio'] = clip.source
  elif 'audio' in given:
    out['audio'] = clip.audio
  elif isinstance(task, tasks.UpsamplerTask) and len(clip.audio):  # which has nothing to do with it
    out |= dict(source_audio=clip.source) if own else dict(audio=clip.audio)
  return out


def read_clips(source, count=None, layout=None):
  """The first `count` usable clips (default: all; cut to the model's length where `layout` is
  given), and (name, reason) of those that are not usable. Raises UserError where none is."""
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
    clips.append(clip if layout is None else cut(clip, layout.clip.seconds))
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
  """Samples of a training run at `step`, with scores where there is sound. Returns the scores.

  A task of several directions gets a folder for each (`step_N/audio`, `step_N/video`), and its
  scores their names as prefixes.
  """
  folder = pathlib.Path(workdir) / 'samples' / f'step_{step}'
  source = pipeline.open_source(config, task.models.layout, 'validation', task.modalities)
  clips, skipped = read_clips(source, config.sample.count, task.models.layout)
  ways = getattr(task, 'directions', ((),))
  scores = {}
  for way in ways:
    name = '+'.join(way) if len(ways) > 1 else ''
    scores |= {f'{name}_{key}' if name else key: value for key, value in _export_way(
        one_way(task, name), params, stats, frozen, config, clips, skipped,
        folder_of_samples(folder / name), step, log).items()}
  if scores:
    log.scores(step, scores)
  return scores


def _export_way(task, params, stats, frozen, config, clips, skipped, folder, step, log):
  ids = export(task, params, stats, frozen, config, clips, skipped, folder, config.seed)
  if jax.process_index() > 0:
    return {}
  show(folder, ids[:2], task.models.layout, step, log, '+'.join(task.generate))
  if 'audio' not in task.modalities:
    return {}
  scores = evaluate(str(folder), str(folder / 'reference'), str(folder / 'scores.json'))
  write_gallery(folder, reference=folder / 'reference', scores=scores)
  print(summary(scores), file=sys.stderr)
  return scores


def show(folder, ids, layout, step, log, made):
  """The first samples as pictures for TensorBoard: spectrogram, and every fifth frame in a row."""
  for clip_id in ids:
    clip = media.decode(folder / f'{file_stem(clip_id)}.mp4', need_audio=False)
    if len(clip.audio) > layout.mel.n_fft:
      picture = spectrogram_image(log_mel(clip.audio, layout.mel))
      log.image(f'{made}/spectrogram/{clip_id}', picture, step)
    log.image(f'{made}/frames/{clip_id}', np.concatenate(list(clip.frames[::5]), axis=1), step)
