"""Sampling from the flow: clips and prompts in, media out.

`generate` is the pure, jitted part: one scan of steps over the generated modalities, while the
conditioning ones stay at their flow time (Sec. 3.3). What is computed of the conditioning stream
may stand for several steps (`sample.refresh`). `Sampler` wraps it for clips of any length, in
batches of one shape.
"""

import dataclasses
import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from avlink_jax import flow
from avlink_jax.build import example_shapes
from avlink_jax.data import batch as batches
from avlink_jax.sampling import long, stepwise, windows
from avlink_jax.sampling.program import Program
from avlink_jax.sampling.velocity import fix
from avlink_jax.training import sharding


def generate(task, schedule, params, frozen, batch, noise, tracks, guidance, shift):
  """Integrates from noise to data, for every window of a batch.

  Args:
    task: tasks.FlowTask; static, as is `schedule` (schedule.Schedule).
    params, frozen: trained and frozen trees.
    batch: as in data/batch.py; of generated modalities only masks and prompts.
    noise: {name: X_0 (W, T, ...)} of all data with noise; overlapping windows share it.
    tracks: {name: (index (W, T), weight (T,))} of generated modalities (windows.Track).
    guidance: w of classifier-free guidance, () array; None: no guidance, in half the time.
    shift: {name: shift of the time grid (flow.time_grid), () array}.
  Returns:
    {name: X_1 (W, T, ...)} of the generated modalities.
  """
  velocity = stepwise.velocity(task, schedule, params, frozen, fix(
      task, params, frozen, batch, noise), tracks, guidance)
  start = {name: noise[name] for name in task.generate}
  times = {name: flow.time_grid(schedule.steps, shift[name]) for name in task.generate}
  return flow.solve(velocity, start, times, flow.SOLVERS[schedule.solver], schedule.refresh)


def jitted(task, mesh):
  """Jitted `generate` on `mesh`: (params, frozen, batch, noise, tracks, guidance, shift) ->
  {name: X_1}, replicated."""
  return jax.jit(
      sharding.on_mesh(mesh, functools.partial(generate, task, task.schedule)),
      out_shardings=sharding.replicated(mesh))


def guidance_of(config):
  """Guidance argument of `generate` from the config."""
  return None if config.sample.guidance == 1 else config.sample.guidance


def noise_shapes(task):
  """Mapping {name: shape of one window's X_0} of all data with noise."""
  shapes = example_shapes(task.models)
  guides = {} if task.guide is None else {task.guide.noise: task.guide.shape}
  return {name: shapes[name] for name in task.noised} | guides


def abstract_arguments(task, mesh, frozen, count):
  """Shapes, with shardings, of the arguments of `jitted`'s function for `count` windows; `frozen`
  holds arrays or shapes (tasks/frozen.py)."""
  models, config = task.models, task.config
  init = lambda frozen: task.exported(task.init(jax.random.key(0), frozen))  # noqa: E731
  params = jax.eval_shape(init, frozen)
  batch = batches.shapes(count, task.readers, models.layout, task.texts)
  for codec in map(task.codec, task.generate):  # only their masks are in the batch
    batch = {name: x for name, x in batch.items()
             if name not in codec.arrays(models.layout) or name == codec.mask_name}
  if task.guide is not None:
    batch |= {task.guide.noise: jax.ShapeDtypeStruct((count, *task.guide.shape), jnp.uint8)}
  noise = {name: jax.ShapeDtypeStruct((count, *shape), jnp.float32)
           for name, shape in noise_shapes(task).items()}
  tracks = {name: (jax.ShapeDtypeStruct(noise[name].shape[:2], jnp.int32),
                   jax.ShapeDtypeStruct(noise[name].shape[1:2], jnp.float32))
            for name in task.generate}
  number = jax.ShapeDtypeStruct((), jnp.float32, weak_type=True)
  return (sharding.abstract(params, sharding.shardings(params, mesh)),
          sharding.abstract(frozen, sharding.shardings(frozen, mesh)),
          *sharding.abstract((batch, noise), sharding.batch_sharding(mesh)),
          sharding.abstract(tracks, sharding.replicated(mesh)),
          None if guidance_of(config) is None else number,
          dict.fromkeys(task.generate, number))


