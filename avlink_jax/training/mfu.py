"""How much of the chips' peak a training step uses: its model's FLOPs a second over their rate.

The model's FLOPs are forward and backward as the equations have them: what rematerialisation
computes again does not count.
"""

import jax
from ml_collections import ConfigDict

from avlink_jax import build as model_builder
from avlink_jax import tasks
from avlink_jax.hardware import chips, flops, precision
from avlink_jax.training import step as training


def share_of_peak(config, placed, devices):
  """MFU of one step a second (so that times steps a second it is the run's), or None where the peak
  of the chips is not known: no other chip's is taken for it.

  `placed` is the run's, `devices` all of its mesh.
  """
  peak = chips.PEAK.get(devices[0].device_kind)
  if peak is None:
    return None
  plain = ConfigDict(config)
  plain.update(remat='none', attention='reference')  # kernels cannot be looked into
  models = model_builder.build(plain, precision.of(devices[0].platform).compute).shapes_only
  task, optimizer = tasks.make(plain, models), training.make_optimizer(config)
  shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype),
                        (placed.state, placed.frozen, placed.batch))
  step = lambda *args: training.train_step(task, optimizer, plain, *args)  # noqa: E731
  return flops.of(step, *shapes) / (peak * len(devices))
