"""Topologies that programs can be compiled for without having the chips, by name.

`v5p:4x4x4` and the like are TPU slices as libtpu describes them; `cpu:8` means eight simulated
devices on this machine.
"""

import importlib.util
import os
import re

import jax
from jax.experimental import topologies

from avlink_jax.errors import UserError

SOME = 'v4:2x2x4, v5e:2x4, v5e:16x16, v5p:2x2x4, v5p:4x4x4, v6e:4x4, cpu:8'
# One device a chip, as on other TPUs: by default a v4 chip's two cores are two devices.
OPTIONS = {'v4': dict(chip_config_name='megacore')}
# Values that libtpu would otherwise request from a cloud's metadata server.
ENVIRONMENT = dict(ALLOW_MULTIPLE_LIBTPU_LOAD='1', TPU_SKIP_MDS_QUERY='1',
                   TPU_WORKER_HOSTNAMES='localhost', TPU_ACCELERATOR_TYPE='v5litepod-4',
                   TPU_MIN_LOG_LEVEL='3', TPU_STDERR_LOG_LEVEL='3')


def devices(name):
  """Devices of the topology `name`, in its order.

  From now on this process computes on the CPU. Raises UserError: no such topology, or libtpu is
  missing.
  """
  jax.config.update('jax_platforms', 'cpu')
  kind, _, shape = name.partition(':')
  return _simulated(name, shape) if kind == 'cpu' else _described(name, OPTIONS.get(kind, {}))


def _simulated(name, count):
  if not re.fullmatch(r'[1-9]\d{0,3}', count):
    raise UserError(f'--topology={name}: write cpu:NUMBER, such as cpu:8')
  try:
    jax.config.update('jax_num_cpu_devices', int(count))
  except RuntimeError:
    pass  # JAX is initialised already; its devices may suffice
  here = jax.devices('cpu')
  if len(here) < int(count):
    raise UserError(f'--topology={name}: this process has {len(here)} CPU devices by now')
  return here[:int(count)]


def _described(name, options):
  if importlib.util.find_spec('libtpu') is None and 'TPU_LIBRARY_PATH' not in os.environ:
    raise UserError(f'--topology={name} needs libtpu, which is not installed: `bash '
                    f'launch/compile.sh --topology={name} ...` makes an environment that has it '
                    '(or compile for simulated devices: --topology=cpu:8)')
  for key, value in ENVIRONMENT.items():
    os.environ.setdefault(key, value)
  try:
    return list(topologies.get_topology_desc(name, platform='tpu', **options).devices)
  except jax.errors.JaxRuntimeError as error:
    reason = str(error).splitlines()[0].removeprefix('INVALID_ARGUMENT: ')
    raise UserError(f'--topology={name}: no such topology ({reason}): use one such as '
                    f'{SOME}') from None
