"""The very same numbers on any mesh: loss, gradients, a training step and samples, on 8 devices."""

import os
import pathlib
import subprocess
import sys
import textwrap

import pytest
import runs

EIGHT = '''
import functools, sys
import jax, numpy as np
from micro import batch_of, build, frozen_of, micro_config, noise_of, quick_options, random_params
from tolerance import assert_same_first_step
from avlink_jax.build import example_shapes
from avlink_jax.sampling import sampler, windows
from avlink_jax.training import sharding, step as training
from avlink_jax.training import programs

config = micro_config('v2a')
config.train.update(warmup_steps=0, learning_rate=1e-3, batch_size=8)
config.sample.steps = 4
models, task = build(config)
optimizer = training.make_optimizer(config)
params = random_params(models.link)
zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype),
                     {'all': jax.eval_shape(optimizer.init, params)})
start = training.State(np.int32(0), params, params, {}, zeros, {
    name: np.int32(0) for name in training.COUNTS})
frozen, batch, noise = frozen_of(models), batch_of(models, size=8), noise_of(task, 8)
given = {name: x for name, x in batch.items() if name != 'mel'}
track = windows.track([np.zeros(1)] * 8, example_shapes(models)['audio'][0],
                      models.modalities['audio'].codec.rate)

def result(jitted, *arguments):
  return jitted.lower(*arguments).compile(compiler_options=quick_options())(*arguments)

def on(*shape, devices=None):
  mesh = sharding.make_mesh(*shape, devices=devices)
  put = functools.partial(sharding.shard, mesh=mesh)
  state, metrics = result(programs.build(task, mesh, frozen).update, put(start), put(frozen),
                          sharding.shard_batch(batch, mesh, 8))
  samples = result(sampler.jitted(task, mesh), put(params), put(frozen),
                   *sharding.shard_rows((given, noise), mesh),
                   {'audio': (track.index, track.weight)}, 5.0, {'audio': 0.0})
  kernel = max(jax.tree.leaves(state.optimizer), key=lambda x: x.size)
  assert len(kernel.sharding.device_set) == mesh.size
  assert kernel.is_fully_replicated == (mesh.shape['fsdp'] == 1)
  return jax.tree.map(np.asarray, (state, metrics, samples))

def validated(*shape, devices=None):
  mesh = sharding.make_mesh(*shape, devices=devices)
  arguments = sharding.shard((params, {}, frozen), mesh), sharding.shard_batch(batch, mesh, 8)
  return result(programs.build(task, mesh, frozen).validate, *arguments[0], arguments[1],
                *sharding.shard((np.int32(0), np.float32(0.4)), mesh))

of_one, of_eight = validated(1, 1, 1, devices=jax.devices()[:1]), validated(2, 2, 2)
for name, value in of_one.items():
  np.testing.assert_allclose(of_eight[name], value, rtol=1e-5, err_msg=name)

alone = on(1, 1, 1, devices=jax.devices()[:1])
moved = [abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (alone[0].params, params)))]
assert min(moved) > 1e-4  # all of it was trained
assert abs(alone[2]['audio'] - noise['audio']).max() > 1  # and something made

tokens = 8 * (24 + 13)
for shape in eval(sys.argv[1]):
  meshed = on(*shape)
  assert_same_first_step(meshed[0], alone[0], config.train, tokens)
  for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(meshed[1:]),
                          jax.tree.leaves(alone[1:]), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5, err_msg=jax.tree_util.keystr(path))
  print(shape)

config.train.optimizer = 'muon'
muon = training.make_optimizer(config)
def orthogonalised(*shape, devices=None):
  step = jax.jit(lambda params: muon.update(params, muon.init(params), params)[0])
  return result(step, sharding.shard(params, sharding.make_mesh(*shape, devices=devices)))

for a, b in zip(*map(jax.tree.leaves, (
    orthogonalised(1, 8, 1), orthogonalised(1, 1, 1, devices=jax.devices()[:1]))), strict=True):
  np.testing.assert_allclose(a, b, atol=1e-3 * config.train.learning_rate)
'''


@pytest.mark.slow
def test_eight_devices_train_and_sample_as_one_does_however_they_are_meshed():
  """Adam's first moment is then a tenth of the clipped gradient, whose norm is told beside."""
  root = pathlib.Path(__file__).parents[2]
  meshes = [(8, 1, 1), (1, 8, 1), (2, 2, 2), (1, 2, 4)]
  done = subprocess.run(
      [sys.executable, '-c', textwrap.dedent(EIGHT), str(meshes)], cwd=root, capture_output=True,
      text=True, timeout=900, env=os.environ | {
          'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': runs.xla_flags(8),
          'PYTHONPATH': os.pathsep.join([str(root), str(root / 'tests')])})
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines() == list(map(str, meshes))
