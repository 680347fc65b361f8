"""What is prepared: captions, lists of files, long videos in windows, large pictures, data sets."""

import json

import fsspec
import numpy as np
import pytest
from made_clips import make_clip, steady
from preparing import LAYOUT, SIZE, ids, rows, run, write_clip

from avlink_jax.data.batch import Layout
from avlink_jax.data.prepare import command as prepare
from avlink_jax.data.prepare import convert, workers
from avlink_jax.data.sources import records
from avlink_jax.data.sources.records import Records


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
      'dog_barking__a': ('a dog barks', 'CC-BY'), 'rain__b': ('rain', ''),
      'rain__c': ('x' * 10_000, 'CC0')}


def test_captions_come_from_labels_through_a_template(three, tmp_path):
  (tmp_path / 'c.csv').write_text('file,label,place\na.mp4,dog,yard\nb.mp4,rain,roof\n')
  run(three, tmp_path / 'r', f'--captions={tmp_path / "c.csv"}',
      '--template=the sound of {label} in a {place}')
  assert {k: v[0] for k, v in captions_of(tmp_path / 'r').items()} == {
      'dog_barking__a': 'the sound of dog in a yard', 'rain__b': 'the sound of rain in a roof',
      'rain__c': ''}
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
  monkeypatch.setattr(convert, 'PIECE', 4.6)
  workers.source_and_converter.cache_clear()
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
  monkeypatch.setattr(convert, 'PIECE', 4.0)
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
