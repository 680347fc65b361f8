"""Validation: the same clips and noise each time, averaged and raw weights; its log and plots."""

import collections
import json
import re
import shutil
import sys
import types

import jax
import numpy as np
import pytest
import runs
import scipy.stats
from micro import build, micro_config

from avlink_jax import flow
from avlink_jax.sampling.in_training import TrainingSamples
from avlink_jax.tasks import frozen as frozen_parts
from avlink_jax.train import train
from avlink_jax.training import programs, sharding, validation_plot, wandb_run
from avlink_jax.training import step as training
from avlink_jax.training.log import Log

ON = {'train.steps': 4, 'checkpoint.every': 2, 'validation.every': 2, 'validation.count': 4,
      'validation.levels': 3, 'train.ema_decay': 0.5}
COMPILED = '/jax/core/compile/backend_compile_duration'


@pytest.fixture(scope='module', autouse=True)
def quickly():
  with runs.quickly_compiled(), pytest.MonkeyPatch.context() as patch:
    patch.setattr(TrainingSamples, 'export', lambda *_: {})
    yield


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """(workdir of a run, {name of a program: how often it was compiled})."""
  workdir, compiled = tmp_path_factory.mktemp('validated') / 'run', collections.Counter()

  def count(event, _, fun_name='', **more):
    if event == COMPILED:
      compiled[fun_name] += 1

  jax.monitoring.register_event_duration_secs_listener(count)
  try:
    train(runs.config_of('t2a', runs.parts(tmp_path_factory.mktemp('parts')), **ON), workdir)
  finally:
    jax.monitoring.unregister_event_duration_listener(count)
  return workdir, compiled


def rows(workdir):
  return [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]


def validated(workdir):
  return {row['step']: row for row in rows(workdir) if 'validation/loss' in row}


def test_quantiles_of_the_law_of_t():
  share = np.array([0.02, 0.5, 0.9])
  wanted = 1 / (1 + np.exp(-scipy.stats.norm.ppf(share, loc=-1.5, scale=2.0)))
  np.testing.assert_allclose(flow.logit_normal_quantile(share, -1.5, 2.0), wanted, rtol=1e-5)


def test_figures_of_both_weights_by_flow_time_stand_beside_the_training_loss(run):
  """Keys of a step's own row stay as they are."""
  found = validated(run[0])
  assert found.keys() == {2, 4}
  times = [f'/t{t:.3f}' for t in flow.logit_normal_quantile(
      (np.arange(3) + 0.5) / 3, runs.shipped('t2a').flow.location.audio, 2.0)]
  for row in found.values():
    assert row.keys() == {'step'} | {
        f'{group}/{name}' for group in ('validation', 'validation_raw')
        for name in ('loss', 'mse_audio', *(f'mse_audio{t}' for t in times))}
    for group in ('validation', 'validation_raw'):
      assert row[f'{group}/loss'] == pytest.approx(
          np.mean([row[f'{group}/mse_audio{t}'] for t in times]), rel=1e-6)
    assert row['validation/loss'] != row['validation_raw/loss']
  logged = [row for row in rows(run[0]) if 'loss' in row]
  assert [row['step'] for row in logged] == [1, 2, 3, 4]
  assert not any('/' in name for row in logged for name in row)


def test_nothing_is_compiled_twice_in_a_run(run):
  """Training step, start, and validation of both weights at all flow times and steps."""
  named = {name: count for name, count in run[1].items()
           if re.search('init|train_step|validation_loss', name)}
  assert len(named) == 3 and set(named.values()) == {1}, run[1]


def test_a_transfer_that_nobody_asked_for_stops_a_step(tmp_path, monkeypatch):
  """As a batch that was left on the host would be; by default it is disallowed."""
  def nothing(task, optimizer, config, state, frozen, batch):
    return state, {'loss': batch['video_mask'].mean(), **state.counts}

  monkeypatch.setattr(training, 'train_step', nothing)
  monkeypatch.setattr(sharding, 'shard_batch', lambda batch, *_: batch)
  with pytest.raises(jax.errors.JaxRuntimeError, match='Disallowed host-to-device transfer'):
    train(runs.config_of('t2v', {}, **{'train.steps': 1}), tmp_path / 'run')


def test_a_run_stopped_before_its_validation_has_it_when_it_goes_on(run, tmp_path):
  """With the same figures, as clips and noise are the same."""
  copy = shutil.copytree(run[0], tmp_path / 'run')
  shutil.rmtree(copy / 'checkpoints' / '4')
  kept = [row for row in rows(copy) if row['step'] <= 2 and 'validation/loss' not in row]
  (copy / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in kept))
  config = runs.config_of('t2a', {}, **ON)
  config.frozen.update(json.loads((copy / 'config.json').read_text())['frozen'])
  train(config, copy)
  assert validated(copy) == validated(run[0])
  assert sum('validation/loss' in row for row in rows(copy)) == 2


