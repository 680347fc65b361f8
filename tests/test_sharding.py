"""How a run is spread over chips: by the table, and without changing what is computed."""

import os
import pathlib
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from avlink_jax import models as model_builder
from avlink_jax.errors import UserError
from avlink_jax.training import sharding
from configs import v2a

RULES = ((r'blocks/.*kernel$', (None, 'fsdp')), (r'kernel$', ('fsdp',)), (r'.*', ()))


def shapes(tree):
  return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s, np.float32), tree,
                      is_leaf=lambda s: isinstance(s, tuple))


def specs(tree, fsdp=4, rules=RULES):
  """How each leaf of a tree of shapes is split: a PartitionSpec's entries."""
  mesh = AbstractMesh((2, fsdp), ('data', 'fsdp'))
  return jax.tree.map(lambda s: s.spec, sharding.shardings(shapes(tree), mesh, rules))


def test_the_first_rule_that_matches_wins():
  tree = {'blocks': {'out': {'kernel': (6, 8, 8), 'bias': (6, 8)}}, 'head': {'kernel': (8, 12)}}
  assert specs(tree) == {
      'blocks': {'out': {'kernel': PartitionSpec(None, 'fsdp'), 'bias': PartitionSpec()}},
      'head': {'kernel': PartitionSpec('fsdp')}}
  whole = ((r'.*', ()),)
  assert set(jax.tree.leaves(specs(tree, rules=whole + RULES))) == {PartitionSpec()}


@pytest.mark.parametrize('shape, split', [
    ((8, 3), True), ((12, 3), True), ((4,), True), ((6, 8), False), ((1, 8), False), ((), False)])
def test_a_dimension_that_does_not_divide_is_left_whole(shape, split):
  spec = specs({'kernel': shape}, fsdp=4)['kernel']
  assert ('fsdp' in spec) == split
  assert len(spec) <= len(shape)


def test_the_averages_and_moments_of_a_leaf_are_split_as_the_leaf_is():
  """Their paths end alike, in whatever state they stand."""
  leaf = {'blocks': {'out': {'kernel': (6, 8, 8)}}}
  made = specs({'params': leaf, 'ema': leaf, 'optimizer': [(), {'mu': leaf, 'nu': leaf}]})
  assert made['params'] == made['ema'] == made['optimizer'][1]['mu'] == made['optimizer'][1]['nu']
  assert 'fsdp' in made['params']['blocks']['out']['kernel']


@pytest.mark.parametrize('part', ['audio', 'video', 'fusion'])
def test_the_axis_that_a_scan_runs_over_is_never_split(part):
  """And of the rest of a paper-size model at least nine tenths are split, or why have fsdp."""
  models, key = model_builder.build(v2a.get_config('paper')), jax.random.key(0)
  model = models.link if part == 'fusion' else models.towers[part]
  tree = jax.eval_shape(model.init, key)
  mesh = AbstractMesh((2, 8), ('data', 'fsdp'))
  placed = sharding.shardings(tree, mesh)
  per_chip = 0
  for (path, leaf), place in zip(jax.tree_util.tree_leaves_with_path(tree),
                                 jax.tree.leaves(placed), strict=True):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    if 'blocks' in name and place.spec:
      assert place.spec[0] is None, name
    per_chip += np.prod(place.shard_shape(leaf.shape))
  assert per_chip < 0.2 * sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_a_mesh_that_is_not_all_devices_is_told():
  count = len(jax.devices())
  with pytest.raises(UserError, match=rf'mesh\.data=3 × mesh\.fsdp={count}.*devices, {count}'):
    sharding.make_mesh(3, count)
  assert dict(sharding.make_mesh(-1, 1).shape) == {'data': count, 'fsdp': 1, 'sequence': 1}


EIGHT = '''
import functools, jax, numpy as np
from micro import batch_of, build, frozen_of, micro_config, plain_jit, random_params
from avlink_jax.training import sharding, step as training

config = micro_config('v2a')
config.train.update(warmup_steps=1, learning_rate=1e-3)
models, task = build(config)
optimizer = training.make_optimizer(config)
params = random_params(models.link)
start = training.State(np.int32(0), params, params, {}, {'all': optimizer.init(params)})
frozen, batch = frozen_of(models), batch_of(models, size=8)
step = functools.partial(training.train_step, task, optimizer, config)

def two_steps(place, batch, frozen, **out):
  update, state = plain_jit(step, **out), place(start)
  for _ in range(2):
    state, metrics = update(state, frozen, batch)
  return state, metrics

assert len(jax.devices()) == 8
alone, told = two_steps(lambda x: x, batch, frozen)
moves = [float(abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, (alone.params, params)))]
assert min(moves) > 1e-4
for data, fsdp in ((8, 1), (4, 2)):
  mesh = sharding.make_mesh(data, fsdp)
  put = functools.partial(sharding.put, mesh=mesh)
  placement = sharding.shardings(start, mesh)
  state, metrics = two_steps(put, sharding.put_batch(batch, mesh), put(frozen),
                             out_shardings=(placement, None))
  kernel = max(jax.tree.leaves(state.params), key=lambda x: x.size)
  assert len(kernel.sharding.device_set) == 8
  assert kernel.is_fully_replicated == (fsdp == 1)
  np.testing.assert_allclose(metrics['loss'], told['loss'], rtol=1e-5)
  for a, b in zip(*map(jax.tree.leaves, (state.params, alone.params)), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)
  print('mesh', data, fsdp, 'agrees')
'''


@pytest.mark.slow
def test_eight_devices_take_the_step_of_one():
  root = pathlib.Path(__file__).parents[1]
  result = subprocess.run(
      [sys.executable, '-c', textwrap.dedent(EIGHT)], cwd=root, capture_output=True, text=True,
      timeout=600, env=os.environ | {
          'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': '--xla_force_host_platform_device_count=8',
          'PYTHONPATH': os.pathsep.join([str(root), str(root / 'tests')])})
  assert result.returncode == 0, result.stderr
  assert result.stdout.splitlines() == ['mesh 8 1 agrees', 'mesh 4 2 agrees']
