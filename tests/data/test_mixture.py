"""Mixtures: which source serves a place of the run; each serves its clips in full epochs."""

import json

import numpy as np
import pytest
import runs
from hypothesis import given, settings
from hypothesis import strategies as st

from avlink_jax.codecs.pixels import Pixels
from avlink_jax.data import pipeline
from avlink_jax.data.batch import Layout
from avlink_jax.data.clip import Clip
from avlink_jax.data.sources import mixture
from avlink_jax.errors import MediaError, UserError
from avlink_jax.train import train


class Source:
  """Clips of half a second, called by a letter and their number; those in `broken` are not read."""

  def __init__(self, letter, size, broken=()):
    self._letter, self._size, self._broken = letter, size, broken

  def __len__(self):
    return self._size

  def name(self, i):
    return f'{self._letter}{i}'

  def load(self, i):
    if i in self._broken:
      raise MediaError(self.name(i), 'corrupt stream')
    return Clip(self.name(i), 0.5, np.zeros((3, 4, 8, 3), np.uint8), np.arange(3) / 6,
                np.zeros(8000, np.float32), 16000)


def mixed(sizes=(30, 7), weights=(0.7, 0.3), broken=()):
  sources = [Source(letter, size, broken) for letter, size in zip('ab', sizes, strict=False)]
  return mixture.Mixture(sources, ['a', 'b'], weights)


def drawn(source, steps, seed=0, batch_size=4, first=0, rows=None):
  """[[id, …] of each step], as one host gets them."""
  data = type('Data', (), dict(cache_bytes=1 << 20, min_seconds=0.1, max_broken=0.5,
                              drop_silent=False))
  examples = pipeline.make_examples(source, Layout(0.5, 6.0, 4, 8), (Pixels('video', 6.0),), data)
  batches = pipeline.train_batches(
      examples, {}, seed=seed, batch_size=batch_size, first_step=first, last_step=steps, rows=rows)
  return [meta.ids for _, meta in batches]


def test_each_source_serves_its_share_and_its_clips_once_an_epoch():
  served = sum(drawn(mixed(), 250), [])
  of = {letter: [id for id in served if id[0] == letter] for letter in 'ab'}
  shares = pipeline.shares(mixed(), 0, 1000)
  assert shares == {'share_a': len(of['a']) / 1000, 'share_b': len(of['b']) / 1000}
  assert abs(shares['share_a'] - 0.7) < 0.05
  for letter, size in (('a', 30), ('b', 7)):
    for first in range(0, len(of[letter]) - size, size):
      assert len(set(of[letter][first:first + size])) == size  # no clip twice in an epoch
    assert of[letter][:size] != of[letter][size:2 * size]  # each epoch in an order of its own


def test_shares_are_exact_over_every_block():
  schedule = mixture.Schedule([1, 2, 5], seed=3)
  for blocks in (1, 2, 7):
    np.testing.assert_array_equal(schedule.served_before(blocks * mixture.BLOCK),
                                  blocks * np.array([1250, 2500, 6250]))


@settings(max_examples=20)
@given(st.lists(st.floats(0.01, 10), min_size=2, max_size=5), st.integers(0, 99),
       st.lists(st.integers(0, 3 * mixture.BLOCK), min_size=1, max_size=5))
def test_a_place_is_served_by_its_source_alone_and_counted_right(weights, seed, places):
  schedule = mixture.Schedule(weights, seed)
  for place in places:
    source, before = schedule(place)
    assert mixture.Schedule(weights, seed)(place) == (source, before)  # of nothing else
    assert schedule.served_before(place)[source] == before
    after = schedule.served_before(place + 1)
    assert after[source] == before + 1 and after.sum() == place + 1


def test_any_number_of_hosts_and_any_start_see_the_same():
  alone = drawn(mixed(), 12)
  hosts = [drawn(mixed(), 12, rows=np.arange(2) + 2 * host) for host in range(2)]
  assert [a + b for a, b in zip(*hosts, strict=True)] == alone
  assert drawn(mixed(), 12, first=5) == alone[5:]
  assert drawn(mixed(), 12, seed=1) != alone


