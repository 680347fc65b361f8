"""Data sets built by tfds as sources: what is read is what was stored, in every split."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow_datasets as tfds

from avlink_jax.data.datasets import features
from avlink_jax.data.media import decode as media
from avlink_jax.data.media.container import Held
from avlink_jax.data.sources.tfds import TfdsSource
from avlink_jax.errors import MediaError, UserError
from tests import made_clips

OPTIONS = dict(height=36, width=64, sample_rate=16000, max_fps=6)


def example_of(name, content, **more):
  return {'id': name, 'media': content, 'suffix': '.mp4', 'start': 0.0, 'end': 1.0,
          'audio_caption': 'a click', 'video_caption': 'a flash', 'labels': ['click', 'flash ✓'],
          'licence': '', 'metadata': '{}', **more}


def build(folder, splits):
  """A data set named `made` of {split: [example]}."""
  class Made(tfds.core.ShardBasedBuilder, skip_registration=True):
    name = 'made'
    VERSION = tfds.core.Version('1.0.0')
    code_path = None  # as in builder.py

    def _info(self):
      return tfds.core.DatasetInfo(builder=self, features=features.features())

    def _shard_iterators_per_split(self, dl_manager):
      return {split: [lambda rows=rows: enumerate(rows)] for split, rows in splits.items()}

  Made(data_dir=folder, file_format='array_record').download_and_prepare()


@pytest.fixture(scope='module')
def clip_bytes(tmp_path_factory):
  path = tmp_path_factory.mktemp('clip') / 'clip.mp4'
  made_clips.make_clip(path, made_clips.steady(12, 2.0), flash=15)
  return path.read_bytes()


def test_bytes_in_memory_decode_as_their_file_does(tmp_path, clip_bytes):
  (tmp_path / 'a.mp4').write_bytes(clip_bytes)
  held, file = (media.decode(source, start=0.5, duration=1.0, **OPTIONS)
                for source in (Held('a', clip_bytes), tmp_path / 'a.mp4'))
  assert np.array_equal(held.frames, file.frames) and np.array_equal(held.audio, file.audio)
  assert held.id == 'a'


def test_bytes_that_are_cut_are_refused_as_their_file_is(clip_bytes):
  with pytest.raises(MediaError, match='truncated'):
    media.decode(Held('a', clip_bytes[:-500]))


def test_what_is_stored_is_read_back_exactly_and_takes_no_more_room(tmp_path, clip_bytes):
  start = 3600 * 7 + 1 / 3
  build(tmp_path, {'train': [example_of('a', clip_bytes, start=start, licence='CC BY 4.0',
                                        metadata='{"n": 1}')]})
  read = TfdsSource('made', 'train', tmp_path, **OPTIONS).example(0)
  assert read == example_of('a', clip_bytes, start=start, licence='CC BY 4.0', metadata={'n': 1})
  shard, = TfdsSource('made', 'train', tmp_path, **OPTIONS).folder.glob('*array_record*')
  assert shard.stat().length < len(clip_bytes) + 2 * 65536  # array_record pads its blocks


def test_only_the_span_is_the_clip(tmp_path, clip_bytes):
  build(tmp_path, {'train': [example_of('a', clip_bytes, start=1.0, end=1.75)]})
  clip = TfdsSource('made', 'train', tmp_path, **OPTIONS).load(0)
  assert clip.duration == pytest.approx(0.75) and len(clip.audio) == 12000
  assert made_clips.flash_time(clip) == pytest.approx(15 / 12 - 1.0, abs=1 / 12)
  assert (clip.id, clip.audio_caption, clip.video_caption) == ('a', 'a click', 'a flash')
  assert clip.source == 'tfds:made/a'


def test_a_broken_record_fails_when_loaded_and_not_before(tmp_path, clip_bytes):
  build(tmp_path, {'train': [example_of('a', b'not media'), example_of('b', clip_bytes)]})
  source = TfdsSource('made', 'train', tmp_path, **OPTIONS)
  with pytest.raises(MediaError, match='not a media file'):
    source.load(0)
  assert source.load(1).id == 'b'


def names(folder, split):
  source = TfdsSource('made', split, folder, **OPTIONS)
  return [source.name(i) for i in range(len(source))], source.notes


def test_splits_that_are_lacking_are_held_out_of_train(tmp_path):
  ids = [f'c{i:02d}' for i in range(45)]
  build(tmp_path, {'train': [example_of(name, b'') for name in ids],
                   'test': [example_of('t', b'')]})
  (train, notes), (validation, _), (test, _) = (names(tmp_path, split) for split in
                                                ('train', 'validation', 'test'))
  assert validation == ['c00', 'c20', 'c40'] and test == ['t']
  assert train == [name for name in ids if name not in validation]
  assert len(notes) == 1 and 'no validation split' in notes[0]


def test_a_data_set_that_is_not_there_names_the_command_that_builds_it(tmp_path):
  with pytest.raises(UserError, match=r'data\.build vggsound --manual_dir'):
    TfdsSource('vggsound', 'train', tmp_path, **OPTIONS)


def test_a_split_that_cannot_be_had_is_named_with_those_there_are(tmp_path):
  build(tmp_path, {'test': [example_of('t', b'')]})
  with pytest.raises(UserError, match='made has no train split, only test'):
    TfdsSource('made', 'train', tmp_path, **OPTIONS)


def test_a_shard_that_was_cut_or_is_gone_is_one_line(tmp_path, clip_bytes):
  build(tmp_path, {'train': [example_of('a', clip_bytes)]})
  shard, = tmp_path.rglob('*array_record*')
  for damage, told in ((lambda: shard.write_bytes(shard.read_bytes()[:-1000]), 'cut short'),
                       (lambda: shard.write_bytes(b''), 'missing or empty'),
                       (shard.unlink, 'missing or empty')):
    damage()
    with pytest.raises(UserError, match=told) as error:
      TfdsSource('made', 'train', tmp_path, **OPTIONS)
    assert shard.name in str(error.value) and '\n' not in str(error.value)


def test_a_flipped_bit_costs_one_record_and_names_it(tmp_path):
  noise = np.random.default_rng(0).bytes(100_000)
  build(tmp_path, {'train': [example_of(name, noise) for name in 'abc']})
  shard, = tmp_path.rglob('*array_record*')
  content = bytearray(shard.read_bytes())
  content[150_000] ^= 1  # within b
  shard.write_bytes(content)
  source = TfdsSource('made', 'train', tmp_path, **OPTIONS)
  assert [source.name(i) for i in range(3)] == ['a', 'made-train-00000001', 'c']
  with pytest.raises(MediaError, match='damaged record'):
    source.load(1)
  assert source.example(2)['media'] == noise


@pytest.mark.slow
def test_reading_needs_no_tensorflow(tmp_path, clip_bytes):
  build(tmp_path, {'train': [example_of('a', clip_bytes)]})
  code = f'''
    import sys
    from avlink_jax.data.sources.tfds import TfdsSource
    source = TfdsSource('made', 'train', {str(tmp_path)!r}, height=36, width=64, sample_rate=16000)
    assert source.load(0).audio.any()
    assert 'tensorflow' not in sys.modules
  '''
  subprocess.run([sys.executable, '-c', textwrap.dedent(code)], check=True)
