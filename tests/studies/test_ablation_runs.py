"""launch/ablations.sh, end to end on micro models: run by run, interrupted, resumed, reported."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from runs import ROOT, config_of, environment, flags, parts

from avlink_jax.errors import UserError
from avlink_jax.studies import ablation_scores as scores
from avlink_jax.studies import ablations, jobs
from avlink_jax.studies.jobs import Job, Queue


@pytest.fixture(scope='module')
def launch(tmp_path_factory, compiled_once):
  """(folder, start) of micro ablations; start() gives the process."""
  root = tmp_path_factory.mktemp('ablations')
  config = config_of('v2a', parts(root), **{
      'train.log_every': 1, 'checkpoint.every': 1, 'sample.vocoder': 'griffin_lim',
      'train.steps': 1_600})
  settings = [flag for flag in flags(config)[1:]
              if not flag.startswith(('--config.sample.steps', '--config.sample.count'))]
  command = [sys.executable, '-m', 'avlink_jax.studies.ablations', '--scale=nano', '--seeds=0',
             f'--steps={STEPS}', '--only=ours,steps_4', '--clips=2', f'--output={root}/out',
             *settings]

  started = []

  def start():
    started.append(subprocess.Popen(command, cwd=ROOT, env=environment(compiled_once), text=True,
                                    stderr=subprocess.PIPE))
    return started[-1]

  yield root / 'out', start
  for run in started:  # none that a failed test has left
    run.terminate()
    run.wait()


STEPS = 12
PATIENCE = 900  # seconds: other work may be running


def steps_of(workdir):
  path = workdir / 'metrics.jsonl'
  rows = path.read_text().splitlines() if path.exists() else []
  return [json.loads(row)['step'] for row in rows if '"loss"' in row]


@pytest.mark.slow
def test_ablations_that_are_interrupted_go_on_and_end_in_a_report(launch):
  out, start = launch
  run, workdir = start(), out / 'runs' / 'ours-seed_0'
  limit = time.monotonic() + PATIENCE
  while not steps_of(workdir) and run.poll() is None and time.monotonic() < limit:
    time.sleep(0.05)
  run.send_signal(signal.SIGTERM)
  _, said = run.communicate(timeout=PATIENCE)
  assert run.returncode == 75, said
  assert 'interrupted: the same command goes on' in said and not (out / 'done').exists()
  assert 'not yet' in (out / 'report.md').read_text()
  reached = max(steps_of(workdir))
  assert 0 < reached < STEPS

  run = start()
  _, said = run.communicate(timeout=PATIENCE)
  assert run.returncode == 0, said
  assert '0 of 5 pieces of work are done' in said and '[5/5]' in said
  assert steps_of(workdir) == list(range(1, STEPS + 1))  # none twice
  assert 'resumed at step' in (out / 'logs' / 'ours-seed_0.train.log').read_text()

  found = scores.read(out)
  assert {name: list(seeds) for name, seeds in found.items()} == {'ours': [0], 'steps_4': [0]}
  sampled = [json.loads((out / 'samples' / f'{name}-seed_0' / 'manifest.jsonl').read_text(
      ).splitlines()[0]) for name in ('ours', 'steps_4')]
  assert [row['steps'] for row in sampled] == [64, 4]
  assert sampled[0]['id'] == sampled[1]['id'] and sampled[0]['seed'] == sampled[1]['seed'] == 0
  compared = scores.compare(found['ours'], found['steps_4'], 'onset_f1')
  assert compared['seeds'] == [0] and compared['verdict'] in (
      scores.HOLDS, scores.FAILS, scores.OPEN)
  report = json.loads((out / 'report.json').read_text())
  assert report['rows']['ours']['onset_f1']['seeds'] == {'0': found['ours'][0]['onset_f1']}
  assert (out / 'figures' / 'steps.svg').read_text().count('<use') >= 2
  assert 'w/o symm. feature reinj.' in (out / 'report.html').read_text()
  assert len(list((out / 'done').iterdir())) == 5


# What is to be done

def planned(*argv):
  """({key: Job}, {row left out: reason}) of a command line."""
  made, left_out = ablations.plan(*ablations.read_flags(['--scale=nano', *argv]))
  return {job.key: job for job in made}, left_out


def flag(job, name):
  """The last value of a flag, as the flags' parser takes it."""
  told = [a.partition('=')[2] for a in job.arguments if a.startswith(f'--{name}=')]
  return told[-1] if told else None


