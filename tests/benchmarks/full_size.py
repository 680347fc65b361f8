"""A training step and a sampler as `--mode=compile` compiles them, but run: with made-up weights
and data, on this machine's first device.

Weights and data are random: a GPU multiplies zeros faster.
"""

import dataclasses
import functools
import time

import jax
import numpy as np

from avlink_jax import compile as ahead
from avlink_jax.hardware import flops
from avlink_jax.sampling import sampler
from avlink_jax.sampling.export import SAMPLERS, one_way
from avlink_jax.training import programs, sharding, step
from tests import micro
from tests.benchmarks import contest


@dataclasses.dataclass(frozen=True)
class Job:
  """A jitted `function` with its arguments: `shapes` of those to be made up, and `rest`. `plain` is
  the same without jit, kernels and recomputation, and `counted` are the shapes it is called with.
  """
  function: object
  plain: object
  counted: tuple
  shapes: tuple
  rest: tuple = ()

  @property
  def flops(self):
    """Floating-point operations of a call, without those of recomputation."""
    return flops.of(self.plain, *ahead.without_sharding(self.counted))


def first_device():
  """Mesh of one device."""
  return sharding.make_mesh(devices=jax.devices()[:1])


def train_job(config, latents=False):
  """Job of a training step (State, frozen, batch). `latents`: of prepared records of latents."""
  mesh = first_device()
  task, plain = (ahead.task_of(config, mesh, **changes)
                 for changes in ({}, dict(remat='none', attention='reference')))
  jitted = programs.build(task, mesh, ahead.frozen_shapes(task, mesh))
  batch = prepared(task, jitted.batch) if latents else jitted.batch
  shapes = jitted.state, jitted.frozen, batch
  return Job(jitted.update, functools.partial(
      step.train_step, plain, step.make_optimizer(config), config), shapes, shapes)


def sample_job(config, latents=False):
  """Job of a sampler of `config.sample.batch_size` clips, as sampler.generate is called."""
  mesh = first_device()
  task, plain = (one_way(ahead.task_of(config, mesh, **changes), config.sample.direction)
                 for changes in ({}, dict(attention='reference')))
  frozen = ahead.frozen_shapes(task, mesh)
  program, uncompiled = (
      SAMPLERS[each.sampler].program(each, mesh, frozen) for each in (task, plain))
  params, frozen, batch, *others = program.arguments
  shapes = params, frozen, prepared(task, batch) if latents else batch, others[0]  # X_0
  rest = (micro.identity_tracks(task, program.clips), sampler.guidance_of(config),
          {name: config.sample.shift[name] for name in task.generate})
  return Job(program.function, uncompiled.plain, (*shapes, *others[1:]), shapes, rest)


def prepared(task, batch):
  """Shapes of a batch in which latents stand in the place of media, so that codecs do not run."""
  layout, found = task.models.layout, dict(batch)
  for codec in map(task.codec, task.modalities):
    media = [name for name in codec.arrays(layout) if name in found and name != codec.mask_name]
    for name in media if codec.part else ():
      like = found.pop(name)
      found[codec.latents_name] = jax.ShapeDtypeStruct(
          (like.shape[0], *codec.shape(layout)), np.float32, sharding=like.sharding)
  return found


def weights(shapes, seed=0):
  """Random parameters like `shapes`; the deviation of a codec's latents is 1."""
  return jax.tree_util.tree_map_with_path(
      lambda path, x: np.ones_like(x) if path[-1].key == 'std' else x,
      micro.random_like(shapes, seed))


def data(shapes):
  """Random data like `shapes`; masks are all True, and words are all the same one."""
  rng = np.random.default_rng(0)

  def one(leaf):
    if leaf.dtype == np.uint8:
      return np.resize(rng.integers(0, 256, micro.DISTINCT, np.uint8), leaf.shape)
    if np.issubdtype(leaf.dtype, np.floating):
      return np.resize(rng.standard_normal(micro.DISTINCT, np.float32), leaf.shape)
    return np.ones(leaf.shape, leaf.dtype)

  return jax.tree.map(one, shapes)


def made_up(job):
  """Arguments of a Job, on the device."""
  first, frozen, *others = job.shapes
  if isinstance(first, step.State):
    params = weights(first.params)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), first)
    first = zeros.replace(params=params, ema=jax.tree.map(np.copy, params))  # none is given twice
  else:
    first = weights(first)
  arrays = first, weights(frozen, 1), *map(data, others)
  placed = jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), arrays, job.shapes)
  return jax.block_until_ready([*placed, *job.rest])


def measured(job, calls):
  """Compiles a Job and runs it: {'seconds': of each call, 'compile_seconds', 'flops', 'loss' of a
  training step, memory in bytes}. Raises FloatingPointError: a result is not finite."""
  began = time.monotonic()
  arguments = made_up(job)
  made = time.monotonic()
  executable = job.function.lower(*arguments).compile()
  compiled = time.monotonic()
  seconds, results = [], None
  for _ in range(1 + calls):  # the first call also loads the program
    before = time.monotonic()
    results = jax.block_until_ready(executable(*arguments))
    seconds.append(time.monotonic() - before)
    if isinstance(arguments[0], step.State):
      arguments[0] = results[0]
  figures = results[1] if isinstance(arguments[0], step.State) else results
  if not all(np.isfinite(np.asarray(x, np.float32)).all() for x in jax.tree.leaves(figures)):
    raise FloatingPointError('a result is not finite')
  loss = {'loss': float(figures['loss'])} if 'loss' in figures else {}
  stats = jax.devices()[0].memory_stats() or {}
  return loss | {
      'seconds': seconds[1:], 'first_call_seconds': seconds[0],
      'compile_seconds': compiled - made, 'made_up_seconds': made - began, 'flops': job.flops,
      'peak_bytes': stats.get('peak_bytes_in_use'),
      'program_bytes': ahead.memory_of(executable)['peak_bytes_per_chip']}


def matrix_rate(side, dtype):
  """FLOP/s of a large matrix product."""
  x = jax.device_put(np.resize(np.random.default_rng(0).standard_normal(
      micro.DISTINCT, np.float32), (side, side)).astype(dtype))
  product = jax.jit(lambda x: x @ x)
  return contest.matrix_rate(lambda: jax.block_until_ready(product(x)), side)
