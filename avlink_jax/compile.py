"""Mode `compile`: the train step and the sampler, compiled for chips that this machine lacks.

Weights, data and prompts are shapes; nothing is read. The result is what the programs would need:
memory a chip, FLOPs, bytes exchanged between chips.
"""

import dataclasses
import math
import re
import time

import jax
from ml_collections import ConfigDict

from avlink_jax import build as model_builder
from avlink_jax import tasks
from avlink_jax.hardware import chips, collectives, flops, precision, topology
from avlink_jax.model import attention
from avlink_jax.sampling.export import SAMPLERS, one_way
from avlink_jax.storage.console import say
from avlink_jax.tasks import frozen as frozen_parts
from avlink_jax.training import memory, programs, sharding, step

GIB = 2**30
CONTRACT = ('fits', 'peak_bytes_per_chip', 'flops_per_step', 'collective_bytes', 'compile_seconds')
UNITS = {'': 1, 'K': 2**10, 'M': 2**20, 'G': GIB, 'T': 2**40}


def compile_ahead(config: ConfigDict, name: str, part: str = 'both') -> dict:
  """Compiles `part` ('train', 'sample' or 'both') of `config` for the topology `name`.

  Returns the report, a dict: the train step's figures and, under 'sampler', the sampler's. Figures
  are null if unknown, or if their part was not compiled. Raises UserError.
  """
  devices = topology.devices(name)
  mesh = sharding.make_mesh(**config.mesh, devices=devices)
  chip, config = devices[0].device_kind, ConfigDict(config)
  config.attention = attention.choose(config.attention, devices[0].platform)
  say(f'{config.task}, {config.scale}, for {len(devices)} × {chip}, mesh {dict(mesh.shape)}, '
      f'attention {config.attention}')
  train = train_step(config, mesh) if part != 'sample' else None
  report = dict(
      topology=name, chips=len(devices), chip=chip, hbm_bytes_per_chip=chips.MEMORY.get(chip),
      mesh=dict(mesh.shape), task=config.task, scale=config.scale, attention=config.attention,
      remat=config.remat)
  report |= figures('train step', train, mesh) if train else dict.fromkeys(CONTRACT)
  sample = sampling(config, mesh) if part != 'train' else None
  return report | {'sampler': per_clip(figures('sampler', sample, mesh)) if sample else None}


