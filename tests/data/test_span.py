"""Decoding a span: what is read after a seek is what reading from the beginning gives."""

import numpy as np
import pytest
from made_clips import click_time, make_clip, needs_clips, steady, variable
from pytest import approx

from avlink_jax.data.media import decode as media
from avlink_jax.data.media.decode import decode


def from_the_beginning(path, monkeypatch, **span):
  """`decode` without any seeking."""
  with monkeypatch.context() as patch:
    patch.setattr(media, 'SEEKABLE', ('nothing',))
    return decode(path, **span)


def assert_same_span(path, monkeypatch, atol, **span):
  whole = from_the_beginning(path, monkeypatch, **span)
  part = decode(path, **span)
  assert part.duration == approx(whole.duration, abs=1e-6)
  np.testing.assert_array_equal(part.frames, whole.frames)
  np.testing.assert_allclose(part.frame_times, whole.frame_times, atol=1e-9)
  assert part.audio.shape == whole.audio.shape
  if atol:
    np.testing.assert_allclose(part.audio, whole.audio, atol=atol)
  return part


def few_keyframes(gop=24, **more):
  return {'crf': '10', 'g': str(gop), 'keyint_min': str(gop), 'bf': '2', **more}


@pytest.mark.parametrize('pts', [steady(24, 9.0), variable(9.0)], ids=['steady', 'variable'])
@pytest.mark.parametrize('start', [1.5, 3.0, 4.0333, 7.91])
def test_a_span_after_a_seek_is_the_same_frames_and_sound(tmp_path, monkeypatch, pts, start):
  make_clip(tmp_path / 'a.mp4', pts, options=few_keyframes(), sound_starts=0.1, flash=50)
  assert_same_span(tmp_path / 'a.mp4', monkeypatch, 1e-4, start=start, duration=1.0)
  assert_same_span(tmp_path / 'a.mp4', monkeypatch, 1e-4, start=start, duration=1.0, max_fps=6)
  assert_same_span(tmp_path / 'a.mp4', monkeypatch, 1e-4, start=start)


def test_a_span_of_matroska_is_the_same_frames_and_sound_within_a_millisecond(
    tmp_path, monkeypatch):
  make_clip(tmp_path / 'a.mkv', steady(24, 9.0), options=few_keyframes(), flash=130)
  part = assert_same_span(tmp_path / 'a.mkv', monkeypatch, None, start=4.3, duration=3.0)
  whole = from_the_beginning(tmp_path / 'a.mkv', monkeypatch, start=4.3, duration=3.0)
  assert click_time(part) == approx(click_time(whole), abs=0.001)


def test_references_across_a_keyframe_are_not_needed(tmp_path, monkeypatch):
  """Open groups of pictures: after a seek, frames come whose references lie before it."""
  make_clip(tmp_path / 'a.mp4', steady(24, 9.0),
            options=few_keyframes(**{'x264-params': 'open-gop=1'}))
  for start in (2.1, 5.0, 6.6):
    assert_same_span(tmp_path / 'a.mp4', monkeypatch, 1e-4, start=start, duration=1.5)


def test_only_what_the_span_needs_is_decoded(tmp_path, monkeypatch):
  make_clip(tmp_path / 'a.mp4', steady(24, 60.0), options=few_keyframes(48))
  seen = []
  add = media._VideoTrack.add
  monkeypatch.setattr(
      media._VideoTrack, 'add', lambda self, frame: seen.append(1) or add(self, frame))
  decode(tmp_path / 'a.mp4', start=50.0, duration=2.0)
  assert len(seen) < 24 * (2 + 2 + media.PREROLL + 1)  # the span, a group of pictures, the preroll


def test_a_span_without_a_picture_or_in_a_container_without_an_index(tmp_path, monkeypatch):
  make_clip(tmp_path / 'a.ts', steady(24, 6.0), options=few_keyframes())
  make_clip(tmp_path / 'a.mp4', steady(24, 6.0), options=few_keyframes())
  for name in ('a.ts', 'a.mp4'):
    assert_same_span(tmp_path / name, monkeypatch, 1e-4, start=3.5, duration=1.0, need_video=False)
    assert_same_span(tmp_path / name, monkeypatch, 1e-4, start=3.5, duration=1.0)


def test_a_span_beyond_the_end_says_so(tmp_path):
  make_clip(tmp_path / 'a.mp4', steady(24, 4.0), options=few_keyframes())
  with pytest.raises(media.MediaError, match='ends before 30 s'):
    decode(tmp_path / 'a.mp4', start=30.0, duration=1.0)


def test_a_clip_says_where_it_comes_from(tmp_path):
  make_clip(tmp_path / 'a.mp4', steady(25, 4.0), options=few_keyframes())
  clip = decode(tmp_path / 'a.mp4', start=2.0, duration=1.0)
  assert (clip.start, clip.source_rate) == (2.0, 44100)
  assert clip.source_fps == approx(25, abs=0.5)


@needs_clips
@pytest.mark.slow
def test_spans_of_real_clips_are_the_same(shared_clips, monkeypatch):
  for path in sorted(shared_clips.glob('*.mp4'))[::6]:
    length = decode(path, need_audio=False, height=36, max_fps=1).duration
    for start in (0.4 * length, 0.7 * length):
      assert_same_span(path, monkeypatch, None, start=start, duration=2.0, height=36, width=64,
                       max_fps=6, need_audio=False)
