"""On real clips metrics get worse as the clips do, and only then (tests/benchmarks/sanity.py)."""

import numpy as np
import pytest

from avlink_jax.errors import UserError
from avlink_jax.metrics import network_metrics
from avlink_jax.metrics.networks import loading, registry
from tests.benchmarks import sanity


@pytest.fixture(scope='module')
def clips(shared_clips):
  return sanity.read(shared_clips, 4, 2.0)


@pytest.fixture
def reference(clips, tmp_path):
  folder = tmp_path / 'reference'
  sanity.write(folder, clips)
  return folder


def scores(clips, reference, way, strengths, metrics=()):
  return [sanity.score(sanity.spoilt(clips, way, strength), reference, metrics, None)
          for strength in strengths]


def test_onsets_are_lost_with_a_shift_and_not_with_loudness(clips, reference):
  shifted = [result['onset_accuracy']
             for result in scores(clips, reference, sanity.late, (0.0, 0.15, 0.5))]
  assert shifted[0] == 1.0 and shifted[0] > shifted[1] > shifted[2]
  for result in scores(clips, reference, sanity.louder, (-6, -12)):
    assert result['onset_accuracy'] == pytest.approx(1.0, abs=sanity.STILL)


@pytest.mark.slow
def test_real_networks_tell_noise_by_steps(clips, reference):
  try:
    loading.find(registry.YAMNET)
  except UserError as error:
    pytest.skip(str(error))
  metrics = ('fad_yamnet', 'kl_yamnet')
  found = scores(clips, reference, sanity.noisy, (-200, -20, 0, 20), metrics)
  for name in metrics:
    assert name in network_metrics.METRICS
    values = [result[name] for result in found]
    assert values[0] < 0.01 * values[1] and (np.diff(values) > 0).all()


def test_every_turn_exchanges_so_many_and_each_of_those():
  clips = {str(n): {'sound': n, 'frames': -n} for n in range(16)}
  for strength in (0.25, 0.5, 1.0):
    turns = [sanity.spoilt(clips, 'sound', strength, turn) for turn in range(sanity.TURNS)]
    for made in turns:
      assert sum(made[name]['sound'] != clip['sound'] for name, clip in clips.items()) == (
          16 * strength)
      assert sorted(clip['sound'] for clip in made.values()) == list(range(16))
      assert all(made[name]['frames'] == clip['frames'] for name, clip in clips.items())
    assert len({tuple(clip['sound'] for clip in made.values()) for made in turns}) == sanity.TURNS


def test_clips_are_chosen_by_their_captions(shared_clips):
  drums = sanity.read(shared_clips, 3, 2.0, 6, ('drum', 'bongo'))
  told = sanity.captions(shared_clips)
  assert len(drums) == 3
  assert all('drum' in told[f'{name}.mp4'] or 'bongo' in told[f'{name}.mp4'] for name in drums)
  assert list(sanity.read(shared_clips, 3, 2.0, 6)) != list(drums)


def test_a_change_is_paired_by_clip():
  rows = lambda *values: {'per_clip': [  # noqa: E731
      {'id': str(n), 'av_align': value} for n, value in enumerate(values)]}
  assert sanity.change(rows(0.5, 0.9, None), rows(0.3, 0.7, 0.1), 'av_align') == pytest.approx(
      [-0.2, -0.2])
  assert sanity.change(rows(0.5, 0.9), rows(0.3, 0.7), 'fad_yamnet') is None
  both = sanity.mean([rows(0.5, None), rows(0.3, None)], ('av_align', 'onset_f1'))
  assert both['per_clip'] == [{'id': '0', 'av_align': pytest.approx(0.4), 'onset_f1': None},
                              {'id': '1', 'av_align': None, 'onset_f1': None}]


def test_a_verdict_is_about_every_step():
  assert sanity.verdict('fad_x', [0, 1, 2], still=False) == 'worse'
  assert sanity.verdict('fad_x', [0, 2, 1], still=False) == 'NOT WORSE'
  assert sanity.verdict('onset_f1', [1, 0.5, 0.2], still=False) == 'worse'
  assert sanity.verdict('onset_f1', [1, 0.99, 0.98], still=True) == 'stays'
  assert sanity.verdict('onset_f1', [1, 0.5, 0.98], still=True) == 'CHANGES'
  assert sanity.verdict('onset_f1', [1, None], still=True) == 'undefined'