def noise_of(identity, seed, name, shape):
  """Function count -> the next rows (count, *shape) of one clip's X_0, float32, drawn from (seed,
  the clip's identity, name) alone: a clip's sample does not depend on its batch, and a longer clip
  begins with the same noise."""
  key = [seed, zlib.crc32(identity.encode(errors='surrogateescape')), zlib.crc32(name.encode())]
  rng = np.random.default_rng(key)
  return lambda count: rng.standard_normal((int(count), *shape), np.float32)


def decoder(codec):
  """Function (weights, data (W, T, …), mask (W, T)) -> decoded windows."""
  return lambda weights, data, mask: codec.decode(weights, codec.padded(weights, data, mask))


class Sampler:
  """Generates media for clips: `sampler(trained, clips, prompts, seed)`.

  It is built once in a run and keeps what it has compiled for each batch shape.
  """

  def __init__(self, task, frozen, mesh=None):
    """Prepares sampling on `mesh` (default: this machine's devices as in `config.mesh`)."""
    self.task, self.config = task, task.config
    self._mesh = mesh or sharding.make_mesh(**self.config.mesh)
    self._frozen = sharding.shard(frozen, self._mesh)
    self._generate = jitted(task, self._mesh)
    self._decode = {name: jax.jit(decoder(task.codec(name)),
                                  out_shardings=sharding.replicated(self._mesh))
                    for name in task.generate}

  @staticmethod
  def program(task, mesh, frozen):
    """Program for `--mode=compile`."""
    count = task.config.sample.batch_size
    clips = padded_size(count, count, sharding.batch_shards(mesh))
    return Program(jitted(task, mesh), abstract_arguments(task, mesh, frozen, clips), clips,
                   task.config.sample.steps,
                   functools.partial(generate, task, task.schedule))

  def plan(self, clip):
    """Starts of a clip's windows in seconds, on the common grid of its modalities, so that frames
    and latents of overlapping windows coincide."""
    task, layout = self.task, self.task.models.layout
    step = windows.common_step([task.codec(name).rate for name in task.modalities], layout.seconds)
    covered = min(task.codec(name).covered(layout) for name in task.generate)
    return windows.window_starts(
        clip.duration, layout.seconds, self.config.sample.overlap, step, covered)

  def batches(self, clips):
    """Yields groups of clip indices whose windows fill a batch."""
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

  def windows(self, clip):
    """Number of a clip's windows."""
    return len(self.plan(clip))

  def steps(self, clips):
    """How often `stepped` is called for these clips."""
    return sum(self._steps([self.plan(clips[i]) for i in group]) for group in self.batches(clips))

  def _steps(self, starts):
    schedule = self.task.schedule
    return (long.EVALUATIONS[schedule.solver](schedule.steps) * self._passes.count(starts[0])
            if self._is_long(starts) else schedule.steps)

  def _is_long(self, starts):
    """Whether these are the windows of one clip that has more of them than a batch."""
    return len(starts) == 1 and len(starts[0]) > self.config.sample.batch_size

  def __call__(self, trained, clips, prompts, seed, report=lambda windows: None, stepped=None):
    """Generates for each clip.

    Args:
      trained: trained.Trained, with parameters on the mesh or the host.
      clips: list of Clip, with the conditioning media and the duration of the result.
      prompts: list of {modality: text}, which may have f'{modality}_negative' too.
      seed: the noise's seed.
      report: called with the number of windows that are done since its last call.
      stepped: called after each step, or of a long clip each pass; what it raises ends the work.
        Without it all steps are one program.
    Returns:
      list of {modality: media}, float32 (S,) or uint8 (N, H, W, 3), each as long as its clip (to
      the sample, and to the frame); of the upsampler also 'low', its input; None for a clip of
      which something is not finite. All processes call it with the same clips, and all get the
      result.
    """
    clips = [self._levelled(clip) for clip in clips]
    starts = [self.plan(clip) for clip in clips]
    params = sharding.shard(trained.params, self._mesh)
    decoded = (self._in_passes if self._is_long(starts) else self._at_once)(
        params, clips, prompts, starts, seed, report, stepped)
    return [self._media(clip, {name: track.of_clip(flat, i)
                               for name, (flat, track) in decoded.items()})
            for i, clip in enumerate(clips)]

  def _media(self, clip, decoded):
    """Media of one clip of its decoded frames {name: (T, …)}; None: some are not finite."""
    task = self.task
    if not all(np.isfinite(frames).all() for frames in decoded.values()):
      return None
    media = {name: task.finish(self._frozen, name, frames, clip)
             for name, frames in decoded.items()}
    if task.guide is not None:
      media[task.guide.noise] = task.guide.of_media(clip, media[task.guide.name])
    return media

  def _at_once(self, params, clips, prompts, starts, seed, report, stepped):
    """Mapping {name: (decoded frames of all clips, their Track)}."""
    task = self.task
    batch = batches.stack(
        [self._window(clip, prompt, start) for clip, prompt, clip_starts in
         zip(clips, prompts, starts, strict=True) for start in clip_starts], task.prepare)
    tracks = self._tracks(starts)
    noise = {name: np.concatenate([draw(size) for draw, size in zip(
        (self._draw(clip, seed, name) for clip in clips), np.diff(track.first), strict=True)])[
            track.index] for name, track in tracks.items()}
    count = sum(map(len, starts))
    shards = sharding.batch_shards(self._mesh)
    fill = padded_size(count, self.config.sample.batch_size, shards) - count
    masks = {name: np.asarray(task.codec(name).mask(batch)) for name in task.generate}
    index = {name: (_fill_index(tracks[name].index, fill), tracks[name].weight)
             for name in task.generate}
    batch, noise = sharding.shard_rows(
        jax.tree.map(lambda x: _repeat_last(x, fill), (batch, noise)), self._mesh)
    generate = self._generate if stepped is None else functools.partial(
        self._stepwise, stepped=stepped)
    x1 = generate(params, self._frozen, batch, noise, index, guidance_of(self.config),
                  {name: self.config.sample.shift[name] for name in task.generate})
    decoded = {name: np.asarray(self._decode[name](
        task.codec_weights(self._frozen, name), x1[name][:count], masks[name]))
               for name in task.generate}
    report(count)
    tracks = {name: self._decoded_track(name, starts, x.shape[1]) for name, x in decoded.items()}
    return {name: (track.flat(decoded[name]), track) for name, track in tracks.items()}

  def _in_passes(self, params, clips, prompts, starts, seed, report, stepped):
    """As `_at_once`, of one clip with more windows than a batch."""
    task, (clip,), (prompt,) = self.task, clips, prompts
    passes, tracks = self._passes, self._tracks(starts)
    rows = {name: long.Rows(self._draw(clip, seed, name))
            for name in tracks if name not in task.generate}
    parts = {name: passes.split(track.index) for name, track in tracks.items()}
    read = ((batches.stack([self._window(clip, prompt, start) for start in some],
                           task.prepare),
             {name: of_name(parts[name][i]) for name, of_name in rows.items()})
            for i, some in enumerate(passes.split(starts[0])))
    x1 = passes.generate(
        params, self._frozen, read,
        {name: self._draw(clip, seed, name)(tracks[name].rows) for name in task.generate},
        {name: tracks[name] for name in task.generate}, guidance_of(self.config), report,
        stepped or (lambda: None))
    result = {}
    for name, x in x1.items():
      decode = functools.partial(self._decode[name], task.codec_weights(self._frozen, name))
      total, done = None, 0
      masks = self._masks(name, clip, starts[0])
      for decoded in passes.decode(decode, x, tracks[name], masks):
        if total is None:
          track = self._decoded_track(name, starts, decoded.shape[1])
          total = windows.Sum((track.rows, *decoded.shape[2:]))
        index = track.index[done:done + len(decoded)]
        total.add(np.asarray(decoded), index, track.weight)
        done += len(decoded)
      result[name] = total.mean(), track
    return result

  def _masks(self, name, clip, starts):
    """Mask (W, T) of a generated modality's data in each window of a clip."""
    codec, layout = self.task.codec(name), self.task.models.layout
    blanks = [codec.blank(clip.duration - start, layout) for start in starts]
    return np.asarray(codec.mask(jax.tree.map(lambda *rows: np.stack(rows), *blanks)))

  @functools.cached_property
  def _stepwise(self):
    return stepwise.Stepwise(self.task, self._mesh)

  @functools.cached_property
  def _passes(self):
    size = self.config.sample.batch_size
    return long.Passes(self.task, self._mesh,
                       padded_size(size, size, sharding.batch_shards(self._mesh)))

  def _levelled(self, clip):
    """Clip of several windows with its audio at the level of its codec, as a whole: each window's
    own level would make a quiet part as loud as the loudest, and what windows share differ."""
    if len(self.plan(clip)) > 1:
      for name in self._heard:
        clip = dataclasses.replace(clip, audio=self.task.codec(name).normalise(clip.audio))
    return clip

  @property
  def _heard(self):
    """Modalities that condition and are read from a clip's audio."""
    return [name for name in self.task.conditions if self.task.codec(name).sample_rate]

  def _window(self, clip, prompt, start):
    """Arrays of one window; of a generated modality only the mask."""
    layout, task = self.task.models.layout, self.task
    window = {f'{name}_text': text for name, text in prompt.items()}
    several = len(self.plan(clip)) > 1  # whose level `_levelled` has set
    for name in task.modalities:
      codec = task.codec(name).keeping_level if several else task.codec(name)
      window |= (codec.blank(clip.duration - start, layout) if name in task.generate
                 else batches.read(clip, start, layout, codec))
    return window if task.guide is None else window | task.guide.window(clip, start)

  def _tracks(self, starts):
    """Mapping {name: Track} of all data with noise."""
    task, shapes = self.task, noise_shapes(self.task)
    tracks = {name: windows.track(starts, shapes[name][0], task.codec(name).rate,
                                  task.codec(name).short_first) for name in task.noised}
    if task.guide is not None:
      tracks[task.guide.noise] = tracks[task.guide.name]
    return tracks

  def _decoded_track(self, name, starts, steps):
    """Track of what a modality's codec decodes, `steps` frames a window."""
    codec = self.task.codec(name)
    return windows.track(starts, steps, codec.decoded_rate, codec.short_first)

  def _draw(self, clip, seed, name):
    """Function count -> the next rows of a clip's X_0 of `name`."""
    task = self.task
    stream = task.codec(name).noise if name in task.noised else name
    return noise_of(clip.noise or clip.id, seed, stream, noise_shapes(task)[name][1:])


def padded_size(count, batch_size, shards=1):
  """Number of windows after padding to few sizes, so that little is compiled: the next power of two
  up to the batch size, multiples of it beyond; then to a multiple of `shards`."""
  if count >= batch_size:
    size = -(-count // batch_size) * batch_size
  else:
    size = min(batch_size, 1 << (count - 1).bit_length())
  return -(-size // shards) * shards


def _repeat_last(values, times):
  return np.concatenate([values, np.repeat(values[-1:], times, axis=0)])


def _fill_index(index, times):
  """Extends an index (W, T) with rows of their own for padding windows."""
  extra = index.max() + 1 + np.arange(times * index.shape[1]).reshape(times, index.shape[1])
  return np.concatenate([index, extra.astype(index.dtype)])
