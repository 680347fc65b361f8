"""Clips of any length as windows: they cover everything, and what they share is one thing."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from avlink_jax.sampling.windows import blend, track, window_starts

SECONDS, FPS = 5.16, 6.0
durations = st.floats(0.1, 60)
overlaps = st.floats(0, 4.5)
rates = st.sampled_from([(6.0, 31), (25.0, 129), (100.0, 516)])  # pictures, latents, mel frames


@given(durations.filter(lambda d: d <= SECONDS + 1 / FPS), overlaps)
def test_a_clip_no_longer_than_the_model_is_one_window(duration, overlap):
  np.testing.assert_array_equal(window_starts(duration, SECONDS, overlap, FPS), [0])


@given(durations, overlaps)
def test_windows_reach_the_end_and_none_is_there_for_nothing(duration, overlap):
  starts = window_starts(duration, SECONDS, overlap, FPS)
  assert starts[0] == 0
  if len(starts) > 1:
    assert starts[-1] + SECONDS >= duration - 1e-6
    assert starts[-2] + SECONDS < duration + 1e-6


@given(durations, overlaps)
def test_neighbours_overlap_as_asked_on_whole_pictures(duration, overlap):
  starts = window_starts(duration, SECONDS, overlap, FPS)
  np.testing.assert_allclose(starts * FPS, np.round(starts * FPS), atol=1e-6)
  shared = SECONDS - np.diff(starts)
  assert ((shared >= overlap - 1e-6) & (shared <= overlap + 1 / FPS + 1e-6)).all()


@given(st.lists(durations, min_size=1, max_size=3), overlaps, rates)
@settings(max_examples=50)
def test_a_track_numbers_every_step_of_every_clip_once(clips, overlap, rate_and_steps):
  rate, steps = rate_and_steps
  starts = [window_starts(d, SECONDS, overlap, FPS) for d in clips]
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
  t = track([window_starts(d, SECONDS, overlap, FPS) for d in clips], steps, rate)
  signal = np.random.default_rng(seed).standard_normal((t.rows, 2)).astype(np.float32)
  np.testing.assert_allclose(t.flat(signal[t.index]), signal, atol=1e-5)
  first = t.of_clip(signal, 0)
  np.testing.assert_array_equal(first, signal[:t.first[1]])


@given(durations, overlaps)
@settings(max_examples=20)
def test_windows_that_disagree_are_averaged_by_their_say(duration, overlap):
  t = track([window_starts(duration, SECONDS, overlap, FPS)], 31, FPS)
  values = np.random.default_rng(0).standard_normal(t.index.shape)
  made = t.flat(values)
  for row in (0, t.rows // 2, t.rows - 1):
    here = t.index == row
    say = np.broadcast_to(t.weight, here.shape)[here]
    assert made[row] == pytest.approx(np.average(values[here], weights=say), abs=1e-5)


@given(st.floats(-9, 9), durations)
@settings(max_examples=20)
def test_a_constant_stays_a_constant(constant, duration):
  t = track([window_starts(duration, SECONDS, 1.16, FPS)], 31, FPS)
  np.testing.assert_allclose(t.flat(np.full((*t.index.shape, 2), constant)), constant, rtol=1e-6,
                             atol=1e-30)  # denormals have no seven digits


@pytest.mark.parametrize('shape', [(), (2,), (2, 3)])
def test_on_the_device_and_on_the_host_it_is_the_same(shape):
  t = track([window_starts(12.3, SECONDS, 1.16, FPS), np.zeros(1)], 31, FPS)
  values = np.random.default_rng(0).standard_normal((*t.index.shape, *shape)).astype(np.float32)
  more = t.rows + 5  # rows that no window has: nothing is there, and nothing is infinite
  host, device = (blend(xp.asarray(values), t.index, t.weight, more, xp) for xp in (np, jnp))
  np.testing.assert_allclose(device, host, atol=1e-6)
  np.testing.assert_allclose(host[:t.rows], t.flat(values), atol=1e-6)
  assert not host[t.rows:].any()
