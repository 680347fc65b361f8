"""Preparing records: killed, shared out, short of room; captions, long videos, lists of files."""

import errno
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import fsspec
import numpy as np
import pytest
import runs
from made_clips import make_clip, steady

from avlink_jax.data.batch import Layout
from avlink_jax.data.media import mux
from avlink_jax.data.prepare import __main__ as prepare
from avlink_jax.data.prepare import report
from avlink_jax.data.sources import records, shards
from avlink_jax.data.sources.records import Records
from avlink_jax.errors import UserError

SIZE = ('--seconds=1', '--height=8', '--width=16', '--processes=1', '--shard_clips=3')
LAYOUT = Layout(1.0, 6.0, 8, 16)


def write_clip(path, level=100, seconds=1.0, sound=True, pictures=None):
  frames = pictures if pictures is not None else np.full(
      (round(seconds * 12), 36, 64, 3), level, np.uint8)
  wave = np.sin(np.arange(round(len(frames) / 12 * 16000)) * 0.05).astype(np.float32)
  path.parent.mkdir(parents=True, exist_ok=True)
  mux.write_mp4(path, frames=frames, fps=12, **(dict(audio=wave, sample_rate=16000)
                                                if sound else {}))


@pytest.fixture(scope='module')
def clips(tmp_path_factory):
  """Nine good clips, all of them of the train split; one broken; one without sound."""
  folder = tmp_path_factory.mktemp('clips')
  for i in range(9):
    write_clip(folder / 'train' / f'clip{i}.mp4', 20 * i)
  (folder / 'train' / 'empty.mp4').write_bytes(b'')
  write_clip(folder / 'train' / 'mute.mp4', sound=False)
  return folder


def run(source, output, *more, split='train'):
  return prepare.prepare([f'--source={source}', f'--output={output}', *SIZE, f'--splits={split}',
                          *more])


def rows(folder):
  return [json.loads(line) for line in (folder / 'skipped.jsonl').read_text().splitlines()]


def ids(folder, split='train', layout=LAYOUT, reads=('audio', 'video')):
  source = Records(folder, split, layout, reads)
  return [source.load(i).id for i in range(len(source))]


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
  monkeypatch.setattr(prepare.convert.Converter, '__call__', None)  # nobody calls it
  assert run(clips, tmp_path / 'r') is not None
  assert contents(tmp_path / 'r') == before == contents(alone)


def test_an_interrupted_run_goes_on_with_the_clip_it_was_at(clips, alone, tmp_path, monkeypatch):
  """Stopped at every clip in turn, torn at the end of its journal: each clip is made once."""
  made, convert_one = [], prepare.convert.Converter.__call__

  def once(self, source, i):
    if len(made) > stops[-1]:
      raise KeyboardInterrupt
    made.append(source.name(i))
    return convert_one(self, source, i)

  monkeypatch.setattr(prepare.convert.Converter, '__call__', once)
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
  rng, kills = np.random.default_rng(0), 0
  for _ in range(6):
    process = subprocess.Popen(command, cwd=runs.ROOT, env=runs.environment(tmp_path / 'cache'),
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               start_new_session=True)
    journals = lambda: list((tmp_path / 'r').glob('*train*'))  # noqa: E731
    while process.poll() is None and not journals():
      time.sleep(0.02)
    try:
      process.wait(float(rng.uniform(0, 0.8)) if kills < 2 else None)
    except subprocess.TimeoutExpired:
      os.killpg(process.pid, signal.SIGKILL)
      kills += 1
    if process.wait() == 0:
      break
  assert process.returncode == 0 and kills
  mine = {name: content for name, content in contents(tmp_path / 'r').items()}
  assert mine == contents(alone)


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
  convert_one = prepare.convert.Converter.__call__

  def deadly(self, source, i):
    if source.name(i) == 'clip4':
      raise KeyboardInterrupt
    return convert_one(self, source, i)

  monkeypatch.setattr(prepare.convert.Converter, '__call__', deadly)
  for _ in range(shards.ATTEMPTS):
    with pytest.raises(KeyboardInterrupt):
      run(clips, tmp_path / 'r')
  run(clips, tmp_path / 'r')
  assert {'clip4': shards.DEADLY}.items() <= {r['clip']: r['reason'] for r in rows(tmp_path / 'r')
                                              }.items()
  assert len(ids(tmp_path / 'r')) == 8