def test_sweeps_train_once_and_what_is_the_same_is_done_once():
  made, _ = planned('--only=guidance,steps', '--seeds=0')
  assert [key for key in made if key.endswith('.train')] == ['ours-seed_0.train']
  scored = [key.partition('-')[0] for key in made if key.endswith('.evaluate')]
  assert scored == ['guidance_1', 'guidance_2', 'guidance_3', 'guidance_5', 'guidance_7', 'steps_4',
                    'steps_8', 'steps_16', 'steps_32', 'ours', 'steps_128']
  sample = made['guidance_2-seed_0.sample']
  assert sample.after == 'ours-seed_0.train'
  assert flag(sample, 'workdir') == flag(made['ours-seed_0.train'], 'workdir')
  assert flag(sample, 'config') == 'configs/ablations.py:guidance_2:nano'


def test_all_rows_have_the_same_steps_seed_clips_and_noise():
  made, left_out = planned('--steps=80', '--seeds=3,4', '--clips=5')
  assert set(left_out) == {'cavp', 'cavp_finetuned', 'clip'}
  for key, job in made.items():
    name, _, seed = key.rpartition('.')[0].rpartition('-seed_')
    if job.kind == 'train':
      joint = name == 'ours_joint'
      assert flag(job, 'config.train.steps') == ('160' if joint else '80')
      assert job.size == (160 if joint else 80)
      # The rate falls over its usual share: 400 of 1,600, 600 of 2,000, 1,200 of 4,000.
      assert flag(job, 'config.train.decay_steps') == (
          '48' if joint else '24' if name.endswith('a2v') else '20')
    if job.kind == 'sample':
      assert (flag(job, 'config.sample.count'), flag(job, 'seed')) == ('5', '0')
    if job.kind != 'evaluate':
      assert flag(job, 'config.seed') == seed
  assert 'ours_joint-seed_3.train' in made and 'ours_joint-seed_3.sample' not in made
  assert {made[f'joint_{way}-seed_3.sample'].after for way in ('v2a', 'a2v')} == {
      'ours_joint-seed_3.train'}


def test_without_steps_every_row_has_its_own_configs():
  made, _ = planned('--seeds=0', '--config.train.batch_size=4')
  assert made['ours-seed_0.train'].size == 1_600 and made['ours_joint-seed_0.train'].size == 4_000
  for job in made.values():
    assert job.kind == 'evaluate' or flag(job, 'config.train.batch_size') == '4'


def test_features_are_taken_where_they_are_of_the_same_clips(tmp_path):
  for folder in ('clips', 'clip', 'other'):
    (tmp_path / folder).mkdir()
    (tmp_path / folder / 'a.mp4').write_bytes(b'')
  (tmp_path / 'clip' / 'a.npz').write_bytes(b'')
  (tmp_path / 'other' / 'b.mp4').write_bytes(b'')
  source = f'--config.data.source={tmp_path}/clips'
  made, left_out = planned('--only=table2', '--seeds=0', source, f'--features=clip={tmp_path}/clip')
  assert set(left_out) == {'cavp', 'cavp_finetuned'}
  assert flag(made['clip-seed_0.train'], 'config.data.source') == f'{tmp_path}/clip'
  assert flag(made['ours-seed_0.train'], 'config.data.source') == f'{tmp_path}/clips'
  with pytest.raises(UserError, match='not the clips of'):
    planned(source, f'--features=clip={tmp_path}/other')
  with pytest.raises(UserError, match='--config.data.source=FOLDER'):
    planned(f'--features=clip={tmp_path}/clip')


