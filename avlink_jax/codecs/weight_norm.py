"""Weight normalisation of torch's published weights, folded into the kernels when they are read."""

import functools

import numpy as np

# torch's old and new names of a normalised kernel's length and direction.
NORMALISED = (('weight_g', 'weight_v'),
              ('parametrizations.weight.original0', 'parametrizations.weight.original1'))


def folded(stored):
  """Replaces lengths g and directions v in {name: foreign.Stored} by kernels g·v/‖v‖, float32, with
  a norm for each first index."""
  stored = dict(stored)
  for length, direction in NORMALISED:
    for name in [name for name in stored if name.endswith(f'.{direction}')]:
      stem = name.removesuffix(direction)
      if f'{stem}{length}' in stored:
        g, v = stored.pop(f'{stem}{length}'), stored.pop(name)
        stored[f'{stem}weight'] = v._replace(load=functools.partial(_kernel, g, v))
  return stored


def _kernel(g, v):
  length, direction = (np.asarray(stored.load(), np.float32) for stored in (g, v))
  axes = tuple(range(1, direction.ndim))
  norm = np.sqrt(np.sum(np.square(direction, dtype=np.float64), axis=axes, keepdims=True))
  return (length * (direction / norm)).astype(np.float32)
