"""What a Clip shows and sounds like at given times: held, masked, cut, and never stretched."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avlink_jax.data.clip import Clip, crop_audio, frames_of, part, resample_frames, samples_of


def coded_clip(frame_times, duration):
  frames = np.arange(len(frame_times), dtype=np.uint8)[:, None, None, None]
  return Clip(id='c', duration=duration, frames=np.broadcast_to(frames, (len(frames), 2, 2, 3)),
              frame_times=np.array(frame_times), audio=np.zeros(0, np.float32), sample_rate=16000)


@settings(max_examples=60, deadline=None)
@given(gaps=st.lists(st.integers(1, 400), min_size=1, max_size=40),
       start=st.integers(0, 3000), count=st.integers(1, 40),
       fps=st.sampled_from([5, 8, 10, 20, 25]))
def test_frames_are_held_never_stretched_and_padding_is_masked(gaps, start, count, fps):
  # Times in whole milliseconds, so that the expectation is exact integer arithmetic.
  starts = [sum(gaps[:n]) for n in range(len(gaps))]
  clip = coded_clip([t / 1000 for t in starts], sum(gaps) / 1000)
  frames, mask = resample_frames(clip, start / 1000, count, fps)
  moments = [start + n * 1000 // fps for n in range(count)]
  expected = [max(k for k, t in enumerate(starts) if t <= moment) for moment in moments]
  np.testing.assert_array_equal(frames[:, 0, 0, 0], expected)
  np.testing.assert_array_equal(mask, [moment < sum(gaps) for moment in moments])
  assert np.all(frames[~mask] == len(gaps) - 1)


def test_a_frame_starts_to_show_at_its_own_time_in_spite_of_rounding():
  clip = coded_clip([n / 6 for n in range(12)], 2.0)
  frames, mask = resample_frames(clip, 0.0, 14, 6)
  np.testing.assert_array_equal(frames[:, 0, 0, 0], [*range(12), 11, 11])
  np.testing.assert_array_equal(mask, [True] * 12 + [False] * 2)


@settings(max_examples=60, deadline=None)
@given(length=st.integers(0, 300), first=st.integers(-200, 400), samples=st.integers(0, 300))
def test_sound_outside_the_clip_is_zero_and_masked(length, first, samples):
  clip = dataclasses.replace(coded_clip([0.0], length / 100), sample_rate=100,
                             audio=np.arange(1, length + 1, dtype=np.float32))
  audio, mask = crop_audio(clip, first / 100, samples)
  expected = [first + n + 1 if 0 <= first + n < length else 0 for n in range(samples)]
  assert audio.dtype == np.float32
  np.testing.assert_array_equal(audio, expected)
  np.testing.assert_array_equal(mask, np.array(expected) > 0)


@settings(max_examples=60, deadline=None)
@given(first=st.integers(0, 400), length=st.integers(0, 300), rate=st.sampled_from([8000, 44100]))
def test_a_cut_has_the_samples_of_its_seconds(first, length, rate):
  cut = samples_of(rate, first / rate, length / rate)
  assert cut == slice(first, first + length)
  audio = np.arange(500)
  np.testing.assert_array_equal(audio[cut], audio[first:first + length])


def test_a_cut_is_as_long_wherever_it_starts():
  """Rounding of the start does not change the length."""
  lengths = {len(np.zeros(32000)[samples_of(16000, start, 0.50003)])
             for start in np.linspace(0, 1, 97)}
  assert lengths == {round(0.50003 * 16000)}


@pytest.mark.parametrize('start, seconds, shown', [
    (0.0, 1.0, slice(0, 4)), (0.3, 0.1, slice(1, 2)), (0.25, 0.5, slice(1, 3)),
    (0.1, 0.15, slice(0, 1)), (0.75, 9.0, slice(3, 4))])
def test_the_frames_of_a_span_are_those_that_are_on_in_it(start, seconds, shown):
  assert frames_of(np.arange(4) / 4, start, seconds) == shown


def test_a_part_keeps_pictures_sound_and_events_together():
  clip = dataclasses.replace(
      coded_clip([n / 4 for n in range(8)], 2.0), audio=np.arange(32000, dtype=np.float32),
      events=np.array([0.5, 1.1]))
  middle = part(clip, 0.5, 1.0)
  assert middle.duration == 1.0 and middle.start == 0.5
  np.testing.assert_array_equal(middle.frames[:, 0, 0, 0], [2, 3, 4, 5])
  np.testing.assert_allclose(middle.frame_times, [0, 0.25, 0.5, 0.75])
  np.testing.assert_array_equal(middle.audio, np.arange(8000, 24000))
  np.testing.assert_allclose(middle.events, [0.0, 0.6])
