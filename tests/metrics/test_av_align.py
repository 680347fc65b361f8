"""AV-Align: peaks of motion against onsets, by hand and on clips whose events are known."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avlink_jax.data.impacts import Impacts
from avlink_jax.data.media import decode as media
from avlink_jax.data.media import mux
from avlink_jax.metrics import av_align
from avlink_jax.metrics.av_align import Motion, event_scores, flow_magnitudes, motion, score

RATE = 22050
BACKGROUND = cv2.normalize(cv2.GaussianBlur(
  np.random.default_rng(0).uniform(0, 1, (100, 400, 3)), (0, 0), 3), None, 0, 255,
  cv2.NORM_MINMAX).astype(np.uint8)


def seen(*peaks, period=1 / 6, duration=5.0):
  return Motion(np.asarray(peaks, float), period, duration)


def panned(steps, height=72, width=128):
  """Frames of a camera that moves by so many pixels between one and the next."""
  lefts = 100 + np.concatenate([[0], np.cumsum(steps)]).astype(int)
  return np.stack([BACKGROUND[:height, left:left + width] for left in lefts])


def clicks(times, duration=4.0):
  wave = np.zeros(int(duration * RATE), np.float32)
  for time in times:
    at = int(time * RATE)
    wave[at:at + 2000] += (np.exp(-np.arange(2000) / 300) *
                           np.random.default_rng(0).uniform(-1, 1, 2000))[:len(wave) - at]
  return wave


# -- the score

@pytest.mark.parametrize('onsets, peaks, expected', [
  ([1.0, 2.0], [1.0, 2.0], 1.0),
  ([1.0, 2.0], [1.1, 3.0], 1 / 3),
  ([1.0], [1.17], 0.0), ([1.0], [1.166], 1.0),  # one frame is 1/6 s
  ([1.0, 1.05], [1.0], 1 / 2),  # the public code's intersection over union is 2 here
  ([1.0, 1.3], [0.9, 1.15], 1.0),  # 1.15 must go to the second
  ([1.0], [], 0.0), ([], [1.0], 0.0), ([], [], None),
])
def test_score_is_intersection_over_union(onsets, peaks, expected):
  assert score(onsets, seen(*peaks)) == (expected and pytest.approx(expected))


times = st.lists(st.floats(0, 5), max_size=12).map(sorted)


@given(onsets=times, peaks=times)
@settings(max_examples=60)
def test_score_lies_in_0_1_and_both_sides_count_alike(onsets, peaks):
  value = score(onsets, seen(*peaks, duration=6.0))
  assert value is None or 0 <= value <= 1
  assert value == score(peaks, seen(*onsets, duration=6.0))
  assert score(peaks, seen(*peaks, duration=6.0)) == (1.0 if peaks else None)


@pytest.mark.parametrize('end, duration', [(2.0, 5.0), (np.inf, 2.0)])
def test_what_only_one_of_them_has_time_for_does_not_count(end, duration):
  assert score([1.0, 2.5], seen(1.0, 3.5, duration=duration), end) == 1.0


def test_events_are_met_or_not():
  assert event_scores(seen(1.0, 2.0, 3.0), [1.1, 4.0]) == {
    'precision': 1 / 3, 'recall': 1 / 2, 'f1': 2 / 5}
  assert event_scores(seen(), [1.0]) == {'precision': 0.0, 'recall': 0.0, 'f1': 0.0}
  assert event_scores(seen(1.0), []) == {'precision': 0.0, 'recall': None, 'f1': 0.0}
  assert event_scores(seen(), []) == {'precision': None, 'recall': None, 'f1': None}


# -- motion

def test_flow_is_as_long_as_the_camera_moves():
  # A little short at the edges, where what comes into view cannot be found again.
  np.testing.assert_allclose(flow_magnitudes(panned([1, 2, 0, 1])), [1, 2, 0, 1], rtol=0.15,
                             atol=0.01)


def test_size_of_the_file_changes_little():
  small = panned([1, 2, 1])
  large = np.repeat(np.repeat(small, 4, axis=1), 4, axis=2)
  np.testing.assert_allclose(flow_magnitudes(large), flow_magnitudes(small), rtol=1e-6)


@pytest.mark.parametrize('fps', [6, 14.76, 24])
def test_a_peak_lies_between_the_frames_that_moved(fps):
  steps = np.zeros(20)
  steps[[4, 11]] = 2
  frames = panned(steps)
  found = motion(frames, np.arange(21) / fps, 21 / fps)
  np.testing.assert_allclose(found.peaks, [4.5 / fps, 11.5 / fps])
  assert found.period == pytest.approx(1 / fps) and found.duration == 21 / fps


def test_frame_times_are_the_files_own():
  steps = np.zeros(6)
  steps[3] = 2
  times = [0, 0.1, 0.2, 0.5, 1.5, 1.6, 1.7]
  found = motion(panned(steps), times, 1.8)
  np.testing.assert_allclose(found.peaks, [1.0])
  assert found.period == pytest.approx(0.1)  # the usual one, not the mean


@pytest.mark.parametrize('count', [0, 1, 2, 3])
def test_fewer_than_four_frames_have_no_peaks(count):
  frames = panned([1, 3])[:count] if count else np.zeros((0, 72, 128, 3), np.uint8)
  assert not len(motion(frames, np.arange(count) / 6, 1.0).peaks)


def test_a_picture_that_stands_still_earns_nothing(tmp_path):
  mux.write_mp4(tmp_path / 'still.mp4', frames=np.repeat(panned([]), 50, axis=0), fps=12)
  clip = media.decode(tmp_path / 'still.mp4', need_audio=False)  # a codec's noise is on it
  found = motion(clip.frames, clip.frame_times, clip.duration)
  assert not len(found.peaks)
  assert score([1.0], found) == 0.0 and score([], found) is None


# -- sound

def test_onsets_are_found_where_they_are_and_none_in_silence():
  found = av_align.audio_onsets(clicks([0.5, 1.4, 2.8]), RATE)
  np.testing.assert_allclose(found, [0.5, 1.4, 2.8], atol=0.03)
  assert not len(av_align.audio_onsets(np.zeros(RATE), RATE))
  assert not len(av_align.audio_onsets(np.zeros(0), RATE))
  assert not len(av_align.audio_onsets(clicks([1.0]) * 5e-4, RATE))


# -- both

def test_true_clips_score_above_exchanged_ones():
  """On 64 clips 0.53 and 0.36 (see the module); here fewer, and the bounds wide."""
  source, clips = Impacts('validation', size=16), []
  for i in range(16):
    clip = source.load(i)
    clips.append((motion(clip.frames, clip.frame_times, clip.duration),
                  av_align.audio_onsets(clip.audio, clip.sample_rate), clip.events))
  true = np.mean([score(onsets, picture) for picture, onsets, _ in clips])
  control = np.mean([score(clips[(k + shift) % 16][1], picture)
                     for k, (picture, _, _) in enumerate(clips) for shift in (3, 6, 10, 13)])
  assert true > 0.42 and true > control + 0.08
  assert np.mean([event_scores(picture, events)['f1'] for picture, _, events in clips]) > 0.55
