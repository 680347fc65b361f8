"""How a run is spread over chips: a mesh and one ordered table of rules, outside the models."""

import math
import re

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from avlink_jax.build import example_shapes
from avlink_jax.errors import UserError
from avlink_jax.model import axes

AXES = ('data', 'fsdp', 'sequence')
# Where activations lie: the mesh axes of their logical ones (model/axes.py). Audio has a hundred
# tokens and video tens of thousands; every axis that is not here is left whole.
ACTIVATIONS = {'batch': ('data', 'fsdp'), 'video_tokens': 'sequence'}
# First match wins. Stacked blocks have their depth first, which the scan runs over and which
# is therefore never split; kernels are split along their input.
RULES = (
    (r'blocks/.*kernel$', (None, 'fsdp')),
    (r'.*kernel$', ('fsdp',)),
    (r'.*', ()),
)


def make_mesh(data=-1, fsdp=1, sequence=1, devices=None):
  """Mesh AXES over all devices (or those given); data = −1 takes what the others leave.

  Raises UserError, with what would work, where that is not the number of devices.
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


def over(mesh, function):
  """`function`, to be jitted, as a program of `mesh` with activations sharded by ACTIVATIONS."""
  def on_mesh(*args):
    with axes.in_force(mesh, ACTIVATIONS):
      return function(*args)

  on_mesh.__name__ = getattr(function, 'func', function).__name__  # a trace is read by names
  return on_mesh


def divisors(n):
  """In order."""
  return [d for d in range(1, n + 1) if n % d == 0]


def nearest(value, works):
  """'4 or 8': the ones below and above of what `works` (in order)."""
  around = [n for n in works if n <= value][-1:] + [n for n in works if n >= value][:1]
  return ' or '.join(map(str, dict.fromkeys(around)))


def ways(mesh):
  """In how many parts the examples of a batch are split."""
  return math.prod(mesh.shape[axis] for axis in ACTIVATIONS['batch'])


def check_batch(config, mesh):
  """Raises UserError where a batch does not divide over the mesh."""
  size, parts, by = config.train.batch_size, config.train.accumulate, ways(mesh)
  if parts < 1:
    raise UserError(f'train.accumulate={parts}: use 1 (the whole batch at once) or more')
  if size < 1 or size % (parts * by):
    unit = parts * by
    fit = nearest(size, range(unit, size + 2 * unit, unit))
    over = f'mesh.data × mesh.fsdp = {by}' + (
        f', {parts} times (train.accumulate)' if parts > 1 else '')
    raise UserError(f'train.batch_size={size} does not divide over {over}: {fit} works')


def check_tokens(task, mesh):
  """Raises UserError where there are no tokens that `mesh.sequence` could split."""
  count = mesh.shape['sequence']
  towers = task.towers_run
  shapes = example_shapes(task.models)
  lengths = {name: len(tower.token_seconds(shapes[name][:-1])) for name, tower in towers.items()
             if ACTIVATIONS.get(tower.axis) == 'sequence'}
  if count > 1 and not lengths:
    raise UserError(f'mesh.sequence={count} splits the tokens of the picture, and '
                    f'{task.config.task} has none: mesh.sequence=1 works')
  for name, length in lengths.items():
    if length % count:
      fit = nearest(count, divisors(math.gcd(length, mesh.size)))
      raise UserError(f'mesh.sequence={count} does not divide the {length:,} tokens of {name}: '
                      f'{fit} works')


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
  return NamedSharding(mesh, PartitionSpec(ACTIVATIONS['batch']))


def whole(mesh):
  """Of what every device has all of."""
  return NamedSharding(mesh, PartitionSpec())


def abstract(tree, placement):
  """Arrays or shapes -> shapes that know where they will lie: what a program is compiled for.
  `placement` is a sharding, or a tree of them."""
  if isinstance(placement, NamedSharding):
    placement = jax.tree.map(lambda _: placement, tree)
  return jax.tree.map(lambda leaf, where: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=where), tree, placement)


def put(tree, mesh):
  """Host arrays, the same on every process -> arrays placed by the rules, shard by shard: of each
  a device gets only what is its own. What lies there already is left alone."""
  def one(x, where):
    if isinstance(x, jax.Array):
      return jax.device_put(x, where)
    return jax.make_array_from_callback(np.shape(x), where, lambda at: np.asarray(x)[at])

  return jax.tree.map(one, tree, shardings(tree, mesh))


def put_rows(tree, mesh):
  """Host arrays (B, …), the same on every process -> global ones, split along the batch."""
  where = batch_sharding(mesh)
  return jax.tree.map(
      lambda x: jax.make_array_from_callback(x.shape, where, lambda at: x[at]), tree)


def own_rows(mesh, size):
  """Which examples of a batch of `size` this process's devices need, in order: int (n,). Another
  process may need the same ones, where `sequence` goes over both."""
  needed = batch_sharding(mesh).addressable_devices_indices_map((size,)).values()
  return np.unique(np.concatenate([np.arange(size)[at] for at in needed]))


def put_batch(batch, mesh, size):
  """`own_rows` of a batch of `size` -> global arrays, split over all devices along the batch."""
  where, rows = batch_sharding(mesh), own_rows(mesh, size)

  def one(own):
    def on_device(at):
      first, last, _ = at[0].indices(size)
      here = np.searchsorted(rows, first)
      return own[here:here + last - first]

    return jax.make_array_from_callback((size, *own.shape[1:]), where, on_device)

  return jax.tree.map(one, batch)
