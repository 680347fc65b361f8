"""The real loop, disturbed: kills, hangs, notices to leave, damage, drift, bad numbers."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
import runs
from cli import main
from killed import final, rows, weights

from avlink_jax import train as training_loop
from avlink_jax.codecs import finite
from avlink_jax.errors import HANG, Preempted, UserError
from avlink_jax.sampling.in_training import TrainingSamples
from avlink_jax.train import train
from avlink_jax.training import sharding
from avlink_jax.training.resilience.lock import only_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module', autouse=True)
def quickly_compiled():
  with runs.quickly_compiled():
    yield


@pytest.fixture(autouse=True)
def no_samples(monkeypatch):
  monkeypatch.setattr(TrainingSamples, 'export', lambda *_: {})


def config(**changes):
  return runs.config_of('t2v', {}, **{'train.steps': 4, 'checkpoint.every': 2} | changes)


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
  """The workdir of a run that nothing disturbed."""
  workdir = tmp_path_factory.mktemp('alone') / 'run'
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(TrainingSamples, 'export', lambda *_: {})
    train(config(), workdir)
  return workdir


@pytest.fixture
def copy(alone, tmp_path):
  return shutil.copytree(alone, tmp_path / 'run')


def same_end(workdir, alone):
  """Bit for bit: State with its averages and moments, weights, and what was logged."""
  assert final(workdir) == final(alone)
  assert weights(workdir) == weights(alone)
  assert rows(workdir) == rows(alone) and [row['step'] for row in rows(workdir)] == [1, 2, 3, 4]


def disturb(monkeypatch, at, act):
  """Does something as batch number `at` (from 1) is put on the devices."""
  put, count = sharding.shard_batch, []

  def put_batch(*args):
    count.append(0)
    if len(count) == at:
      act()
    return put(*args)

  monkeypatch.setattr(sharding, 'shard_batch', put_batch)


def test_resume_is_bit_exact_after_kills_at_random_moments(compiled_once, tmp_path):
  """SIGKILL, at a random step or in the midst of a save (tests/benchmarks/robust.py kills more)."""
  longer = config(**{'train.steps': 8, 'train.sample_every': 4, 'sample.count': 1})
  done = subprocess.run(
      [sys.executable, 'tests/killed.py', tmp_path, '8', '2', '1', *runs.flags(longer)],
      cwd=runs.ROOT, env=runs.environment(compiled_once), capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  told = json.loads(done.stdout.splitlines()[-1])
  assert told['kills'] == 2 and told['arrays'] > 100 and told['rows'] == 8, told
  assert not told['arrays_that_differ'] and told['weights_equal'], told
  assert told['metrics_equal'] and not told['steps_logged_twice'], told


def test_a_steps_results_are_fetched_once_the_next_step_is_under_way(tmp_path, monkeypatch):
  """So that the devices never wait for the host: batch and step k + 1 are sent off, then k is
  looked at. What is to be saved is looked at first."""
  events, put, place = [], sharding.shard_batch, training_loop.programs.build

  def put_batch(*args):
    events.append('put')
    return put(*args)

  def placed(*args):
    made = place(*args)

    def update(*args):
      events.append('step')
      return made.update(*args)

    return dataclasses.replace(made, update=update)

  monkeypatch.setattr(sharding, 'shard_batch', put_batch)
  monkeypatch.setattr(training_loop.programs, 'build', placed)
  monkeypatch.setattr(training_loop.BadNumbers, 'check',
                      lambda self, step, *_: events.append(f'look {step}'))
  train(config(**{'train.steps': 3, 'checkpoint.every': 100}), tmp_path / 'run')
  assert events == ['put', 'step', 'put', 'step', 'look 1', 'put', 'step', 'look 2', 'look 3']


def test_sigterm_saves_at_the_next_step_boundary_and_the_run_goes_on_from_there(
    alone, tmp_path, monkeypatch):
  handler = signal.getsignal(signal.SIGTERM)
  disturb(monkeypatch, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
  with pytest.raises(Preempted, match='saved at step [34] of 4'):
    train(config(), tmp_path / 'run')
  assert max(int(p.name) for p in (tmp_path / 'run' / 'checkpoints').iterdir()) in (3, 4)
  assert signal.getsignal(signal.SIGTERM) is handler
  train(config(), tmp_path / 'run')
  same_end(tmp_path / 'run', alone)


def test_the_exit_status_of_a_preempted_run_is_75(monkeypatch, capsys):
  def leave(*_):
    raise Preempted('saved')
  monkeypatch.setattr(training_loop, 'train', leave)
  assert main('--config=configs/t2v.py:nano') == 75
  assert capsys.readouterr().err == 'avlink_jax: saved\n'


def spoil(folder):
  """Flips one bit of the largest file."""
  path = max((p for p in folder.rglob('*') if p.is_file()), key=lambda p: p.stat().st_size)
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 8
  path.write_bytes(content)


def test_a_damaged_newest_checkpoint_is_not_trained_on(alone, copy, capsys):
  spoil(copy / 'checkpoints' / '4')
  train(config(), copy)
  said = capsys.readouterr().err
  assert f'DAMAGED CHECKPOINT {copy}/checkpoints/4' in said and 'resumed at step 2' in said
  same_end(copy, alone)
  assert (copy / 'checkpoints' / '4.damaged').exists()


def test_a_run_without_a_sound_checkpoint_stops_and_leaves_all_as_it_was(copy):
  for step in ('2', '4'):
    spoil(copy / 'checkpoints' / step)
  before = {p: p.read_bytes() for p in copy.rglob('*') if p.is_file() and p.name != 'lock'}
  with pytest.raises(UserError, match='none of the checkpoints is sound'):
    train(config(), copy)
  assert before == {p: p.read_bytes() for p in copy.rglob('*') if p.is_file()
                    and p.name != 'lock'}


def test_resuming_with_another_config_stops_with_the_keys(copy):
  for key, value, told in (('data.seed', 1, r'data\.seed: 0 -> 1'),
                           ('flow.scale', 9.0, r'flow\.scale: 1\.3 -> 9\.0'),
                           ('towers.video.mlp', 64, r'towers\.video\.mlp: 32 -> 64')):
    with pytest.raises(UserError, match=told):
      train(config(**{key: value}), copy)
  assert json.loads((copy / 'config.json').read_text())['data']['seed'] == 0


def test_a_run_may_be_made_longer(copy):
  train(config(**{'train.steps': 5, 'train.log_every': 5, 'checkpoint.keep': 1}), copy)
  assert [row['step'] for row in rows(copy)] == [1, 2, 3, 4, 5]
  assert [path.name for path in (copy / 'checkpoints').iterdir()] == ['5']


def test_a_run_that_diverges_may_go_on_with_a_lower_rate_by_saying_so(copy):
  lower = config(**{'train.steps': 5, 'train.learning_rate': 1e-4})
  with pytest.raises(UserError, match='--allow_drift=train.learning_rate goes on'):
    train(lower, copy)
  train(lower, copy, ['train.learning_rate'])
  assert rows(copy)[-1]['learning_rate'] == pytest.approx(1e-4)
  assert json.loads((copy / 'drift.jsonl').read_text()) == {
      'step': 4, 'changed': {'train.learning_rate': [0.01, 1e-4]}}
  train(lower, copy)  # from now on it is the run's


def test_samples_that_are_not_finite_stop_a_run_at_its_end_alone(copy, monkeypatch, capsys):
  def diverged(*_):
    finite.checked([0.0, float('nan')], 'video')

  monkeypatch.setattr(TrainingSamples, 'export', diverged)
  with pytest.raises(UserError, match='the generated video holds numbers that are not finite'):
    train(config(**{'train.steps': 6, 'train.sample_every': 2}), copy)
  assert 'no samples of step 4: ' in capsys.readouterr().err
  assert [row['step'] for row in rows(copy)] == [1, 2, 3, 4, 5, 6]
  assert (copy / 'weights.safetensors').exists()


def test_a_run_cannot_be_made_shorter_than_it_is(copy):
  with pytest.raises(UserError, match='at step 4 already: train.steps=3'):
    train(config(**{'train.steps': 3}), copy)


def test_a_finished_run_that_is_started_again_logs_nothing_twice(alone, copy):
  train(config(), copy)
  same_end(copy, alone)


def test_steps_with_bad_numbers_in_a_row_stop_the_run_with_their_clips(tmp_path):
  """A learning rate that blows everything up at the second step."""
  wild = config(**{'train.learning_rate': 1e30, 'train.steps': 30, 'train.max_bad_steps': 3})
  with pytest.raises(UserError, match='3 steps in a row .*bad_steps.jsonl'):
    train(wild, tmp_path / 'run')
  listed = [json.loads(line) for line in
            (tmp_path / 'run' / 'bad_steps.jsonl').read_text().splitlines()]
  assert [row['in_a_row'] for row in listed] == [1, 2, 3]
  assert all(len(row['ids']) == 2 for row in listed)
  steps = [row['step'] for row in listed]
  assert steps == list(range(steps[0], steps[0] + 3)) and steps[0] > 1


def test_the_second_run_in_a_workdir_is_refused(copy):
  with only_run(copy), pytest.raises(UserError, match=f'another run .*process {os.getpid()} on'):
    train(config(), copy)


HANGS = '''
import sys, time
import runs
from avlink_jax import train
from avlink_jax.main import main
from avlink_jax.sampling.in_training import TrainingSamples
from avlink_jax.training import sharding

put, calls = sharding.shard_batch, []

def put_or_hang(*args):
  calls.append(0)
  if len(calls) == 4:
    time.sleep(600)  # a file system that does not answer, say
  return put(*args)

sharding.shard_batch = put_or_hang
sys.exit(main(['avlink_jax', *sys.argv[1:]]))
'''


def test_a_training_run_that_hangs_exits_and_can_be_started_again(compiled_once, tmp_path):
  """Compiling takes longer than the watchdog waits, and so does sampling at step 2."""
  short = config(**{'train.sample_every': 2, 'sample.count': 1, 'train.watchdog_seconds': 2})
  run = tmp_path / 'run'
  done = subprocess.run([sys.executable, '-c', HANGS, *runs.flags(short), f'--workdir={run}'],
                        cwd=runs.ROOT, env=runs.environment(compiled_once),
                        capture_output=True, text=True, timeout=500)
  assert done.returncode == HANG, done.stderr
  assert 'the last was step 2' in (run / 'hang.txt').read_text() and 'put_or_hang' in done.stderr
  assert (run / 'samples' / 'step_2' / 'index.html').exists()
  assert [path.name for path in (run / 'checkpoints').iterdir()] == ['2']
