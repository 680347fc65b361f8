"""Generation: clips and prompts in, sound or pictures out.

`generate` is the pure, jitted part: one scan of Euler steps over the joint state, the generated
modalities moving and the conditioning ones standing at their flow time (Sec. 3.3). `Sampler`
wraps it for clips of any length, in batches of one shape.
"""

import functools
import math
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from avlink_jax import flow
from avlink_jax.build import example_shapes
from avlink_jax.codecs import vocoder
from avlink_jax.codecs.mel_vae import decode_mel
from avlink_jax.codecs.video_vae import as_uint8
from avlink_jax.data import batch as batches
from avlink_jax.sampling import windows
from avlink_jax.training import sharding


def generate(task, steps, params, frozen, batch, noise, tracks, guidance, shift):
  """Euler from noise to data for every window of a batch.

  Args:
    task: tasks.FlowTask; static, as is `steps`.
    params, frozen: trained and frozen trees.
    batch: as data/batch.py says; of generated modalities only the mask and the prompt.
    noise: {name: X_0 (W, T, ...)} of what `task.noised` names; windows that overlap share it.
    tracks: {name: (index (W, T), weight (T,))} of the generated ones (windows.Track).
    guidance: w of classifier-free guidance, () array; None: none, as w = 1, in half the work.
    shift: {name: of the time grid (flow.time_grid), () array}.
  Returns:
    {name: X_1 (W, T, ...)} of the generated modalities.
  """
  towers = task.towers(params, frozen)
  null = jax.tree.map(jnp.asarray, task.models.text.prepare(['']))
  text, null_text, masks, conditions = {}, {}, {}, {}
  for name in task.modalities:
    text[name] = task.encode(towers, name, batch[f'{name}_text'])
    masks[name] = task.mask(batch, name)
    if name in task.generate:
      null_text[name] = jax.tree.map(lambda x, like: jnp.broadcast_to(x, like.shape),
                                     task.encode(towers, name, null), text[name])
    else:
      t = task.condition_time(name, masks[name].shape[:1])
      x = task.clean(frozen, batch, name)
      x = x if task.is_features(name) else flow.interpolate(x, noise[name], t)
      conditions[name] = task.input_kind(x, t, *text[name], masks[name])
  features = task.features(params, frozen, conditions)  # computed once for all steps
  guide = task.fixed_guide(frozen, batch, noise)

  def velocity(x, t):
    inputs = {name: task.input_kind(x[name], jnp.full(x[name].shape[:1], t[name]), *text[name],
                          masks[name], **guide) for name in x}
    conditional = task.velocity(params, frozen, {
        name: (inputs | conditions)[name] for name in task.modalities}, features)
    out = {}
    for name in x:
      v = conditional[name]
      if guidance is not None:
        # The unconditional pass: Fusion Blocks bypassed, the generated tower alone, nothing said.
        bare = inputs[name].replace(text=null_text[name][0], text_mask=null_text[name][1])
        unconditional = task.models.towers[name].velocity(towers[name]['dit'], bare)
        v = flow.guide(v, unconditional, guidance)
      index, weight = tracks[name]
      out[name] = windows.blend(v, index, weight, index.size)[index]
    return out

  start = {name: noise[name] for name in task.generate}
  times = {name: flow.time_grid(steps, shift[name]) for name in task.generate}
  return flow.euler(velocity, start, times)


def place(task, config, mesh):
  """`generate` as a program of `mesh`, jitted: (params, frozen, batch, noise, tracks, guidance,
  shift) -> {name: X_1}, the whole of it on every device."""
  return jax.jit(
      sharding.over(mesh, functools.partial(generate, task, config.sample.steps)),
      out_shardings=sharding.whole(mesh))


def guidance_of(config):
  """The config's, as `generate` takes it."""
  return None if config.sample.guidance == 1 else config.sample.guidance


