"""Out of memory: one line that says what to make smaller, as far as that can be worked out."""

import contextlib

import jax

from avlink_jax.errors import UserError, out_of_memory
from avlink_jax.training.sharding import divisors


@contextlib.contextmanager
def told(remedies, of):
  """Where the devices' memory does not hold a program, now or when it is compiled: UserError that
  lists what `remedies` makes of (`of`, number of devices): a 'key=value' each."""
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    if not out_of_memory(error):
      raise
    said = ' '.join(str(error).split()).removeprefix('RESOURCE_EXHAUSTED: ')[:160]
    might = ' or '.join(f'--config.{key}' for key in remedies(of, len(jax.devices())))
    raise UserError(f'out of memory ({said}): ' + (
        f'set {might}' if might else 'use more devices, or a smaller scale')) from None


def for_training(task, devices):
  """What makes a training step smaller; first what changes nothing of its result."""
  config = task.config
  train, ways = config.train, devices // config.mesh.sequence
  own = train.batch_size // ways  # examples of a device, which holds a part of them at a time
  remedies = []
  if task.accumulates:
    remedies += [f'train.accumulate={n}' for n in divisors(own) if n > train.accumulate][:1]
  if config.remat == 'none':
    remedies.append('remat=block')
  remedies += _fsdp(config, devices)
  if own > train.accumulate:
    smaller = own // 2 // train.accumulate or 1
    remedies.append(f'train.batch_size={smaller * train.accumulate * ways}')
  return remedies


def for_sampling(config, devices):
  """What makes sampling smaller."""
  half = config.sample.batch_size // 2
  return ([f'sample.batch_size={half}'] if half else []) + _fsdp(config, devices)


def for_upsampling(config, devices):
  """The same of its second stage, whose sizes come with its weights."""
  return _fsdp(config, devices) + ['sample.upsample=False']


def _fsdp(config, devices):
  """Parameters on more devices, where the mesh leaves that open."""
  wider = [n for n in divisors(devices // config.mesh.sequence) if n > config.mesh.fsdp]
  return [f'mesh.fsdp={n}' for n in wider[:1] if config.mesh.data == -1]
