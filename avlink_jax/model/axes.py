"""Logical axes of activations, which models name, and rules of where they lie on a mesh.

A model says what an array's dimensions are: `constrain(tokens, 'batch', 'video_tokens', None)`.
Rules {logical axis: mesh axis or tuple of them} say over which devices such a dimension is sharded
(training/sharding.py). They are in force while a program is traced inside `in_force`; anywhere else
nothing here does anything.
"""

import contextlib
import contextvars
import math

import jax
from jax.sharding import PartitionSpec

_RULES = contextvars.ContextVar('rules', default=None)


@contextlib.contextmanager
def in_force(mesh, rules):
  """Traces what is inside for `mesh`, its activations sharded by `rules`."""
  before = _RULES.set(rules)
  try:
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      yield
  finally:
    _RULES.reset(before)


def sharded():
  """Whether rules are in force, for a mesh of more than one device."""
  return _RULES.get() is not None and jax.sharding.get_abstract_mesh().size > 1


def mesh_axes(name, size):
  """The mesh axis, or the tuple of them, over which a dimension of `size` is sharded that has the
  logical axis `name`; None where every device has all of it, as where they do not divide it."""
  axes = _RULES.get().get(name) if sharded() else None
  if axes is None:
    return None
  shape = jax.sharding.get_abstract_mesh().shape
  ways = math.prod(shape[axis] for axis in ((axes,) if isinstance(axes, str) else axes))
  return axes if ways > 1 and size % ways == 0 else None


def spec(shape, *names):
  """PartitionSpec of an array of `shape`, whose dimensions have these logical axes."""
  return PartitionSpec(*(mesh_axes(*each) for each in zip(names, shape, strict=True)))


def constrain(x, *names):
  """x, lying as the rules say of its logical axes, one for each dimension."""
  return jax.lax.with_sharding_constraint(x, spec(x.shape, *names)) if sharded() else x
