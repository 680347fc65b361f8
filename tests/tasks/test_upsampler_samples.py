"""Samples of the upsampler: as long as their clips, window by window, with and without guidance."""

import dataclasses
import functools

import numpy as np
import pytest
import runs
from micro import (
  micro_config,
  noise_of,
  quick_jit,
  sampling,
)
from micro_upsampler import random_trained, upsampler

from avlink_jax.data.clip import Clip
from avlink_jax.model.estimate import data_from_velocity
from avlink_jax.sampling.sampler import Sampler
from avlink_jax.sampling.trained import Trained


@pytest.fixture(scope='module', autouse=True)
def quickly_compiled():
  with runs.quickly_compiled():
    yield


def small_clip(seconds, seed=0, id='x'):
  count = int(np.ceil(round(seconds * 6, 6)))
  frames = np.random.default_rng(seed).integers(0, 256, (count, 8, 16, 3), np.uint8)
  return Clip(id, seconds, frames, np.arange(count) / 6, np.zeros(0, np.float32), 16000)


@pytest.mark.slow
def test_clips_of_any_length_become_large_ones_as_long():
  """The longer one in windows, which share noise; a clip is the same in whatever company."""
  task, frozen, _ = upsampler()
  config = micro_config('upsampler', **{'sample.steps': 2, 'sample.overlap': 0.33})
  params = random_trained()
  sampler = functools.partial(Sampler(dataclasses.replace(task, config=config), frozen),
                              Trained(params, {}, '', ''))
  clips = [small_clip(1.0), small_clip(0.4, 1, 'y'), small_clip(2.3, 2, 'z')]
  assert [len(sampler.func.plan(clip)) for clip in clips] == [1, 1, 3]
  said = [{'audio': '', 'video': 'a ball'}] * 3
  made = sampler(clips, said, seed=1)
  assert [len(m['video']) for m in made] == [24, 10, 56]
  assert all(m['video'].shape[1:] == (64, 128, 3) and m['video'].std() > 1 for m in made)
  for clip, m in zip(clips, made, strict=True):
    np.testing.assert_array_equal(m['low'][:len(clip.frames)], clip.frames)
    assert len(m['low']) == -(-len(m['video']) // 4)
  alone = sampler(clips[2:], said[2:], seed=1)[0]
  difference = np.abs(alone['video'].astype(int) - made[2]['video'])
  assert np.mean(difference > 1) < 1e-3


def test_every_window_of_a_long_clip_sees_its_own_part_of_the_small_one():
  task, frozen, _ = upsampler()
  config = micro_config('upsampler', **{'sample.overlap': 0.34})
  sampler = Sampler(dataclasses.replace(task, config=config), frozen)
  clip = small_clip(2.3)
  for start in sampler.plan(clip):
    window = sampler._window(clip, {'audio': '', 'video': ''}, start)
    first = round(start * 6)
    shown = clip.frames[first:first + 6]
    np.testing.assert_array_equal(window['low'][:len(shown)], shown)
    assert window['video_mask'].sum() == min(24, int(np.ceil(round((2.3 - start) * 24, 6))))


@pytest.mark.slow
def test_without_guidance_the_prompt_counts_and_both_passes_see_the_small_video():
  task, frozen, batch = upsampler()
  params = random_trained()
  low = np.random.default_rng(0).integers(0, 256, (2, 6, 8, 16, 3), np.uint8)
  given = {**batch, 'low': low}
  del given['video']
  run = functools.partial(sampling(task, 2), params, frozen)
  plain = run(given, guidance=1.0)['video']
  other = run({**given, 'low': 255 - low}, guidance=0.0)['video']
  unsaid = run(given, guidance=0.0)['video']
  assert np.abs(other - unsaid).max() > 1e-2  # the unconditional pass is guided too
  assert np.abs(plain - unsaid).max() > 1e-3
  np.testing.assert_allclose(run(given, guidance=None)['video'], plain, atol=1e-4)
  assert noise_of(task, 2)['low'].shape == low.shape


def test_with_one_step_it_is_the_networks_first_guess():
  """Euler once, from t = 0 to 1: X̂_1 = X_0 + v(X_0, 0)."""
  task, frozen, batch = upsampler()
  params = random_trained()
  given = {**batch, 'low': np.full((2, 6, 8, 16, 3), 99, np.uint8)}
  made = sampling(task, 1)(params, frozen, given, guidance=1.0)['video']
  noise = noise_of(task, 2)
  text = task.encode({'video': params}, 'video', batch['video_text'])
  mask = task.mask(batch, 'video')
  inputs = task.input_type(x=noise['video'], t=np.zeros(2, np.float32), mask=mask, **text,
                           **task.guide.fixed(frozen, given, noise))
  v = quick_jit(task.models.towers['video'].velocity)(params['dit'], inputs)
  np.testing.assert_allclose(made, data_from_velocity(noise['video'], v, 0.0), atol=1e-3)
