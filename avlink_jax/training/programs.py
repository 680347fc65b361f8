"""The programs of a training run on a mesh, and where everything they touch lies.

Nothing here looks at a device: on shapes in the place of arrays, and on a mesh of chips that are
not there, the same programs are compiled ahead of time.
"""

import dataclasses
import functools
from typing import Any

import jax

from avlink_jax.data import batch as batches
from avlink_jax.errors import UserError
from avlink_jax.training import sharding
from avlink_jax.training import step as training


@dataclasses.dataclass(frozen=True)
class Placed:
  """What `place` makes.

  Attributes:
    init: jitted (frozen) -> State at step 0, made where it is to lie.
    update: jitted (State, frozen, batch) -> (State, metrics); the new State takes the old one's
      memory.
    state, frozen, batch: shapes of what they take, which know where it lies.
  """
  init: Any
  update: Any
  state: training.State
  frozen: dict
  batch: dict


def place(task, mesh, frozen):
  """The run of `task` on `mesh`; `frozen` holds arrays or shapes (tasks/frozen.py).

  Raises UserError where the mesh, the batch and the task do not fit together.
  """
  config, models = task.config, task.models
  sharding.check_batch(config, mesh)
  sharding.check_tokens(task, mesh)
  if config.train.accumulate > 1 and not task.accumulates:
    raise UserError(f'train.accumulate={config.train.accumulate}: {config.task} has an adversary, '
                    'whose batch cannot come in parts: set it to 1')
  optimizer = training.make_optimizer(config)
  frozen = sharding.abstract(frozen, sharding.shardings(frozen, mesh))
  init = sharding.over(mesh, functools.partial(training.init, task, optimizer, config.seed))
  shapes = jax.eval_shape(init, frozen)
  placement = sharding.shardings(shapes, mesh)
  batch = batches.shapes(config.train.batch_size, task.readers, models.layout.example, models.texts)
  return Placed(
      init=jax.jit(init, out_shardings=placement),
      update=jax.jit(
          sharding.over(mesh, functools.partial(training.train_step, task, optimizer, config)),
          donate_argnums=0, out_shardings=(placement, None)),
      state=sharding.abstract(shapes, placement), frozen=frozen,
      batch=sharding.abstract(batch, sharding.batch_sharding(mesh)))
