"""Several processes that are one run: how they meet, gather and wait for each other."""

import os

import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from avlink_jax.errors import UserError

PATIENCE = 6 * 3600  # seconds that processes wait for the one that samples


def connect():
  """Makes this process one of several: by what the cluster says (Cloud TPU, Slurm, …), or by
  JAX_COORDINATOR_ADDRESS=HOST:PORT, JAX_NUM_PROCESSES and JAX_PROCESS_ID.

  To be called before anything is computed. Raises UserError where nothing says who the others are.
  """
  said = [os.environ.get(f'JAX_{name}') for name in ('NUM_PROCESSES', 'PROCESS_ID')]
  try:
    count, process = (None if value is None else int(value) for value in said)
    if os.environ.get('JAX_PLATFORMS') == 'cpu':
      jax.config.update('jax_cpu_collectives_implementation', 'gloo')
    jax.distributed.initialize(num_processes=count, process_id=process,
                               shutdown_timeout_seconds=PATIENCE)
  except ValueError as error:
    raise UserError(f'--distributed: {error} Outside of a known cluster set '
                    'JAX_COORDINATOR_ADDRESS=HOST:PORT, JAX_NUM_PROCESSES and '
                    'JAX_PROCESS_ID') from None


def gather(tree):
  """The whole of each array, on every process; one process has it already."""
  if jax.process_count() == 1:
    return tree
  return multihost_utils.process_allgather(tree, tiled=True)


def as_the_first(value):
  """What the first process says, on all of them: an array of one shape."""
  if jax.process_count() == 1:
    return value
  return multihost_utils.broadcast_one_to_all(value)


def wait_for_all(name):
  """Returns when all processes have come here; a `name` serves once in a run."""
  if jax.process_count() > 1:
    ocp.multihost.sync_global_processes(name, timeout=PATIENCE)
