"""The upsampler's step and its samples are the same numbers on any mesh, on 4 simulated devices."""

import os
import pathlib
import subprocess
import sys

import pytest
import runs

ON_MESHES = '''
import functools
import jax, numpy as np
from flax import linen
from micro import batch_of, build, frozen_of, micro_config, noise_of, quick_options, state_of
from tolerance import assert_same_first_step
from avlink_jax.build import example_shapes
from avlink_jax.sampling import sampler, windows
from avlink_jax.tasks import upsampler
from avlink_jax.training import sharding
from avlink_jax.training import programs

# Where a kink is, rounding decides on which side a place lies, and its gradient is all or nothing:
# in a ReLU, and where the loss, a mean of |difference|, is 0.
linen.relu = linen.silu
mean = upsampler.masked_mean
upsampler.masked_mean = lambda x, *masks: mean((x * x + 0.01) ** 0.5, *masks)
config = micro_config('upsampler', **{'train.warmup_steps': 0, 'sample.steps': 2})
models, task = build(config)
frozen, batch, noise = frozen_of(models), batch_of(models, size=4), noise_of(task, 4)
start = state_of(task, config, frozen)
read = {name: batch[name] for name in ('video', 'video_mask', 'video_text')}
given = {**read, 'low': np.full((4, 6, 8, 16, 3), 99, np.uint8)}
del given['video']
track = windows.track([np.zeros(1)] * 4, 6, 6.0)

def result(jitted, *arguments):
  return jitted.lower(*arguments).compile(compiler_options=quick_options())(*arguments)

def on(shape, devices):
  mesh = sharding.make_mesh(*shape, devices=devices)
  put = functools.partial(sharding.shard, mesh=mesh)
  placed = programs.build(task, mesh, frozen)
  assert jax.tree.map(lambda x: x.shape, placed.batch) == jax.tree.map(np.shape, read)
  state, metrics = result(placed.update, put(start), put(frozen),
                          sharding.shard_batch(read, mesh, 4))
  arguments = (put(start.params), put(frozen), *sharding.shard_rows((given, noise), mesh),
               {'video': (track.index, track.weight)}, 5.0, {'video': 0.0})
  wanted = sampler.abstract_arguments(task, mesh, frozen, 4)  # what `compile` compiles
  assert jax.tree.map(np.shape, arguments[:4]) == jax.tree.map(lambda x: x.shape, wanted[:4])
  samples = result(sampler.jitted(task, mesh), *arguments)
  return jax.tree.map(np.asarray, (state, metrics, samples))

alone = on((1, 1, 1), jax.devices()[:1])
assert abs(alone[2]['video'] - noise['video']).max() > 1
meshed = on((1, 2, 2), jax.devices())
places = noise['video'][..., 0].size
assert_same_first_step(meshed[0], alone[0], config.train, places)
for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(meshed[1:]),
                        jax.tree.leaves(alone[1:]), strict=True):
  np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5, err_msg=jax.tree_util.keystr(path))
print('the same')
'''


@pytest.mark.slow
def test_four_devices_train_and_sample_as_one_does():
  root = pathlib.Path(__file__).parents[2]
  done = subprocess.run(
      [sys.executable, '-c', ON_MESHES], cwd=root, capture_output=True, text=True, timeout=900,
      env=os.environ | {
          'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': runs.xla_flags(4),
          'PYTHONPATH': os.pathsep.join([str(root), str(root / 'tests')])})
  assert done.returncode == 0, done.stderr
  assert done.stdout == 'the same\n'