def test_a_plain_source_is_ordered_as_ever():
  """Runs that are under way go on with the order that they began with."""
  served = sum(drawn(Source('a', 10), 3, seed=5), [])
  order = pipeline._shuffled(10, 5)
  assert served == [f'a{order[i][0]}' for i in range(12)]
  assert pipeline.shares(Source('a', 10), 5, 12) == {}


def test_a_broken_clip_is_replaced_by_one_of_its_own_source():
  source = mixed(broken=(2, 3))
  served = sum(drawn(source, 100), [])
  plain = sum(drawn(mixed(), 100), [])
  assert [id[0] for id in served] == [id[0] for id in plain]
  assert not {'a2', 'a3', 'b2', 'b3'} & set(served)


def test_samples_are_made_for_all_sources_in_turn():
  turned = mixture.Interleaved(mixed(sizes=(4, 2)))
  assert [turned.name(i) for i in range(len(turned))] == [
      'a/a0', 'b/b0', 'a/a1', 'b/b1', 'a/a2', 'a/a3']
  assert [turned.load(i).id for i in range(2)] == ['a0', 'b0']


# -- how it is written

def test_a_source_by_itself_is_as_it_is_written(tmp_path):
  (tmp_path / 'a,b*2').mkdir()
  for text in ('impacts', '/data/clips', 'tfds:vggsound', '', str(tmp_path / 'a,b*2')):
    assert mixture.parse(text) == [(text, 1.0)]


def test_sources_have_weights():
  assert mixture.parse('impacts*0.3, /a/b*7,c') == [('impacts', 0.3), ('/a/b', 7.0), ('c', 1.0)]
  assert mixture.labels(['/x/clips', '/y/clips/', 'tfds:vggsound', 'impacts']) == [
      'clips', 'clips_2', 'tfds_vggsound', 'impacts']


@pytest.mark.parametrize('text, said', [
    ('a*b', "'a\\*b' is no source with a weight"), ('a*0,b', "'a\\*0'"), ('a*-1,b', "'a\\*-1'"),
    ('a*nan,b', "'a\\*nan'"), ('a,,b', "'' is no source"), ('a*inf,b', 'inf'),
    ('a*1,b*2,a*3', 'a stands there twice')])
def test_a_weight_that_is_none_is_told(text, said):
  with pytest.raises(UserError, match=said):
    mixture.parse(text)


def test_a_weight_too_small_to_serve_is_told():
  with pytest.raises(UserError, match='less than 1/10000'):
    mixture.Schedule([1, 1e-6], 0)


def test_sound_alone_cannot_feed_pictures(tmp_path):
  import soundfile
  from micro import build, micro_config
  soundfile.write(tmp_path / 'a.wav', np.zeros(32000), 16000)
  config = micro_config('v2a', **{'data.source': f'impacts*1,{tmp_path}*1', 'data.seconds': 2.0})
  models, task = build(config)
  with pytest.raises(UserError, match='no media files in it'):
    pipeline.open_source(config, models.layout, 'train', task.reads)
  assert len(pipeline.open_source(config, models.layout, 'train', ('audio',))) > 1


# -- the real loop

@pytest.mark.slow
def test_a_run_on_a_mixture_logs_its_shares(tmp_path):
  from test_records import made
  made(tmp_path / 'r', '--splits=train,validation', limit=4)
  with runs.quickly_compiled():
    config = runs.config_of('t2a', runs.parts(tmp_path), **{
        'data.source': f'impacts*0.75,{tmp_path / "r"}*0.25', 'sample.count': 1,
        'train.batch_size': 4})
    train(config, tmp_path / 'run')
  rows = map(json.loads, (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines())
  schedule = mixture.Schedule([0.75, 0.25], config.seed)
  for row in (row for row in rows if 'loss' in row):
    seen = schedule.served_before(4 * row['step']) / (4 * row['step'])
    assert [row['share_impacts'], row['share_r']] == list(seen)
