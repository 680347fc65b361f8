"""Time of a training step and of 64-step sampling, compiled once, on this machine.

    python -m tests.benchmarks.step [--scale=nano] [--batch=16] TASK[:KEY=VALUE,...] [...]

Prints medians, how often the sampler was compiled, the floating-point operations of both as XLA
counts them (a loop's body once), and the memory of a training step: state, batch and what it needs
besides. What going without reinjection saves (Sec. 4.4):

    python -m tests.benchmarks.step v2a v2a:fusion.reinject=False
"""

import argparse
import ast
import functools
import importlib
import statistics
import time

import jax
import numpy as np

from avlink_jax import build as models
from avlink_jax import tasks
from avlink_jax.sampling import sampler
from avlink_jax.training import step as training


def random_batch(task, size, rng):
  """A batch of noise in the layout of data/batch.py."""
  layout, text = task.models.layout, task.models.modalities['audio'].text
  batch = {f'{name}_text': text.prepare(['a hammer strikes metal'] * size)
           for name in ('audio', 'video')}
  if 'video' in task.modalities:
    shape = (size, layout.frames, layout.height, layout.width, 3)
    batch['video'] = rng.integers(0, 255, shape).astype(np.uint8)
    batch['video_mask'] = np.ones(shape[:2], bool)
  if 'audio' in task.modalities:
    shape = (size, *task.codec('audio').arrays(layout)['mel'][1])
    batch['mel'] = rng.standard_normal(shape, np.float32)
    batch['audio_mask'] = np.ones(shape[:2], bool)
  return batch


def random_frozen(task):
  """Frozen parts of the right shapes; timing needs no trained ones."""
  key, built = jax.random.key(0), task.models
  return {'codec': built.modalities['audio'].codec.init(key),
          'towers': {name: {'dit': modality.tower.init(key), 'text': modality.text.init(key)}
                     for name, modality in built.modalities.items()}}


def median_seconds(function, repeats):
  times = []
  for _ in range(repeats):
    start = time.perf_counter()
    jax.block_until_ready(function())
    times.append(time.perf_counter() - start)
  return statistics.median(times)


def config_of(spec, scale):
  """'v2a:fusion.reinject=False' -> the config with that changed."""
  name, _, changes = spec.partition(':')
  config = importlib.import_module(f'configs.{name}').get_config(scale)
  for change in filter(None, changes.split(',')):
    key, value = change.split('=')
    try:
      value = ast.literal_eval(value)
    except ValueError:
      pass  # a word
    config.update_from_flattened_dict({key: value})
  return config


def flops(compiled):
  """In GFLOP."""
  return compiled.cost_analysis()['flops'] / 1e9


def memory(compiled):
  """Peak, in GiB."""
  sizes = compiled.memory_analysis()
  return (sizes.argument_size_in_bytes + sizes.temp_size_in_bytes
          + sizes.output_size_in_bytes - sizes.alias_size_in_bytes) / 2**30


def measure(name, scale, size):
  config = config_of(name, scale)
  task = tasks.make(config, models.build(config))
  optimizer, frozen = training.make_optimizer(config), random_frozen(task)
  state = jax.jit(functools.partial(training.init, task, optimizer, 0))(frozen)
  batch = random_batch(task, size, np.random.default_rng(0))
  update = jax.jit(functools.partial(training.train_step, task, optimizer, config),
                   donate_argnums=0)
  start = time.perf_counter()
  update = update.lower(state, frozen, batch).compile()
  compile_seconds = time.perf_counter() - start

  def one_step():
    nonlocal state
    state, _ = update(state, frozen, batch)
    return state

  one_step()
  line = (f'{name} {scale} batch {size}: compile {compile_seconds:.1f} s, '
          f'train step {median_seconds(one_step, 10):.3f} s, {flops(update):.1f} GFLOP, '
          f'{memory(update):.2f} GiB')
  if task.sampler == 'flow':
    made = sampler.Sampler(task, frozen)
    noise = {n: np.zeros((size,) + shape, np.float32)
             for n, shape in sampler.noise_shapes(task).items()}
    tracks = {n: (np.arange(size * noise[n].shape[1]).reshape(size, -1),
                  np.ones(noise[n].shape[1], np.float32)) for n in task.generate}
    shift = dict.fromkeys(task.generate, 0.0)
    given = (state.params, frozen, batch, noise, tracks, 5.0, shift)
    run = lambda: made._generate(*given)  # noqa: E731
    jax.block_until_ready(run())
    line += (f', {config.sample.steps}-step sampling {median_seconds(run, 3):.2f} s '
             f'({made._generate._cache_size()} compilation, '
             f'{flops(made._generate.lower(*given).compile()):.1f} GFLOP)')
  print(line, flush=True)


if __name__ == '__main__':
  parser = argparse.ArgumentParser()
  parser.add_argument('--scale', default='nano')
  parser.add_argument('--batch', type=int, default=16)
  parser.add_argument('tasks', nargs='+')
  given = parser.parse_args()
  for each in given.tasks:
    measure(each, given.scale, given.batch)
