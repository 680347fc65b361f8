"""Clips with more windows than a batch: in passes, they are what they would be at once."""

import dataclasses
import functools
import gc
from unittest import mock

import jax
import numpy as np
import pytest
import runs
from micro import build, frozen_of, micro_config, random_params

from avlink_jax import flow
from avlink_jax.codecs import hifigan, vocoder
from avlink_jax.codecs.mel import MelSpec
from avlink_jax.data.clip import Clip
from avlink_jax.sampling.long import EVALUATIONS, Rows
from avlink_jax.sampling.sampler import Sampler, noise_of
from avlink_jax.sampling.trained import Trained


@pytest.fixture(scope='module', autouse=True)
def quickly_compiled():
  with runs.quickly_compiled():
    yield


@functools.cache
def frozen():
  return frozen_of(build(micro_config('v2a'))[0])


def sampled(batch_size, stepped=None, **settings):
  """(mel of a clip of 3.4 s, counts of windows that were reported)."""
  config = micro_config('v2a', **{'sample.steps': 2, 'sample.overlap': 0.34,
                                  'sample.batch_size': batch_size}, **settings)
  models, task = build(config)
  rng, counts = np.random.default_rng(0), []
  clip = Clip('long', 3.4, rng.integers(0, 256, (21, 8, 16, 3), np.uint8), np.arange(21) / 6,
              np.zeros(0, np.float32), 16000)
  task = dataclasses.replace(task, models=models)
  mel = models.modalities['audio'].codec
  mel.__dict__['vocoder'] = lambda mel: np.repeat(mel.mean(1), 160)
  sampler = Sampler(task, frozen())
  made, = sampler(Trained(random_params(models.link), {}, '', ''), [clip],
                  [{'audio': 'a ball', 'video': ''}], 1, counts.append, stepped)
  assert sampler.windows(clip) == sum(counts) == 6
  if stepped:
    assert stepped.call_count == sampler.steps([clip])
  return made['audio'], counts


def test_videos_that_were_computed_once_are_not_kept():
  """So that memory does not grow with a clip's length, beyond what was made of it."""
  def alive():
    return sum(x.ndim == 5 and len(x) == 2 for x in jax.live_arrays())

  for settings, most in ({}, 3), ({'sample.refresh': 2}, 1):
    gc.collect()
    before, seen = alive(), []  # other tests keep theirs
    sampled(2, mock.Mock(side_effect=lambda seen=seen: seen.append(alive())), **settings)
    assert seen[-1] - before == most  # of three passes


@pytest.mark.slow
@pytest.mark.parametrize('settings', [{}, {'sample.refresh': 2}, {'sample.solver': 'heun'}])
def test_in_passes_a_clip_is_what_it_is_at_once(settings):
  """The last pass is not full; windows are reported while they are under way."""
  (whole, once), (parts, counts) = (
      sampled(size, stepped, **settings) for size, stepped in ((8, None), (4, mock.Mock())))
  assert len(once) == 1 and len(counts) > 1
  watched, _ = sampled(8, mock.Mock(), **settings)  # a program a step
  np.testing.assert_allclose(watched, whole, atol=1e-3 * np.abs(whole).max())
  assert len(whole) == round(3.4 * 16000) and np.std(whole) > 0.01
  np.testing.assert_allclose(parts, whole, atol=1e-3 * np.abs(whole).max())


def test_noise_is_the_same_drawn_at_once_or_as_it_is_needed():
  whole = noise_of('a', 1, 'video', (2, 3))(50)
  rows = Rows(noise_of('a', 1, 'video', (2, 3)))
  for first in (0, 10, 20, 31):
    index = np.arange(first, first + 14)[None] + np.array([[0], [5]])
    np.testing.assert_array_equal(rows(index), whole[index])


def test_reports_count_every_evaluation():
  """So that the last one completes the last window."""
  for name, step in flow.SOLVERS.items():
    calls = []

    def velocity(x, t, kept, calls=calls):
      calls.append(t)
      return 0 * x, kept

    x, times = np.zeros(1, np.float32), np.linspace(0, 1, 4, dtype=np.float32)
    for t, t_next in zip(times[:-1], times[1:], strict=True):
      x, _ = step(velocity, x, t, t_next, None)
    assert len(calls) == EVALUATIONS[name](3)


@pytest.mark.parametrize('rounds', [0, 2])
def test_a_long_mel_in_parts_is_the_wave_of_the_whole(rounds, monkeypatch):
  """Five parts, whose ends do not show."""
  spec = MelSpec()
  model = hifigan.HiFiGAN(rates=(10, 16), kernels=(20, 32), channels=8, residual_kernels=(3,),
                          dilations=((1, 3),), n_mels=spec.n_mels)
  made = vocoder.HiFiGANVocoder(model, random_params(model), spec, rounds)
  mel = np.random.default_rng(0).standard_normal((1100, spec.n_mels)).astype(np.float32) - 4
  whole = made(mel)
  monkeypatch.setattr(vocoder, 'PART', 256)
  parts = made(mel)
  assert len(parts) == len(whole) == 1100 * 160
  np.testing.assert_allclose(parts, whole, atol=1e-4 * np.abs(whole).max())
