"""Preparing records: once each, whatever interrupts it; shared out; short of room."""

import errno
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import runs
from preparing import SIZE, ids, rows, run, write_clip

from avlink_jax.data.prepare import command as prepare
from avlink_jax.data.prepare import convert, report, workers
from avlink_jax.data.sources import records, shards
from avlink_jax.data.sources.folder import Folder
from avlink_jax.errors import UserError


@pytest.fixture(scope='module')
def clips(tmp_path_factory):
  """Nine good clips, all of them of the train split; one broken; one without sound."""
  folder = tmp_path_factory.mktemp('clips')
  for i in range(9):
    write_clip(folder / 'train' / f'clip{i}.mp4', 20 * i)
  (folder / 'train' / 'empty.mp4').write_bytes(b'')
  write_clip(folder / 'train' / 'mute.mp4', sound=False)
  return folder


def contents(folder):
  return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope='module')
def alone(clips, tmp_path_factory):
  """Prepared in one go."""
  folder = tmp_path_factory.mktemp('alone') / 'r'
  run(clips, folder)
  return folder


def test_every_clip_is_a_record_or_a_row_with_a_reason(alone, capsys):
  assert sorted(ids(alone)) == [f'clip{i}' for i in range(9)]
  assert {(row['clip'], row['reason']) for row in rows(alone)} == {
      ('empty', 'empty file'), ('mute', 'no audio stream')}
  assert not list(alone.glob('.*'))  # journals and temporary files are gone


def test_a_summary_counts_what_was_made_and_what_was_skipped(clips, tmp_path, capsys):
  run(clips, tmp_path / 'r')
  said = capsys.readouterr()
  assert 'train: 9 records (0:09' in said.out and 'of 11 clips' in said.out
  assert 'skipped: 1 × empty file' in said.out and 'skipped: 1 × no audio stream' in said.out
  assert '11/11 clips' in said.err and 'a second, 0:00 left' in said.err


def test_started_again_nothing_is_made_twice(clips, alone, tmp_path, monkeypatch):
  run(clips, tmp_path / 'r')
  before = contents(tmp_path / 'r')
  monkeypatch.setattr(convert.Converter, '__call__', None)  # nobody calls it
  assert run(clips, tmp_path / 'r') is not None
  assert contents(tmp_path / 'r') == before == contents(alone)


def test_an_interrupted_run_goes_on_with_the_clip_it_was_at(clips, alone, tmp_path, monkeypatch):
  """Stopped at every clip in turn, torn at the end of its journal: each clip is made once."""
  made, convert_one = [], convert.Converter.__call__

  def once(self, source, i):
    if len(made) > stops[-1]:
      raise KeyboardInterrupt
    made.append(source.name(i))
    return convert_one(self, source, i)

  monkeypatch.setattr(convert.Converter, '__call__', once)
  stops = []
  for stop in range(11):
    stops.append(stop)
    try:
      run(clips, tmp_path / 'r')
    except KeyboardInterrupt:
      for journal in (tmp_path / 'r').glob('.*.journal'):
        with journal.open('ab') as file:
          file.write(b'\0\0\1\0torn')
  assert len(made) == len(set(made)) == 11
  assert contents(tmp_path / 'r') == contents(alone)


@pytest.mark.slow
def test_killed_at_random_moments_nothing_is_lost_or_doubled(clips, alone, tmp_path):
  command = [sys.executable, '-m', 'avlink_jax.data.prepare', f'--source={clips}', *SIZE,
             f'--output={tmp_path / "r"}', '--splits=train']
  journaled = lambda: sum(  # noqa: E731
    path.stat().st_size for path in (tmp_path / 'r').glob('.*.journal'))
  rng = np.random.default_rng(0)
  for kills in (0, 1, 2):
    process = subprocess.Popen(command, cwd=runs.ROOT, env=runs.environment(tmp_path / 'cache'),
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               start_new_session=True)
    # What the process has done says when, so that it is killed in the midst on any machine.
    before = journaled()
    while kills < 2 and process.poll() is None and journaled() <= before:
      time.sleep(0.001)
    if kills < 2:
      time.sleep(float(rng.uniform(0, 0.01)))
      os.killpg(process.pid, signal.SIGKILL)
      assert process.wait() == -signal.SIGKILL
  assert process.wait() == 0
  assert contents(tmp_path / 'r') == contents(alone)


@pytest.mark.slow
def test_several_processes_make_the_same(clips, alone, tmp_path):
  subprocess.run([sys.executable, '-m', 'avlink_jax.data.prepare', f'--source={clips}', *SIZE,
                  f'--output={tmp_path / "r"}', '--splits=train', '--processes=2'], cwd=runs.ROOT,
                 env=runs.environment(tmp_path / 'cache'), check=True, timeout=300)
  assert contents(tmp_path / 'r') == contents(alone)


