"""Weights of a workdir's checkpoints, whether its run has ended or not, as in a weights file."""

import json
import pathlib

import flax
import jax
import numpy as np

from avlink_jax.errors import UserError
from avlink_jax.storage import bucket, weights
from avlink_jax.training import checkpoint
from avlink_jax.training.resilience import manifest


def read(workdir, step=None, raw=False):
  """Weights saved at `step` (default: the newest intact checkpoint): ({'params', 'stats'}, header).

  They are the moving average, or with `raw` the parameters themselves. Raises UserError: no
  checkpoints, no such step, a damaged one, or numbers that are not finite.
  """
  checkpoints = checkpoint.Checkpoints(workdir, create=False)
  try:
    steps = saved_steps(workdir, checkpoints)
    step = chosen(workdir, checkpoints, steps, step)
    config = checkpoints.about(step)['config']
    saved = checkpoints.arrays(step, 'ema', 'stats', *(['params'] if raw else []))
  finally:
    checkpoints.close()
  params = counterpart(saved['params'], saved['ema']) if raw else saved['ema']
  tree = {'params': params, 'stats': saved['stats']}
  if names := not_finite(tree):
    earlier = [str(other) for other in steps if other < step]
    raise UserError(f'{workdir}, step {step}: {names[0]} holds numbers that are not finite'
                    + (f': give an earlier step ({", ".join(earlier)})' if earlier else ''))
  header = {'task': config['task'], 'scale': config['scale'], 'steps': step,
            'seed': config['seed'], 'config': json.dumps(config)}
  return tree, header | ({'raw': True} if raw else {})


def saved_steps(workdir, checkpoints):
  """Steps of a workdir's checkpoints, in order. Raises UserError: there are none."""
  with bucket.reached(workdir):
    steps = checkpoints.steps()
  if not steps:
    raise UserError(f'{workdir} has no checkpoints: give the workdir of a run that has saved one')
  return steps


def chosen(workdir, checkpoints, steps, step):
  """Step to read: `step`, or the newest intact one. Raises UserError: not there, or damaged."""
  if step is None:
    return checkpoints.newest_intact()
  if step not in steps:
    raise UserError(f'{workdir} has no checkpoint of step {step}: it has '
                    f'{", ".join(map(str, steps))}')
  with bucket.reached(workdir):
    damage = manifest.damage(bucket.absolute(workdir) / 'checkpoints' / str(step))
  if damage:
    raise UserError(f'{workdir}: the checkpoint of step {step} is damaged ({damage}): give another '
                    'step')
  return step


def counterpart(params, ema):
  """Subtree of all trained parameters that the moving average `ema` is of: all, or a group's."""
  same = lambda tree: jax.tree.structure(tree) == jax.tree.structure(ema)  # noqa: E731
  return next(tree for tree in (params, *params.values()) if same(tree))


def not_finite(tree):
  """Names of arrays with numbers that are not finite."""
  flat = flax.traverse_util.flatten_dict(tree, sep='/')
  return [name for name, array in flat.items() if not np.isfinite(array).all()]


def newest(workdir):
  """Weights of a workdir, of its newest checkpoint or, where that is no newer, its weights file:
  ({'params', 'stats'}, header). Raises UserError."""
  path = pathlib.Path(workdir) / weights.OF_RUN
  checkpoints = checkpoint.Checkpoints(workdir, create=False)
  latest = checkpoints.latest_step
  checkpoints.close()
  if path.exists() and (latest is None or int(weights.header(path).get('steps', latest)) >= latest):
    return weights.read(path)
  return read(workdir)
