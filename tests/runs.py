"""Workdirs as runs leave them, without the training: micro models, random weights that fit."""

import contextlib
import functools
import importlib
import json
import os
import pathlib
import shutil
import sys

import jax
import numpy as np
from micro import build, frozen_of, micro_config, random_like
from ml_collections import ConfigDict

from avlink_jax.storage import weights
from avlink_jax.tasks import frozen as frozen_parts
from avlink_jax.training import checkpoint
from avlink_jax.training import step as training

ROOT = pathlib.Path(__file__).resolve().parents[1]


def environment(cache, **more):
  """Of a process of its own: on the CPU, compiled quickly and, by the folder `cache`, once."""
  return os.environ | {
      'JAX_PLATFORMS': 'cpu', 'JAX_DISABLE_MOST_OPTIMIZATIONS': '1',
      'JAX_COMPILATION_CACHE_DIR': str(cache), 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.3',
      'PYTHONPATH': os.pathsep.join(map(str, (ROOT, ROOT / 'tests')))} | more


def xla_flags(devices=1):
  """XLA_FLAGS of a process with so many simulated devices, and else as they are here."""
  count = '--xla_force_host_platform_device_count'
  kept = [flag for flag in os.environ.get('XLA_FLAGS', '').split() if not flag.startswith(count)]
  return ' '.join([*kept, f'{count}={devices}'])


@contextlib.contextmanager
def quickly_compiled():
  """As micro.plain_jit, for whatever is compiled inside: half of a small run's time is LLVM's."""
  name = 'jax_disable_most_optimizations'
  before = jax.config.values[name]
  jax.config.update(name, True)
  try:
    yield
  finally:
    jax.config.update(name, before)


def parts(folder):
  """Weights of codec and towers in `folder`, for `config.frozen`: {part: path}."""
  models, _ = build(micro_config('v2a'))
  frozen = frozen_of(models)
  trees = {part: {'params': tower} for part, tower in frozen['towers'].items()}
  trees['codec'] = {'params': frozen['codec']['params'], 'stats': {'std': frozen['codec']['std']}}
  codec = frozen_of(build(micro_config('upsampler'))[0])['video_codec']
  trees['video_codec'] = {'params': codec['params'], 'stats': {'std': codec['std']}}
  for part, tree in trees.items():
    weights.save(folder / f'{part}.safetensors', tree, {})
  return {part: str(folder / f'{part}.safetensors') for part in trees}


def config_of(task, frozen, **changes):
  """`micro_config`, made of `parts`, sampling and training next to nothing."""
  config = micro_config(task)
  config.sample.update(steps=2, count=2, batch_size=2)
  config.train.update(steps=2, batch_size=2, log_every=1)
  config.data.update(seconds=2.0, impacts_clips=4, threads=1)  # impacts has none shorter
  for part in config.frozen:
    config.frozen[part] = frozen.get(part, '')  # pictures are not upsampled
  config.update_from_flattened_dict(changes)
  return config


def shipped(task, scale='nano'):
  """`configs/TASK.py:SCALE`."""
  return importlib.import_module(f'avlink_jax.configs.{task}').get_config(scale)


def shipped_public(task, folders):
  """`configs/TASK.py:public` with models from `folders` {'audio', 'video'}, and little to do."""
  config = shipped(task, 'public')
  config.frozen.update(folders)
  config.data.update(source='impacts', impacts_clips=4, height=32, width=48, seconds=33 / 16,
                     threads=1)
  config.train.update(steps=2, decay_steps=1, batch_size=2, log_every=1)
  config.sample.update(steps=2, count=1, batch_size=1)
  config.validation.update(count=2, levels=1)
  return config


def of_first_edition(task, folder):
  """The workdir in `folder` of a micro run of `task` as the first edition of this program left it
  (its last commit is 4dfcd57), trained there for 4 steps and cut back to the checkpoint of step 2.
  Its losses.json has what that run came to: {step: {'loss', 'grad_norm'}}."""
  archive = pathlib.Path(__file__).parent / 'editions' / 'first' / f'{task}.tar.xz'
  shutil.unpack_archive(archive, folder)  # our own; Python before 3.11.4 knows no filter
  return folder / task


def leaves(config, path=''):
  """(key, value) of every value of a config, keys as flags have them."""
  for key, value in config.items():
    if isinstance(value, ConfigDict):
      yield from leaves(value, f'{path}{key}.')
    else:
      yield f'{path}{key}', value


def flags(config):
  """Those of avlink_jax.main that make `config`, which was made of a nano one."""
  default, wanted = (dict(leaves(c)) for c in (shipped(config.task), config))
  return [f'--config=configs/{config.task}.py:nano',
          *(f'--config.{key}={value}' for key, value in wanted.items() if value != default[key])]


def command(config, workdir, *more):
  """The command line that trains `config` in `workdir`."""
  return [sys.executable, '-m', 'avlink_jax.main', *flags(config), f'--workdir={workdir}', *more]


def finished(config, workdir, step=1):
  """Writes a checkpoint of random weights, as a run of `step` steps leaves it; gives `workdir`."""
  models, task = build(config)
  frozen = frozen_parts.load(config, models, task.frozen_parts)
  init = functools.partial(training.init, task, training.make_optimizer(config), config.seed)
  state = jax.eval_shape(init, frozen)
  fresh = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), state)
  fresh = fresh.replace(step=np.int32(step), params=random_like(state.params, 7),
                        ema=random_like(state.ema, 8),
                        stats=jax.tree.map(lambda x: np.ones(x.shape, x.dtype), state.stats))
  checkpoints = checkpoint.Checkpoints(workdir)
  checkpoints.save(step, fresh)
  checkpoints.close()
  return workdir


def manifest(folder):
  """{id: row} of a samples folder."""
  rows = map(json.loads, (folder / 'manifest.jsonl').read_text().splitlines())
  return {row['id']: row for row in rows}
