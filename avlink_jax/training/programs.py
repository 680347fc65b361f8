"""Programs of a training run on a mesh, and the shardings of their arguments.

No device is accessed here: `--mode=compile` builds the same programs from shapes, for a mesh of
chips that this machine does not have.
"""

import dataclasses
import functools
from typing import Any

import jax

from avlink_jax.data import batch as batches
from avlink_jax.errors import UserError
from avlink_jax.training import sharding, step


@dataclasses.dataclass(frozen=True)
class Programs:
  """Jitted programs, and shapes of their arguments.

  Attributes:
    init: jitted (frozen) -> State at step 0, sharded.
    update: jitted (State, frozen, batch) -> (State, metrics); the old State is donated.
    validate: jitted (params, stats, frozen, batch, number, share) -> {metric: scalar}, replicated.
    state, frozen, batch: shapes of the arguments, with shardings.
  """
  init: Any
  update: Any
  validate: Any
  state: step.State
  frozen: dict
  batch: dict


def build(task, mesh, frozen):
  """Builds the Programs of `task` on `mesh`; `frozen` holds arrays or shapes (tasks/frozen.py).

  Raises UserError: the mesh, the batch and the task do not fit together.
  """
  config, models = task.config, task.models
  sharding.check_batch(config, mesh)
  sharding.check_tokens(task, mesh)
  if config.train.accumulate > 1 and not task.accumulates:
    raise UserError(f'train.accumulate={config.train.accumulate}: {config.task} has an adversary, '
                    'whose batch cannot come in parts: set it to 1')
  optimizer = step.make_optimizer(config)
  frozen = sharding.abstract(frozen, sharding.shardings(frozen, mesh))
  init = sharding.on_mesh(mesh, functools.partial(step.init, task, optimizer, config.seed))
  shapes = jax.eval_shape(init, frozen)
  placement = sharding.shardings(shapes, mesh)
  batch = batches.shapes(config.train.batch_size, task.readers, models.layout.example, task.texts)
  return Programs(
      init=jax.jit(init, out_shardings=placement),
      update=jax.jit(
          sharding.on_mesh(mesh, functools.partial(step.train_step, task, optimizer, config)),
          donate_argnums=0, out_shardings=(placement, None)),
      validate=jax.jit(
          sharding.on_mesh(mesh, functools.partial(step.validation_loss, task, config.seed)),
          out_shardings=sharding.replicated(mesh)),
      state=sharding.abstract(shapes, placement), frozen=frozen,
      batch=sharding.abstract(batch, sharding.batch_sharding(mesh)))