def abstract_arguments(task, config, mesh, frozen, count):
  """What `place`'s program takes for `count` windows, as shapes that know where they lie; `frozen`
  holds arrays or shapes (weights.frozen_shapes)."""
  models = task.models
  whole, rows = sharding.whole(mesh), sharding.batch_sharding(mesh)
  init = lambda frozen: task.sampled(task.init(jax.random.key(0), frozen))  # noqa: E731
  params = jax.eval_shape(init, frozen)
  batch = batches.shapes(count, task.reads, models.layout, models.text,
                         config.towers.video.features)
  for name in task.generate:  # of which there is the mask alone
    del batch[{'audio': 'mel', 'video': 'video'}[name]]
  data = {name: jax.ShapeDtypeStruct((count, *shape), jnp.float32)
          for name, shape in example_shapes(models).items()}
  if 'low' in task.noised:
    batch['low'] = jax.ShapeDtypeStruct(data['low'].shape, jnp.uint8)
  noise = {name: data[name] for name in task.noised}
  tracks = {name: (jax.ShapeDtypeStruct(data[name].shape[:2], jnp.int32),
                   jax.ShapeDtypeStruct(data[name].shape[1:2], jnp.float32))
            for name in task.generate}
  number = jax.ShapeDtypeStruct((), jnp.float32, weak_type=True)
  return (sharding.abstract(params, sharding.shardings(params, mesh)),
          sharding.abstract(frozen, sharding.shardings(frozen, mesh)),
          *sharding.abstract((batch, noise), rows),
          sharding.abstract(tracks, whole), None if guidance_of(config) is None else number,
          dict.fromkeys(task.generate, number))


def noise_of(clip_id, seed, name, shape):
  """X_0 of one clip, float32, drawn from (seed, clip id, modality) alone, so that a clip's sample
  does not depend on what else is in its batch. A longer clip begins with the same noise."""
  key = [seed, zlib.crc32(clip_id.encode()), zlib.crc32(name.encode())]
  return np.random.default_rng(key).standard_normal(shape, np.float32)


