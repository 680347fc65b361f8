"""Out of memory: a one-line error that suggests settings which need less."""

import contextlib

import jax

from avlink_jax.errors import UserError, out_of_memory
from avlink_jax.training.sharding import divisors

LESS = {'none': 'attention', 'attention': 'block'}  # what the gradient keeps (model/remat.py)


@contextlib.contextmanager
def advice(remedies, subject):
  """Context that turns a device's out-of-memory error, in execution or compilation, into a
  UserError listing `remedies(subject, number of devices)`, 'key=value' each."""
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    if not out_of_memory(error):
      raise
    reason = ' '.join(str(error).split()).removeprefix('RESOURCE_EXHAUSTED: ')[:160]
    settings = ' or '.join(f'--config.{key}' for key in remedies(subject, len(jax.devices())))
    raise UserError(f'out of memory ({reason}): ' + (
        f'set {settings}' if settings else 'use more devices, or a smaller scale')) from None


def for_training(task, devices):
  """Settings that reduce a training step's memory; those that keep its result come first."""
  config = task.config
  train, shards = config.train, devices // config.mesh.sequence
  per_device = train.batch_size // shards  # examples, of which a part is processed at a time
  remedies = []
  if task.accumulates:
    remedies += [f'train.accumulate={n}' for n in divisors(per_device) if n > train.accumulate][:1]
  if config.remat in LESS:
    remedies.append(f'remat={LESS[config.remat]}')
  remedies += _fsdp(config, devices)
  if per_device > train.accumulate:
    smaller = per_device // 2 // train.accumulate or 1
    remedies.append(f'train.batch_size={smaller * train.accumulate * shards}')
  return remedies


def for_sampling(config, devices):
  """Settings that reduce sampling's memory."""
  half = config.sample.batch_size // 2
  return ([f'sample.batch_size={half}'] if half else []) + _fsdp(config, devices)


def for_upsampling(config, devices):
  """Settings that reduce upsampling's memory; its sizes are fixed by its weights."""
  return _fsdp(config, devices) + ['sample.upsample=False']


def _fsdp(config, devices):
  """Setting that shards parameters over more devices, if the mesh allows it."""
  wider = [n for n in divisors(devices // config.mesh.sequence) if n > config.mesh.fsdp]
  return [f'mesh.fsdp={n}' for n in wider[:1] if config.mesh.data == -1]
