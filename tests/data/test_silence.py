"""Silence in training data is counted, and left out where that is asked for."""

import dataclasses
import types

import numpy as np
import pytest
from preparing import ids, rows, run, write_clip

from avlink_jax.data import pipeline
from avlink_jax.data.batch import Layout
from avlink_jax.data.clip import Clip, part
from avlink_jax.data.examples import IN_PART, Examples
from avlink_jax.data.media import mux
from avlink_jax.data.media.silence import lacking
from avlink_jax.errors import UserError

RATE = 16_000
SECONDS = 0.5
READERS = (types.SimpleNamespace(medium='audio', reads='wave', read=lambda wave, real, layout: {
    'wave': wave}),)


def sounding(share, level=0.3):
  """A hum in so much of a clip's beginning, and nothing after it."""
  wave = np.zeros(round(SECONDS * RATE), np.float32)
  wave[:round(share * len(wave))] = level * np.sin(np.arange(round(share * len(wave))) * 0.3)
  return wave


class Source:
  """Clips with waves of {name: wave}, whole or in part."""

  def __init__(self, waves):
    self._clips = list(waves.items())

  def __len__(self):
    return len(self._clips)

  def name(self, i):
    return self._clips[i][0]

  def load(self, i):
    name, wave = self._clips[i]
    return Clip(name, len(wave) / RATE, np.zeros((0, 4, 8, 3), np.uint8), np.zeros(0), wave, RATE)

  def seconds(self, i):
    return self.load(i).duration

  def load_part(self, i, start, seconds, window=None):
    return part(self.load(i), start, seconds, window)


LAYOUT = Layout(SECONDS, 6.0, 4, 8)


def examples_of(drop_silent, max_broken=0.5, layout=LAYOUT, **waves):
  return Examples(Source(waves), layout, READERS, 1 << 20, 0.1, max_broken, drop_silent)


def drawn(examples, steps=6):
  return [meta for _, meta in pipeline.train_batches(
      examples, {}, seed=0, batch_size=2, first_step=0, last_step=steps)]


@pytest.mark.parametrize('wave, told', [
    (sounding(1), ''), (sounding(0.2), ''), (sounding(1, 0.0015), ''),
    (sounding(1, 0.0009), 'silence (peak below −60 dBFS)'),
    (sounding(0), 'silence (peak below −60 dBFS)'),
    (np.concatenate([sounding(0.1), sounding(0)]), 'sound in 5% of it'),
    (np.stack([sounding(1), sounding(0)], 1), '')])
def test_silence_is_below_60_db_and_too_little_below_a_tenth(wave, told):
  assert lacking(wave, RATE) == told


def test_silent_clips_are_trained_on_and_counted():
  metas = drawn(examples_of(False, a=sounding(1), b=sounding(0), c=sounding(1)))
  assert {id for meta in metas for id in meta.ids} == {'a', 'b', 'c'}
  for meta in metas:
    assert dict(meta.silent) == ({'b': 'silence (peak below −60 dBFS)'} if 'b' in meta.ids else {})
    assert not meta.skipped


def test_with_the_switch_they_are_left_out_and_listed_with_the_reason():
  metas = drawn(examples_of(True, a=sounding(1), b=sounding(0), c=sounding(1)))
  assert {id for meta in metas for id in meta.ids} == {'a', 'c'}
  reason = 'silence (peak below −60 dBFS)'
  assert {row for meta in metas for row in meta.skipped} == {('b', reason)}
  assert {row for meta in metas for row in meta.silent} == {('b', reason)}


def test_silence_that_is_left_out_is_not_broken():
  """Of 25 clips 24 are silent: no reason to stop, as long as one is left."""
  waves = {f'clip{i}': sounding(i == 0) for i in range(25)}
  assert {id for meta in drawn(examples_of(True, 0.1, **waves)) for id in meta.ids} == {'clip0'}
  with pytest.raises(UserError, match='none of the 2 clips can be used; the first: .*: silence'):
    examples_of(True, 0.1, a=sounding(0), b=sounding(0))(0)


# -- of a long clip an example is a part

HALF = np.concatenate([sounding(0), sounding(0), sounding(1), sounding(1)])
layouts = pytest.mark.parametrize('layout', [
    LAYOUT, dataclasses.replace(LAYOUT, crop=(4, 8), clip_seconds=2.0)], ids=['whole', 'part'])


def batches_of(examples, steps=12):
  return list(pipeline.train_batches(
      examples, {}, seed=0, batch_size=2, first_step=0, last_step=steps))


@layouts
def test_a_part_without_sound_is_counted(layout):
  """Whether the clip is read as a whole and cropped, or no more of it than the part."""
  count = 0
  for batch, meta in batches_of(examples_of(False, layout=layout, half=HALF, full=sounding(1))):
    silent = [n for n, wave in enumerate(batch['wave']) if lacking(wave, RATE)]
    assert [place for place, *_ in meta.odd] == silent
    assert meta.silent == [('half', IN_PART)] * len(silent) and not meta.skipped
    count += len(silent)
  assert 0 < count < 12


@layouts
def test_with_the_switch_another_clip_takes_the_place_of_a_silent_part(layout):
  examples = examples_of(True, layout=layout, half=HALF, full=sounding(1))
  made = batches_of(examples)
  assert not any(lacking(wave, RATE) for batch, _ in made for wave in batch['wave'])
  assert {id for _, meta in made for id in meta.ids} == {'half', 'full'}
  assert {row for _, meta in made for row in meta.skipped} == {('half', IN_PART)}
  assert sum(meta.replaced for _, meta in made) > 0
  again = batches_of(examples_of(True, layout=layout, half=HALF, full=sounding(1)))
  assert [meta.ids for _, meta in again] == [meta.ids for _, meta in made]


def test_an_only_clip_is_cropped_anew_where_it_is_silent():
  examples = examples_of(True, half=HALF)
  assert not any(lacking(examples(0, seed)[0]['wave'], RATE) for seed in range(30))
  beginning = 'none of the 1 clips can be used; the first: half: silence, or little sound, in a'
  with pytest.raises(UserError, match=beginning):
    examples(0)  # always its beginning


def test_prepared_records_are_counted_and_left_out_alike(tmp_path, capsys):
  write_clip(tmp_path / 'clips' / 'train' / 'loud.mp4')
  mux.write_mp4(tmp_path / 'clips' / 'train' / 'mute.mp4', fps=12, sample_rate=RATE,
                audio=np.zeros(RATE, np.float32), frames=np.zeros((12, 36, 64, 3), np.uint8))
  run(tmp_path / 'clips', tmp_path / 'all')
  assert ids(tmp_path / 'all') == ['loud', 'mute']
  assert 'train: 1 records of silence, or with little sound' in capsys.readouterr().out
  run(tmp_path / 'clips', tmp_path / 'some', '--drop_silent')
  assert ids(tmp_path / 'some') == ['loud']
  assert [(row['clip'], row['reason']) for row in rows(tmp_path / 'some')] == [
      ('mute', 'silence (peak below −60 dBFS)')]
  with pytest.raises(UserError, match='begun with another drop_silent'):
    run(tmp_path / 'clips', tmp_path / 'all', '--drop_silent')
