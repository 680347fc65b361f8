"""The world at 24 frames a second and 512×288: the small one's scenes, and any part of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avlink_jax.data import clip as clips
from avlink_jax.data.impacts import Impacts, render

LARGE = dict(height=288, width=512, fps=24.)


@pytest.fixture(scope='module')
def large():
  return Impacts('test', **LARGE)


def test_every_fourth_frame_is_the_small_clip_but_for_what_a_pixel_hides(large):
  """8×8 pixels of the large picture average to one of the small one, 0.6 to 1.0 of 255 apart. A
  quarter is the small one's rounding; the rest are textures, rims and edges finer than its pixels,
  of which it takes what lies at a pixel's middle."""
  small, means, far = Impacts('test'), [], []
  for i in range(6):
    a, b = small.load(i), large.load(i)
    assert b.frames.shape == (124, 288, 512, 3)
    np.testing.assert_allclose(b.frame_times[::4], a.frame_times, atol=1e-12)
    error = np.abs(b.frames[::4].reshape(31, 36, 8, 64, 8, 3).mean((2, 4)) - a.frames)
    means.append(error.mean())
    far.append(np.mean(error > 25))
    assert (a.id, a.duration, a.audio_caption, a.video_caption) == (
        b.id, b.duration, b.audio_caption, b.video_caption)
    np.testing.assert_array_equal(a.events, b.events)
    np.testing.assert_array_equal(a.audio, b.audio)
  assert max(means) < 1.5 and max(far) < .002


def test_a_window_is_to_the_bit_what_it_is_in_the_whole_picture(large):
  for i in range(12):
    scene = large.scene(i)
    times = scene.events[0] + np.arange(-3, 6) / 24
    whole = render.render(scene, times, 288, 512)
    for window in ((0, 0, 96, 96), (101, 207, 64, 96), (192, 416, 96, 96), (140, 0, 1, 512)):
      rows, columns = clips.pixels_of(window)
      np.testing.assert_array_equal(render.render(scene, times, 288, 512, window),
                                    whole[:, rows, columns])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 4000), st.floats(0, 5.1), st.floats(.05, 2), st.integers(0, 24),
       st.integers(0, 40))
def test_a_part_is_what_is_cut_out_of_the_whole_clip(i, start, seconds, top, left):
  source = Impacts('test', height=36, width=64, fps=24.)
  window = (top, left, 12, 24)
  cut, made = clips.part(source.load(i), start, seconds, window), source.load_part(
      i, start, seconds, window)
  for name in ('frames', 'frame_times', 'audio', 'events'):
    np.testing.assert_array_equal(getattr(cut, name), getattr(made, name))
  assert (cut.id, cut.duration, cut.start) == (made.id, made.duration, made.start)


def test_without_sound_the_picture_is_the_same():
  heard, silent = (Impacts('test', need_audio=need).load(3) for need in (True, False))
  np.testing.assert_array_equal(heard.frames, silent.frames)
  assert len(heard.audio) and not len(silent.audio)
