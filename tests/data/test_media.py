"""Media in: picture and sound stay together, frames are the right ones, damage is told."""

import math
import os
from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile
from made_clips import (
  CODES,
  SHARED,
  TICKS,
  click_time,
  flash_time,
  make_avi,
  make_clip,
  needs_bad_clips,
  needs_clips,
  quadrants,
  shown_codes,
  steady,
  variable,
)

from avlink_jax.data.clip import resample_frames
from avlink_jax.data.media import mux
from avlink_jax.data.media.decode import decode, decode_audio
from avlink_jax.errors import MediaError

# -- picture and sound on one clock

@pytest.mark.parametrize('fps', [14.76, 21.5, 24, 29.97, 59.94, 'variable'])
@pytest.mark.parametrize('sound_starts', [0.0, 0.3, -0.2])
@pytest.mark.parametrize('suffix', ['.mp4', '.mkv'])
def test_flash_and_click_are_decoded_within_10_ms(tmp_path, fps, sound_starts, suffix):
  pts = variable() if fps == 'variable' else steady(fps)
  path = tmp_path / f'clip{suffix}'
  # A container starts at 0: what starts early makes the other start late.
  late_picture = max(0.0, -sound_starts)
  make_clip(path, pts, flash=len(pts) * 2 // 3, video_starts=late_picture,
            sound_starts=max(0.0, sound_starts))
  clip = decode(path)
  assert clip.frame_times[0] == 0 and len(clip.frames) == len(pts)
  assert flash_time(clip) == pytest.approx(pts[len(pts) * 2 // 3] / TICKS, abs=0.002)
  assert abs(flash_time(clip) - click_time(clip)) < 0.010
  assert len(clip.audio) == round(clip.duration * 16000)


def test_negative_sound_timestamps_keep_the_sound_in_place(tmp_path):
  pts = steady(24)
  make_clip(tmp_path / 'clip.mp4', pts, flash=40, sound_starts=-0.2)
  clip = decode(tmp_path / 'clip.mp4')
  assert abs(flash_time(clip) - click_time(clip)) < 0.010


def test_late_sound_is_preceded_by_zeros(tmp_path):
  make_clip(tmp_path / 'clip.mp4', steady(24), sound_starts=0.5)
  audio = decode(tmp_path / 'clip.mp4').audio
  assert np.abs(audio[:round(0.45 * 16000)]).max() < 1e-4
  assert np.abs(audio[round(0.53 * 16000):16000]).max() > 0.1


def test_a_hole_in_the_sound_moves_nothing(tmp_path):
  make_clip(tmp_path / 'clip.mkv', steady(24), flash=60, hole=(1.0, 1.6))
  clip = decode(tmp_path / 'clip.mkv')
  assert abs(flash_time(clip) - click_time(clip)) < 0.010
  assert np.abs(clip.audio[round(1.1 * 16000):round(1.5 * 16000)]).max() < 1e-4


def test_jittering_timestamps_do_not_tear_the_sound(tmp_path):
  # Random +-8 ms: each packet placed by its own timestamp would overlap the next or leave a gap.
  make_clip(tmp_path / 'steady.mkv', steady(24))
  make_clip(tmp_path / 'jitter.mkv', steady(24), jitter=0.008)
  whole = decode(tmp_path / 'steady.mkv').audio[8000:40000]
  jittered = decode(tmp_path / 'jitter.mkv').audio[8000:40000]
  step = np.abs(np.diff(whole)).max()
  assert np.mean(np.abs(np.diff(jittered)) > 2 * step) < 0.002


@pytest.mark.parametrize('fps', [14.76, 21.5, 24, 29.97, 59.94, 'variable'])
@pytest.mark.parametrize('max_fps', [None, 6])
def test_on_the_6_fps_grid_each_frame_is_the_one_shown_then(tmp_path, fps, max_fps):
  pts = variable() if fps == 'variable' else steady(fps)
  make_clip(tmp_path / 'clip.mp4', pts, video_starts=0.25)
  clip = decode(tmp_path / 'clip.mp4', height=36, width=64, max_fps=max_fps)
  frames, mask = resample_frames(clip, 0.0, 17, 6)
  expected = [max(n for n, tick in enumerate(pts) if Fraction(tick, TICKS) <= Fraction(k, 6))
              for k in range(17)]
  assert mask.all()
  np.testing.assert_array_equal(shown_codes(frames), np.array(expected) % CODES)


def test_dropping_frames_early_changes_nothing_on_the_grid(tmp_path):
  make_clip(tmp_path / 'clip.mp4', variable())
  for start in (0.0, 0.4321):
    full = decode(tmp_path / 'clip.mp4', start=start)
    few = decode(tmp_path / 'clip.mp4', start=start, max_fps=6)
    assert len(few.frames) < len(full.frames) and few.duration == full.duration
    expected, mask = resample_frames(full, 0, 20, 6)
    frames, same_mask = resample_frames(few, 0, 20, 6)
    np.testing.assert_array_equal(frames[mask], expected[mask])
    np.testing.assert_array_equal(same_mask, mask)


def test_a_window_is_the_same_part_of_the_whole(tmp_path):
  make_clip(tmp_path / 'clip.mp4', steady(24), flash=40, sound_starts=0.1)
  whole = decode(tmp_path / 'clip.mp4')
  part = decode(tmp_path / 'clip.mp4', start=1.01, duration=1.5)
  assert part.duration == 1.5 and part.frame_times[0] == 0
  assert flash_time(part) == pytest.approx(flash_time(whole) - 1.01)
  np.testing.assert_allclose(part.audio[100:-100], whole.audio[16160 + 100:40160 - 100], atol=0.02)
  rest = decode(tmp_path / 'clip.mp4', start=2.5, duration=9)
  assert rest.duration == pytest.approx(whole.duration - 2.5)
  with pytest.raises(MediaError, match='ends before 3'):
    decode(tmp_path / 'clip.mp4', start=3.0)


def test_frames_before_an_edit_lists_start_are_not_shown(tmp_path):
  pts = steady(24)
  make_clip(tmp_path / 'clip.mp4', pts, flash=50, video_starts=-0.5)  # hidden by an edit list
  clip = decode(tmp_path / 'clip.mp4')
  assert len(clip.frames) == len(pts) - 12
  assert flash_time(clip) == pytest.approx(pts[50] / TICKS - 0.5, abs=0.001)
  assert abs(flash_time(clip) - click_time(clip)) < 0.010
  mux.replace_audio(tmp_path / 'clip.mp4', tmp_path / 'new.mp4', clip.audio, 16000)
  again = decode(tmp_path / 'new.mp4')
  np.testing.assert_allclose(again.frame_times, clip.frame_times, atol=0.001)


def test_without_the_picture_clock_and_sound_stay_the_same(tmp_path):
  make_clip(tmp_path / 'clip.mp4', variable(), video_starts=0.2)
  both = decode(tmp_path / 'clip.mp4')
  sound = decode(tmp_path / 'clip.mp4', need_video=False)
  assert len(sound.frames) == 0 and sound.duration == pytest.approx(both.duration, abs=1e-6)
  np.testing.assert_array_equal(sound.audio, both.audio)


@pytest.mark.parametrize('cores', [1, None])
def test_few_and_slow_frames_are_not_taken_for_a_cut_file_where_only_the_sound_is_read(
    tmp_path, cores):
  """However many of the first frames a decoder keeps, which depends on how many threads it has."""
  before = os.sched_getaffinity(0)
  os.sched_setaffinity(0, sorted(before)[:cores])
  try:
    for count in range(1, 7):
      make_clip(tmp_path / 'clip.mp4', steady(1.4, count / 1.4 + 0.1))
      seconds = decode(tmp_path / 'clip.mp4').duration
      assert decode(tmp_path / 'clip.mp4', need_video=False).duration == pytest.approx(seconds)
  finally:
    os.sched_setaffinity(0, before)


def test_frames_of_an_avi_come_in_order_from_0_on(tmp_path):
  make_avi(tmp_path / 'clip.avi', 50)
  clip = decode(tmp_path / 'clip.avi', need_audio=False)
  np.testing.assert_allclose(clip.frame_times, np.arange(50) / 25)
  np.testing.assert_array_equal(shown_codes(clip.frames), np.arange(50) % CODES)


def test_eight_channels_are_mixed_without_a_crash(tmp_path):
  click = np.zeros((8 * 48000, 1), np.float32)
  click = np.repeat(click, 8, axis=1)
  click[96000:96048] = 0.9
  soundfile.write(tmp_path / 'eight.flac', click, 48000)
  clip = decode(tmp_path / 'eight.flac', need_video=False)
  assert click_time(clip) == pytest.approx(2.0, abs=0.002) and clip.audio.max() > 0.5


def test_channels_stay_apart_where_they_are_asked_for(tmp_path):
  left, right = np.zeros((2, 32000), np.float32)
  left[8000:8040], right[20000:20040] = 0.8, 0.4
  for name, channels in (('one', [left]), ('two', [left, right]), ('six', [left] * 6)):
    soundfile.write(tmp_path / f'{name}.wav', np.stack(channels, axis=1), 16000)
  stereo = decode_audio(tmp_path / 'two.wav', sample_rate=16000)
  np.testing.assert_allclose(stereo, np.stack([left, right], axis=1), atol=1e-4)
  np.testing.assert_allclose(stereo.mean(axis=1),
                             decode(tmp_path / 'two.wav', need_video=False).audio, atol=1e-4)
  assert decode_audio(tmp_path / 'one.wav', sample_rate=8000, duration=1.5).shape == (12000, 1)
  assert decode_audio(tmp_path / 'six.wav', sample_rate=16000).shape == (32000, 1)


@pytest.mark.parametrize('sound_starts, video_starts', [(0.0, 0.3), (0.4, 0.0)])
def test_sound_in_channels_keeps_the_clock(tmp_path, sound_starts, video_starts):
  make_clip(tmp_path / 'clip.mp4', steady(24), flash=40, sound_starts=sound_starts,
            video_starts=video_starts)
  mono = decode(tmp_path / 'clip.mp4', need_video=False).audio
  np.testing.assert_array_equal(decode_audio(tmp_path / 'clip.mp4', sample_rate=16000)[:, 0], mono)


# -- size and orientation

def test_frames_cover_the_size_and_are_cropped_at_the_centre(tmp_path):
  image = np.full((96, 160, 3), 20, np.uint8)
  image[:, 32:128] = 220  # the middle square and its surroundings
  mux.write_mp4(tmp_path / 'wide.mp4', frames=np.stack([image] * 6), fps=6)
  wide = decode(tmp_path / 'wide.mp4', height=32, width=64, need_audio=False)
  square = decode(tmp_path / 'wide.mp4', height=48, width=48, need_audio=False)
  assert wide.frames.shape[1:] == (32, 64, 3) and square.frames.shape[1:] == (48, 48, 3)
  assert square.frames.min() > 200  # what lies outside the square is cut, not squeezed
  assert wide.frames[0, 16, 2].max() < 40 and wide.frames[0, 16, 32].min() > 200
  assert decode(tmp_path / 'wide.mp4', need_audio=False).frames.shape[1:] == (96, 160, 3)


@pytest.mark.parametrize('shape, width', [((96, 160), 120), ((160, 96), 43), ((36, 64), 128)])
def test_without_a_width_the_picture_keeps_its_shape(tmp_path, shape, width):
  mux.write_mp4(tmp_path / 'clip.mp4', frames=np.stack([quadrants(*shape)] * 6), fps=6)
  frames = decode(tmp_path / 'clip.mp4', height=72, need_audio=False).frames
  assert frames.shape == (6, 72, width, 3)
  assert np.abs(frames[0].astype(int) - quadrants(72, width)).mean() < 8


# -- what is wrong with a file

def reason_of(path, **options):
  with pytest.raises(MediaError) as caught:
    decode(path, height=36, width=64, **options)
  assert caught.value.path == str(path)
  return caught.value.reason


@pytest.mark.parametrize('name, options', [
  ('clip.mp4', None), ('clip.mp4', {'movflags': '+faststart'}),
  ('clip.mp4', {'movflags': '+frag_keyframe+empty_moov'}), ('clip.mkv', None),
  ('clip.avi', None)])
@pytest.mark.parametrize('part', [0.2, 0.6, 0.98])
def test_a_cut_file_is_truncated_wherever_it_is_cut(tmp_path, name, options, part):
  if name.endswith('.avi'):
    make_avi(tmp_path / name, 60)
  else:
    make_clip(tmp_path / name, steady(24), container_options=options)
  content = (tmp_path / name).read_bytes()
  decode(tmp_path / name, need_audio=False)
  (tmp_path / name).write_bytes(content[:int(part * len(content))])
  assert reason_of(tmp_path / name) == 'truncated'


@pytest.mark.parametrize('suffix', ['.mp4', '.mkv', '.flv', '.ts'])
@pytest.mark.parametrize('seed', range(4))
def test_flipped_bits_are_an_error_not_a_crash(tmp_path, suffix, seed):
  path = tmp_path / f'clip{suffix}'
  make_clip(path, steady(24))
  content = np.frombuffer(path.read_bytes(), np.uint8).copy()
  rng = np.random.default_rng(seed)
  at = rng.integers(len(content) // 10, len(content), len(content) // 100)
  content[at] ^= (1 << rng.integers(0, 8, len(at))).astype(np.uint8)
  path.write_bytes(content.tobytes())
  assert reason_of(path)


def test_each_kind_of_wrong_file_has_its_reason(tmp_path, capfd):
  def write(name, content):
    (tmp_path / name).write_bytes(content)
    return tmp_path / name
  image = av.VideoFrame.from_ndarray(quadrants(), format='rgb24')
  image.to_image().save(tmp_path / 'still.png')
  image.to_image().save(tmp_path / 'still.jpg')
  image.to_image().save(tmp_path / 'still.gif')
  playlist = b'#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://localhost:9/a.ts\n'
  make_clip(tmp_path / 'clip.mp4', steady(24))
  silent = tmp_path / 'silent.mp4'
  mux.write_mp4(silent, frames=np.zeros((6, 36, 64, 3), np.uint8), fps=6)
  blind = tmp_path / 'blind.mp4'
  mux.write_mp4(blind, audio=np.zeros(16000), sample_rate=16000)
  assert reason_of(tmp_path / 'missing.mp4') == 'no such file'
  assert reason_of(tmp_path) == 'is a folder'
  assert reason_of(write('empty.mp4', b'')) == 'empty file'
  assert reason_of(write('text.mp4', b'no video here\n' * 99)) == 'not a media file'
  assert reason_of(write('notes.txt', b'no video here\n' * 99)) == 'not a media file'
  assert reason_of(write('list.mp4', playlist)) == 'not a media file'
  assert reason_of(write('noise.mp4', np.random.default_rng(0).bytes(9999))) == 'not a media file'
  for name in ('still.png', 'still.jpg', 'still.gif'):
    assert reason_of(tmp_path / name) == 'is an image'
  assert reason_of(silent) == 'no audio stream'
  assert reason_of(blind) == 'no video stream'
  assert len(decode(silent, need_audio=False).audio) == 0
  assert len(decode(blind, need_video=False).frames) == 0
  captured = capfd.readouterr()
  assert not captured.err and not captured.out  # FFmpeg keeps its own messages to itself


@needs_bad_clips
@pytest.mark.parametrize('name, reason', [
  ('audio_only', 'no video stream'), ('bit_rot', 'corrupt stream'), ('empty', 'empty file'),
  ('no_audio_track', 'no audio stream'), ('not_a_video', 'not a media file'),
  ('truncated', 'truncated')])
def test_broken_clips_from_a_crawl_get_the_right_reason(name, reason):
  assert reason_of(SHARED / 'clips_bad' / f'{name}.mp4') == reason


@needs_bad_clips
def test_a_short_clip_is_short_and_nothing_else():
  assert decode(SHARED / 'clips_bad' / 'one_second.mp4').duration == pytest.approx(1.001)


@needs_clips
@pytest.mark.slow
def test_every_real_clip_decodes():
  paths = sorted((SHARED / 'clips').glob('*.mp4'))
  assert paths
  for path in paths:
    clip = decode(path, height=36, width=64, max_fps=6)
    assert clip.frames.shape == (len(clip.frame_times), 36, 64, 3)
    assert clip.frame_times[0] == 0 and np.all(np.diff(clip.frame_times) > 0)
    assert len(clip.frames) == math.ceil(round(clip.duration * 6, 3))
    assert len(clip.audio) == round(clip.duration * 16000) and np.abs(clip.audio).max() <= 1
