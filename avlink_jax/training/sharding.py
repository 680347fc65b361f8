"""Sharding of a run over chips: a mesh and one ordered table of rules, outside the models."""

import math
import re

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from avlink_jax.build import example_shapes
from avlink_jax.errors import UserError
from avlink_jax.model import axes

AXES = ('data', 'fsdp', 'sequence')
# Mesh axes of the activations' logical axes (model/axes.py). Audio has a hundred tokens and video
# tens of thousands; logical axes that are not listed are not sharded.
ACTIVATIONS = {'batch': ('data', 'fsdp'), 'video_tokens': 'sequence'}
# The first match applies. The first axis of stacked blocks is their depth, over which the scan
# runs, so it is never sharded; kernels are sharded along their input axis.
RULES = (
    (r'blocks/.*kernel$', (None, 'fsdp')),
    (r'.*kernel$', ('fsdp',)),
    (r'.*', ()),
)


def make_mesh(data=-1, fsdp=1, sequence=1, devices=None):
  """Mesh with AXES over `devices` (default: all); data = −1 takes the devices that are left.

  Raises UserError, with a shape that works: the product is not the number of devices.
  """
  devices = jax.devices() if devices is None else devices
  count, others = len(devices), fsdp * sequence
  shape = (count // max(others, 1) if data == -1 else data, fsdp, sequence)
  if min(shape) < 1 or math.prod(shape) != count:
    if sequence not in divisors(count):
      fit = f'mesh.sequence={nearest(sequence, divisors(count))}'
    elif fsdp not in divisors(count // sequence):
      fit = f'mesh.fsdp={nearest(fsdp, divisors(count // sequence))}'
    else:
      fit = f'mesh.data={count // others}'
    raise UserError(f'mesh.data={data} × mesh.fsdp={fsdp} × mesh.sequence={sequence} does not '
                    f'make {count} devices: {fit} works')
  return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def on_mesh(mesh, function):
  """Wraps `function`, before jit, so that on `mesh` activations are sharded by ACTIVATIONS."""
  def wrapped(*args):
    with axes.in_force(mesh, ACTIVATIONS):
      return function(*args)

  wrapped.__name__ = getattr(function, 'func', function).__name__  # shown in traces
  return wrapped


def divisors(n):
  """Divisors of n in ascending order."""
  return [d for d in range(1, n + 1) if n % d == 0]


def nearest(value, valid):
  """Nearest `valid` numbers (ascending) below and above, as '4 or 8'."""
  neighbours = [n for n in valid if n <= value][-1:] + [n for n in valid if n >= value][:1]
  return ' or '.join(map(str, dict.fromkeys(neighbours)))


def batch_shards(mesh):
  """Number of shards that the examples of a batch are divided into."""
  return math.prod(mesh.shape[axis] for axis in ACTIVATIONS['batch'])


def check_batch(config, mesh):
  """Raises UserError: a batch does not divide over the mesh."""
  size, parts, shards = config.train.batch_size, config.train.accumulate, batch_shards(mesh)
  if parts < 1:
    raise UserError(f'train.accumulate={parts}: use 1 (the whole batch at once) or more')
  unit = parts * shards
  if size < 1 or size % unit:
    fit = nearest(size, range(unit, size + 2 * unit, unit))
    over = f'mesh.data × mesh.fsdp = {shards}' + (
        f', {parts} times (train.accumulate)' if parts > 1 else '')
    raise UserError(f'train.batch_size={size} does not divide over {over}: {fit} works')


def check_tokens(task, mesh):
  """Raises UserError: `mesh.sequence` cannot divide the task's tokens."""
  count = mesh.shape['sequence']
  towers = task.active_towers
  shapes = example_shapes(task.models)
  lengths = {name: len(tower.token_seconds(shapes[name][:-1])) for name, tower in towers.items()
             if ACTIVATIONS.get(tower.axis) == 'sequence'}
  if count > 1 and not lengths:
    raise UserError(f'mesh.sequence={count} splits the tokens of the video, and '
                    f'{task.config.task} has none: mesh.sequence=1 works')
  for name, length in lengths.items():
    if length % count:
      fit = nearest(count, divisors(math.gcd(length, mesh.size)))
      raise UserError(f'mesh.sequence={count} does not divide the {length:,} tokens of {name}: '
                      f'{fit} works')


def shardings(tree, mesh, rules=RULES):
  """NamedSharding of each leaf of `tree` (arrays or shapes) by its path; dimensions that a mesh
  axis does not divide are not sharded."""
  def leaf_sharding(path, leaf):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    spec = next(spec for pattern, spec in rules if re.search(pattern, name))
    spec = [axis if axis and i < leaf.ndim and leaf.shape[i] % mesh.shape[axis] == 0 else None
            for i, axis in enumerate(spec)]
    return NamedSharding(mesh, PartitionSpec(*spec[:leaf.ndim]))

  return jax.tree_util.tree_map_with_path(leaf_sharding, tree)


def batch_sharding(mesh):
  """Sharding of arrays whose first axis is the batch."""
  return NamedSharding(mesh, PartitionSpec(ACTIVATIONS['batch']))


def replicated(mesh):
  """Sharding of a replicated array."""
  return NamedSharding(mesh, PartitionSpec())


def abstract(tree, placement):
  """Shapes with shardings, for compilation, from arrays or shapes. `placement` is a sharding, or a
  tree of them."""
  if isinstance(placement, NamedSharding):
    placement = jax.tree.map(lambda _: placement, tree)
  return jax.tree.map(lambda leaf, sharding: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=sharding), tree, placement)


def shard(tree, mesh):
  """Global arrays, sharded by the rules, from host arrays that every process has. Each device
  receives only its own shard; arrays that are in place already are not copied."""
  def shard_leaf(x, sharding):
    if isinstance(x, jax.Array):
      return jax.device_put(x, sharding)
    return jax.make_array_from_callback(np.shape(x), sharding, lambda at: np.asarray(x)[at])

  return jax.tree.map(shard_leaf, tree, shardings(tree, mesh))


def shard_rows(tree, mesh):
  """Global arrays, sharded along the batch, from host arrays (B, …) that every process has."""
  sharding = batch_sharding(mesh)
  return jax.tree.map(
      lambda x: jax.make_array_from_callback(x.shape, sharding, lambda at: x[at]), tree)


def local_rows(mesh, size):
  """Indices of the examples in a batch of `size` that this process's devices need: int (n,),
  ascending. Other processes may need them too, if the `sequence` axis spans both."""
  needed = batch_sharding(mesh).addressable_devices_indices_map((size,)).values()
  return np.unique(np.concatenate([np.arange(size)[at] for at in needed]))


def shard_batch(batch, mesh, size):
  """Global arrays, sharded along the batch, from the `local_rows` of a batch of `size`."""
  sharding, rows = batch_sharding(mesh), local_rows(mesh, size)

  def shard_leaf(local):
    def shard_at(at):
      first, last, _ = at[0].indices(size)
      offset = np.searchsorted(rows, first)
      return local[offset:offset + last - first]

    return jax.make_array_from_callback((size, *local.shape[1:]), sharding, shard_at)

  return jax.tree.map(shard_leaf, batch)
