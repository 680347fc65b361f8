"""Silence in training data is counted, and left out where that is asked for."""

import types

import numpy as np
import pytest
from preparing import ids, rows, run, write_clip

from avlink_jax.data import pipeline
from avlink_jax.data.batch import Layout
from avlink_jax.data.clip import Clip
from avlink_jax.data.examples import Examples
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
  """Clips with waves of {name: wave}."""

  def __init__(self, waves):
    self._clips = list(waves.items())

  def __len__(self):
    return len(self._clips)

  def name(self, i):
    return self._clips[i][0]

  def load(self, i):
    return Clip(*self._clips[i][:1], SECONDS, np.zeros((0, 4, 8, 3), np.uint8), np.zeros(0),
                self._clips[i][1], RATE)


def examples_of(drop_silent, max_broken=0.5, **waves):
  return Examples(Source(waves), Layout(SECONDS, 6.0, 4, 8), READERS, 1 << 20, 0.1, max_broken,
                  drop_silent)


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
