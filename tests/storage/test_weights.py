"""Weights as files: there and back, and told apart."""

import types

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from micro import build, frozen_of, micro_config, quick_jit, random_params

from avlink_jax.errors import UserError
from avlink_jax.model.dit import DiT
from avlink_jax.model.tower import EvenSeconds, Input
from avlink_jax.model.wide import Wide
from avlink_jax.storage import weights
from avlink_jax.tasks import frozen as frozen_parts
from avlink_jax.training import init_from

names = st.text('abcdef_0', min_size=1, max_size=5)
leaves = hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_dims=3, max_side=4))
trees = st.dictionaries(names, st.one_of(leaves, st.dictionaries(names, leaves, min_size=1)),
                        min_size=1, max_size=4)


def flat(tree):
  return {jax.tree_util.keystr(path): x for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def assert_same(a, b):
  assert flat(a).keys() == flat(b).keys()
  for name, x in flat(a).items():
    np.testing.assert_array_equal(x, flat(b)[name])


@given(trees)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_tree_comes_back_bit_for_bit(tmp_path, tree):
  weights.save(tmp_path / 'w.safetensors', tree, {'task': 't2a', 'steps': 7})
  back, about = weights.read(tmp_path / 'w.safetensors')
  assert_same(back, tree)
  assert about == {'task': 't2a', 'steps': '7'}
  assert [p.name for p in tmp_path.iterdir()] == ['w.safetensors']  # nothing half written is left


@pytest.mark.parametrize('dtype, digits', [(np.float16, 2**-11), (ml_dtypes.bfloat16, 2**-8)])
def test_half_size_copies_come_back_as_float32_rounded_once(tmp_path, dtype, digits):
  tree = {'a': {'kernel': jnp.asarray(np.random.default_rng(0).standard_normal((3, 4)))},
          'steps': jnp.arange(3)}
  weights.save(tmp_path / 'w.safetensors', tree, {}, dtype=dtype)
  back, _ = weights.read(tmp_path / 'w.safetensors')
  kernel = np.asarray(tree['a']['kernel'])
  assert back['a']['kernel'].dtype == np.float32
  np.testing.assert_array_equal(back['a']['kernel'], kernel.astype(dtype).astype(np.float32))
  np.testing.assert_allclose(back['a']['kernel'], kernel, rtol=digits)
  assert back['steps'].dtype == np.int32  # what counts is not rounded
  np.testing.assert_array_equal(back['steps'], [0, 1, 2])


def test_packed_copies_are_off_by_half_a_127th_of_an_outputs_largest_weight_at_most(tmp_path):
  rng = np.random.default_rng(0)
  stacked = rng.standard_normal((3, 64, 32)) * np.geomspace(1e-6, 1e3, 32)
  like = rng.standard_normal((3, 64, 32)) * np.geomspace(1e-1, 1e2, 32)  # with short scales
  tree = {'params': {'kernel': jnp.asarray(stacked), 'like': jnp.asarray(like),
                     'bias': jnp.asarray(rng.standard_normal(64)),
                     'closed': jnp.zeros((64, 64)), 'steps': jnp.arange(4096).reshape(2, -1)}}
  weights.save(tmp_path / 'w.safetensors', tree, {'task': 't2v'}, dtype=np.int8)
  back, about = weights.read(tmp_path / 'w.safetensors')
  for name in ('kernel', 'like'):
    kernel = np.asarray(tree['params'][name])
    largest = np.abs(kernel).max(axis=1, keepdims=True)
    assert np.all(np.abs(back['params'][name] - kernel) <= largest * (0.5 / 127) * (1 + 2**-9))
  assert {x.dtype for x in flat(back).values()} == {np.dtype(np.float32), np.dtype(np.int32)}
  np.testing.assert_array_equal(back['params']['closed'], 0)
  np.testing.assert_array_equal(back['params']['steps'], tree['params']['steps'])
  np.testing.assert_allclose(back['params']['bias'], tree['params']['bias'], rtol=2**-11)
  assert about == {'task': 't2v'}
  weights.save(tmp_path / 'again.safetensors', back, {'task': 't2v'}, dtype=np.int8)
  assert_same(weights.read(tmp_path / 'again.safetensors')[0], back)  # once packed, nothing is lost


def test_transposed_arrays_are_saved_as_they_read(tmp_path):
  x = np.arange(6, dtype=np.float32).reshape(2, 3)
  weights.save(tmp_path / 'w.safetensors', {'x': x.T}, {})
  np.testing.assert_array_equal(weights.read(tmp_path / 'w.safetensors')[0]['x'], x.T)


def test_others_read_the_file_too_by_names_a_person_reads(tmp_path):
  weights.save(tmp_path / 'w.safetensors', {'params': {'out': {'kernel': np.ones(2)}}}, {'a': 'b'})
  with safetensors.safe_open(tmp_path / 'w.safetensors', 'numpy') as file:
    assert list(file.keys()) == ['params/out/kernel'] and file.metadata() == {'a': 'b'}


# Mistakes

def test_weights_of_the_same_model_fit():
  tree = {'a': np.zeros((2, 3)), 'b': {'c': np.zeros(1)}}
  shapes = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, tree))
  assert_same(weights.fit(tree, shapes, 'w'), tree)


