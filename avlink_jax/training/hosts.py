"""Several processes that are one run: how they meet, gather and wait for each other."""

import json
import os

import jax
import numpy as np
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


def exchange(values):
  """Lists of all processes, in their order, of which this one's is `values`; what they hold is
  JSON-like. Costs next to nothing where all are empty."""
  if jax.process_count() == 1:
    return [values]
  text = json.dumps(values).encode() if values else b''
  with jax.transfer_guard('allow'):
    sizes = multihost_utils.process_allgather(np.int32(len(text)))
    if not sizes.any():
      return [[] for _ in sizes]
    # A power of two, as each size is compiled for.
    padded = np.zeros(1 << int(sizes.max() - 1).bit_length(), np.uint8)
    padded[:len(text)] = np.frombuffer(text, np.uint8)
    texts = multihost_utils.process_allgather(padded)
  return [json.loads(bytes(text[:size])) if size else []
          for text, size in zip(texts, sizes, strict=True)]


def wait_for_all(name, seconds):
  """Returns when all processes have come here, which may take `seconds`; a `name` serves once in a
  run."""
  if jax.process_count() > 1:
    ocp.multihost.sync_global_processes(name, timeout=seconds)
