"""MODE compile: the real train step and the real sampler, compiled for chips that are not there.

Nothing is read: weights, data, prompts are shapes. What comes of it is what those programs would
need and do: memory a chip, FLOPs, bytes between chips.
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
from avlink_jax.training import memory, sharding
from avlink_jax.training import step as training
from avlink_jax.training.programs import place

GIB = 2**30
CONTRACT = ('fits', 'peak_bytes_per_chip', 'flops_per_step', 'collective_bytes', 'compile_seconds')
UNITS = {'': 1, 'K': 2**10, 'M': 2**20, 'G': GIB, 'T': 2**40}


def compile_ahead(config: ConfigDict, name: str, part: str = 'both') -> dict:
  """Compiles what `part` says ('train', 'sample' or 'both') of `config` for the topology `name`.

  Returns the report, a dict: the train step's figures, and under 'sampler' the sampler's. Numbers
  are null where they are not known, a part's where it was not asked for. Raises UserError.
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


def per_clip(told):
  """The sampler's figures: a step is one of Euler's, for all clips; collectives are of all steps
  together."""
  for key in ('flops', 'model_flops'):
    whole = told[f'{key}_per_step']
    told |= {f'{key}_per_step': whole // told['steps'], f'{key}_per_clip': whole // told['clips']}
  return told


@dataclasses.dataclass(frozen=True)
class Program:
  """A jitted function and the shapes it is compiled for; what one run of it is worth.

  model_flops: of the whole run, without what is computed again.
  remedies: what would make it smaller, 'key=value' each.
  about: what else to report of it.
  """
  function: object
  arguments: tuple
  model_flops: int
  remedies: list
  about: dict


def task_of(config, mesh, **changes):
  """The config's task as it is in a run, but for prompts, which are not read."""
  config = ConfigDict(config)
  config.update(changes)
  platform = mesh.devices.flat[0].platform
  models = model_builder.build(config, precision.of(platform).compute, platform)
  return tasks.make(config, models.shapes_only)


def frozen_shapes(task, mesh):
  """What is frozen, as a run there keeps it."""
  policy = precision.of(mesh.devices.flat[0].platform)
  return frozen_parts.shapes(task.models, task.frozen_parts, policy.frozen)


def train_step(config, mesh):
  """The Program of one step of training."""
  task = task_of(config, mesh)
  placed = place(task, mesh, frozen_shapes(task, mesh))
  plain = task_of(config, mesh, remat='none', attention='reference')
  optimizer = training.make_optimizer(config)
  step = lambda *args: training.train_step(plain, optimizer, config, *args)  # noqa: E731
  arguments = (placed.state, placed.frozen, placed.batch)
  return Program(placed.update, arguments, flops.of(step, *unplaced(arguments)),
                 memory.for_training(task, mesh.size),
                 dict(global_batch=config.train.batch_size, accumulate=config.train.accumulate))


def sampling(config, mesh):
  """The Program of the sampler, of a codec that of decoding; None of a task that has none."""
  task, plain = (one_way(task_of(config, mesh, **changes), config.sample.direction)
                 for changes in ({}, dict(attention='reference')))
  sampler, frozen = SAMPLERS[task.sampler], frozen_shapes(task, mesh)
  program = sampler.program(task, mesh, frozen)
  if program is None:
    return None
  return Program(program.function, program.arguments,
                 flops.of(sampler.program(plain, mesh, frozen).plain, *unplaced(program.arguments)),
                 memory.for_sampling(config, mesh.size) if task.prompted else [],
                 dict(clips=program.clips, steps=program.steps))


def unplaced(tree):
  """Shapes that lie nowhere."""
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def figures(name, program, mesh):
  """Compiles a Program and says what it needs and does."""
  started = time.monotonic()
  traced = program.function.trace(*program.arguments)
  executed = flops.count(traced.jaxpr)
  say(f'{name}: {executed / 1e12:.4g} TFLOP, of which {program.model_flops / 1e12:.4g} without '
      'recomputation; compiling ...')
  needed, sent = compiled(name, program, traced.lower(), mesh)
  seconds = time.monotonic() - started
  return program.about | needed | fitting(name, program, needed, mesh) | dict(
      flops_per_step=executed, model_flops_per_step=program.model_flops,
      collective_bytes=sent, compile_seconds=round(seconds, 1))


def compiled(name, program, lowered, mesh):
  """(bytes a chip needs, bytes it sends by kind of collective: None where XLA gave up for want of
  memory)."""
  try:
    made = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    needed = too_large(str(error), program.arguments)
    if needed is None:
      raise
    return needed, None
  sent, unknown = collectives.count(made.as_text(), mesh.size)
  if unknown:
    say(f'{name}: {unknown} loops of unknown length: their collectives are counted once')
  return memory_of(made), sent


def fitting(name, program, needed, mesh):
  """Whether it fits, and how much is left, or lacks; said to the user too."""
  hbm, peak = chips.MEMORY.get(mesh.devices.flat[0].device_kind), needed['peak_bytes_per_chip']
  if hbm is None:
    say(f'{name}: {peak / GIB:.2f} GiB a chip')
    return dict(fits=None, hbm_bytes_per_chip=None, headroom_bytes_per_chip=None)
  told = f'{name}: {peak / GIB:.2f} GiB a chip, of {hbm / GIB:.2f}: '
  say(told + ('fits' if peak <= hbm else
              f'{(peak - hbm) / GIB:.2f} too much; ' + (
                  f'try --config.{" or --config.".join(program.remedies)}' if program.remedies
                  else 'take more chips, or a smaller scale')))
  return dict(fits=peak <= hbm, hbm_bytes_per_chip=hbm, headroom_bytes_per_chip=hbm - peak)


def memory_of(compiled):
  """Bytes a chip holds while the program runs.

  The peak is what is handed in and out, the two of them sharing what is donated, the block of
  temporaries, and the program itself: XLA reserves all of it before the first instruction.
  `peak_memory_in_bytes` of newer releases is less by what lies idle in that block.
  """
  m = compiled.memory_analysis()
  parts = dict(argument=m.argument_size_in_bytes, output=m.output_size_in_bytes,
               alias=m.alias_size_in_bytes, temporary=m.temp_size_in_bytes,
               code=m.generated_code_size_in_bytes)
  peak = sum(parts.values()) - 2 * parts['alias']
  return {f'{part}_bytes_per_chip': size for part, size in parts.items()} | {
      'peak_bytes_per_chip': peak}


def too_large(message, arguments):
  """`memory_of` a program that XLA gave up on, from what it says; None where it says nothing."""
  found = re.search(r'\(([\d.]+)([KMGT]?)\) exceeds available', message)
  if 'RESOURCE_EXHAUSTED' not in message or not found:
    return None
  needed = round(float(found[1]) * UNITS[found[2]])  # whatever the message calls it: all of it
  given = sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
              for x in jax.tree.leaves(arguments) if x.sharding is not None)
  return dict.fromkeys(f'{part}_bytes_per_chip' for part in ('output', 'alias', 'code')) | dict(
      argument_bytes_per_chip=given, temporary_bytes_per_chip=needed - given,
      peak_bytes_per_chip=needed)
