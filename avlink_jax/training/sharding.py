"""How a run is spread over chips: a mesh and one ordered table of rules, outside the models."""

import math
import re

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from avlink_jax.errors import UserError
from avlink_jax.model.spread import BATCH

AXES = ('data', 'fsdp', 'sequence')
# First match wins. Stacked blocks have their depth first, which the scan runs over and which
# is therefore never split; kernels are split along their input.
RULES = (
    (r'blocks/.*kernel$', (None, 'fsdp')),
    (r'.*kernel$', ('fsdp',)),
    (r'.*', ()),
)


def make_mesh(data=-1, fsdp=1, sequence=1, devices=None):
  """Mesh AXES over all devices (or those given); data = −1 takes what the others leave."""
  devices = jax.devices() if devices is None else devices
  count, others = len(devices), fsdp * sequence
  shape = (count // max(others, 1) if data == -1 else data, fsdp, sequence)
  if min(shape) < 1 or math.prod(shape) != count:
    raise UserError(f'mesh.data={data} × mesh.fsdp={fsdp} × mesh.sequence={sequence} is not the '
                    f'number of devices, {count}')
  return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


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


def batch_sharding(mesh):
  """Of anything with examples first."""
  return NamedSharding(mesh, PartitionSpec(BATCH))


def abstract(tree, placement):
  """Arrays or shapes -> shapes that know where they will lie: what a program is compiled for.
  `placement` is a sharding, or a tree of them."""
  if isinstance(placement, NamedSharding):
    placement = jax.tree.map(lambda _: placement, tree)
  return jax.tree.map(lambda leaf, where: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=where), tree, placement)


def put(tree, mesh):
  """Host arrays, the same on every process -> arrays placed by the rules, shard by shard: of each
  a device gets only what is its own."""
  return jax.tree.map(
      lambda x, where: jax.make_array_from_callback(np.shape(x), where, lambda at: x[at]),
      tree, shardings(tree, mesh))


def put_batch(batch, mesh):
  """This process's rows -> global arrays, split over all devices along the batch."""
  sharding = batch_sharding(mesh)
  return jax.tree.map(
      lambda rows: jax.make_array_from_process_local_data(sharding, rows), batch)
