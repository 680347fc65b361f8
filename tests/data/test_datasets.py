"""Each data set from its official lists: what an example holds, and where it comes to lie."""

import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from avlink_jax.data.build import DATASETS, build
from avlink_jax.data.datasets.builder import Options
from avlink_jax.data.sources.tfds import TfdsSource
from avlink_jax.errors import MediaError
from tests import official_lists

SIZES = dict(height=36, width=64, sample_rate=16000, max_fps=6)


@pytest.fixture(scope='module')
def built(tmp_path_factory):
  """built(name) -> (the builder after building, {split: {id: example}}); each is built once."""
  made = {}

  def make(name, **more):
    if name not in made:
      root = tmp_path_factory.mktemp(name)
      getattr(official_lists, name)(root / 'manual')
      builder = build(name, root / 'manual', root / 'data', options=Options(), **more)
      made[name] = builder, {split: examples(name, split, root / 'data') for split in
                             ('train', 'validation', 'test') if builder.report.built[split]}
    return made[name]
  return make


def examples(name, split, data_dir):
  source = TfdsSource(name, split, data_dir, **SIZES)
  return {e['id']: e for e in map(source.example, range(len(source)))}


def ids(splits):
  return {split: list(rows) for split, rows in splits.items()}


def test_vggsound(built):
  builder, splits = built('vggsound')
  assert ids(splits) == {'train': ['-abc_DEF012_000030'], 'test': ['ghi_000000']}
  example = splits['train']['-abc_DEF012_000030']
  assert example['audio_caption'] == 'the sound of dog barking, howling'
  assert example['video_caption'] == 'dog barking, howling'
  assert example['labels'] == ['dog barking, howling'] and example['suffix'] == '.mp4'
  assert example['metadata'] == {'youtube_id': '-abc_DEF012', 'start_seconds': 30}
  assert example['start'] == 0 and example['end'] == pytest.approx(2.0, abs=0.2)
  assert builder.report.left_out == {'missing': 1}


def test_audioset_strong(built):
  _, splits = built('audioset_strong')
  assert ids(splits) == {'train': ['s9d-2nhuJCQ_30000', 'b_c_0'], 'test': ['e_10000']}
  example = splits['train']['s9d-2nhuJCQ_30000']
  assert example['labels'] == ['Speech', 'Cheering']  # in the order in which they begin
  assert example['audio_caption'] == 'the sound of speech, cheering'
  assert example['metadata']['events'] == [[0.1, 0.5, 'Speech'], [2.627, 7.237, 'Cheering']]
  assert example['metadata']['youtube_id'] == 's9d-2nhuJCQ'


def test_autorecap(built):
  _, splits = built('autorecap')
  assert ids(splits) == {'train': ['vid_000', 'vid_001', 'w-__000']}
  cut, whole, mute = splits['train'].values()
  assert (cut['audio_caption'], cut['start'], cut['end']) == ('rain falls', 0, 2)
  # Only the whole recording is there, and the interval lies in it.
  assert (whole['audio_caption'], whole['start'], whole['end']) == ('a bell rings', 0.25, 1.5)
  assert mute['audio_caption'] == ''


def test_fma(built):
  _, splits = built('fma', config='medium')
  assert ids(splits) == {'train': ['000002'], 'validation': ['000005']}  # 1193 is in large alone
  first, second = splits['train']['000002'], splits['validation']['000005']
  assert first['labels'] == ['Hip-Hop'] and first['audio_caption'] == 'Hip-Hop music'
  assert first['licence'] == 'Attribution-NonCommercial' and second['licence'] == ''
  assert second['labels'] == ['Hip-Hop', 'Pop']
  assert second['metadata'] == {'title': 'This, World', 'artist': 'AWOL'}


def test_magnatagatune(built):
  _, splits = built('magnatagatune')
  assert ids(splits) == {'train': ['6'], 'validation': ['10'], 'test': ['2']}
  example = splits['test']['2']
  assert example['labels'] == ['guitar', 'slow']
  assert example['audio_caption'] == 'guitar, slow music'
  assert example['metadata']['artist'] == 'American Bach Soloists'
  assert splits['train']['6']['audio_caption'] == ''  # no tag, no caption


def test_mtg_jamendo(built):
  _, splits = built('mtg_jamendo')
  assert ids(splits) == {'train': ['track_0000214'], 'validation': ['track_0000382'],
                         'test': ['track_0786434']}
  assert splits['validation']['track_0000382']['labels'] == ['genre---rock', 'mood/theme---calm']
  assert splits['validation']['track_0000382']['audio_caption'] == 'rock, calm music'
  assert 'Creative Commons Attribution' in splits['train']['track_0000214']['licence']


def test_song_describer(built):
  _, splits = built('song_describer')
  assert ids(splits) == {'test': ['859', '860']}  # two captions of one track
  one, other = splits['test'].values()
  assert one['audio_caption'] == 'An electronic tune, fast' and one['media'] == other['media']
  assert one['metadata']['is_valid_subset'] == 'True'


def test_movie_gen_bench_has_prompts_and_no_reference_sound(built):
  builder, splits = built('movie_gen_bench')
  assert ids(splits) == {'test': ['0', '32']}
  example = splits['test']['32']
  assert (example['audio_caption'], example['video_caption']) == ('footsteps', 'A corridor.')
  root = builder.data_path.parents[2]
  clip = TfdsSource('movie_gen_bench', 'test', root, need_audio=False, **SIZES).load(0)
  assert len(clip.frames) and not len(clip.audio)
  with pytest.raises(MediaError, match='no reference sound'):
    TfdsSource('movie_gen_bench', 'test', root, **SIZES).load(0)


@pytest.mark.parametrize('name', sorted(set(DATASETS) - {'movie_gen_bench'}))
def test_every_example_is_a_clip_of_its_span_with_sound(built, name):
  builder, splits = built(name, **({'config': 'medium'} if name == 'fma' else {}))
  root = builder.data_path.parents[2 if builder.builder_config else 1]
  video = name in ('vggsound', 'audioset_strong')
  for split in splits:
    source = TfdsSource(name, split, root, need_video=video, **SIZES)
    for i in range(len(source)):
      clip, example = source.load(i), source.example(i)
      assert clip.duration == pytest.approx(example['end'] - example['start'], abs=0.01)
      assert np.abs(clip.audio).max() > 0.1 and bool(len(clip.frames)) == video
      assert source.caption(i) == example['audio_caption'] == clip.audio_caption


def test_tfds_reads_what_was_built(built):
  builder, _ = built('vggsound')
  data = tfds.data_source('vggsound', split='train', data_dir=builder.data_path.parents[1])
  assert data[0]['id'] == b'-abc_DEF012_000030'
  manual = builder.data_path.parents[2] / 'manual'
  assert data[0]['media'] == (manual / 'a' / '-abc_DEF012_000030.mp4').read_bytes()


def test_nothing_needs_tensorflow(built):
  built('vggsound')
  assert 'tensorflow' not in sys.modules
