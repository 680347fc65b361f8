"""launch/finetune.sh: from a folder of clips to a gallery, step by step, and on where it was."""

import os
import pathlib
import re
import shlex
import subprocess

import pytest

from avlink_jax.cli import config_files
from avlink_jax.errors import MISTAKE, PREEMPTED

ROOT = pathlib.Path(__file__).resolve().parents[2]
STEPS = ['data.doctor', 'data.prepare', 'mode=train', 'mode=sample', 'mode=evaluate']
PYTHON = """#!/bin/sh
echo "$*" >> {calls}
case "$*" in
  *data.doctor*) exit 1 ;;
  *mode=sample*) mkdir -p {work}/samples; [ -e {ready} ] || exit {status} ;;
esac
"""


def finetune(*arguments, **environ):
  return subprocess.run(
      ['bash', ROOT / 'launch' / 'finetune.sh', *map(str, arguments)], capture_output=True,
      text=True, cwd='/', env={'PATH': os.environ['PATH'], **environ})


@pytest.fixture
def clips(tmp_path):
  folder = tmp_path / 'my clips'
  folder.mkdir()
  (folder / 'a.mp4').touch()
  return folder


def steps(lines):
  """Which step each command is."""
  for line in lines:
    module = re.search(r'avlink_jax\.(data\.\w+)', line)
    mode = re.search(r'mode=\w+', line)
    yield module[1] if module else mode[0] if mode else 'mode=train'


@pytest.mark.parametrize('task', ['v2a', 'a2v', 'joint', 'av'])
@pytest.mark.parametrize('towers', ['bundled', 'public'])
def test_a_dry_run_prints_every_step_with_keys_and_weights_that_there_are(clips, task, towers):
  done = finetune(clips, f'--task={task}', '--dry-run', f'--towers={towers}',
                  '--config.train.steps=4')
  assert done.returncode == 0, done.stderr
  lines = done.stdout.splitlines()
  assert list(steps(lines)) == STEPS
  for command in map(shlex.split, lines[2:4]):
    given = dict(word.partition('=')[::2] for word in command)
    config = config_files.load(str(ROOT / given['--config']))
    keys = [word.removeprefix('--config.') for word in given if word.startswith('--config.')]
    assert all(config_files.has(config, key) for key in keys)
    assert given['--config.train.steps'] == '4'  # the user's comes last
    if first := given.get('--config.train.init_from'):
      assert towers == 'bundled' and (ROOT / first).is_file()
  assert str(clips) in shlex.split(lines[1])[3]  # one word, with its space


def test_a_public_run_is_prepared_as_its_config_reads(clips):
  line = finetune(clips, '--towers=public', '--dry-run').stdout.splitlines()[1]
  given = dict(word.partition('=')[::2] for word in shlex.split(line))
  config = config_files.load(str(ROOT / 'configs/v2a.py:public'))
  for key in ('seconds', 'fps', 'height', 'width'):
    assert float(given[f'--{key}']) == config.data[key]
  assert given['--codec'] == given['--audio_text'] == config.frozen.audio
  assert given['--video_codec'] == given['--video_text'] == config.frozen.video


def test_a_failed_step_stops_with_its_status_and_command_and_what_is_done_is_kept(tmp_path, clips):
  calls, ready, python = tmp_path / 'calls', tmp_path / 'ready', tmp_path / 'venv/bin/python'
  work = tmp_path / 'work'
  python.parent.mkdir(parents=True)
  python.write_text(PYTHON.format(calls=calls, ready=ready, status=PREEMPTED, work=work))
  python.chmod(0o755)
  python.parent.with_name('installed').write_text(subprocess.run(
      ['cksum'], stdin=(ROOT / 'requirements.txt').open(), capture_output=True, text=True).stdout)

  def run(*flags):
    calls.write_text('')
    done = finetune(clips, f'--workdir={work}', *flags, VENV=str(tmp_path / 'venv'))
    return done, list(steps(calls.read_text().splitlines()))

  done, made = run()
  assert done.returncode == PREEMPTED and made == STEPS[:4]  # the doctor's 1 stops nothing
  last = done.stderr.splitlines()[-1]
  assert f'sample ended with status {PREEMPTED}' in last and '--mode=sample' in last
  ready.touch()
  done, made = run()
  assert done.returncode == 0 and made == STEPS[3:] and 'train: done' in done.stderr
  assert done.stdout.endswith(f'file://{work}/samples/index.html\n')
  assert run()[1] == []
  assert run('--config.train.steps=5')[1] == STEPS[2:]  # other flags: from there on anew


@pytest.mark.parametrize('words, told', [
    ([], 'FOLDER'), (['nothing_there'], 'nothing_there'), (['{clips}', 'b'], 'b: one FOLDER'),
    (['{clips}', '--task=t2a'], '--task=t2a'), (['{clips}', '--towers=wan'], '--towers=wan'),
    (['{clips}', '--steps=4'], '--steps=4'), (['{empty}'], 'no clips'),
    (['{halves}'], 'no test/')])
def test_a_mistake_is_told_in_one_line(tmp_path, clips, words, told):
  (tmp_path / 'empty').mkdir()
  (tmp_path / 'halves/train').mkdir(parents=True)
  (tmp_path / 'halves/train/a.mp4').touch()
  folders = dict(clips=clips, empty=tmp_path / 'empty', halves=tmp_path / 'halves')
  done = finetune(*(word.format(**folders) for word in words))
  assert done.returncode == MISTAKE and told in done.stderr
  assert len(done.stderr.splitlines()) == 1 and not done.stdout


def test_help_says_what_it_does():
  assert finetune('--help').stdout.startswith('Fine-tunes on a folder')
