"""Which changes of a config a run may go on with."""

import copy
import json

import pytest
from micro import micro_config

from avlink_jax.errors import UserError
from avlink_jax.training.resilience import drift_record, rising_rate
from avlink_jax.training.resilience.config_drift import check, check_allowed, drift

SAVED = micro_config('v2a').to_dict()


def changed(**changes):
  return micro_config('v2a', **changes).to_dict()


def test_a_config_that_was_saved_is_the_config_that_was_given():
  """Though JSON has no tuples."""
  assert not drift(json.loads(json.dumps(SAVED)), SAVED)


@pytest.mark.parametrize('key, value', [
    ('towers.audio.width', 32), ('fusion.reinject', False), ('codec.width', 16),  # model
    ('data.source', 'clips'), ('data.seed', 1), ('train.batch_size', 8),  # data
    ('flow.location.audio', 0.0), ('flow.condition_law', 'uniform'), ('flow.scale', 2.0),  # law
    ('seed', 1), ('train.learning_rate', 1.0), ('frozen.audio', 'elsewhere')])
def test_what_says_what_is_trained_on_what_stops(key, value):
  old = micro_config('v2a')
  assert drift(SAVED, changed(**{key: value})) == [
      (key, eval(f'old.{key}', {'old': old}), value)]


@pytest.mark.parametrize('key, value', [
    ('train.steps', 7), ('train.log_every', 7), ('train.sample_every', 7), ('checkpoint.every', 7),
    ('checkpoint.keep', 7), ('sample.steps', 7), ('sample.guidance', 7.0), ('mesh.fsdp', 7),
    ('attention', 'reference'), ('remat', 'block'), ('data.threads', 7),
    ('train.watchdog_seconds', 7), ('train.max_bad_steps', 7)])
def test_logging_length_and_hardware_may_change(key, value):
  assert not drift(SAVED, changed(**{key: value}))


def test_the_list_names_keys_old_and_new_values_and_what_to_do():
  with pytest.raises(UserError) as told:
    check(SAVED, changed(**{'data.seed': 3, 'flow.scale': 2.0, 'train.steps': 9}), 'runs/x')
  assert str(told.value).startswith(
      'runs/x was begun with another config (data.seed: 0 -> 3; flow.scale: 1.0 -> 2.0)')
  assert 'train.steps' not in str(told.value) and '--workdir' in str(told.value)


def test_a_key_that_only_one_of_them_has_is_no_change_but_is_said(capsys):
  """Neither can be given: a release that adds a key would strand every unfinished run."""
  saved, now = copy.deepcopy(SAVED), copy.deepcopy(SAVED)
  saved['gone'], now['train']['came'] = 1, 2
  assert not drift(saved, now) and check(saved, now, 'runs/x') == {}
  said = capsys.readouterr().err
  assert said == ('runs/x was saved by an earlier version: gone is no more; train.came came since, '
                  'and count as what was done before\n')


def test_a_key_that_came_since_counts_as_its_default_of_then():
  """Another value of it now is a change that the user can take back."""
  saved = copy.deepcopy(SAVED)
  del saved['data']['crop_height']
  assert check(saved, SAVED, 'runs/x') == {}
  with pytest.raises(UserError, match='data.crop_height: 0 -> 4'):
    check(saved, changed(**{'data.crop_height': 4}), 'runs/x')


def test_what_is_allowed_to_change_is_returned_with_both_values():
  now = changed(**{'train.learning_rate': 1e-3, 'flow.scale': 2.0})
  with pytest.raises(UserError, match='--allow_drift=flow.scale,train.learning_rate goes on'):
    check(SAVED, now, 'runs/x')
  with pytest.raises(UserError, match=r'\(flow.scale: 1.0 -> 2.0\)'):
    check(SAVED, now, 'runs/x', ['train.learning_rate'])
  assert check(SAVED, now, 'runs/x', ['train.*', 'flow.scale']) == {
      'train.learning_rate': [1e-2, 1e-3], 'flow.scale': [1.0, 2.0]}


def test_another_optimiser_is_never_allowed_since_its_state_has_another_form():
  now = changed(**{'train.optimizer': 'muon'})
  with pytest.raises(UserError, match='train.optimizer.*take') as told:
    check(SAVED, now, 'runs/x', ['train.*'])
  assert 'goes on with' not in str(told.value)
  with pytest.raises(UserError, match='another run'):
    check_allowed(['train.optimizer'])


@pytest.mark.parametrize('pattern', ['towers.audio.width', '*', 'fusion.*', 'frozen.audio', ''])
def test_another_model_is_not_to_be_allowed(pattern):
  with pytest.raises(UserError, match='another model is another run'):
    check_allowed([pattern])
  check_allowed(['train.learning_rate', 'train.*', 'flow.scale', 'data.source'])


def test_the_same_data_at_another_place_is_no_change(capsys):
  now = changed(**{'data.source': '/new/records', 'frozen.audio': 'new.safetensors'})
  assert check(SAVED, now, 'runs/x', same=lambda key: True) == {}
  assert "data.source: 'impacts' -> '/new/records'" in capsys.readouterr().err
  with pytest.raises(UserError, match='frozen.audio'):
    check(SAVED, now, 'runs/x', same=lambda key: key == 'data.source')


def test_what_was_allowed_is_recorded_once_and_not_for_steps_that_are_taken_again(tmp_path):
  for step, accepted in ((2, {'a': [1, 2]}), (2, {'a': [1, 2]}), (4, {'b': [1, 2]}), (4, {}),
                         (3, {'c': [1, 2]})):
    drift_record.write(tmp_path, step, accepted)
  assert [json.loads(line) for line in (tmp_path / drift_record.FILE).read_text().splitlines()] == [
      {'step': 2, 'changed': {'a': [1, 2]}}, {'step': 3, 'changed': {'c': [1, 2]}}]


def test_a_longer_run_says_that_its_rate_rises_again_and_only_then():
  def run(steps, decay=4, rate=1e-2):
    return micro_config('v2a', **{'train.steps': steps, 'train.decay_steps': decay,
                                  'train.learning_rate': rate})

  notice = rising_rate.notice(run(10), run(20), 10)
  assert 'had fallen to 0 by step 10 and rises to 0.01 again' in notice
  assert 'had fallen to 0.005 by step 8' in rising_rate.notice(run(10), run(20), 8)
  for old, new, step in (
      (run(10), run(20), 6), (run(10), run(10), 10), (run(10, 0), run(20, 0), 10),
      (run(10), run(20, rate=1e-4), 10), (run(10), run(8), 7)):
    assert not rising_rate.notice(old, new, step)
