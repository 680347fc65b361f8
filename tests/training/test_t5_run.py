"""A run whose prompts go through T5, end to end: trained, resumed, sampled, frozen in the next."""

import json

import jax
import numpy as np
import pytest
import runs
import t5_folders
from micro import build
from runs import config_of, manifest, parts
from t5_folders import told

from avlink_jax.sample import sample
from avlink_jax.storage import weights
from avlink_jax.tasks import frozen as frozen_parts
from avlink_jax.train import train


@pytest.fixture(scope='module', autouse=True)
def quickly_compiled():
  with runs.quickly_compiled(), t5_folders.quickly_compiled():
    yield


@pytest.fixture(scope='module')
def frozen(tmp_path_factory):
  return parts(tmp_path_factory.mktemp('parts'))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return t5_folders.write(tmp_path_factory.mktemp('t5') / 'model', 'tokenizer.json')


def with_t5(task, frozen, folder, cache='', **changes):
  config = config_of(task, frozen)
  config.text.update(encoder='t5', t5=str(folder), width=16, max_tokens=12, cache=str(cache))
  config.text.update(changes)
  return config


def test_a_run_with_t5_trains_resumes_samples_and_freezes(frozen, folder, tmp_path, capsys):
  config = with_t5('t2a', frozen, folder, tmp_path / 'cache')
  workdir = tmp_path / 'run'
  train(config, workdir)
  embedded = {p.name for p in (tmp_path / 'cache').iterdir()}
  assert len(embedded) >= 3  # of captions, and of the null prompt
  tree, _ = weights.read(workdir / 'weights.safetensors')
  assert tree['params'].keys() == {'dit'}  # T5's own weights are nobody's to keep
  assert len(manifest(workdir / 'samples' / 'step_2')) == config.sample.count

  capsys.readouterr()
  config.train.steps = 3
  train(config, workdir)
  assert 'resumed at step 2' in capsys.readouterr().err
  logged = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  losses = [row['loss'] for row in logged if 'loss' in row]
  assert len(losses) == 3 and np.isfinite(losses).all()
  assert embedded <= {p.name for p in (tmp_path / 'cache').iterdir()}

  ids = sample(config, workdir, prompt='a drum stick', output=tmp_path / 'out')
  assert ids == ['000_a_drum_stick'] and (tmp_path / 'out' / '000_a_drum_stick.wav').exists()
  assert 'step 3' in capsys.readouterr().err  # the weights it says it took
  assert 'at most 12' in told(sample, config, workdir, prompt='drum ' * 50, output=tmp_path)

  # The next stage takes it as a frozen tower, whose text encoder has nothing in it.
  sound, _ = weights.read(workdir / 'weights.safetensors')
  video = tmp_path / 'video.safetensors'
  tower, _ = weights.read(frozen['video'])
  weights.save(video, {'params': {'dit': tower['params']['dit']}}, {})
  next_stage = with_t5('v2a', frozen | {'audio': str(workdir), 'video': str(video)}, folder)
  models, task = build(next_stage)
  loaded = frozen_parts.load(next_stage, models, task.frozen_parts)
  assert loaded['towers']['audio']['text'] == {}
  jax.tree.map(np.testing.assert_array_equal, loaded['towers']['audio']['dit'],
               sound['params']['dit'])
  frozen_parts.keep(next_stage, tmp_path, loaded, task.frozen_parts)
  again = frozen_parts.load(next_stage, models, task.frozen_parts, workdir=tmp_path)
  assert jax.tree.structure(again) == jax.tree.structure(loaded)

  # And one with the byte encoder does not.
  other = config_of('v2a', frozen | {'audio': str(workdir)})
  models, task = build(other)
  assert 'text/' in told(frozen_parts.load, other, models, task.frozen_parts)


@pytest.mark.parametrize('changes, words', [
    ({'width': 24}, '--config.text.width=16'), ({'t5': '/no/such/t5'}, 't5: no such folder'),
    ({'t5': ''}, '--config.text.t5 is not set'),
    ({'encoder': 't6'}, "text.encoder='t6'")])
def test_a_text_encoder_that_cannot_be_had_is_told_before_training(frozen, folder, tmp_path,
                                                                 changes, words):
  config = with_t5('t2a', frozen, folder, **changes)
  assert words in told(train, config, tmp_path / 'run')
  assert words in told(sample, config, tmp_path / 'run', prompt='a drum', output=tmp_path / 'out')


def test_a_cache_that_cannot_be_written_is_told(frozen, folder, tmp_path):
  (tmp_path / 'taken').write_text('')
  config = with_t5('t2a', frozen, folder, tmp_path / 'taken')
  assert 'taken' in told(train, config, tmp_path / 'run')