# -- captions

def captions_of(folder):
  source = Records(folder, 'train', LAYOUT)
  return {clip.id: (clip.audio_caption, clip.licence) for clip in map(
      source.load, range(len(source)))}


@pytest.fixture
def three(tmp_path):
  for name in ('train/dog_barking/a.mp4', 'train/rain/b.mp4', 'train/rain/c.mp4'):
    write_clip(tmp_path / 'in' / name)
  return tmp_path / 'in'


def test_captions_come_from_a_csv_with_a_licence_beside_them(three, tmp_path):
  (tmp_path / 'c.csv').write_text('file,license,caption\na.mp4,CC-BY,a dog barks\nb.mp4,,rain\n'
                                  f'c.mp4,CC0,{"x" * (1 << 20)}\n')
  run(three, tmp_path / 'r', f'--captions={tmp_path / "c.csv"}')
  assert captions_of(tmp_path / 'r') == {
      'a': ('a dog barks', 'CC-BY'), 'b': ('rain', ''), 'c': ('x' * 10_000, 'CC0')}


def test_captions_come_from_labels_through_a_template(three, tmp_path):
  (tmp_path / 'c.csv').write_text('file,label,place\na.mp4,dog,yard\nb.mp4,rain,roof\n')
  run(three, tmp_path / 'r', f'--captions={tmp_path / "c.csv"}',
      '--template=the sound of {label} in a {place}')
  assert {k: v[0] for k, v in captions_of(tmp_path / 'r').items()} == {
      'a': 'the sound of dog in a yard', 'b': 'the sound of rain in a roof', 'c': ''}
  run(three, tmp_path / 'q', '--template=a video of {folder}')
  assert {v[0] for v in captions_of(tmp_path / 'q').values()} == {
      'a video of dog barking', 'a video of rain'}


def test_or_there_are_none(three, tmp_path):
  (three / 'captions.csv').write_text('file,caption\na.mp4,a dog barks\n')
  run(three, tmp_path / 'r', '--captions=')
  assert {v[0] for v in captions_of(tmp_path / 'r').values()} == {''}


@pytest.mark.parametrize('flags, said', [
    (['--captions=nowhere.csv'], 'nowhere.csv: no such captions file'),
    (['--template=a dog'], 'names no column'), (['--template={label'], 'template'),
    (['--template={label}'], 'needs a captions csv with the columns label'),
    (['--captions=bad.csv'], "must be the header file,caption; found 'name,text'"),
    (['--captions=bad.csv', '--template={label}'], 'must be the header file,label; found'),
    (['--reads=smell'], 'audio, video or audio,video'), (['--host=2', '--hosts=2'], 'from 0'),
    (['--codec=nowhere.safetensors'], 'no such weights file'), (['--splits=all'], 'train,validat'),
    (['--high', '--height=7'], 'is no whole part'), (['--processes=0'], 'must be above 0')])
def test_a_mistake_is_told_in_one_line(three, tmp_path, monkeypatch, capsys, flags, said):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'bad.csv').write_text('name,text\na.mp4,a dog\n')
  status = prepare.main([f'--source={three}', '--output=out', *SIZE, '--splits=train', *flags])
  line = capsys.readouterr().err.strip()
  assert status == 2 and line.startswith('avlink_jax: ') and said in line and '\n' not in line


@pytest.mark.parametrize('source, said', [
    ('nowhere', 'nowhere: no such folder'), ('empty', 'no media files'),
    ('list.txt', 'names no media files'), ('tfds:vggsound', 'no data set')])
