"""configs/ablations.py: every row builds, and is its base with what its line says and no more."""

import functools
import importlib

import jax
import micro
import pytest
from absl.testing import flagsaver

from avlink_jax import tasks
from avlink_jax.build import build
from avlink_jax.configs import ablations, common
from avlink_jax.errors import UserError
from avlink_jax.main import CONFIG, parse
from avlink_jax.sampling import trained
from avlink_jax.training import step as training
from avlink_jax.training.resilience.config_drift import flat

TRAINED = [name for name in ablations.ROWS if ablations.trained(name) == name]
# Programs that are another's but for a number, or at depth 2.
ALIKE = ('clip', 'after_11', 'after_22', 'location_0', 'location_-1', 'location_-2.5',
         'location_-4')


def differing(config, other):
  """{key: (value, the other's)} of two configs."""
  one, two = (flat(c.to_dict()) for c in (config, other))
  return {key: (one.get(key), two.get(key)) for key in one.keys() | two.keys()
          if one.get(key) != two.get(key)}


@pytest.mark.parametrize('scale', common.SCALES)
@pytest.mark.parametrize('name', ablations.ROWS)
def test_a_row_changes_what_its_line_says_and_no_more(name, scale):
  base, changes = ablations.ROWS[name]
  config = ablations.get_config(f'{name}:{scale}')
  if base in ablations.TASKS:
    other = importlib.import_module(f'avlink_jax.configs.{base}').get_config(scale)
    # What is compared is the base models' own pictures, in the paper's steps.
    allowed = {'name', 'sample.upsample', 'sample.preset'} | (
        {'train.batch_size', 'train.learning_rate'} if scale == 'paper' else set())
  else:
    other, allowed = ablations.get_config(f'{base}:{scale}'), set()
    if name == 'joint_v2a':  # guided as `ours` is
      allowed = {'sample.guidance', 'sample.guidance_to'}
  found = differing(config, other)
  assert set(found) <= set(changes) | allowed
  for key, value in changes.items():
    told = flat(config.to_dict())[key]
    assert told == value or key == 'fusion.placement'
  assert config.name == ablations.trained(name)


def test_table_2_has_the_papers_switches():
  at = lambda name: ablations.get_config(name)  # noqa: E731
  assert at('uniform_time').flow.condition_law == 'uniform'
  assert at('ours').flow.condition_law == 'fixed'
  assert [at(name).towers.video.features for name in ('cavp', 'clip', 'ours')] == [512, 768, 0]
  assert [at(f'after_{k}').fusion.placement for k in (1, 11, 22)] == [
      'after:1', 'after:11', 'after:22']
  assert [at(name).fusion.injection for name in (
      'text_finetuned', 'direct', 'direct_finetuned', 'no_reinjection', 'cross_attention')] == [
          'text', 'add', 'add', 'fusion', 'cross']
  assert [name for name in ablations.GROUPS['table2'] if at(name).fusion.finetune] == [
      'cavp_finetuned', 'text_finetuned', 'direct_finetuned']
  assert [name for name in ablations.GROUPS['table2'] if not at(name).fusion.reinject] == [
      'no_reinjection']
  assert (at('ours').train.batch_size, at('ours').train.learning_rate) == (128, 1e-4)  # Sec. 4.2


@pytest.mark.parametrize('depth, places', [(24, (1, 11, 22)), (12, (1, 6, 11)), (4, (1, 2, 3))])
def test_a_groups_place_keeps_its_share_and_leaves_a_block_to_reinject_into(depth, places):
  assert tuple(int(ablations.placement(f'after:{k}', depth).split(':')[1])
               for k in (1, 11, 22)) == places


def test_sweeps_sample_from_one_training():
  assert {ablations.trained(f'time_{t:g}') for t in ablations.TIMES} == {'uniform_time'}
  assert ablations.trained('guidance_2') == ablations.trained('steps_4') == 'ours'
  times = [ablations.get_config(f'time_{t:g}_a2v:nano').flow.condition_time.audio
           for t in ablations.TIMES]
  assert times == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.96, 0.98, 1.0]


@pytest.fixture
def own_flags():
  """What is parsed here is not what the next test finds."""
  with flagsaver.flagsaver():
    yield


@pytest.mark.usefixtures('own_flags')
def test_the_command_line_says_name_and_scale():
  parse(['main', '--config=configs/ablations.py:no_reinjection'])
  assert (CONFIG.value.scale, CONFIG.value.fusion.reinject) == ('paper', False)
  parse(['main', '--config=configs/ablations.py:location_-1:nano'])
  assert (CONFIG.value.scale, CONFIG.value.flow.location.audio) == ('nano', -1.0)


def test_an_ablation_is_not_sampled_with_its_tasks_bundled_weights(tmp_path):
  config = ablations.get_config('no_reinjection:nano')
  task = tasks.make(config, build(config))
  with pytest.raises(UserError, match='no weights for no_reinjection at scale nano'):
    trained.find_weights(task, tmp_path, {}, mesh=None)


@pytest.mark.usefixtures('own_flags')
def test_a_name_that_is_none_is_told_with_those_near_it():
  with pytest.raises(UserError, match='no_reinject.*did you mean no_reinjection'):
    parse(['main', '--config=configs/ablations.py:no_reinject'])
  with pytest.raises(UserError, match="unknown scale 'huge'"):
    parse(['main', '--config=configs/ablations.py:ours:huge'])


@functools.cache
def micro_row(name):
  base, changes = ablations.ROWS[name]
  config = micro.micro_config(base, **changes)
  config.fusion.placement = ablations.placement(config.fusion.placement, 2)
  return config, tasks.make(config, build(config))


@pytest.mark.slow
@pytest.mark.parametrize('name', [name for name in TRAINED if name not in ALIKE])
def test_a_row_fits_together(name):
  """A whole training step, traced; the switches themselves are run in test_switches.py."""
  config, task = micro_row(name)
  frozen = micro.frozen_of(task.models)
  state = micro.state_of(task, config, frozen)
  step = functools.partial(training.train_step, task, training.make_optimizer(config), config)
  _, metrics = jax.eval_shape(step, state, frozen, micro.batch_of(task.models))
  assert {f'mse_{kind}' for kind in task.generate} <= set(metrics)


@pytest.mark.slow
def test_features_are_trained_with_a_tuned_tower():
  """The one combination of switches that test_switches.py does not run."""
  config, task = micro_row('cavp_finetuned')
  frozen = micro.frozen_of(task.models)
  step = micro.quick_jit(functools.partial(
      training.train_step, task, training.make_optimizer(config), config))
  state, metrics = step(micro.state_of(task, config, frozen), frozen, micro.batch_of(task.models))
  assert int(state.step) == 1 and 0 < float(metrics['loss']) < 1e3