def per_clip(report):
  """Converts the sampler's figures of a run to figures per Euler step (of all clips) and per clip;
  collectives stay those of all steps."""
  for key in ('flops', 'model_flops'):
    total = report[f'{key}_per_step']
    report |= {f'{key}_per_step': total // report['steps'],
               f'{key}_per_clip': total // report['clips']}
  return report


@dataclasses.dataclass(frozen=True)
class CompileJob:
  """Jitted function to be compiled, and shapes of its arguments.

  model_flops: FLOPs of a call, without recomputation.
  remedies: settings that would reduce its memory, 'key=value' each.
  about: additional figures for the report.
  """
  function: object
  arguments: tuple
  model_flops: int
  remedies: list
  about: dict


def task_of(config, mesh, **changes):
  """Task of a config as in a run, but with text encoders for shapes only."""
  config = ConfigDict(config)
  config.update(changes)
  platform = mesh.devices.flat[0].platform
  models = model_builder.build(config, precision.of(platform).compute, platform)
  return tasks.make(config, models.shapes_only)


def frozen_shapes(task, mesh):
  """Shapes of the frozen tree, in a run's precision."""
  policy = precision.of(mesh.devices.flat[0].platform)
  return frozen_parts.shapes(task.models, task.frozen_parts, policy.frozen)


def train_step(config, mesh):
  """CompileJob of one step of training."""
  task = task_of(config, mesh)
  jitted = programs.build(task, mesh, frozen_shapes(task, mesh))
  plain = task_of(config, mesh, remat='none', attention='reference')
  optimizer = step.make_optimizer(config)
  plain_step = lambda *args: step.train_step(plain, optimizer, config, *args)  # noqa: E731
  arguments = (jitted.state, jitted.frozen, jitted.batch)
  return CompileJob(jitted.update, arguments, flops.of(plain_step, *without_sharding(arguments)),
                    memory.for_training(task, mesh.size),
                    dict(global_batch=config.train.batch_size, accumulate=config.train.accumulate))


def sampling(config, mesh):
  """CompileJob of the sampler or, for codecs, of decoding; None if the task has none."""
  task, plain = (one_way(task_of(config, mesh, **changes), config.sample.direction)
                 for changes in ({}, dict(attention='reference')))
  sampler, frozen = SAMPLERS[task.sampler], frozen_shapes(task, mesh)
  program = sampler.program(task, mesh, frozen)
  if program is None:
    return None
  model_flops = flops.of(sampler.program(plain, mesh, frozen).plain,
                         *without_sharding(program.arguments))
  about = dict(clips=program.clips, steps=program.steps)
  if task.prompted and config.sample.refresh > 1:
    about |= dict(flops_per_kept_step=kept_step_flops(config, mesh))
  return CompileJob(program.function, program.arguments, model_flops,
                    memory.for_sampling(config, mesh.size) if task.prompted else [], about)


def kept_step_flops(config, mesh):
  """FLOPs of a step, of all clips, in which the conditioning stream stands (`sample.refresh`)."""
  def of(steps):  # of which the first refreshes
    task = one_way(task_of(config, mesh, attention='reference', sample=dict(
        steps=steps, refresh=steps)), config.sample.direction)
    program = SAMPLERS[task.sampler].program(task, mesh, frozen_shapes(task, mesh))
    return flops.of(program.plain, *without_sharding(program.arguments))

  return of(3) - of(2)


def without_sharding(tree):
  """Shapes without shardings."""
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def figures(name, job, mesh):
  """Compiles a CompileJob: {figure: value}."""
  started = time.monotonic()
  traced = job.function.trace(*job.arguments)
  executed = flops.count(traced.jaxpr)
  say(f'{name}: {executed / 1e12:.4g} TFLOP, of which {job.model_flops / 1e12:.4g} without '
      'recomputation; compiling ...')
  needed, sent = compiled(name, job, traced.lower(), mesh)
  seconds = time.monotonic() - started
  return job.about | needed | headroom(name, job, needed, mesh) | dict(
      flops_per_step=executed, model_flops_per_step=job.model_flops,
      collective_bytes=sent, compile_seconds=round(seconds, 1))


def compiled(name, job, lowered, mesh):
  """Compiles: (bytes that a chip needs, bytes that it sends by kind of collective, or None if XLA
  stopped for lack of memory)."""
  try:
    executable = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    needed = too_large(str(error), job.arguments)
    if needed is None:
      raise
    return needed, None
  sent, unknown = collectives.count(executable.as_text(), mesh.size)
  if unknown:
    say(f'{name}: {unknown} loops of unknown length: their collectives are counted once')
  return memory_of(executable), sent


def headroom(name, job, needed, mesh):
  """Figures on whether the program fits a chip, which are also printed."""
  hbm, peak = chips.MEMORY.get(mesh.devices.flat[0].device_kind), needed['peak_bytes_per_chip']
  if hbm is None:
    say(f'{name}: {peak / GIB:.2f} GiB a chip')
    return dict(fits=None, hbm_bytes_per_chip=None, headroom_bytes_per_chip=None)
  advice = (f'try --config.{" or --config.".join(job.remedies)}' if job.remedies
            else 'take more chips, or a smaller scale')
  say(f'{name}: {peak / GIB:.2f} GiB a chip, of {hbm / GIB:.2f}: ' + (
      'fits' if peak <= hbm else f'{(peak - hbm) / GIB:.2f} too much; {advice}'))
  return dict(fits=peak <= hbm, hbm_bytes_per_chip=hbm, headroom_bytes_per_chip=hbm - peak)


def memory_of(executable):
  """Memory of a chip while the program runs, bytes by kind.

  The peak is the sum of arguments, outputs (less donated arguments), temporaries and code: XLA
  reserves all of it before the first instruction. `peak_memory_in_bytes` of newer releases omits
  the unused part of the temporaries.
  """
  m = executable.memory_analysis()
  parts = dict(argument=m.argument_size_in_bytes, output=m.output_size_in_bytes,
               alias=m.alias_size_in_bytes, temporary=m.temp_size_in_bytes,
               code=m.generated_code_size_in_bytes)
  peak = sum(parts.values()) - 2 * parts['alias']
  return {f'{part}_bytes_per_chip': size for part, size in parts.items()} | {
      'peak_bytes_per_chip': peak}


def too_large(message, arguments):
  """Figures as `memory_of`, from XLA's message on a program it rejected; None without a size."""
  match = re.search(r'\(([\d.]+)([KMGT]?)\) exceeds available', message)
  if 'RESOURCE_EXHAUSTED' not in message or not match:
    return None
  needed = round(float(match[1]) * UNITS[match[2]])  # the program's total
  argument_bytes = sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
                       for x in jax.tree.leaves(arguments) if x.sharding is not None)
  return dict.fromkeys(f'{part}_bytes_per_chip' for part in ('output', 'alias', 'code')) | dict(
      argument_bytes_per_chip=argument_bytes, peak_bytes_per_chip=needed,
      temporary_bytes_per_chip=needed - argument_bytes)