def test_branches_with_nothing_in_them_come_from_the_model():
  """A file holds no empty ones; the trainer's trees have them, and must be of one structure."""
  like = {'dit': np.zeros(2), 'text': {}, 'a': {'b': {}, 'c': np.zeros(1)}}
  fitted = weights.fit({'dit': np.ones(2), 'a': {'c': np.ones(1)}}, like, 'w')
  assert jax.tree.structure(fitted) == jax.tree.structure(like)
  assert fitted['text'] == {} == fitted['a']['b']
  np.testing.assert_array_equal(fitted['dit'], np.ones(2))


def test_weights_of_another_model_are_refused_by_name():
  like = {'a': np.zeros((2, 3)), 'b': {'c': np.zeros(1)}, 'same': np.zeros(4)}
  with pytest.raises(UserError) as told:
    weights.fit({'a': np.zeros((2, 4)), 'd': np.zeros(5), 'same': np.zeros(4)}, like, 'my.file')
  line = str(told.value)
  assert line.startswith('my.file: ') and 'same' not in line and '\n' not in line
  for difference in ('a: (2, 4) in the file, (2, 3) in the model',
                     'b/c: missing in the file, (1,) in the model',
                     'd: (5,) in the file, absent in the model'):
    assert difference in line


def test_of_many_differences_a_few_are_named_and_the_rest_counted():
  like = {str(n): np.zeros(n) for n in range(1, 8)}
  with pytest.raises(UserError, match='1: .*; 2: .*; 3: .* and 4 more'):
    weights.fit({}, like, 'my.file')


@pytest.mark.parametrize('content', [b'', b'not weights, but long enough', b'\0' * 64])
def test_what_is_no_weights_file_is_told_with_its_name(tmp_path, content):
  path = tmp_path / 'photo.safetensors'
  path.write_bytes(content)
  with pytest.raises(UserError, match='photo.safetensors: not a safetensors file'):
    weights.read(path)


def test_a_truncated_file_is_told(tmp_path):
  path = tmp_path / 'w.safetensors'
  weights.save(path, {'a': np.zeros(100, np.float32)}, {})
  path.write_bytes(path.read_bytes()[:-50])
  with pytest.raises(UserError, match='not a safetensors file'):
    weights.read(path)


def test_a_file_that_is_not_there_is_told():
  with pytest.raises(UserError, match='nowhere/w.safetensors: no such weights file'):
    weights.read('nowhere/w.safetensors')


@pytest.mark.parametrize('part, task', weights.PARTS.items())
def test_weights_that_are_not_bundled_are_told_with_what_to_do(part, task):
  key = 'sample.vocoder' if part == 'vocoder' else f'frozen.{part}'
  with pytest.raises(UserError, match=rf"{task} weights.*'small'.*configs/{task}\.py:small.*"
                                      rf'--config\.{key} '):
    weights.locate(part, 'bundled', 'small')


