"""A user's mistake, or a machine's, ends in one line and a documented exit status."""

import errno
import os
import re
import resource

import numpy as np
import pytest
import runs
from cli import main

from avlink_jax import train as training_loop
from avlink_jax.errors import MISTAKE, UserError
from avlink_jax.tasks import frozen as frozen_parts
from tests.benchmarks import fuzz

TRIED = 60


@pytest.fixture
def begun(monkeypatch, tmp_path):
  """What is raised once everything is built and read, in place of training; runs go to tmp_path."""
  def enough(*_):
    raise UserError('enough')

  monkeypatch.setattr(training_loop.programs, 'build', enough)
  monkeypatch.chdir(tmp_path)


def test_no_command_line_ends_in_a_traceback():
  """Random flags get random values (tests/benchmarks/fuzz.py tries many more)."""
  wrong = []
  with fuzz.playground() as folder:
    for case in fuzz.cases(TRIED, seed=7, only=('train', 'sample', 'evaluate', 'launch')):
      result, error = fuzz.tried(case)
      if result not in fuzz.GOOD:
        wrong.append((result, case, error))
      fuzz.clean(folder)
  assert not wrong, '\n'.join(map(str, wrong))


@pytest.mark.parametrize('flags, told', [
    (['--workdir=s3://b/x'], 'mount the bucket'), (['--workdir=hdfs://x/y'], 'mount the bucket'),
    (['--workdir=gs://b'], 'gs://BUCKET/FOLDER'), (['--mode=sample', '--input=s3://b/x'], 'mount'),
    (['--config.data.source=s3://b/x'], 'a text file that lists clips'),
    (['--mode=sample', '--seed=-1'], 'seed'), (['--config.train.steps=-5'], 'train.steps=-5'),
    (['--allow_drift=towers.audio.width'], 'another model is another run'),
    (['--config.ablation=x'], '--config.name now'),
    (['--config=configs/a2v.py:nano'], '--config is given twice'),
    (['--config.scale=paper'], 'scale is not to be set'),
    (['--config.fusion.heads=5'], 'fusion.heads=5 does not divide fusion.width=64'),
    (['--config.generate=()'], 'nothing to do'),
    (['--mode=sample', '--takes=1000000000000'], 'at most 1000')])
def test_what_cannot_be_meant_is_told_in_one_line(begun, flags, told, capsys):
  assert main('--config=configs/v2a.py:nano', *flags) == MISTAKE
  said = capsys.readouterr().err.splitlines()[-1]
  assert said.startswith('avlink_jax: ') and told in said


def test_a_task_that_trains_a_codec_is_for_that_codec(begun, capsys):
  assert main('--config=configs/video_vae.py:nano', '--config.towers.video.codec=pixels') == MISTAKE
  assert 'video_vae is for the codec video_vae' in capsys.readouterr().err


@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_full_or_broken_disk_is_told_in_one_line(monkeypatch, tmp_path, capsys, number):
  def full(*_, **__):
    raise OSError(number, os.strerror(number), 'runs/x/metrics.jsonl')

  monkeypatch.setattr(training_loop, 'build_and_run', full)
  assert main('--config=configs/v2a.py:nano', f'--workdir={tmp_path}') == MISTAKE
  said = capsys.readouterr().err
  assert re.fullmatch('avlink_jax: runs/x/metrics.jsonl: .*: see to the disk .*\n', said)


def test_a_disk_that_fills_up_while_frozen_weights_are_copied_leaves_nothing(tmp_path):
  frozen = {'towers': {'audio': {'dit': {'kernel': np.ones((200, 200), np.float32)}}}}
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # files of at most so many bytes
  try:
    with pytest.raises(UserError, match='frozen/audio.safetensors: cannot be written .*too large'):
      frozen_parts.keep(runs.shipped('v2a'), tmp_path, frozen, ['audio'])
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
  assert not list((tmp_path / 'frozen').iterdir())


def test_a_bug_keeps_its_traceback(monkeypatch, tmp_path):
  def broken(*_, **__):
    raise OSError(errno.ENOTTY, 'what is that')

  monkeypatch.setattr(training_loop, 'build_and_run', broken)
  with pytest.raises(OSError, match='what is that'):
    main('--config=configs/v2a.py:nano', f'--workdir={tmp_path}')
