"""Examples of large pictures: parts in time and space; no more is loaded than they show."""

import collections

import numpy as np
import pytest
from made_clips import make_clip, steady
from micro import build, micro_config

from avlink_jax.codecs.pixels import Pixels
from avlink_jax.data import batch as batches
from avlink_jax.data import clip as clips
from avlink_jax.data import pipeline
from avlink_jax.data.batch import Layout
from avlink_jax.data.clip import Clip
from avlink_jax.data.examples import Examples
from avlink_jax.data.impacts import Impacts
from avlink_jax.data.prepare.command import prepare as prepare_records
from avlink_jax.data.sources.folder import Folder
from avlink_jax.data.sources.records import Records
from avlink_jax.data.sources.tfds import TfdsSource
from avlink_jax.errors import UserError
from configs import common

READERS = (Pixels('video', 24.0),)
LAYOUT = Layout(9 / 24, 24.0, 36, 64, crop=(12, 24), clip_seconds=3.0)


def config_of(source='impacts', **changes):
  """A video task whose pictures are cropped."""
  config = micro_config('t2v')
  with config.unlocked():
    common.high_resolution(config, 9 / 24, (12, 24))
    config.data.height, config.data.width, config.data.clip_seconds = 36, 64, 3.0
    config.data.source = str(source)
  config.update_from_flattened_dict(changes)
  return config


def examples_of(source, layout=LAYOUT, cache=1 << 24):
  return Examples(source, layout, READERS, cache, 0.3, 0.5)


def drawn(source, steps=4, first=0, rows=None, layout=LAYOUT, cache=1 << 24):
  return list(pipeline.train_batches(examples_of(source, layout, cache), {}, seed=2, batch_size=4,
                                     first_step=first, last_step=steps, rows=rows))


