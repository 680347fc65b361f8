"""How activations lie on a mesh: the little that models say of it. Outside of one, nothing.

A program that is to run on a mesh is wrapped by `over`. Inside, examples are split over the axes
`data` and `fsdp`, and the tokens of a long stream over `sequence`; an axis that does not divide
them leaves them whole.
"""

import functools
import math

import jax
from jax.sharding import PartitionSpec

BATCH = ('data', 'fsdp')
SEQUENCE = 'sequence'


def over(mesh, function):
  """`function`, to be jitted, as a program of `mesh`."""
  @functools.wraps(function)
  def on_mesh(*args):
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      return function(*args)

  return on_mesh


def mesh():
  """The mesh that is being traced for, where it has more than one device; else None."""
  here = jax.sharding.get_abstract_mesh()
  return None if here.empty or here.size == 1 else here


def rows(size):
  """How `size` examples are split: BATCH, or None where they do not divide."""
  return BATCH if size % math.prod(mesh().shape[axis] for axis in BATCH) == 0 else None


def tokens(x, split):
  """Says where x (B, N, C) lies: examples split over BATCH and, where `split`, N over SEQUENCE."""
  if mesh() is None:
    return x
  return jax.lax.with_sharding_constraint(
      x, PartitionSpec(rows(x.shape[0]), SEQUENCE if split else None, None))