def test_a_wrong_source_is_told_in_one_line(tmp_path, monkeypatch, capsys, source, said):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'empty').mkdir()
  (tmp_path / 'list.txt').write_text('# nothing\nnotes.pdf\n')
  status = prepare.main([f'--source={source}', '--output=out', '--data_dir=none', *SIZE])
  line = capsys.readouterr().err.strip().splitlines()[-1]
  assert status == 2 and line.startswith('avlink_jax: ') and said in line


# -- long videos

def scene(seed, count):
  rng = np.random.default_rng(seed)
  return np.repeat(rng.choice(rng.integers(0, 255, (4, 3)), (1, 9, 16)), count, 0).astype(
      np.uint8).repeat(4, 1).repeat(4, 2)


def test_a_long_video_is_cut_into_windows_within_its_shots(tmp_path):
  """3.5 s of one scene, 2.25 s of another: no window has pictures of both."""
  write_clip(tmp_path / 'in' / 'train' / 'long.mp4',
             pictures=np.concatenate([scene(1, 42), scene(2, 27)]))
  run(tmp_path / 'in', tmp_path / 'r', '--shortest=0.4')
  source = Records(tmp_path / 'r', 'train', LAYOUT)
  spans = [(clip.id, round(clip.start, 3), round(clip.duration, 3)) for clip in map(
      source.load, range(len(source)))]
  assert spans == [
      ('long', 0.0, 1.0), ('long@1.000', 1.0, 1.0), ('long@2.000', 2.0, 1.0),
      ('long@3.000', 3.0, 0.5), ('long@3.500', 3.5, 1.0), ('long@4.500', 4.5, 1.0)]
  for i in range(len(source)):
    frames = source.load(i).frames.astype(int)
    assert np.abs(frames - frames[:1]).mean() < 8  # one scene
  assert json.loads((tmp_path / 'r' / 'train-00000-of-00001.json').read_text())['left'] < 0.4


def test_a_long_video_in_pieces_is_the_same_as_in_one(tmp_path, monkeypatch):
  (tmp_path / 'in' / 'train').mkdir(parents=True)
  make_clip(tmp_path / 'in' / 'train' / 'long.mp4', steady(24, 20.0),
            options={'crf': '10', 'g': '24'})
  run(tmp_path / 'in', tmp_path / 'whole', '--shots=0')
  monkeypatch.setattr(prepare.convert, 'PIECE', 4.6)
  prepare.opened.cache_clear()
  run(tmp_path / 'in', tmp_path / 'pieces', '--shots=0')
  whole, pieces = (Records(tmp_path / name, 'train', LAYOUT) for name in ('whole', 'pieces'))
  assert len(whole) == len(pieces) >= 19
  for a, b in zip(map(whole.load, range(len(whole))), map(pieces.load, range(len(pieces))),
                  strict=True):
    assert (a.id, a.start, a.duration) == (b.id, b.start, pytest.approx(b.duration, abs=1e-3))
    np.testing.assert_array_equal(a.frames, b.frames)
    np.testing.assert_allclose(a.audio[:len(b.audio)], b.audio[:len(a.audio)], atol=2e-3)


def test_a_clip_that_breaks_off_late_gives_what_came_before(tmp_path, monkeypatch):
  (tmp_path / 'in' / 'train').mkdir(parents=True)
  make_clip(tmp_path / 'in' / 'train' / 'long.mkv', steady(24, 12.0), options={'g': '24'})
  content = bytearray((tmp_path / 'in' / 'train' / 'long.mkv').read_bytes())
  rng = np.random.default_rng(0)
  for at in rng.integers(int(len(content) * 0.7), int(len(content) * 0.95), 200):
    content[at] ^= int(rng.integers(1, 255))
  (tmp_path / 'in' / 'train' / 'long.mkv').write_bytes(content)
  monkeypatch.setattr(prepare.convert, 'PIECE', 4.0)
  run(tmp_path / 'in', tmp_path / 'r', '--shots=0')
  assert len(ids(tmp_path / 'r')) >= 4
  row, = rows(tmp_path / 'r')
  assert row['clip'] == 'long' and row['reason'] in ('corrupt stream', 'timestamps jump',
                                                     'truncated')