def test_bundled_weights_of_another_config_are_named():
  assert weights.bundled('video_codec', 'nano').name == 'video_vae.safetensors'
  found = weights.bundled('video_codec', 'nano', 'bundled:base_vae')
  assert found == weights.BUNDLED / 'nano' / 'base_vae.safetensors'
  with pytest.raises(UserError, match=r"no base_vae weights.*'small'.*configs/base_vae\.py:small"):
    weights.locate('video_codec', 'bundled:base_vae', 'small')
  assert weights.is_bundled('bundled') and weights.is_bundled('bundled:base_vae')
  assert not weights.is_bundled('bundled.safetensors') and not weights.is_bundled('')


def test_a_part_that_is_not_given_is_told_with_its_key():
  with pytest.raises(UserError, match=r'--config\.frozen\.audio is not set.*configs/t2a\.py'):
    weights.locate('audio', '', 'small')
  with pytest.raises(UserError, match=r'--config\.sample\.vocoder is not set.*configs/vocoder\.py'):
    weights.locate('vocoder', '', 'small')


def test_a_part_is_found_in_a_workdir_or_as_a_file(tmp_path):
  assert weights.locate('audio', str(tmp_path), 'small') == tmp_path / 'weights.safetensors'
  file = tmp_path / 'mine.safetensors'
  assert weights.locate('audio', str(file), 'small') == file


# The frozen trees of a run

def test_frozen_parts_are_read_from_where_the_config_says(tmp_path):
  config = micro_config('v2a')
  models, task = build(config)
  frozen = frozen_of(models)
  weights.save(tmp_path / 'codec.safetensors', {
      'params': frozen['codec']['params'], 'stats': {'std': frozen['codec']['std']}}, {})
  config.frozen.codec = str(tmp_path / 'codec.safetensors')
  for name, tower in frozen['towers'].items():
    config.frozen[name] = str(tmp_path / name)
    (tmp_path / name).mkdir()
    weights.save(tmp_path / name / 'weights.safetensors', {'params': tower}, {})
  assert_same(frozen_parts.load(config, models, task.frozen_parts), frozen)
  half = frozen_parts.load(config, models, task.frozen_parts, dtype=jnp.bfloat16)
  assert {x.dtype for x in jax.tree.leaves(half['towers'])} == {jnp.dtype(jnp.bfloat16)}

  weights.save(tmp_path / 'foreign.safetensors', {'conv_pre': np.zeros(3)}, {})
  for part in task.frozen_parts:
    other = config.copy_and_resolve_references()
    other.frozen[part] = str(tmp_path / 'foreign.safetensors')
    with pytest.raises(UserError, match='foreign.*weights are of another model.*missing in the'):
      frozen_parts.load(other, models, task.frozen_parts)

  config.frozen.audio = config.frozen.video
  with pytest.raises(UserError, match='video.*weights are of another model.*dit/'):
    frozen_parts.load(config, models, task.frozen_parts)


@pytest.mark.parametrize('dtype', [None, jnp.bfloat16])
def test_a_run_keeps_its_frozen_parts_for_itself(tmp_path, dtype):
  """In whatever precision they are held; after that, nothing that happens elsewhere matters."""
  config = micro_config('t2a')
  models, _ = build(config)
  config.frozen.codec = str(tmp_path / 'codec.safetensors')
  vae, text = models.modalities['audio'].codec.vae, models.modalities['audio'].text
  codec = {'params': random_params(vae), 'stats': {'std': np.float32(0.7)}}
  weights.save(config.frozen.codec, codec, {})
  tower = {'dit': random_params(models.towers['audio']), 'text': random_params(text)}
  config.frozen.audio = str(tmp_path / 'audio.safetensors')
  weights.save(config.frozen.audio, {'params': tower}, {})
  parts, workdir = ('codec', 'audio'), tmp_path / 'run'
  workdir.mkdir()
  before = frozen_parts.load(config, models, parts, dtype, workdir)
  frozen_parts.keep(config, workdir, before, parts)
  config.frozen.codec = config.frozen.audio = str(tmp_path / 'gone')
  assert_same(frozen_parts.load(config, models, parts, dtype, workdir), before)


