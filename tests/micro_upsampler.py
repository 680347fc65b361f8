"""The micro upsampler, and parameters of it as training might leave them."""

import functools

import jax
from micro import batch_of, build, frozen_of, micro_config, random_like


@functools.cache
def upsampler():
  """(task, frozen trees, a batch)."""
  models, task = build(micro_config('upsampler'))
  return task, frozen_of(models), batch_of(models, 2)


@functools.cache
def random_trained():
  """Parameters as training might leave them."""
  task, frozen, _ = upsampler()
  return random_like(jax.eval_shape(lambda: task.init(jax.random.key(0), frozen)), 3)