class Sampler:
  """Samples for clips: `sampler(clips, prompts, seed)`; compiled once for each batch shape."""

  def __init__(self, task, params, stats, frozen, config, mesh=None):
    """On `mesh` (default: what `config.mesh` makes of this machine's devices)."""
    del stats  # flow tasks keep none
    self.task, self.config = task, config
    self._mesh = mesh or sharding.make_mesh(**config.mesh)
    self._params, self._frozen = sharding.put((params, frozen), self._mesh)
    self.vocoder = (vocoder.load(config, task.models.layout.mel)
                    if 'audio' in task.generate else None)
    self._generate = place(task, config, self._mesh)
    # A clip's latents have other noise than the small picture that they go with was made of.
    self._streams = {} if task.models.video_codec is None else {'video': 'video latents'}
    self._decode = jax.jit(
        functools.partial(decode_mel, task.models.codec), out_shardings=sharding.whole(self._mesh))

  def plan(self, clip):
    """Starts in seconds of a clip's windows."""
    models = self.task.models
    return windows.window_starts(clip.duration, models.layout.seconds, self.config.sample.overlap,
                                 models.rates['video'], models.layout.fps)

  def batches(self, clips):
    """Groups clip indices so that a group's windows fill a batch."""
    group, used = [], 0
    for i, clip in enumerate(clips):
      count = len(self.plan(clip))
      if group and used + count > self.config.sample.batch_size:
        yield group
        group, used = [], 0
      group.append(i)
      used += count
    if group:
      yield group

  def __call__(self, clips, prompts, seed):
    """Generates for each clip.

    Args:
      clips: list of Clip: the conditioning material, and how long the result shall be.
      prompts: list of {'audio': text, 'video': text}.
      seed: of the noise.
    Returns:
      list of {'audio': float32 (S,)} and/or {'video': uint8 (N, H, W, 3)}, each as long as its
      clip (to the sample, and to the picture); 'low' is what was upsampled. Of several processes
      all make the call, with the same clips, and have the result.
    """
    models, task = self.task.models, self.task
    starts = [self.plan(clip) for clip in clips]
    shapes = example_shapes(models)
    tracks = {name: windows.track(starts, shapes[name][0], models.rates[name])
              for name in task.modalities}
    if 'low' in task.noised:
      tracks['low'] = tracks['video']
    batch = batches.stack(
        [self._window(clip, prompt, start) for clip, prompt, when in
         zip(clips, prompts, starts, strict=True) for start in when], models.text.prepare)
    noise = {name: np.concatenate([
        noise_of(clip.id, seed, self._streams.get(name, name), (int(size),) + shapes[name][1:])
        for clip, size in zip(clips, np.diff(tracks[name].first), strict=True)])[
            tracks[name].index] for name in task.noised}
    count = sum(map(len, starts))
    fill = padded_size(count, self.config.sample.batch_size, sharding.ways(self._mesh)) - count
    index = {name: (_fill_index(t.index, fill), t.weight)
             for name, t in tracks.items() if name in task.generate}
    batch, noise = sharding.put_rows(
        jax.tree.map(lambda x: _repeat_last(x, fill), (batch, noise)), self._mesh)
    x1 = self._generate(self._params, self._frozen, batch, noise, index,
                        guidance_of(self.config),
                        {name: self.config.sample.shift[name] for name in task.generate})
    results = [{} for _ in clips]
    for name in task.generate:
      finish = {'audio': self._sounds, 'video': self._pictures}[name]
      for result, made in zip(results, finish(x1[name][:count], starts, clips), strict=True):
        result[name] = made
    if 'low' in task.noised:
      for result, clip in zip(results, clips, strict=True):
        latents = -(-len(result['video']) // models.video_codec.time_stride)
        result['low'] = self._low(clip, 0.0, latents)
    return results

  def _window(self, clip, prompt, start):
    """One window's arrays; of a generated modality only the mask."""
    layout, generate = self.task.models.layout, self.task.generate
    window = {f'{name}_text': prompt[name] for name in ('audio', 'video')}
    left = clip.duration - start
    if 'audio' in generate:
      window['audio_mask'] = np.arange(layout.mel_frames) < math.ceil(left * layout.mel.rate)
    elif 'audio' in self.task.modalities:
      window['mel'], window['audio_mask'] = batches.sound(clip, start, layout)
    if 'video' in generate:
      window['video_mask'] = np.arange(layout.frames) < math.ceil(left * layout.fps)
      if 'low' in self.task.noised:
        window['low'] = self._low(clip, start)
    elif self.task.is_features('video'):
      window['video_features'], window['video_mask'] = batches.features(clip, start, layout)
    elif 'video' in self.task.modalities:
      window['video'], window['video_mask'] = batches.picture(clip, start, layout)
    return window

  def _sounds(self, latents, starts, clips):
    models, codec = self.task.models, self._frozen['codec']
    mel = np.asarray(self._decode(codec['params'], codec['std'], latents))
    spec = models.layout.mel
    t = windows.track(starts, mel.shape[1], spec.rate)
    flat = t.flat(mel)
    for i, clip in enumerate(clips):
      samples = round(clip.duration * spec.sample_rate)
      wave = self.vocoder(t.of_clip(flat, i)[:math.ceil(samples / spec.hop)])
      yield np.pad(wave, (0, max(0, samples - len(wave))))[:samples]

  def _pictures(self, x, starts, clips):
    models = self.task.models
    t = windows.track(starts, x.shape[1], models.rates['video'])
    flat = t.flat(np.asarray(x))
    for i, clip in enumerate(clips):
      count = math.ceil(round(clip.duration * models.layout.fps, 6))
      pictures = t.of_clip(flat, i)
      if models.video_codec is not None:
        pictures = pictures[:-(-count // models.video_codec.time_stride)]
        pictures = self.task.pictures(
            self._frozen, pictures, self._low(clip, 0.0, len(pictures)))
      yield as_uint8(pictures)[:count]

  def _low(self, clip, start, count=None):
    models = self.task.models
    shape = example_shapes(models)['low']
    return batches.low_picture(clip, start, (count or shape[0], *shape[1:]),
                               models.rates['video'])


def padded_size(count, batch_size, ways=1):
  """Windows are filled up to few sizes, so that little is compiled: the next power of two up to
  the batch size, and multiples of it beyond; then to what can be split in so many `ways`."""
  if count >= batch_size:
    size = -(-count // batch_size) * batch_size
  else:
    size = min(batch_size, 1 << (count - 1).bit_length())
  return -(-size // ways) * ways


def _repeat_last(values, times):
  return np.concatenate([values, np.repeat(values[-1:], times, axis=0)])


def _fill_index(index, times):
  """Windows that only fill the batch get rows of their own."""
  extra = index.max() + 1 + np.arange(times * index.shape[1]).reshape(times, index.shape[1])
  return np.concatenate([index, extra.astype(index.dtype)])
