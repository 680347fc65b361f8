"""Clips of any length as windows: they cover everything, and what they share is one thing."""

import dataclasses
import math
from fractions import Fraction
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from micro import build, micro_config

from avlink_jax.data.clip import Clip
from avlink_jax.sampling.sampler import Sampler
from avlink_jax.sampling.windows import Sum, blend, common_step, track, window_starts
from configs import a2v, joint, v2a

SECONDS, FPS = 5.16, 6.0
STEP = Fraction(1)  # of pictures and latents together
durations = st.floats(0.1, 60)
overlaps = st.floats(0, 5.1)
steps_apart = st.sampled_from([STEP, Fraction(1, 6), Fraction(1, 25)])
rates = st.sampled_from([(6.0, 31), (25.0, 129), (100.0, 516)])  # pictures, latents, mel frames


@pytest.mark.parametrize('of, step', [
    ((6.0, 25.0), 1), ((6.0,), Fraction(1, 6)), ((25.0,), Fraction(1, 25)),
    ((25.0, 12.5), Fraction(2, 25)), ((24000 / 1001, 25.0), Fraction(1, 24000 // 1001 + 1)),
    ((4.0, 44100 / 2048), Fraction(1, 4))])
def test_the_common_step_is_whole_frames_of_all_or_of_the_slowest(of, step):
  """23.976 pictures and 25 latents a second meet every 1,001 s: no window is so long."""
  made = common_step(of, SECONDS)
  if of[0] == 24000 / 1001:
    assert made == Fraction(1001, 24000)
  else:
    assert made == step
  exact = [made * Fraction(rate).limit_denominator(10_000) for rate in of]
  assert exact[of.index(min(of))].denominator == 1


@given(durations.filter(lambda d: d <= SECONDS), overlaps, steps_apart)
def test_a_clip_no_longer_than_the_model_is_one_window(duration, overlap, step):
  np.testing.assert_array_equal(window_starts(duration, SECONDS, overlap, step), [0])


@given(durations, overlaps, steps_apart, st.sampled_from([SECONDS, 31 / FPS]))
def test_windows_cover_a_clip_to_its_end_and_none_is_there_for_nothing(
    duration, overlap, step, covered):
  starts = window_starts(duration, SECONDS, overlap, step, covered)
  assert starts[0] == 0 and starts[-1] + covered >= duration - 1e-6
  if len(starts) > 1:
    assert starts[-2] + covered < duration + 1e-6
    assert starts[-1] - float(step) + covered < duration + 1e-6  # it begins as early as it can


@given(durations, overlaps)
def test_windows_begin_with_a_picture_and_with_a_latent_whatever_the_overlap(duration, overlap):
  starts = window_starts(duration, SECONDS, overlap, common_step([FPS, 25.0], SECONDS))
  for rate in (FPS, 25.0):
    np.testing.assert_allclose(starts * rate, np.round(starts * rate), atol=1e-6)


@given(durations, overlaps, steps_apart)
def test_neighbours_overlap_as_asked_or_by_all_but_a_step(duration, overlap, step):
  shared = SECONDS - np.diff(window_starts(duration, SECONDS, overlap, step))
  assert (shared >= min(overlap, SECONDS - step) - 1e-6).all()
  assert (shared[:-1] <= max(overlap, SECONDS - step) + step + 1e-6).all()


@pytest.mark.parametrize('config, direction', [(v2a, ''), (a2v, ''), (joint, 'video')])
@pytest.mark.parametrize('duration, windows', [
    (5.0, 1), (5.16, 1), (31 / 6, 1), (5.175, 2), (5.25, 2), (5.33, 2), (5.5, 2), (9.16, 2),
    (9.4, 3)])
def test_a_clip_of_any_length_is_covered_to_its_last_sample_and_picture(
    config, direction, duration, windows):
  """31 pictures last 7 ms longer than the paper's 5.16 s: they are one window all the same."""
  task = build(config.get_config('nano'))[1].toward(direction)
  starts = Sampler.plan(SimpleNamespace(task=task, config=task.config),
                        SimpleNamespace(duration=duration))
  assert len(starts) == windows
  layout = task.models.layout
  for name in task.generate:
    codec, steps = task.codec(name), task.codec(name).arrays(layout)[f'{name}_mask'][1][0]
    rate = steps / layout.seconds if name == 'audio' else FPS
    made = round(starts[-1] * rate) + steps + (name == 'audio')  # the last mel frame twice
    assert made >= math.ceil(round(duration * rate, 6))
    assert codec.covered(layout) + starts[-1] >= duration - 1e-9


def test_what_a_wave_lacks_of_a_mel_frame_is_no_silence():
  codec = build(v2a.get_config('nano'))[0].modalities['audio'].codec
  codec.__dict__['vocoder'] = lambda mel: np.repeat(mel[:, 0], codec.spec.hop)
  wave = codec.finish(None, np.ones((516, 64)), 31 / 6, None)
  assert len(wave) == round(31 / 6 * 16_000) > 516 * 160 and (wave == 1).all()


@given(st.lists(durations, min_size=1, max_size=3), overlaps, rates)
@settings(max_examples=50)
def test_a_track_numbers_every_step_of_every_clip_once(clips, overlap, rate_and_steps):
  rate, steps = rate_and_steps
  starts = [window_starts(d, SECONDS, overlap, STEP) for d in clips]
  t = track(starts, steps, rate)
  assert t.index.shape == (sum(map(len, starts)), steps) and t.weight.shape == (steps,)
  np.testing.assert_array_equal(np.unique(t.index), np.arange(t.rows))  # no gap
  assert (t.weight > 0).all() and t.weight.max() == 1
  np.testing.assert_array_equal(t.weight, t.weight[::-1])
  rows = iter(t.index)
  for clip, when in enumerate(starts):
    for start in when:
      row = next(rows)
      np.testing.assert_array_equal(np.diff(row), 1)
      # Row n of a clip is n/rate seconds into it, to half a step.
      assert abs(row[0] - t.first[clip] - start * rate) <= 0.5
      assert t.first[clip] <= row[0] and row[-1] < t.first[clip + 1]  # clips share nothing
    covered = t.first[clip + 1] - t.first[clip]
    assert covered >= min(math.floor(clips[clip] * rate), when[-1] * rate + steps - 1)


def test_windows_that_overlap_share_rows():
  t = track([np.array([0.0, 4.0])], 31, 6.0)
  np.testing.assert_array_equal(t.index[1, :7], t.index[0, 24:])
  assert t.rows == 31 + 24


def test_a_short_first_frame_counts_only_where_no_other_window_has_it():
  t = track([np.array([0.0, 4.0])], 21, 4.0, short_first=True)
  values = np.stack([np.zeros(21), np.ones(21)]).astype(np.float32)
  blended = t.flat(values)
  assert blended[0] == 0 and blended[16] < 1e-4 < 0.1 < blended[17] and blended[21] == 1
  assert t.flat(1 - values)[0] == 1


@given(st.lists(durations, min_size=1, max_size=3), overlaps, rates, st.integers(0, 99))
@settings(max_examples=40)
@example([6.0], 0.0, (100.0, 516), 0)
def test_windows_cut_from_one_signal_are_blended_into_it(clips, overlap, rate_and_steps, seed):
  rate, steps = rate_and_steps
  t = track([window_starts(d, SECONDS, overlap, STEP) for d in clips], steps, rate)
  signal = np.random.default_rng(seed).standard_normal((t.rows, 2)).astype(np.float32)
  np.testing.assert_allclose(t.flat(signal[t.index]), signal, atol=1e-5)
  first = t.of_clip(signal, 0)
  np.testing.assert_array_equal(first, signal[:t.first[1]])


@given(durations, overlaps)
@settings(max_examples=20)
def test_windows_that_disagree_are_averaged_by_their_say(duration, overlap):
  t = track([window_starts(duration, SECONDS, overlap, STEP)], 31, FPS)
  values = np.random.default_rng(0).standard_normal(t.index.shape)
  made = t.flat(values)
  for row in (0, t.rows // 2, t.rows - 1):
    here = t.index == row
    say = np.broadcast_to(t.weight, here.shape)[here]
    assert made[row] == pytest.approx(np.average(values[here], weights=say), abs=1e-5)


@given(st.floats(-9, 9), durations)
@settings(max_examples=20)
def test_a_constant_stays_a_constant(constant, duration):
  t = track([window_starts(duration, SECONDS, 1.16, STEP)], 31, FPS)
  np.testing.assert_allclose(t.flat(np.full((*t.index.shape, 2), constant)), constant, rtol=1e-6,
                             atol=1e-30)  # denormals have no seven digits


@pytest.mark.parametrize('shape', [(), (2,), (2, 3)])
def test_on_the_device_and_on_the_host_it_is_the_same(shape):
  t = track([window_starts(12.3, SECONDS, 1.16, STEP), np.zeros(1)], 31, FPS)
  values = np.random.default_rng(0).standard_normal((*t.index.shape, *shape)).astype(np.float32)
  more = t.rows + 5  # rows that no window has: nothing is there, and nothing is infinite
  device, host = blend(jnp.asarray(values), t.index, t.weight, more), Sum((more, *shape))
  for first in (0, 1, 2):  # however they come
    some = slice(first, first + 1 if first < 2 else None)
    host.add(values[some], t.index[some], t.weight)
  host = host.mean()
  np.testing.assert_allclose(device, host, atol=1e-6)
  np.testing.assert_allclose(host[:t.rows], t.flat(values), atol=1e-6)
  assert not host[t.rows:].any()


def test_windows_of_a_long_sound_keep_their_levels():
  """The second half is a tenth as loud as the first, and stays so."""
  config = micro_config('a2v')
  task = build(config)[1]
  layout = task.models.layout
  seconds = 2 * layout.seconds
  wave = np.random.default_rng(0).uniform(-0.4, 0.4, round(seconds * 16_000)).astype(np.float32)
  wave[len(wave) // 2:] *= 0.1
  clip = Clip('a', seconds, np.zeros((0, 36, 64, 3), np.uint8), np.zeros(0), wave, 16_000)
  sampler = Sampler(task, {})
  starts = sampler.plan(clip)
  levelled = sampler._levelled(clip)
  first, last = (sampler._window(levelled, {}, start)['mel'] for start in (starts[0], starts[-1]))
  assert np.mean(first) - np.mean(last[len(last) // 2:]) == pytest.approx(np.log(10), abs=0.3)
  short = dataclasses.replace(clip, duration=layout.seconds, audio=wave[-round(
      layout.seconds * 16_000):])
  assert sampler._levelled(short) is short
  assert np.mean(sampler._window(short, {}, 0.0)['mel']) == pytest.approx(np.mean(first), abs=0.3)
