"""Several processes that are one run: how they meet, gather and wait for each other."""

import os

import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from avlink_jax.errors import UserError
from avlink_jax.training.resilience.rendezvous import Rendezvous


def connect(config, place=None):
  """Makes this process one of several: the one that `place` says (cluster.detect), or where nothing
  was detected the one that JAX makes of what it knows of clusters (Kubernetes' interface, …).

  To be called before anything is computed. Gives the Rendezvous, None without a place. Raises
  UserError where nothing says who the others are, and Lost where one of them does not come within
  `config.join_seconds`.
  """
  rendezvous = place and Rendezvous(place, config.join_seconds, config.heartbeat_seconds)
  told = {} if place is None else dict(
      coordinator_address=place.address, num_processes=place.count, process_id=place.process,
      local_device_ids=place.devices, cluster_detection_method='deactivate')
  if os.environ.get('JAX_PLATFORMS') == 'cpu':
    jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  try:
    jax.distributed.initialize(
        **told, initialization_timeout=config.join_seconds,
        # JAX's own guard ends a process by abort(), so it comes second.
        heartbeat_timeout_seconds=2 * config.heartbeat_seconds,
        shutdown_timeout_seconds=config.patience_seconds)
  except ValueError as error:
    raise UserError(f'--distributed: {error} Outside of a known cluster set '
                    'JAX_COORDINATOR_ADDRESS=HOST:PORT, JAX_NUM_PROCESSES and '
                    'JAX_PROCESS_ID') from None
  return rendezvous


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


def wait_for_all(name, seconds):
  """Returns when all processes have come here, which may take `seconds`; a `name` serves once in a
  run."""
  if jax.process_count() > 1:
    ocp.multihost.sync_global_processes(name, timeout=seconds)
