"""The benchmark of timing: the same truth each time, and scores of systems that are known."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import runs
import soundfile

from avlink_jax.data.impacts import baselines, benchmark
from avlink_jax.data.media.decode import decode
from avlink_jax.errors import MISTAKE
from avlink_jax.evaluate import evaluate


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """Two clips of two seconds."""
  folder = tmp_path_factory.mktemp('benchmark')
  benchmark.write(folder, 2, 2.0, 1)
  return folder


def test_it_holds_silent_clips_their_references_and_the_truth(made):
  rows = [json.loads(line) for line in (made / 'manifest.jsonl').read_text().splitlines()]
  assert len(rows) == 2
  for row in rows:
    assert len(row['events']) == len(row['strengths']) == len(row['materials']) >= 2
    loud, silent = (decode(folder / f'{row["id"]}.mp4', need_audio=False)
                    for folder in (made, made / 'silent'))
    assert loud.frames.shape == silent.frames.shape == (48, 288, 512, 3)
    assert len(loud.audio) and not len(silent.audio)


def test_the_same_command_writes_nothing_anew_and_other_settings_are_told(made, capsys):
  before = {path: path.stat().st_mtime_ns for path in made.rglob('*.mp4')}
  assert benchmark.main([str(made), '--clips=2', '--seconds=2', '--jobs=1']) == 0
  about = json.loads(capsys.readouterr().out)
  assert about['version'] == 1 and about == json.loads((made / 'benchmark.json').read_text())
  assert before == {path: path.stat().st_mtime_ns for path in made.rglob('*.mp4')}
  assert benchmark.main([str(made), '--clips=1', '--seconds=2']) == MISTAKE
  assert 'a benchmark of other settings' in capsys.readouterr().err


def test_the_truth_scores_best_and_a_late_copy_is_told_by_how_much(made, tmp_path):
  for name, delay in (('truth', 0), ('late', 2880)):  # 60 ms
    for path in made.glob('*.mp4'):
      wave = decode(path, sample_rate=48_000, need_video=False).audio
      (tmp_path / name).mkdir(exist_ok=True)
      soundfile.write(tmp_path / name / f'{path.stem}.wav',
                      np.concatenate([np.zeros(delay), wave])[:len(wave)], 48_000)
  truth, late = (evaluate(str(tmp_path / name), str(made)) for name in ('truth', 'late'))
  assert truth['event_f1_50ms'] == 1 and abs(truth['event_lateness']) < 0.025
  assert late['event_f1'] == 1 and late['event_f1_25ms'] < 0.5
  assert late['event_lateness'] - truth['event_lateness'] == pytest.approx(0.06, abs=0.025)
  assert truth['event_strength'] is None or truth['event_strength'] > 0
  assert truth['intervals'].keys() >= {'event_f1_25ms', 'event_lateness', 'event_material'}
  assert truth['event_material'] == truth['reference_event_material']


def test_scoring_needs_no_jax(made, tmp_path):
  shutil.copytree(made / 'silent', tmp_path / 'silent')
  code = ('import sys; from avlink_jax.main import main; main(); '
          'assert "jax" not in sys.modules, "jax"')
  done = subprocess.run(
      [sys.executable, '-c', code, '--mode=evaluate', f'--generated={tmp_path / "silent"}',
       f'--reference={made}', f'--output={tmp_path / "scores.json"}'],
      capture_output=True, text=True, env=runs.environment(tmp_path))
  assert done.returncode == 0, done.stderr
  assert json.loads((tmp_path / 'scores.json').read_text())['event_f1'] == 0


def test_what_a_system_is_given_holds_prompts_and_no_truth(made):
  text = (made / 'silent' / 'manifest.jsonl').read_text()
  rows = [json.loads(line) for line in text.splitlines()]
  assert all(row['prompt'] and not {'events', 'strengths', 'materials'} & row.keys()
             for row in rows) and len(rows) == 2


def test_baselines_stand_in_one_table_with_a_system_of_ones_own(made, tmp_path, capsys):
  yours = tmp_path / 'yours'
  yours.mkdir()
  shutil.copy(next(made.glob('*.mp4')), yours)
  names = ['truth', 'luck', 'motion']
  assert baselines.main([str(made), str(tmp_path), *names]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert [line.split(',')[0] for line in lines[2:]] == ['| ' + name for name in [*names, 'yours']]
  rows = {name: json.loads((tmp_path / f'{name}.json').read_text()) for name in names}
  assert rows['truth']['event_f1'] == 1 > rows['luck']['event_f1']
  assert rows['motion']['event_f1'] > 0
  assert baselines.main([str(tmp_path), str(tmp_path)]) == MISTAKE