def test_the_plots_show_training_and_validation(run, monkeypatch, capsys):
  text = (run[0] / 'loss.svg').read_text()
  assert all(label in text for label in ('training', 'validation, raw weights', 'step'))
  assert (run[0] / 'loss_by_t.svg').read_text().count('mse_audio, t = ') == 3
  monkeypatch.setitem(sys.modules, 'matplotlib', None)
  monkeypatch.setitem(sys.modules, 'matplotlib.figure', None)
  validation_plot.write(run[0])
  said = capsys.readouterr().err
  assert 'no plot' in said and 'matplotlib' in said and len(said.splitlines()) == 1


def test_figures_of_tensorboard_are_grouped_and_samples_can_be_heard(tmp_path, monkeypatch):
  told = []
  board = types.SimpleNamespace(
      add_scalar=lambda name, value, step: told.append(name),
      add_audio=lambda name, wave, step, sample_rate: told.append((name, wave.shape, sample_rate)),
      close=lambda: None)
  monkeypatch.setattr('tensorboardX.SummaryWriter', lambda *_, **__: board)
  log = Log(tmp_path, 4, 0)
  log.step(1, {'loss': 1.0})
  log.validation(1, {'validation/loss': 2.0})
  log.scores(1, {'onset_f1': 0.5})
  log.audio('audio/audio/one', np.zeros(8, np.float32), 16_000, 1)
  log.close()
  assert told == ['train/loss', 'train/steps_per_second', 'validation/loss', 'scores/onset_f1',
                  ('audio/audio/one', (8, 1), 16_000)]
  again = Log(tmp_path, 4, 1)  # what is written is known when the run goes on
  assert again.validated(1) and again.scored(1) and not again.scored(0)


class Service:
  """A stand-in for the package wandb, which breaks where it is told to."""

  def __init__(self, breaks=''):
    self.sent, self._breaks, self.given = [], breaks, None

  def _call(self, name):
    if name == self._breaks:
      raise RuntimeError('no network,\nsaid at length')

  def init(self, **given):
    self._call('init')
    self.given = given
    return self

  def log(self, figures, step):
    self._call('log')
    self.sent.append((step, figures))

  def finish(self):
    self._call('finish')


def logged(tmp_path, service, monkeypatch):
  monkeypatch.setitem(sys.modules, 'wandb', service)
  config = runs.config_of('t2a', {}, **{'log.wandb': 'mine'})
  log = Log(tmp_path, 4, 0, also=wandb_run.start(config, tmp_path))
  for step in (1, 2):
    log.step(step, {'loss': 1.0})
  log.close()


def test_weights_and_biases_gets_the_grouped_figures_in_one_run(tmp_path, monkeypatch):
  first, second = Service(), Service()
  logged(tmp_path, first, monkeypatch)
  logged(tmp_path, second, monkeypatch)
  assert first.given['project'] == 'mine' and first.given['id'] == second.given['id']
  assert [step for step, _ in first.sent] == [1, 2] and first.sent[0][1]['train/loss'] == 1.0
  assert wandb_run.start(runs.config_of('t2a', {}), tmp_path) is None


@pytest.mark.parametrize('service', [None, *map(Service, ('init', 'log', 'finish'))],
                         ids=['missing', 'init', 'log', 'finish'])
def test_weights_and_biases_never_stops_a_run(tmp_path, service, monkeypatch, capsys):
  logged(tmp_path, service, monkeypatch)
  assert [row['step'] for row in rows(tmp_path)] == [1, 2]
  said = [line for line in capsys.readouterr().err.splitlines() if 'wandb' in line]
  assert len(said) == 1 and 'the run goes on without' in said[0]


@pytest.mark.parametrize('task', ['mel_vae', 'vocoder', 'video_vae', 'upsampler', 'av'])
def test_every_task_has_a_validation_loss(task):
  """Traced, not compiled."""
  models, made = build(micro_config(task))
  jitted = programs.build(made, sharding.make_mesh(devices=jax.devices()[:1]),
                          frozen_parts.shapes(models, made.frozen_parts))
  params, number = made.exported(jitted.state.params), jax.ShapeDtypeStruct((), np.int32)
  shapes = jax.eval_shape(jitted.validate, params, jitted.state.stats, jitted.frozen, jitted.batch,
                          number, jax.ShapeDtypeStruct((), np.float32))
  assert 'loss' in shapes and all(leaf.shape == () for leaf in shapes.values())
  assert made.times(np.array([0.5])).keys() <= shapes.keys()