@pytest.fixture
def weights(tmp_path, monkeypatch):
  """A folder in which VGGish's weights lie, and no package that carries others."""
  monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
  monkeypatch.delenv('AVLINK_WEIGHTS', raising=False)
  (tmp_path / 'weights').mkdir()
  (tmp_path / 'weights' / 'vggish-10086976.pth').write_bytes(b'')
  return tmp_path / 'weights'


def test_metrics_are_handed_to_evaluate_where_they_tell_something(weights):
  made, _ = planned('--only=ours,ours_a2v', '--seeds=0', f'--networks={weights}',
                    '--metrics=fad_vggish,fad_yamnet,fvd_i3d')
  sound, picture = (made[f'{name}-seed_0.evaluate'] for name in ('ours', 'ours_a2v'))
  assert flag(sound, 'metrics') == 'fad_vggish,fad_yamnet'
  assert flag(picture, 'metrics') == 'fvd_i3d'
  assert flag(sound, 'networks') == str(weights)
  assert (sound.metrics, picture.metrics) == (('fad_vggish',), ())  # what there are weights for
  assert all(flag(job, 'metrics') is None for job in made.values() if job.kind != 'evaluate')
  made, _ = planned('--only=ours', '--seeds=0')
  assert flag(made['ours-seed_0.evaluate'], 'metrics') is None


def test_other_metrics_are_scored_again_and_nothing_else(fake, weights, tmp_path):
  def queue(*argv):
    made, _ = planned('--only=ours', '--seeds=0', f'--output={tmp_path}/out', *argv)
    return Queue([dataclasses.replace(job, arguments=['']) for job in made.values()],
                 tmp_path / 'out')

  (tmp_path / 'out').mkdir()
  queue().run(1)
  score = 'ours-seed_0.evaluate'
  note = tmp_path / 'out' / 'done' / f'{score}.json'
  note.write_text('{"seconds": 1.0, "size": 64}')  # of before there were metrics
  assert len(queue().done) == 3
  asked = ('--metrics=fad_vggish,fad_yamnet', f'--networks={weights}')
  again = queue(*asked)
  assert [job.key for job in again.jobs if job.key not in again.done] == [score]
  again.run(1)
  assert json.loads(note.read_text())['metrics'] == ['fad_vggish']
  assert len(queue(*asked).done) == 3  # what has no weights is not tried each time,
  assert len(queue().done) == 3  # less does not ask for anything,
  (weights / 'YamNet_w8a8.onnx.zip').write_bytes(b'')
  assert score not in queue(*asked).done  # and new weights do


@pytest.mark.parametrize('argument, said', [
    ('--metrics=fad', '--metrics=fad: no such metric'),
    ('--only=no_such', '--only=no_such: no such row'), ('--seeds=one', 'whole numbers'),
    ('--jobs=0', 'begin at 1'), ('--config.sample.guidance=3', 'sample.guidance is what some'),
    ('--features=dino=x', 'clip=FOLDER')])
def test_a_mistake_is_told_in_one_line(tmp_path, capsys, argument, said):
  assert ablations.main(['--scale=nano', f'--output={tmp_path}/out', argument]) == 2
  line, = capsys.readouterr().err.splitlines()
  assert line.startswith('ablations: ') and said in line and not (tmp_path / 'out').exists()


def test_a_dry_run_prints_the_commands_and_runs_none(tmp_path, capsys):
  argv = ['--scale=nano', '--only=ours', '--dry-run', '--seeds=0', f'--output={tmp_path}/out']
  assert ablations.main(argv) == 0
  shown = capsys.readouterr().out.splitlines()
  assert len(shown) == 3 and all(line.startswith('python -m avlink_jax.main ') for line in shown)
  assert not (tmp_path / 'out').exists()