# -- lists of files

def test_a_list_of_files_and_addresses_is_a_source(tmp_path, capsys):
  write_clip(tmp_path / 'here' / 'a.mp4', 50)
  write_clip(tmp_path / 'b.mp4', 150)
  with fsspec.open('memory://bucket/deep/b.mp4', 'wb') as file:
    file.write((tmp_path / 'b.mp4').read_bytes())
  (tmp_path / 'list.txt').write_text(
      '# clips\nhere/a.mp4\nmemory://bucket/deep/b.mp4\nhere/a.mp4\nmemory://bucket/gone.mp4\n'
      'notes.pdf\n')
  (tmp_path / 'c.csv').write_text('file,caption\na.mp4,near\nb.mp4,far\n')
  prepare.prepare([f'--source={tmp_path / "list.txt"}', f'--output={tmp_path / "r"}', *SIZE,
                   f'--captions={tmp_path / "c.csv"}'])
  said = capsys.readouterr().err
  assert '1 of 5 lines repeat a line' in said and '1 of 5 lines name no media file' in said
  everything = {}
  about = records.read_about(tmp_path / 'r')
  for split in about['counts']:
    if any(c['records'] for c in about['counts'][split].values()):
      source = Records(tmp_path / 'r', split, LAYOUT)
      for i in range(len(source)):
        everything[source.load(i).id] = source.load(i)
  assert {k: v.audio_caption for k, v in everything.items()} == {'a': 'near', 'b': 'far'}
  assert everything['b'].source == 'memory://bucket/deep/b.mp4'
  assert abs(everything['b'].frames.mean() - 150) < 4
  assert [(r['clip'], r['reason']) for r in rows(tmp_path / 'r')] == [('gone', 'no such file')]


def test_large_pictures_are_kept_beside_small_ones_that_are_their_means(tmp_path):
  run('impacts', tmp_path / 'r', '--high', '--limit=1', '--seconds=2', '--height=36', '--width=64')
  source = Records(tmp_path / 'r', 'train', Layout(2.0, 6.0, 36, 64))
  high = source.high(0)
  assert high.shape == (48, 288, 512, 3)
  small = high[::4].reshape(12, 36, 8, 64, 8, 3).mean((2, 4))
  assert np.abs(source.load(0).frames - small).mean() < 1.5  # what JPEG costs


# -- ids

def test_ids_that_stand_twice_are_both_kept_and_told(clips, tmp_path, monkeypatch):
  monkeypatch.setattr(prepare.Folder, 'name', lambda self, i: 'same')
  load = prepare.Folder.load
  monkeypatch.setattr(prepare.Folder, 'load', lambda self, i, *span: __import__(
      'dataclasses').replace(load(self, i, *span), id='same'))
  prepare.opened.cache_clear()
  run(clips, tmp_path / 'r')
  assert ids(tmp_path / 'r') == ['same'] * 9
  assert sum(row['reason'] == report.TWICE for row in rows(tmp_path / 'r')) == 8


def test_a_built_data_set_is_a_source_with_its_licences_and_spans(tmp_path):
  from test_tfds_source import build, example_of
  make_clip(tmp_path / 'a.mp4', steady(12, 4.0))
  content = (tmp_path / 'a.mp4').read_bytes()
  build(tmp_path / 'tfds', {'train': [
      example_of('a', content, licence='CC BY 4.0', start=1.5, end=3.5), example_of('b', b'none')]})
  run('tfds:made', tmp_path / 'r', f'--data_dir={tmp_path / "tfds"}', '--shots=0')
  source = Records(tmp_path / 'r', 'train', LAYOUT)
  clip = source.load(0)
  assert len(source) == 2 and [source.load(i).start for i in range(2)] == [1.5, 2.5]
  assert (clip.licence, clip.audio_caption, clip.video_caption) == (
      'CC BY 4.0', 'a click', 'a flash')
  assert [row['clip'] for row in rows(tmp_path / 'r')] == ['b']