def small_world():
  return Impacts('train', size=10, duration=3.0, height=36, width=64, fps=24.0)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Three clips of 3 s, 30 pictures a second, and one of a quarter of a second."""
  path = tmp_path_factory.mktemp('clips')
  for n in range(3):
    make_clip(path / f'{n}.mp4', steady(30, 3.0), options={'g': '12'}, flash=20 + 10 * n)
  make_clip(path / 'short.mp4', steady(24, 0.25))
  return path


def test_an_example_is_cut_out_of_the_whole_clip_at_a_place_of_its_own():
  source, places = small_world(), collections.Counter()
  order = pipeline.order_of(source, 2)
  for step, (batch, meta) in enumerate(drawn(source)):
    assert batch['video'].shape == (4, 9, 12, 24, 3) and batch['video_mask'].all()
    for slot in range(4):
      index, seed = order(4 * step + slot)
      rng = np.random.default_rng(seed)
      start = rng.uniform(0, 3.0 - 9 / 24)
      top, left = rng.integers(36 - 12 + 1), rng.integers(64 - 24 + 1)
      whole = batches.example(
          source.load(index), start, Layout(9 / 24, 24.0, 36, 64), READERS)
      np.testing.assert_array_equal(batch['video'][slot],
                                    whole['video'][:, top:top + 12, left:left + 24])
      np.testing.assert_allclose(meta.events[slot], source.scene(index).events - start)
      places[round(start, 3), top, left] += 1
  assert max(places.values()) == 1


def test_a_step_is_the_same_from_any_start_on_any_hosts_with_any_cache():
  whole = drawn(small_world())
  for made in (drawn(small_world(), first=2), drawn(small_world(), first=2, cache=0)):
    for (a, meta_a), (b, meta_b) in zip(made, whole[2:], strict=True):
      np.testing.assert_array_equal(a['video'], b['video'])
      assert meta_a.ids == meta_b.ids
  hosts = [drawn(small_world(), rows=np.arange(2) + 2 * host) for host in range(2)]
  for (a, _), (b, _), (both, _) in zip(*hosts, whole, strict=True):
    np.testing.assert_array_equal(np.concatenate([a['video'], b['video']]), both['video'])


def test_without_a_crop_batches_are_what_they_were():
  """Runs that are under way go on with the examples that they began with."""

  class Long:
    """Clips of 2 s."""
    def __len__(self):
      return 5

    def name(self, i):
      return str(i)

    def load(self, i):
      frames = np.random.default_rng(i).integers(0, 256, (12, 4, 8, 3), np.uint8)
      return Clip(str(i), 2.0, frames, np.arange(12) / 6, np.zeros(0, np.float32), 16000)

  source, layout = Long(), Layout(0.5, 6.0, 4, 8)
  assert layout.example == layout.clip == layout
  order = pipeline._shuffled(5, 2)
  for step, (batch, _) in enumerate(drawn(source, layout=layout)):
    for slot in range(4):
      index, seed = order[4 * step + slot]
      start = np.random.default_rng(seed).uniform(0.0, 1.5)
      np.testing.assert_array_equal(
          batch['video'][slot], batches.video(source.load(index), start, layout)[0])


def test_whole_pictures_may_come_in_parts_of_time_alone():
  layout = Layout(0.5, 24.0, 36, 64, crop=(36, 64), clip_seconds=3.0)
  (batch, _), = drawn(small_world(), steps=1, layout=layout)
  assert batch['video'].shape == (4, 12, 36, 64, 3)


def test_what_is_looked_at_outside_training_is_the_whole_clip():
  config = config_of()
  models, task = build(config)
  assert models.layout.clip == Layout(3.0, 24.0, 36, 64)
  source = pipeline.open_source(config, models.layout, 'test', task.reads)
  clip = source.load(0)
  assert (clip.duration, clip.frames.shape) == (3.0, (73, 36, 64, 3))
  assert len(clip.audio), 'it is exported with its sound'
  made, *_ = pipeline.make_examples(source, models.layout, task.readers, config.data)(0)
  assert made['video'].shape == (9, 36, 64, 3)


def test_a_batch_has_the_shapes_that_programs_are_compiled_for():
  config = config_of()
  models, task = build(config)
  source = pipeline.open_source(config, models.layout, 'train', task.reads)
  examples = pipeline.make_examples(source, models.layout, task.readers, config.data)
  (batch, _), = pipeline.train_batches(examples, task.prepare, seed=0, batch_size=4,
                                       first_step=0, last_step=1)
  shapes = batches.shapes(4, task.readers, models.layout.example, task.texts)
  assert batch.keys() == shapes.keys()
  for name in ('video', 'video_mask'):
    assert (batch[name].shape, batch[name].dtype) == (shapes[name].shape, shapes[name].dtype)


# -- files

def test_of_a_file_only_the_part_is_decoded(folder, monkeypatch):
  source = Folder(folder, height=36, width=64, sample_rate=16000)
  whole, asked = source.load(1), []
  load = Folder.load
  monkeypatch.setattr(Folder, 'load', lambda self, i, start=0.0, duration=None, **options: (
      asked.append((start, duration)) or load(self, i, start, duration, **options)))
  assert source.seconds(1) == whole.duration
  cut = source.load_part(1, 1.5, 0.5, (3, 5, 12, 24))
  assert asked == [(1.5, 0.5)]
  expected = clips.part(whole, 1.5, 0.5, (3, 5, 12, 24))
  np.testing.assert_array_equal(cut.frames, expected.frames)
  np.testing.assert_allclose(cut.frame_times, expected.frame_times, atol=1e-9)


def test_a_file_that_is_too_short_is_replaced_and_told(folder):
  config = config_of(folder, **{'data.max_broken': 1.0})
  models, task = build(config)
  source = Folder(folder, height=36, width=64, sample_rate=16000)
  examples = pipeline.make_examples(source, models.layout, task.readers, config.data)
  for visit in range(2):
    made, id, _, skipped, _ = examples(3, visit)
    assert made['video'].shape == (9, 12, 24, 3) and id in ('0', '1', '2')
    (name, reason), = skipped
    assert name == 'short' and reason.startswith('shorter than 0.5 s')


def test_a_file_shorter_than_an_example_is_padded_and_masked(folder):
  layout = Layout(0.5, 24.0, 36, 64, crop=(12, 24), clip_seconds=3.0)
  source = Folder(folder, height=36, width=64, sample_rate=16000)
  made, *_ = Examples(source, layout, READERS, 1 << 20, 0.1, 0.5)(
      3, 0)
  np.testing.assert_array_equal(made['video_mask'], np.arange(12) / 24 < 0.25)
  np.testing.assert_array_equal(made['video'][6:], np.repeat(made['video'][5:6], 6, 0))


# -- records, data sets, mixtures

@pytest.fixture(scope='module')
def large_records(tmp_path_factory):
  """Records of one clip of 2 s, its pictures small and large."""
  path = tmp_path_factory.mktemp('records') / 'large'
  prepare_records(['--source=impacts', f'--output={path}', '--limit=1', '--high', '--seconds=2',
                   '--height=36', '--width=64', '--splits=train', '--processes=1'])
  return path


def test_the_large_pictures_of_records_serve_where_the_config_asks_for_them(large_records):
  layout = Layout(0.5, 24.0, 288, 512, crop=(32, 48), clip_seconds=2.0)
  source = Records(large_records, 'train', layout, ('video',))
  whole, (top, left) = source.load(0), (250, 400)
  assert whole.frames.shape == (48, 288, 512, 3) and source.seconds(0) == 2.0
  true = Impacts('train', size=1, duration=2.0, height=288, width=512, fps=24.0).load(0)
  assert np.abs(whole.frames[::8] - true.frames[:48:8].astype(int)).mean() < 1  # what JPEG costs
  cut = source.load_part(0, 1.3, 0.5, (top, left, 32, 48))
  expected = clips.part(whole, 1.3, 0.5, (top, left, 32, 48))
  for name in ('frames', 'frame_times', 'audio', 'events'):
    np.testing.assert_array_equal(getattr(cut, name), getattr(expected, name))
  made, *_ = examples_of(source, layout)(0, 0)
  assert made['video'].shape == (12, 32, 48, 3)


def test_the_small_pictures_of_the_same_records_serve_as_before(large_records):
  source = Records(large_records, 'train', Layout(2.0, 6.0, 36, 64))
  assert source.load(0).frames.shape == (12, 36, 64, 3)


def test_records_without_large_pictures_are_one_line_that_says_how_to_have_them(tmp_path):
  from test_records import made
  folder = made(tmp_path / 'r', '--splits=train', limit=1)
  with pytest.raises(UserError) as error:
    Records(folder, 'train', Layout(0.5, 24.0, 288, 512, crop=(32, 48), clip_seconds=2.0))
  assert 'height 8 (the config says 288)' in str(error.value) and '\n' not in str(error.value)
  assert str(error.value).endswith('prepare them anew with --high')
  layout = Layout(0.5, 6.0, 8, 16, crop=(4, 8), clip_seconds=2.0)
  source = Records(folder, 'train', layout, ('video',))
  window = (2, 3, 4, 8)
  np.testing.assert_array_equal(source.load_part(0, 0.7, 0.5, window).frames,
                                clips.part(source.load(0), 0.7, 0.5, window).frames)


def test_of_a_clip_in_a_data_set_only_the_part_is_decoded(folder, tmp_path):
  from test_tfds_source import build as build_data_set
  from test_tfds_source import example_of
  build_data_set(tmp_path, {'train': [example_of('a', (folder / '0.mp4').read_bytes(), start=0.5,
                                                 end=2.5)]})
  source = TfdsSource('made', 'train', tmp_path, height=36, width=64, sample_rate=16000)
  assert source.seconds(0) == pytest.approx(2.0)
  window = (0, 0, 12, 24)
  whole, cut = source.load(0), source.load_part(0, 1.2, 0.5, window)
  np.testing.assert_array_equal(cut.frames, clips.part(whole, 1.2, 0.5, window).frames)
  assert cut.id == 'a' and cut.duration == pytest.approx(0.5)


def test_a_mixture_is_cropped_like_its_sources(folder):
  config = config_of(f'impacts*1,{folder}*1')
  models, task = build(config)
  source = pipeline.open_source(config, models.layout, 'train', task.reads)
  examples = pipeline.make_examples(source, models.layout, task.readers, config.data)
  (batch, meta), = pipeline.train_batches(examples, task.prepare, seed=0, batch_size=8,
                                          first_step=0, last_step=1)
  assert batch['video'].shape == (8, 9, 12, 24, 3)
  assert {id.startswith('impacts') for id in meta.ids} == {True, False}


# -- mistakes

@pytest.mark.parametrize('changes, said', [
    ({'data.crop_height': 40}, 'data.crop_height=40: give at most data.height=36'),
    ({'data.crop_width': -1}, 'data.crop_width=-1'),
    ({'data.clip_seconds': 0.2}, 'data.clip_seconds=0.2 is less than')])
def test_a_crop_that_does_not_fit_is_told(changes, said):
  with pytest.raises(UserError, match=said):
    build(config_of(**changes))
