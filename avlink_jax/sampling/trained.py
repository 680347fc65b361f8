"""Weights for sampling: a workdir's newest checkpoint or weights file, a published model's, or
bundled ones."""

import dataclasses
import functools

import jax

from avlink_jax.errors import UserError
from avlink_jax.hardware import precision
from avlink_jax.storage import bucket, weights
from avlink_jax.storage.console import say
from avlink_jax.tasks import frozen as frozen_parts
from avlink_jax.training import checkpoint, sharding


@dataclasses.dataclass(frozen=True)
class Trained:
  """Trained weights and their origin.

  Attributes:
    params: `task.exported`'s tree.
    stats: the task's running statistics.
    origin: description for the user.
    name: unique identity of the weights.
  """
  params: dict
  stats: dict
  origin: str
  name: str


def find_weights(task, workdir, frozen, mesh, explicit=False, unlinked=False):
  """Trained weights of the workdir's newest intact checkpoint, sharded on `mesh`; without any, of
  its weights file (a run that has ended, or avlink_jax.export); else those of the published model
  that a base model's `frozen` names, or bundled ones. Where there are none either and `unlinked`,
  published towers are linked by Fusion Blocks as training begins with, which change nothing.

  Raises UserError: none of them exists, or an `explicit` workdir has none.
  """
  with bucket.reached(workdir):
    saved = bucket.entries(bucket.absolute(workdir) / 'checkpoints')
  if saved:
    checkpoints = checkpoint.Checkpoints(workdir, create=False)
    if checkpoints.latest_step is not None:
      return _restored(task, workdir, checkpoints, frozen, mesh)
  if exported := _exported(task, workdir, frozen):
    return exported
  config, name = task.config, task.weights_name
  path = weights.BUNDLED / config.scale / f'{name}.safetensors'
  if explicit:
    raise UserError(f'{workdir} has no checkpoint: train there first, or leave --workdir out '
                    'for the bundled weights')
  if part := task.published_part:
    tower = frozen_parts.published_tower(config, task.models, part, precision.of().frozen,
                                         functools.partial(sharding.shardings, mesh=mesh))
    return Trained(tower, {}, f'published {config.frozen[part]}',
                   frozen_parts.digests(config, [part])[part])
  if path.exists():
    return _of_file(task, path, frozen, f'bundled {path.name}')
  if unlinked and task.links_published:
    return _untrained(task, frozen)
  raise UserError(f'{workdir} has no checkpoint, and no weights for {name} at scale '
                  f'{config.scale} are bundled: train first, or give --workdir')


def _exported(task, workdir, frozen):
  """Weights of a workdir's weights file; None where it has none."""
  with bucket.Mirror(workdir) as run:
    run.pull(weights.OF_RUN)
    path = run.here / weights.OF_RUN
    if not path.is_file():
      return None
    steps = weights.header(path).get('steps', 'unknown')
    return _of_file(task, path, frozen, f'{workdir}/{weights.OF_RUN}, step {steps}')


def _of_file(task, path, frozen, origin):
  """Weights of a file that has the moving average alone."""
  tree = {'params': {}, **weights.read(path)[0]}  # another program's file may lack 'params'
  like = jax.eval_shape(lambda key: task.exported(task.init(key, frozen)), jax.random.key(0))
  return Trained(weights.fit(tree['params'], like, path), tree.get('stats', {}), origin,
                 frozen_parts.digest(path))


def _untrained(task, frozen):
  """Weights that training would begin with."""
  say(f'{task.config.task} between published towers has no trained Fusion Blocks yet: what is '
      'generated follows its prompt alone (configs/PUBLIC.md tells how to train them)',
      jax.process_index() == 0)
  seed = task.config.seed
  params = task.exported(jax.jit(task.init)(jax.random.key(seed), frozen))
  return Trained(params, task.init_stats(), 'untrained Fusion Blocks', f'untrained, seed {seed}')


def _restored(task, workdir, checkpoints, frozen, mesh):
  newest = checkpoints.newest_intact()
  key = jax.random.key(task.config.seed)
  like = jax.eval_shape(lambda frozen: {
      'ema': task.exported(task.init(key, frozen)), 'stats': task.init_stats()}, frozen)
  # Of what training needs besides, nothing is read: the optimiser's state is twice as large.
  saved = checkpoints.branches(newest, sharding.abstract(like, sharding.shardings(like, mesh)))
  name = checkpoints.digest(newest)
  checkpoints.close()
  return Trained(saved['ema'], saved['stats'], f'{workdir}, step {newest}', name)
