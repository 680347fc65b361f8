"""launch/bundled.sh: every bundled weight once, after those it builds on, and on where it was."""

import os
import pathlib
import re
import shlex
import subprocess

import pytest
import safetensors

from avlink_jax.cli import config_files
from avlink_jax.errors import MISTAKE, PREEMPTED
from avlink_jax.storage import weights

ROOT = pathlib.Path(__file__).resolve().parents[2]
ASSETS = weights.BUNDLED / 'nano'
FILES = sorted(ASSETS.glob('*.safetensors'))
NEEDED = ('codec', 'audio', 'video', 'video_codec')  # parts that a run trains on top of
PYTHON = """#!/bin/sh
echo "$*" >> {calls}
case "$*" in *configs/t2a.py*) [ -e {ready} ] || exit {status} ;; esac
"""


def bundled(*arguments, **environ):
  return subprocess.run(
      ['bash', ROOT / 'launch' / 'bundled.sh', *arguments], capture_output=True, text=True,
      cwd='/', env={'PATH': os.environ['PATH'], **environ})


@pytest.fixture
def commands(tmp_path):
  """What a dry run prints, with nothing done yet, as lists of words."""
  done = bundled('--dry-run', WORK=str(tmp_path))
  assert done.returncode == 0, done.stderr
  return [shlex.split(line) for line in done.stdout.splitlines()]


def made(commands):
  """Files that commands make or pack, in order, with how they are packed."""
  for command in commands:
    if command[1:3] == ['-m', 'avlink_jax.training.mel_features']:
      yield ROOT / command[3], 'float16'
    if command[1:3] == ['-m', 'avlink_jax.storage.weights']:
      yield ROOT / command[4], (*command[5:], 'float16')[0]
    if command[:2] == ['ln', '-sf']:
      yield ROOT / command[3], 'int8'


def test_every_bundled_file_is_made_once(commands):
  assert sorted(path for path, _ in made(commands)) == FILES


def test_each_is_packed_as_the_bundled_one_and_as_the_list_says(commands):
  packed = {path.stem: numbers for path, numbers in made(commands)}
  marked = re.findall(r'^\| `(\w+)`⁸', (ASSETS / 'README.md').read_text(), re.MULTILINE)
  assert sorted(marked) == sorted(name for name in packed if packed[name] == 'int8')
  for path in FILES:
    with safetensors.safe_open(path, framework='numpy') as file:
      assert ('int8' == packed[path.stem]) == any(
          name.endswith(weights.SCALE) for name in file.keys()), path.stem


def test_a_weight_is_made_after_those_it_builds_on(commands):
  ready = set()
  for command in commands:
    given = dict(word.partition('=')[::2] for word in command if word.startswith('--'))
    if '--config' in given:
      config = config_files.load(str(ROOT / given['--config']))
      first = given.get('--config.train.init_from', config.train.init_from)
      needed = {weights.bundled(part, 'nano', config.frozen[part]) for part in NEEDED
                if weights.is_bundled(config.frozen[part])}
      needed |= {ROOT / first} if first.endswith('.safetensors') else set()
      needed |= {weights.bundled('video', 'nano', first)} if weights.is_bundled(first) else set()
      if 'codec_loss' in config and config.codec_loss.perceptual == 'bundled':
        needed.add(ASSETS / 'mel_features.safetensors')
      assert needed <= ready, given
    ready |= {path for path, _ in made([command])}


def test_a_run_that_stops_is_gone_on_with_and_what_is_done_is_not_done_again(tmp_path):
  calls, ready, python = tmp_path / 'calls', tmp_path / 'ready', tmp_path / 'venv/bin/python'
  python.parent.mkdir(parents=True)
  python.write_text(PYTHON.format(calls=calls, ready=ready, status=PREEMPTED))
  python.chmod(0o755)
  only, where = '--only=mel_vae,t2a,v2a', dict(WORK=str(tmp_path), VENV=str(tmp_path / 'venv'))

  def configs():
    return re.findall(r'configs/(\w+)\.py', calls.read_text())

  assert bundled(only, **where).returncode == PREEMPTED and configs() == ['mel_vae', 't2a']
  ready.touch()
  assert bundled(only, **where).returncode == 0 and configs() == ['mel_vae', 't2a', 't2a', 'v2a']
  assert bundled(only, **where).stderr == 'mel_vae: done\nt2a: done\nv2a: done\n'


@pytest.mark.parametrize('flag', ['--only=t2a,nothing', '--nothing'])
def test_a_mistake_is_told_in_one_line(flag):
  done = bundled('--dry-run', flag)
  assert done.returncode == MISTAKE and 'nothing' in done.stderr
  assert len(done.stderr.splitlines()) == 1 and not done.stdout


def test_help_says_what_it_does():
  assert bundled('--help').stdout.startswith('Makes the bundled weights')