def test_results_of_other_settings_are_not_mixed(tmp_path):
  one = ablations.read_flags(['--scale=nano', '--steps=8', f'--output={tmp_path}'])
  ablations.check_plan(*one, {})
  ablations.check_plan(*ablations.read_flags(
      ['--scale=nano', '--steps=8', f'--output={tmp_path}', '--only=ours', '--seeds=5']), {})
  with pytest.raises(UserError, match='steps: 8 -> 9'):
    ablations.check_plan(*ablations.read_flags(
        ['--scale=nano', '--steps=9', f'--output={tmp_path}']), {})


# How it is done

@pytest.fixture
def fake(monkeypatch):
  """Jobs are Python programs of one line, given as their arguments."""
  monkeypatch.setattr(jobs, 'COMMAND', (sys.executable, '-c'))
  monkeypatch.setattr(jobs, 'PROGRESS_EVERY', 0.0)


def test_what_fails_stops_only_what_waits_for_it(fake, tmp_path, capsys):
  works = 'import sys; print("step 4/4", file=sys.stderr)'
  fails = 'import sys; print("avlink_jax: no such data", file=sys.stderr); sys.exit(2)'
  work = [Job('a-seed_0.train', None, 4, [fails]), Job('a-seed_0.sample', 'a-seed_0.train', 4,
                                                       [works]),
          Job('b-seed_0.train', None, 4, [works]), Job('b-seed_0.sample', 'b-seed_0.train', 4,
                                                       [works])]
  queue = Queue(work, tmp_path)
  assert queue.run(1) is False
  assert set(queue.done) == {'b-seed_0.train', 'b-seed_0.sample'}
  assert set(queue.failed) == {'a-seed_0.train'}
  assert queue.failed['a-seed_0.train'].startswith('no such data (status 2; ')
  assert '[1/4] b-seed_0.train done' in capsys.readouterr().err
  again = Queue([Job('a-seed_0.train', None, 4, [works]), *work[1:]], tmp_path)
  assert set(again.done) == set(queue.done)  # what is done stays done
  again.run(2)
  assert len(again.done) == 4 and not again.failed


@pytest.mark.skipif(not hasattr(os, 'sched_setaffinity'), reason='no affinity here')
def test_two_at_a_time_have_a_core_each(fake, tmp_path):
  told = 'import os, sys; print(sorted(os.sched_getaffinity(0)), file=sys.stderr)'
  work = [Job(f'{name}-seed_0.train', None, 1, [told]) for name in 'abcd']
  mine = os.sched_getaffinity(0)
  Queue(work, tmp_path).run(2)
  cores = [json.loads((tmp_path / 'logs' / f'{job.key}.log').read_text()) for job in work]
  assert all(len(core) == 1 and set(core) <= mine for core in cores)
  assert os.sched_getaffinity(0) == mine


def test_the_time_left_follows_from_the_steps_and_clips_so_far(tmp_path):
  work = [Job(f'{name}-seed_0.{kind}', None, size, []) for name in 'ab'
          for kind, size in (('train', 100), ('sample', 10))]
  assert Queue(work, tmp_path).seconds_left() is None  # nothing has been seen yet
  (tmp_path / 'done').mkdir()
  for kind, note in (('train', {'seconds': 50.0, 'size': 100}),
                     ('sample', {'seconds': 5.0, 'size': 10})):
    (tmp_path / 'done' / f'a-seed_0.{kind}.json').write_text(json.dumps(note))
  assert Queue(work, tmp_path).seconds_left() == pytest.approx(55.0)


def test_rows_with_sound_need_a_vocoder_before_they_train(tmp_path):
  argv = ['--scale=small', f'--output={tmp_path}', '--only=ours,ours_a2v']
  with pytest.raises(UserError, match='has no vocoder: give --config.sample.vocoder='):
    ablations.read_flags(argv)
  ablations.read_flags([*argv, '--config.sample.vocoder=griffin_lim'])
  ablations.read_flags([*argv[:2], '--only=ours_a2v'])
