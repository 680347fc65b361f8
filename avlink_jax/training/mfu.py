"""Model FLOPs utilisation (MFU) of a training step: the model's FLOP/s over the chips' peak.

The model's FLOPs are those of the forward and backward pass, without rematerialisation.
"""

import jax
from ml_collections import ConfigDict

from avlink_jax import build as model_builder
from avlink_jax import tasks
from avlink_jax.hardware import chips, flops, precision
from avlink_jax.training import step


def share_of_peak(config, jitted, devices):
  """MFU at one step a second (multiply by steps a second), or None for chips of unknown peak.

  `jitted`: the run's programs.Programs; `devices`: all devices of its mesh.
  """
  peak = chips.PEAK.get(devices[0].device_kind)
  if peak is None:
    return None
  plain = ConfigDict(config)
  plain.update(remat='none', attention='reference')  # kernels' FLOPs cannot be counted
  models = model_builder.build(plain, precision.of(devices[0].platform).compute).shapes_only
  task, optimizer = tasks.make(plain, models), step.make_optimizer(config)
  shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype),
                        (jitted.state, jitted.frozen, jitted.batch))
  train_step = lambda *args: step.train_step(task, optimizer, plain, *args)  # noqa: E731
  return flops.of(train_step, *shapes) / (peak * len(devices))
