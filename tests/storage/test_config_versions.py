"""What earlier versions of the program saved opens today: configs, and the weights they describe.
(Whole runs: tests/training/test_config_reads.py.)"""

import copy
import json

import jax
import pytest
import runs
from micro import build, micro_config

from avlink_jax.errors import UserError
from avlink_jax.storage import weights
from avlink_jax.storage.config_versions import (
    ADDED,
    VERSION,
    complete,
    config_of,
    fate,
    upgrade,
)
from avlink_jax.tasks import frozen as frozen_parts
from avlink_jax.training.resilience.config_drift import check, flat

BUNDLED = sorted(path for path in (weights.BUNDLED / 'nano').glob('*.safetensors')
                 if 'config' in weights.header(path))


@pytest.mark.parametrize('path', BUNDLED, ids=lambda path: path.stem)
def test_bundled_weights_say_a_config_with_all_of_todays_keys(path):
  config = config_of(weights.header(path), path)
  said, todays = (c.to_dict() for c in (config, runs.shipped(config.task)))
  assert said['sample'].pop('fast').keys() <= todays['sample'].pop('fast').keys()  # any of them
  assert flat(said).keys() == flat(todays).keys()
  assert config.version == VERSION


@pytest.mark.parametrize('path', BUNDLED, ids=lambda path: path.stem)
def test_bundled_weights_fit_the_model_that_their_own_config_describes(path):
  config = config_of(weights.header(path), path)
  config.text.encoder = 'words'  # the vocoder's is one that is no more, and that it did not use
  models, task = build(config)
  shapes = frozen_parts.shapes(models, task.frozen_parts)
  like = jax.eval_shape(lambda frozen: task.exported(task.init(jax.random.key(0), frozen)), shapes)
  weights.fit(weights.read(path)[0]['params'], like, path)


def test_who_built_on_the_bundled_tower_of_pixels_still_does():
  """Under its name of now: `bundled` by itself is the tower of latents."""
  for name in ('v2a', 'joint', 'av', 'upsampler'):
    path = weights.BUNDLED / 'nano' / f'{name}.safetensors'
    saved = json.loads(weights.header(path)['config'])
    saved.setdefault('frozen', {})['video'] = saved['train']['init_from'] = 'bundled'
    config = complete(saved)
    source = config.train.init_from if name == 'upsampler' else config.frozen.video
    assert source == 'bundled:t2v_pixels'
    assert weights.locate('video', source, 'nano').exists()


@pytest.mark.parametrize('task', ['v2a', 'upsampler'])
def test_todays_config_is_not_refused_for_keys_that_came_since(task, tmp_path):
  """As the same command gives it, at nano with the codec of then: today's keys with today's
  defaults."""
  old = json.loads((runs.of_first_edition(task, tmp_path) / 'config.json').read_text())
  given = runs.shipped(task)
  given.update_from_flattened_dict(
      {key: tuple(value) if isinstance(value, list) else value for key, value in flat(old).items()})
  if task == 'v2a':
    given.towers.video.codec, given.frozen.video_codec = 'pixels', ''
  check(old, given.to_dict(), 'runs/x')


def test_a_config_of_today_is_complete_as_it_is():
  config = micro_config('v2a')
  assert complete(config.to_dict()) == config


def test_what_was_saved_is_left_as_it_is():
  old = saved_by_the_first()
  before = copy.deepcopy(old)
  complete(old)
  assert old == before


def test_an_ablation_keeps_its_name():
  assert complete(saved_by_the_first() | {'ablation': 'cavp'}).name == 'cavp'
  assert complete(saved_by_the_first()).name == 'v2a'


def test_the_video_autoencoder_is_the_codec_where_there_was_one():
  old = saved_by_the_first()
  assert complete(old).towers.video.codec == 'pixels'
  assert complete(old | {'video_codec': {}}).towers.video.codec == 'video_vae'


def test_what_completing_changed_is_told_apart():
  """Renamed, removed and added keys, each by its path."""
  old = saved_by_the_first()
  old['text']['max_bytes'], old['ablation'] = 3, 'cavp'
  config, changes = upgrade(old)
  assert changes.renamed == {'ablation': 'name'} and changes.removed == ['text.max_bytes']
  assert changes.added['towers.audio.kind'] == 'dit' and 'towers.audio.width' not in changes.added
  assert config.name == 'cavp' and 'max_bytes' not in config.text
  assert upgrade(config.to_dict())[1] == ({}, [], {})


@pytest.mark.parametrize('key, told', [
    ('ablation', 'name is --config.name now'), ('text.max_bytes', 'it is no more'), ('seed', '')])
def test_a_key_of_earlier_versions_has_a_fate(key, told):
  assert fate(key) == told if not told else told in fate(key)


@pytest.mark.parametrize('version', [VERSION + 1, 0, 'two', None])
def test_a_later_versions_config_is_refused(version):
  with pytest.raises(UserError, match='runs/x: its config is of version .*use a newer avlink_jax'):
    complete(saved_by_the_first() | {'version': version}, 'runs/x')


@pytest.mark.parametrize('header', [{}, {'config': '{'}, {'config': '3'}])
def test_weights_that_do_not_say_their_config_are_refused(header):
  with pytest.raises(UserError, match='x.safetensors: does not say which config made it'):
    config_of(header, 'x.safetensors')


def saved_by_the_first():
  """A config (dict) without the keys that came with this version."""
  config = micro_config('v2a').to_dict()
  for path in ADDED[2]:
    *sections, key = path.split('.')
    branches = [config]
    for section in sections:
      branches = [inner for branch in branches for name, inner in branch.items()
                  if section in ('*', name)]
    for branch in branches:
      branch.pop(key, None)
  del config['version']
  return json.loads(json.dumps(config))
