"""Weights of any checkpoint: written as a file, and as the beginning of another run."""

import json
import shutil

import flax
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import runs
from micro import build

from avlink_jax import export
from avlink_jax.errors import MISTAKE, UserError
from avlink_jax.sampling import trained
from avlink_jax.storage import weights
from avlink_jax.storage.config_versions import config_of
from avlink_jax.training import init_from, saved_weights, sharding
from avlink_jax.training.checkpoint import Checkpoints
from avlink_jax.training.step import State


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  """A run that has not ended: a checkpoint of step 2, of the first edition."""
  return runs.of_first_edition('v2a', tmp_path_factory.mktemp('first'))


@pytest.fixture
def copy(workdir, tmp_path):
  return shutil.copytree(workdir, tmp_path / 'run')


def flat(tree):
  return flax.traverse_util.flatten_dict(tree, sep='/')


@pytest.mark.parametrize('raw', [False, True])
def test_export_writes_a_checkpoints_weights_like_a_finished_runs(workdir, tmp_path, raw, capsys):
  out = tmp_path / 'w.safetensors'
  flags = ['--step=2', f'--output={out}', *(['--raw'] if raw else [])]
  assert export.main([str(workdir), *flags]) == 0
  assert json.loads(capsys.readouterr().out) == {
      'path': str(out), 'task': 'v2a', 'scale': 'nano', 'step': 2, 'raw': raw}
  saved = ocp.StandardCheckpointer().restore(workdir / 'checkpoints/2/state')
  tree, header = weights.read(out)
  wanted = flat(jax.tree.map(np.asarray, saved['params' if raw else 'ema']))
  assert flat(tree['params']).keys() == wanted.keys()
  for name, array in flat(tree['params']).items():
    np.testing.assert_array_equal(array, wanted[name])
  assert {'task', 'scale', 'steps', 'seed', 'config'} <= header.keys() and header['steps'] == '2'
  _, task = build(config_of(header, out))  # and it fits the model that it says it is of
  like = jax.eval_shape(task.init, jax.random.key(0), None)
  weights.fit(tree['params'], like, out)


def test_the_newest_intact_checkpoint_is_the_default_and_lies_beside(copy, capsys):
  assert export.main([str(copy)]) == 0
  assert (copy / 'weights_2.safetensors').exists()
  assert export.main([str(copy), '--raw']) == 0
  assert (copy / 'weights_2_raw.safetensors').exists()


def group_of(generator):
  zero = {'w': np.zeros(3, np.float32)}
  params = {'discriminator': zero, 'generator': {'k': np.full(3, generator, np.float32)}}
  return State(np.int32(1), params, {'k': np.full(3, 5.0, np.float32)}, {'std': np.float32(2)}, {})


def save(workdir, *states):
  checkpoints = Checkpoints(workdir)
  for step, state in enumerate(states, 1):
    checkpoints.save(step, state, {'config': {'task': 'mel_vae', 'scale': 'nano', 'seed': 0}})
  checkpoints.close()


def test_of_groups_the_one_that_is_averaged_is_written(tmp_path):
  save(tmp_path, group_of(7.0))
  tree, _ = saved_weights.read(tmp_path, raw=True)
  assert tree['params']['k'].tolist() == [7.0] * 3 and tree['stats'] == {'std': 2.0}
  assert saved_weights.read(tmp_path)[0]['params']['k'].tolist() == [5.0] * 3


def test_numbers_that_are_not_finite_are_not_written(tmp_path):
  save(tmp_path, group_of(7.0), group_of(np.nan))
  with pytest.raises(UserError, match=r'step 2: params/k .* finite: give an earlier step \(1\)'):
    saved_weights.read(tmp_path, raw=True)


@pytest.mark.parametrize('arguments, told', [
    (['--step=7'], 'no checkpoint of step 7: it has 2'), (['--step=x'], 'invalid int'),
    (['--step=-1'], 'no checkpoint of step -1'), (['--stpe=2'], 'unrecognized'),
    (['two', 'words'], 'unrecognized')])
def test_a_mistake_is_told_in_one_line(workdir, arguments, told, capsys):
  assert export.main([str(workdir), *arguments]) == MISTAKE
  said = capsys.readouterr().err
  assert told in said and said.startswith('avlink_jax: ') and len(said.splitlines()) == 1


@pytest.mark.parametrize('where, told', [
    ('nowhere', 'no such folder'), ('.', 'has no checkpoints'), ('gs://b/run', '--output=FILE')])
def test_a_workdir_without_checkpoints_is_told_in_one_line(tmp_path, where, told, capsys):
  assert export.main([where if '://' in where else str(tmp_path / where)]) == MISTAKE
  assert told in capsys.readouterr().err


def test_a_damaged_checkpoint_is_not_exported(copy, capsys):
  path = next((copy / 'checkpoints/2/state/ocdbt.process_0/d').iterdir())
  path.write_bytes(path.read_bytes()[:-1])
  assert export.main([str(copy), '--step=2']) == MISTAKE
  assert 'step 2 is damaged' in capsys.readouterr().err


def test_a_run_begins_with_the_newest_of_checkpoint_and_weights_file(copy):
  config = config_of({'config': (copy / 'config.json').read_text()}, copy)
  _, task = build(config)
  ema = saved_weights.read(copy)[0]['params']
  zeros = jax.tree.map(lambda x: jax.numpy.zeros(x.shape), ema)
  state = State(0, zeros, zeros, {}, {})
  begun = init_from.start(state, str(copy), task)  # a run that has not ended
  for a, b in zip(jax.tree.leaves(begun.params), jax.tree.leaves(ema), strict=True):
    np.testing.assert_array_equal(a, b)
  ones = {'params': jax.tree.map(np.ones_like, ema)}
  for steps, value in ((1, None), (2, 1.0)):  # older than the checkpoint; as new
    weights.save(copy / 'weights.safetensors', ones, {'steps': steps})
    begun = init_from.start(state, str(copy), task)
    assert (value is None) != (jax.tree.leaves(begun.params)[0].ravel()[0] == 1.0)


def test_sampling_reads_the_average_alone_whatever_the_optimiser_was(copy):
  config = config_of({'config': (copy / 'config.json').read_text()}, copy)
  config.train.optimizer = 'muon'  # in whose state nothing lies where AdamW's does
  _, task = build(config)
  mesh = sharding.make_mesh(1, devices=jax.devices()[:1])
  found = trained.find_weights(task, copy, {}, mesh, explicit=True)
  wanted = saved_weights.read(copy)[0]['params']
  for a, b in zip(*map(jax.tree.leaves, (found.params, wanted)), strict=True):
    np.testing.assert_array_equal(a, b)
  assert found.origin == f'{copy}, step 2'


def test_a_part_of_a_run_that_has_not_ended_says_how_to_get_its_weights(copy):
  with pytest.raises(UserError, match=f'avlink_jax.export {copy}'):
    weights.locate('audio', str(copy), 'nano')
