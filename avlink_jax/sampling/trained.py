"""Weights for sampling: a workdir's newest checkpoint, a published model's, or bundled ones."""

import dataclasses
import functools

import jax

from avlink_jax.errors import UserError
from avlink_jax.hardware import precision
from avlink_jax.storage import bucket, weights
from avlink_jax.tasks import frozen as frozen_parts
from avlink_jax.training import checkpoint, sharding, step


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


def find_weights(task, workdir, frozen, mesh, explicit=False):
  """Trained weights of the workdir's newest intact checkpoint, sharded on `mesh`; else those of the
  published model that a base model's `frozen` names, or bundled ones.

  Raises UserError: none of them exists, or an `explicit` workdir has no checkpoint.
  """
  with bucket.reached(workdir):
    saved = bucket.entries(bucket.absolute(workdir) / 'checkpoints')
  if saved:
    checkpoints = checkpoint.Checkpoints(workdir, create=False)
    if checkpoints.latest_step is not None:
      return _restored(task, workdir, checkpoints, frozen, mesh)
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
  if not path.exists():
    raise UserError(f'{workdir} has no checkpoint, and no weights for {name} at scale '
                    f'{config.scale} are bundled: train first, or give --workdir')
  tree, _ = weights.read(path)
  like = jax.eval_shape(lambda key: task.exported(task.init(key, frozen)), jax.random.key(0))
  return Trained(weights.fit(tree['params'], like, path), tree.get('stats', {}),
                 f'bundled {path.name}', frozen_parts.digest(path))


def _restored(task, workdir, checkpoints, frozen, mesh):
  newest = checkpoints.newest_intact()
  optimizer = step.make_optimizer(task.config)
  like = jax.eval_shape(
      lambda frozen: step.init(task, optimizer, task.config.seed, frozen), frozen)
  state = checkpoints.restore(sharding.abstract(like, sharding.shardings(like, mesh)), newest)
  name = checkpoints.digest(newest)
  checkpoints.close()
  return Trained(state.ema, state.stats, f'{workdir}, step {newest}', name)