def test_hosts_share_the_work_without_a_word(clips, alone, tmp_path, capsys):
  assert run(clips, tmp_path / 'r', '--hosts=2', '--host=1') is None
  assert 'run the same command once more' in capsys.readouterr().err
  theirs = {path.name for path in (tmp_path / 'r').glob('*.array_record')}
  with pytest.raises(UserError, match='not finished'):
    ids(tmp_path / 'r')
  assert run(clips, tmp_path / 'r', '--hosts=2', '--host=0') is not None
  assert theirs and len(theirs) < len(list((tmp_path / 'r').glob('*.array_record')))
  assert contents(tmp_path / 'r') == contents(alone)


def test_two_processes_at_one_shard_are_told(clips, tmp_path):
  (tmp_path / 'r').mkdir()
  held = shards.Journal(tmp_path / 'r', 'train-00000-of-00004')
  with pytest.raises(UserError, match='another process is making this shard.*--host'):
    run(clips, tmp_path / 'r')
  held.close()


def test_another_job_in_the_same_folder_is_told_by_name(clips, alone):
  with pytest.raises(UserError, match='begun with another shots: give what was given then'):
    run(clips, alone, '--shots=0.7')
  with pytest.raises(UserError, match='begun with another layout'):
    run(clips, alone, '--fps=3')


def test_splits_that_a_source_has_not_are_left_out_and_told(clips, tmp_path, capsys):
  prepare.prepare([f'--source={clips}', f'--output={tmp_path / "r"}', *SIZE])
  assert 'no clips in test/' in capsys.readouterr().err
  assert len(ids(tmp_path / 'r')) == 9
  with pytest.raises(UserError, match='no clips in test/'):
    run(clips, tmp_path / 'q', split='train,test')


def test_nothing_prepared_is_a_mistake(tmp_path, capsys):
  (tmp_path / 'clips').mkdir()
  (tmp_path / 'clips' / 'a.mp4').write_bytes(b'')
  status = prepare.main([f'--source={tmp_path / "clips"}', f'--output={tmp_path / "r"}', *SIZE])
  said = capsys.readouterr()
  assert status == 2 and 'no clip became a record' in said.err
  assert 'skipped: 3 × empty file' in said.out


def test_a_full_disk_is_told_in_a_line_and_what_is_done_is_kept(clips, alone, tmp_path,
                                                                monkeypatch):
  full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
  count = [0]

  class Filling:
    def __init__(self, file):
      self._file = file

    def write(self, content):
      count[0] += 1
      if count[0] > 5:
        raise full
      return self._file.write(content)

    def __getattr__(self, name):
      return getattr(self._file, name)

  begin = shards.Journal.__init__

  def filling(self, *args):
    begin(self, *args)
    self._file = Filling(self._file)

  with monkeypatch.context() as patch:
    patch.setattr(shards.Journal, '__init__', filling)
    with pytest.raises(UserError, match='No space left on device.*what is done is kept') as told:
      run(clips, tmp_path / 'r')
    assert '\n' not in str(told.value)
  with monkeypatch.context() as patch:
    def refuse(path, blobs):
      list(blobs)
      raise full
    patch.setattr(records, 'write_shard', refuse)
    with pytest.raises(UserError, match='train-00000.*cannot be written .No space left'):
      run(clips, tmp_path / 'r')
  run(clips, tmp_path / 'r')
  assert contents(tmp_path / 'r') == contents(alone)


def test_array_record_itself_tells_a_full_disk():
  if not pathlib.Path('/dev/full').exists():
    pytest.skip('there is no /dev/full here')
  with pytest.raises(OSError, match='No space left'):
    records.write_shard('/dev/full', [bytes(100_000)] * 50)


def test_a_clip_that_ends_the_process_is_given_up_after_some_times(clips, tmp_path, monkeypatch):
  convert_one = convert.Converter.__call__

  def deadly(self, source, i):
    if source.name(i) == 'clip4':
      raise KeyboardInterrupt
    return convert_one(self, source, i)

  monkeypatch.setattr(convert.Converter, '__call__', deadly)
  for _ in range(shards.ATTEMPTS):
    with pytest.raises(KeyboardInterrupt):
      run(clips, tmp_path / 'r')
  run(clips, tmp_path / 'r')
  assert {'clip4': shards.DEADLY}.items() <= {r['clip']: r['reason'] for r in rows(tmp_path / 'r')
                                              }.items()
  assert len(ids(tmp_path / 'r')) == 8


# -- captions


def test_ids_that_stand_twice_are_both_kept_and_told(clips, tmp_path, monkeypatch):
  monkeypatch.setattr(Folder, 'name', lambda self, i: 'same')
  load = Folder.load
  monkeypatch.setattr(Folder, 'load', lambda self, i, *span: __import__(
      'dataclasses').replace(load(self, i, *span), id='same'))
  workers.source_and_converter.cache_clear()
  run(clips, tmp_path / 'r')
  assert ids(tmp_path / 'r') == ['same'] * 9
  assert sum(row['reason'] == report.TWICE for row in rows(tmp_path / 'r')) == 8
