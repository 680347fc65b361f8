"""How activations lie on a mesh: the little that models say of it. Outside of one, nothing.

A program that is to run on a mesh is wrapped by `over`. Inside, examples are split over the axes
`data` and `fsdp`, and the tokens of a long stream over `sequence`; an axis that does not divide
them leaves them whole.
"""

import math

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

BATCH = ('data', 'fsdp')
SEQUENCE = 'sequence'


def over(mesh, function):
  """`function`, to be jitted, as a program of `mesh`."""
  def on_mesh(*args):
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      return function(*args)

  on_mesh.__name__ = getattr(function, 'func', function).__name__  # a trace is read by names
  return on_mesh


def mesh():
  """The mesh that is being traced for, where it has more than one device; else None."""
  here = jax.sharding.get_abstract_mesh()
  return None if here.empty or here.size == 1 else here


def rows(size):
  """How `size` examples are split on the mesh: BATCH, or None where they do not divide."""
  return BATCH if size % math.prod(mesh().shape[axis] for axis in BATCH) == 0 else None


def pieces():
  """Into how many pieces the tokens of a long stream are cut."""
  return 1 if mesh() is None else mesh().shape[SEQUENCE]


def tokens(x, split):
  """Says where x (B, N, C) lies: examples split over BATCH and, where `split`, N over SEQUENCE."""
  if mesh() is None:
    return x
  return jax.lax.with_sharding_constraint(
      x, PartitionSpec(rows(x.shape[0]), SEQUENCE if split else None, None))


def join(streams, split):
  """Streams [(B, N_m, …)] as one along their tokens, of which no attention minds the order.

  Where some of them are `split`, each device's piece of the whole is made of its piece of each
  stream, so that nothing moves: the last piece of a short stream may be filled up with zeros.
  """
  n = pieces() if split else 1
  if n == 1:
    return jnp.concatenate(streams, axis=1)
  cut = [jnp.pad(x, [(0, 0), (0, -x.shape[1] % n)] + [(0, 0)] * (x.ndim - 2)).reshape(
      x.shape[0], n, -1, *x.shape[2:]) for x in streams]
  joint = jnp.concatenate(cut, axis=2)
  return joint.reshape(joint.shape[0], -1, *joint.shape[3:])


def part(joint, lengths, split):
  """The streams of those lengths, of which `join` made one."""
  n = pieces() if split else 1
  widths = [-(-length // n) for length in lengths]
  ends = [sum(widths[:m]) for m in range(1, len(widths))]
  cut = jnp.split(joint.reshape(joint.shape[0], n, -1, *joint.shape[2:]), ends, axis=2)
  return [x.reshape(x.shape[0], -1, *x.shape[3:])[:, :length]
          for x, length in zip(cut, lengths, strict=True)]


def attention(kernel, q, k, v, key_mask, split, source_split):
  """`kernel` (model/attention.py's shapes) on a mesh: examples split over BATCH, queries over
  SEQUENCE where they are `split`; keys and values that are, are gathered: each device then has its
  own queries look at all of them. Its gradient scatters those of keys and values back."""
  if mesh() is None:
    return kernel(q, k, v, key_mask)
  split, source_split = (x and pieces() > 1 for x in (split, source_split))
  if key_mask is None:
    key_mask = jnp.ones((k.shape[0], k.shape[2]), bool)
  examples, across = rows(q.shape[0]), {True: SEQUENCE, False: None}
  queries = PartitionSpec(examples, None, across[split])
  keys = PartitionSpec(examples, None, across[source_split])

  def on_one_device(q, k, v, key_mask):
    if source_split:
      k, v = (jax.lax.all_gather(x, SEQUENCE, axis=2, tiled=True) for x in (k, v))
      key_mask = jax.lax.all_gather(key_mask, SEQUENCE, axis=1, tiled=True)
    return kernel(q, k, v, key_mask)

  return jax.shard_map(
      on_one_device, in_specs=(queries, keys, keys, PartitionSpec(examples, across[source_split])),
      out_specs=queries, check_vma=False)(q, k, v, key_mask)
