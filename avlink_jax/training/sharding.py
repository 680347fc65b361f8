"""How a run is spread over chips: a mesh and one ordered table of rules, outside the models."""

import re

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from avlink_jax.errors import UserError

BATCH = PartitionSpec(('data', 'fsdp'))
# First match wins. Stacked blocks have their depth first, which the scan runs over and which
# is therefore never split; kernels are split along their input.
RULES = (
    (r'blocks/.*kernel$', (None, 'fsdp')),
    (r'.*kernel$', ('fsdp',)),
    (r'.*', ()),
)


def make_mesh(data=-1, fsdp=1):
  """Mesh ('data', 'fsdp') over all devices; −1 takes what is left."""
  devices = jax.devices()
  data = len(devices) // fsdp if data == -1 else data
  if data * fsdp != len(devices):
    raise UserError(f'mesh.data={data} × mesh.fsdp={fsdp} is not the number of devices, '
                    f'{len(devices)}')
  return Mesh(np.array(devices).reshape(data, fsdp), ('data', 'fsdp'))


def shardings(tree, mesh, rules=RULES):
  """NamedSharding for each leaf of `tree` (arrays or shapes) by its path; a dimension that an
  axis does not divide is left whole."""
  def one(path, leaf):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    spec = next(spec for pattern, spec in rules if re.search(pattern, name))
    spec = [axis if axis and i < leaf.ndim and leaf.shape[i] % mesh.shape[axis] == 0 else None
            for i, axis in enumerate(spec)]
    return NamedSharding(mesh, PartitionSpec(*spec[:leaf.ndim]))

  return jax.tree_util.tree_map_with_path(one, tree)


def put(tree, mesh):
  """Host arrays -> arrays placed by the rules."""
  return jax.tree.map(jax.device_put, tree, shardings(tree, mesh))


def put_batch(batch, mesh):
  """This process's rows -> global arrays, split over all devices along the batch."""
  sharding = NamedSharding(mesh, BATCH)
  return jax.tree.map(
      lambda rows: jax.make_array_from_process_local_data(sharding, rows), batch)
