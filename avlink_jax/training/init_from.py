"""Beginning of a run with an earlier one's weights (`train.init_from`)."""

import functools
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from avlink_jax.errors import UserError
from avlink_jax.storage import weights
from avlink_jax.storage.console import say
from avlink_jax.training import saved_weights


def start(state, source, task):
  """State with an earlier run's weights as far as they fit (weights.overlay), which is reported.

  `source` is a workdir, whose run need not have ended, a file or, for tasks that build on the base
  video model, 'bundled' or 'bundled:NAME'. Its running statistics, scalars all, are taken too.
  Raises UserError: nothing fits, or none of the blocks."""
  tree = {'params': {}, **read(task, source)}
  exported = task.exported(state.params)
  merged, taken, widened, left = weights.overlay(
      exported, tree['params'], functools.partial(pixels, task))
  blocks = any('blocks/' in name for name in taken + left)
  if not any('blocks/' in name or not blocks for name in taken):
    differences = weights.differences(tree['params'], exported, 'blocks/' if blocks else '')
    raise UserError(f'train.init_from={source}: these weights are of another model: {differences}')
  unused = len(jax.tree.leaves(tree['params'])) - len(taken) - len(widened)
  say(f'train.init_from={source}: {len(taken)} arrays taken'
      f'{listing("widened by inputs of zero weight", widened)}{listing("begin anew", left)}'
      + (f'; {unused} of its own are left out' if unused else ''), jax.process_index() == 0)
  scalars = {name: np.reshape(x, ())  # (1,) in files
             for name, x in tree.get('stats', {}).items()}
  params = merged if exported is state.params else {**state.params, task.groups[-1]: merged}
  return state.replace(params=params, ema=jax.tree.map(jnp.copy, merged),
                       stats=weights.overlay(state.stats, scalars)[0])


def listing(what, names, count=3):
  """Text '; 5 begin anew: a, b, c, …' for a list of names, '' without any."""
  more = ', …' if len(names) > count else ''
  return f'; {len(names)} {what}: {", ".join(names[:count])}{more}' if names else ''


def pixels(task, name):
  """Number of pixels in a patch of the tower that a parameter belongs to."""
  towers = task.config.towers
  tower = next((tower for part, tower in towers.items() if f'towers/{part}/' in name),
               towers[task.generate[0]])
  return math.prod(tower.patch)


def read(task, source):
  """Tree {'params', 'stats'} that `train.init_from=source` names. Raises UserError."""
  if pathlib.Path(source).is_dir():
    return saved_weights.newest(source)[0]
  return weights.read(weights.locate(task.base_part, source, task.config.scale))[0]