# Stages on stages

def test_more_channels_at_the_input_change_nothing_at_first():
  """New input weights are zero, pixel by pixel: whatever the new channels hold is not heard."""
  of = lambda channels: Wide(DiT(  # noqa: E731
      channels=channels, patch=(1, 2, 2), seconds=EvenSeconds(6.0), width=16, depth=1, heads=2,
      mlp=16, text_width=8), hidden=4)
  narrow, wide = of(3), of(5)
  given = random_params(narrow)
  start = jax.tree.map(jnp.asarray, random_params(wide, 1))
  merged, taken, widened, left = weights.overlay(start, given, lambda name: 4)
  assert sorted(widened) == ['embed/patch/kernel', 'embed/wide/Dense_0/kernel', 'head/seen/kernel']
  assert sorted(left) == ['head/out/bias', 'head/out/kernel', 'head/wide_out/bias',
                          'head/wide_out/kernel']
  rng = np.random.default_rng(0)
  x = rng.standard_normal((1, 2, 4, 4, 5), np.float32)
  rest = (np.full(1, 0.3, np.float32), np.ones((1, 3, 8), np.float32), np.ones((1, 3), bool),
          np.ones((1, 2), bool))
  few = quick_jit(lambda p, x: narrow.embed(p, Input(x, *rest)).tokens)(given, x[..., :3])
  many = quick_jit(lambda p, x: wide.embed(p, Input(x, *rest)).tokens)(merged, x)
  np.testing.assert_allclose(many, few, atol=1e-5)
  assert len(taken) + len(widened) + len(left) == len(jax.tree.leaves(start))


def test_fewer_channels_or_another_width_are_left_as_they_begin():
  tree = {'embed': {'patch': {'kernel': jnp.ones((12, 4))}}, 'mlp': {'kernel': jnp.ones((8, 4))}}
  for kernel in (np.zeros((16, 4)), np.zeros((12, 5)), np.zeros((10, 4))):
    _, taken, widened, left = weights.overlay(
        tree, {'embed': {'patch': {'kernel': kernel}}, 'mlp': {'kernel': np.zeros((4, 4))}},
        lambda name: 4)
    assert not taken and not widened and len(left) == 2


def test_a_run_says_what_it_took_widened_and_left(tmp_path, capsys):
  config = micro_config('t2v')
  models, task = build(config)
  params = jax.tree.map(jnp.asarray, {
      'dit': random_params(models.towers['video']),
      'text': random_params(models.modalities['video'].text)})
  given = jax.tree.map(np.asarray, params)
  kernel = given['dit']['embed']['patch']['kernel']
  given['dit']['embed']['patch']['kernel'] = kernel.reshape(32, 3, -1)[:, :2].reshape(64, -1)
  given['dit']['head']['out']['bias'] = np.zeros(5, np.float32)
  given['other'] = {'thing': np.zeros(3, np.float32)}
  weights.save(tmp_path / 'w.safetensors', {'params': given}, {})
  state = types.SimpleNamespace(params=params, stats={},
                                replace=lambda **new: types.SimpleNamespace(**new))
  new = init_from.start(state, str(tmp_path / 'w.safetensors'), task)
  said = capsys.readouterr().err
  count = len(jax.tree.leaves(params)) - 2
  assert f'{count} arrays taken; 1 widened by inputs of zero weight: dit/embed/patch/kernel' in said
  assert '; 1 begin anew: dit/head/out/bias; 2 of its own are left out' in said
  wide = np.asarray(new.params['dit']['embed']['patch']['kernel']).reshape(32, 3, -1)
  np.testing.assert_array_equal(wide[:, :2], kernel.reshape(32, 3, -1)[:, :2])
  assert not wide[:, 2].any()
