"""Which changes of a config a run may go on with."""

import json

import pytest
from micro import micro_config

from avlink_jax.errors import UserError
from avlink_jax.training.resilience.config_drift import check, drift

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


def test_a_key_that_one_of_them_lacks_is_a_change():
  assert drift({'a': {'b': 1}}, {'a': {'c': 2}}) == [('a.b', 1, 'absent'), ('a.c', 'absent', 2)]
