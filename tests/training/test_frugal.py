"""What a training step computes and keeps, and what it does not."""

import functools
import math

import jax
import numpy as np
import pytest
from micro import batch_of, build, frozen_of, micro_config, quick_jit, state_of

from avlink_jax.errors import UserError
from avlink_jax.training import memory, programs, sharding
from avlink_jax.training import step as training


def products(jaxpr, times=1):
  """(shape of the result, operations) of every matrix product, a scan's as often as it runs."""
  for equation in jaxpr.eqns:
    if equation.primitive.name == 'dot_general':
      (contracted, _), _ = equation.params['dimension_numbers']
      shape = equation.outvars[0].aval.shape
      depth = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
      yield shape, 2 * times * math.prod(shape) * depth
    again = times * (equation.params['length'] if equation.primitive.name == 'scan' else 1)
    for inner in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, 'eqns')):
      inner = getattr(inner, 'jaxpr', inner)
      if hasattr(inner, 'eqns'):
        yield from products(inner, again)


@functools.cache
def program(task_name, with_gradient, **changes):
  """The products of a loss, with or without its gradient. Attention is the plain formula."""
  changes = {name.replace('__', '.'): value for name, value in changes.items()}
  config = micro_config(task_name, **{'attention': 'reference', 'towers.audio.mlp': 56} | changes)
  models, task = build(config)
  frozen, batch = frozen_of(models), batch_of(models, 2)
  params = state_of(task, config, frozen).params
  loss = lambda params: task.loss(params, {}, frozen, batch, jax.random.key(0))[0]  # noqa: E731
  return list(products(jax.make_jaxpr(jax.grad(loss) if with_gradient else loss)(params).jaxpr))


def operations(*args, **changes):
  return sum(count for _, count in program(*args, **changes))


def added(with_gradient, shallow, deep):
  return operations('v2a', with_gradient, **deep) - operations('v2a', with_gradient, **shallow)


def test_below_the_first_fusion_block_there_is_no_gradient():
  """Blocks that are put in before it cost what they cost forward, and nothing more."""
  few = dict(fusion__placement='after:1', towers__audio__depth=2, towers__video__depth=2)
  more = dict(fusion__placement='after:3', towers__audio__depth=4, towers__video__depth=4)
  forward = added(False, few, more)
  assert added(True, few, more) == forward > 0
  behind = dict(few, towers__audio__depth=4)  # after it they cost their activations' gradient too
  assert added(True, few, behind) > 1.5 * added(False, few, behind)


def test_frozen_towers_have_no_weight_gradients():
  """No product of a step is shaped as a kernel of the audio tower's MLP, unless it is tuned."""
  kernels = {(16, 56), (56, 16)}
  shapes = {shape for shape, _ in program('v2a', True)}
  assert not shapes & kernels
  tuned = {shape for shape, _ in program('v2a', True, fusion__finetune=True)}
  assert tuned >= kernels


@pytest.mark.slow
@pytest.mark.parametrize('task', ['t2v', 'v2a'])
def test_remat_goes_forward_again(task):
  """`segment` is each scan step of AV-Link, and each block where a tower is alone."""
  none, block, segment = (operations(task, True, remat=remat)
                          for remat in ('none', 'block', 'segment'))
  forward = operations(task, False)
  assert none < block < none + forward and none < segment < none + forward
  assert (block == segment) == (task == 't2v')


def test_an_unknown_remat_is_told():
  with pytest.raises(UserError, match="remat='all': use none, attention, block, segment"):
    build(micro_config('v2a', remat='all'))


# Parts of a batch

@pytest.mark.slow
def test_a_batch_in_parts_is_the_batch():
  """Gradient (Adam's first moment is a tenth of it), step and metrics, though one example is half
  padding and each goes its own way."""
  ends = {}
  for parts in (1, 4):
    config = micro_config('joint', **{
        'train.accumulate': parts, 'train.warmup_steps': 0, 'train.learning_rate': 1e-3})
    models, task = build(config)
    frozen = frozen_of(models)
    step = quick_jit(functools.partial(
        training.train_step, task, training.make_optimizer(config), config))
    ends[parts] = step(state_of(task, config, frozen), frozen, batch_of(models, 4))
  assert ends[1][1]['loss'] > 0.1
  for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(ends[1]), jax.tree.leaves(ends[4]),
                          strict=True):
    np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-5, err_msg=jax.tree_util.keystr(path))


def test_parts_are_taken_within_each_devices_rows():
  """So that nothing moves: of 8 rows on 4 devices each has one in either of two parts."""
  rows = np.arange(8)
  parts = [np.asarray(training.part_of(i, 2)(rows)) for i in range(2)]
  assert sorted(np.concatenate(parts)) == list(rows)
  for part in parts:
    assert [row // 2 for row in part] == [0, 1, 2, 3]


@pytest.mark.parametrize('task_name', ['mel_vae', 'vocoder'])
def test_an_adversarys_batch_does_not_come_in_parts(task_name):
  config = micro_config(task_name, **{'train.accumulate': 2})
  with pytest.raises(UserError, match=f'train.accumulate=2: {task_name} has an adversary'):
    programs.build(build(config)[1], sharding.make_mesh(devices=jax.devices()[:1]), {})


# Out of memory

def out_of_memory():
  raise jax.errors.JaxRuntimeError(
      'RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm.\n Used 20G of 15.75G hbm.')


@pytest.mark.parametrize('changes, devices, remedies', [
    ({}, 8, ['train.accumulate=2', 'remat=attention', 'mesh.fsdp=2', 'train.batch_size=128']),
    ({'train.accumulate': 4, 'remat': 'segment', 'mesh.fsdp': 4}, 8,
     ['train.accumulate=8', 'mesh.fsdp=8', 'train.batch_size=128']),
    ({'mesh.sequence': 4, 'mesh.fsdp': 2}, 8,
     ['train.accumulate=2', 'remat=attention', 'train.batch_size=128']),
    ({'train.batch_size': 8, 'mesh.fsdp': 8, 'remat': 'attention'}, 8, ['remat=block'])])
def test_too_little_memory_for_a_step_is_told_with_what_to_set(changes, devices, remedies):
  config = micro_config('v2a', **{'train.batch_size': 256} | changes)
  assert memory.for_training(build(config)[1], devices) == remedies
  for remedy in remedies:  # each of which can be had
    key, value = remedy.split('=')
    other = config.copy_and_resolve_references()
    other.update_from_flattened_dict({key: value if key == 'remat' else int(value)})
    mesh = jax.sharding.AbstractMesh(
        (devices // other.mesh.fsdp // other.mesh.sequence, other.mesh.fsdp, other.mesh.sequence),
        sharding.AXES)
    sharding.check_batch(other, mesh)


def test_out_of_memory_is_one_line_and_other_failures_are_not_hidden():
  config = micro_config('v2a')
  with (pytest.raises(UserError) as told, memory.advice(memory.for_sampling, config)):
    out_of_memory()
  assert str(told.value) == (
      'out of memory (Ran out of memory in memory space hbm. Used 20G of 15.75G hbm.): set '
      f'--config.sample.batch_size={config.sample.batch_size // 2}')
  with (pytest.raises(jax.errors.JaxRuntimeError, match='INTERNAL'),
        memory.advice(memory.for_sampling, config)):
    raise jax.errors.JaxRuntimeError('INTERNAL: something else')
