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


def test_a_verdict_is_about_every_step():
  assert sanity.verdict('fad_x', [0, 1, 2], still=False) == 'worse'
  assert sanity.verdict('fad_x', [0, 2, 1], still=False) == 'NOT WORSE'
  assert sanity.verdict('onset_f1', [1, 0.5, 0.2], still=False) == 'worse'
  assert sanity.verdict('onset_f1', [1, 0.99, 0.98], still=True) == 'stays'
  assert sanity.verdict('onset_f1', [1, 0.5, 0.98], still=True) == 'CHANGES'
  assert sanity.verdict('onset_f1', [1, None], still=True) == 'undefined'
