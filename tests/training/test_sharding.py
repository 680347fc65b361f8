"""How a run is spread over chips: by the table, and without changing what is computed."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec
from micro import build, micro_config

from avlink_jax import build as model_builder
from avlink_jax import tasks
from avlink_jax.errors import UserError
from avlink_jax.hardware import flops
from avlink_jax.model import axes
from avlink_jax.model.attention import Kernel
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


def test_all_devices_that_are_left_are_the_datas():
  count = len(jax.devices())
  assert dict(sharding.make_mesh().shape) == {'data': count, 'fsdp': 1, 'sequence': 1}


@pytest.mark.parametrize('shape, devices, said', [
    ((3, 2, 1), 8, 'mesh.data=3 × mesh.fsdp=2 × mesh.sequence=1 does not make 8 devices: '
                   'mesh.data=4 works'),
    ((-1, 3, 1), 8, 'mesh.fsdp=2 or 4 works'), ((2, 1, 3), 8, 'mesh.sequence=2 or 4 works'),
    ((-1, 16, 1), 8, 'mesh.fsdp=8 works'), ((0, 1, 1), 8, 'mesh.data=8 works'),
    ((-1, 0, 1), 4, 'mesh.fsdp=1 works'), ((1, 3, 2), 12, 'mesh.data=2 works')])
def test_a_mesh_that_is_not_all_devices_is_told_with_one_that_is(shape, devices, said):
  with pytest.raises(UserError, match=re.escape(said)):
    sharding.make_mesh(*shape, devices=range(devices))


def meshed(**axes):
  return AbstractMesh(tuple(axes.values()), tuple(axes))


@pytest.mark.parametrize('size, parts, said', [
    (10, 1, 'train.batch_size=10 does not divide over mesh.data × mesh.fsdp = 8: 8 or 16 works'),
    (3, 1, '8 works'), (0, 1, '8 works'),
    (16, 4, 'mesh.data × mesh.fsdp = 8, 4 times (train.accumulate): 32 works'),
    (16, 0, 'train.accumulate=0: use 1'), (24, 2, '16 or 32 works')])
def test_a_batch_that_does_not_divide_is_told_with_one_that_does(size, parts, said):
  config = micro_config('t2v', **{'train.batch_size': size, 'train.accumulate': parts})
  with pytest.raises(UserError, match=re.escape(said)):
    sharding.check_batch(config, meshed(data=4, fsdp=2, sequence=2))
  config.train.update(batch_size=16, accumulate=2)
  sharding.check_batch(config, meshed(data=4, fsdp=2, sequence=2))


@pytest.mark.parametrize('task, sequence, said', [
    ('v2a', 9, 'mesh.sequence=9 does not divide the 24 tokens of video: 3 works'),
    ('t2v', 16, 'does not divide the 24 tokens of video: 8 works'),
    ('t2a', 2, 'mesh.sequence=2 splits the tokens of the video, and t2a has none'),
    ('mel_vae', 2, 'mel_vae has none: mesh.sequence=1 works')])
def test_tokens_that_cannot_be_split_are_told(task, sequence, said):
  task = build(micro_config(task))[1]
  with pytest.raises(UserError, match=re.escape(said)):
    sharding.check_tokens(task, meshed(data=1, fsdp=1, sequence=sequence))
  sharding.check_tokens(task, meshed(data=8, fsdp=1, sequence=1))


@pytest.mark.parametrize('sequence', [1, 2, 4, 8, 16, 32])
def test_the_papers_picture_can_be_split_by_powers_of_two(sequence):
  config = v2a.get_config('paper')
  task = tasks.make(config, model_builder.build(config))
  sharding.check_tokens(task, meshed(data=1, fsdp=1, sequence=sequence))


# Activations

@pytest.mark.parametrize('names, shape, wanted', [
    (('batch', 'video_tokens', None), (8, 24, 16), (('data', 'fsdp'), 'sequence', None)),
    (('batch', None, 'video_tokens'), (4, 2, 24), (('data', 'fsdp'), None, 'sequence')),
    (('batch', 'audio_tokens', None), (8, 24, 16), (('data', 'fsdp'), None, None)),
    (('batch', 'video_tokens', None), (6, 25, 16), (None, None, None)),  # they do not divide
])
def test_activations_lie_as_the_table_says_of_their_logical_axes(names, shape, wanted):
  with axes.in_force(meshed(data=2, fsdp=2, sequence=4), sharding.ACTIVATIONS):
    assert axes.spec(shape, *names) == PartitionSpec(*wanted)


@pytest.mark.parametrize('mesh', [None, {'data': 1, 'fsdp': 1, 'sequence': 1}])
def test_off_a_mesh_and_on_one_device_models_run_as_they_are_written(mesh):
  constrain = lambda x: axes.constrain(x, 'batch', 'video_tokens', None)  # noqa: E731
  constrain = sharding.on_mesh(meshed(**mesh), constrain) if mesh else constrain
  assert not jax.make_jaxpr(constrain)(jnp.ones((8, 24, 16))).eqns


STREAMS = ('audio_tokens', 'video_tokens')


@pytest.mark.parametrize('queries, keys', [
    (STREAMS, STREAMS), (STREAMS[1:], STREAMS[1:]), (STREAMS[:1], STREAMS[1:]),
    (STREAMS[1:], ('text_tokens',))])
def test_on_a_mesh_no_query_is_attended_twice(queries, keys):
  """Not even those that every device has, but for what fills up their last share."""
  lengths = {'audio_tokens': 129, 'video_tokens': 1024, 'text_tokens': 16}
  of = lambda names: [jax.ShapeDtypeStruct((4, 2, lengths[n], 8), np.float32) for n in names]  # noqa: E731
  kernel = Kernel('reference').between(queries, keys)
  run = lambda q, k, v: kernel(q, k, v)  # noqa: E731
  alone = flops.of(run, of(queries), of(keys), of(keys))
  filled = (sum(lengths[n] for n in queries) + 3) / sum(lengths[n] for n in queries)
  meshes = sharding.on_mesh(meshed(data=2, fsdp=2, sequence=4), run)
  assert alone <= flops.of(meshes, of(queries), of(keys), of(keys)) <= filled * alone
