"""Media out: files are whole, picture and sound of one length, a copied picture untouched."""

import av
import numpy as np
import pytest
import soundfile
import soxr
from made_clips import (
  SHARED,
  click_time,
  make_avi,
  make_clip,
  needs_bad_clips,
  needs_clips,
  quadrants,
  variable,
)

from avlink_jax.data.media import mux
from avlink_jax.data.media.decode import decode
from avlink_jax.errors import MediaError, UserError

# -- files out

def ramp(count, height=36, width=64):
  """Smooth frames, each a little different."""
  y, x, n = np.mgrid[:height, :width, :count].astype(np.float32)
  red, green = 40 + 160 * x / width, 40 + 160 * y / height
  return np.moveaxis(np.stack([red, green, 60 + 100 * n / count], -1), 2, 0).astype(np.uint8)


@pytest.mark.parametrize('fps', [6, 14.76, 24, 29.97, 59.94])
@pytest.mark.parametrize('size', [(36, 64), (37, 65)])
@pytest.mark.parametrize('sample_rate', [16000, 44100])
def test_a_written_mp4_reads_back_the_same(tmp_path, fps, size, sample_rate):
  frames = ramp(round(2.3 * fps), *size)
  audio = np.zeros(round(2.3 * sample_rate), np.float32)
  audio[sample_rate:sample_rate + 40] = 0.9
  mux.write_mp4(tmp_path / 'out.mp4', frames=frames, fps=fps, audio=audio,
                sample_rate=sample_rate)
  clip = decode(tmp_path / 'out.mp4')
  assert clip.frames.shape[0] == len(frames)
  np.testing.assert_allclose(clip.frame_times, np.arange(len(frames)) / fps, atol=0.001)
  assert np.abs(clip.frames[:, :size[0], :size[1]].astype(int) - frames).mean() < 3
  assert click_time(clip) == pytest.approx(1.0, abs=0.010)
  with av.open(str(tmp_path / 'out.mp4')) as container:
    lengths = {s.type: float(s.duration * s.time_base) for s in container.streams}
  assert abs(lengths['video'] - lengths['audio']) < 1 / fps
  assert abs(lengths['video'] - len(frames) / fps) < 0.001


@pytest.mark.parametrize('given_seconds', [0.5, 4.0])
def test_sound_of_another_length_is_made_as_long_as_the_picture(tmp_path, given_seconds):
  mux.write_mp4(tmp_path / 'out.mp4', frames=ramp(12), fps=6, sample_rate=16000,
                audio=np.full(round(given_seconds * 16000), 0.1))
  with av.open(str(tmp_path / 'out.mp4')) as container:
    sound = container.streams.audio[0]
    assert float(sound.duration * sound.time_base) == pytest.approx(2.0, abs=0.001)


def test_an_mp4_has_its_index_first_and_names_its_colours(tmp_path):
  mux.write_mp4(tmp_path / 'out.mp4', frames=ramp(3, 16, 16), fps=6)
  content = (tmp_path / 'out.mp4').read_bytes()
  assert content.index(b'moov') < content.index(b'mdat')
  with av.open(str(tmp_path / 'out.mp4')) as container:
    context = container.streams.video[0].codec_context
    assert context.pix_fmt == 'yuv420p' and context.colorspace == 1


def test_a_wav_reads_back_the_same(tmp_path):
  audio = np.sin(np.arange(8000) * 0.05) * 1.2
  mux.write_wav(tmp_path / 'new' / 'out.wav', audio, 16000)
  read, rate = soundfile.read(tmp_path / 'new' / 'out.wav')
  assert rate == 16000
  np.testing.assert_allclose(read, np.clip(audio, -1, 1), atol=1e-4)


def test_a_failed_write_leaves_no_file_and_keeps_the_old_one(tmp_path):
  mux.write_wav(tmp_path / 'out.mp4', np.zeros(10), 16000)
  before = (tmp_path / 'out.mp4').read_bytes()
  with pytest.raises(ValueError):
    mux.write_mp4(tmp_path / 'out.mp4', frames=np.zeros((3, 36, 64, 3)), fps=6)  # not uint8
  assert [path.name for path in tmp_path.iterdir()] == ['out.mp4']
  assert (tmp_path / 'out.mp4').read_bytes() == before


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path):
  (tmp_path / 'file').write_text('not a folder')
  target = tmp_path / 'file' / 'out.mp4'
  mux.write_mp4(tmp_path / 'source.mp4', frames=ramp(6), fps=6)
  for write in (lambda: mux.write_mp4(target, frames=ramp(2), fps=6),
                lambda: mux.write_wav(target, np.zeros(10), 16000),
                lambda: mux.replace_audio(tmp_path / 'source.mp4', target, np.zeros(9), 16000)):
    with pytest.raises(UserError, match='cannot be written') as caught:
      write()
    assert str(target) in str(caught.value) and '\n' not in str(caught.value)


# -- given sound for a new picture

def check_given_sound(source, target, seconds=2.0, copied=None):
  """The source's sound lies under new frames: same time, same channels, same length."""
  mux.write_mp4(target, frames=ramp(round(seconds * 6)), fps=6, source_audio=source)
  before, after = (decode(path, need_video=False) for path in (source, target))
  samples = round(seconds * 16000)
  assert after.duration == pytest.approx(seconds, abs=0.001) and len(after.audio) == samples
  expected = np.pad(before.audio[:samples], (0, max(0, samples - len(before.audio))))
  error = np.sqrt(np.mean((after.audio - expected) ** 2))
  assert error < (1e-3 if copied else 0.1 * np.sqrt(np.mean(expected ** 2)) + 1e-3)
  with av.open(str(target)) as container:
    sound, = container.streams.audio
    picture, = container.streams.video
    ends = [float((s.start_time + s.duration) * s.time_base) for s in (sound, picture)]
    assert abs(ends[0] - ends[1]) <= 1 / 6 and sound.codec_context.name == 'aac'
    rate, channels = sound.rate, sound.codec_context.channels
  if copied is not None:
    with av.open(str(source)) as container:
      assert (rate == container.streams.audio[0].rate) == copied  # made clips are 44.1 kHz
  return channels


@pytest.mark.parametrize('name, sound_starts, video_starts, copied', [
  ('clip.mp4', 0.0, 0.0, True), ('clip.mp4', 0.1, 0.0, True), ('clip.mp4', 0.0, 0.3, True),
  ('clip.mp4', 0.0, 0.3017, True), ('clip.ts', 0.0, 0.3, False), ('clip.mkv', 0.0, 0.3, False)])
def test_given_sound_keeps_its_time(tmp_path, name, sound_starts, video_starts, copied):
  make_clip(tmp_path / name, variable(), flash=20, sound_starts=sound_starts,
            video_starts=video_starts)
  check_given_sound(tmp_path / name, tmp_path / 'new.mp4', copied=copied)
  assert click_time(decode(tmp_path / 'new.mp4')) == pytest.approx(
    click_time(decode(tmp_path / name)), abs=0.001)


def test_sound_with_a_hole_or_too_short_for_the_picture_is_encoded_anew(tmp_path):
  make_clip(tmp_path / 'hole.mp4', variable(), hole=(1.0, 1.3))
  check_given_sound(tmp_path / 'hole.mp4', tmp_path / 'new.mp4', copied=False)
  make_clip(tmp_path / 'short.mp4', variable(1.0))
  check_given_sound(tmp_path / 'short.mp4', tmp_path / 'new.mp4', copied=False)


@pytest.mark.parametrize('name', ['sound.wav', 'sound.flac', 'sound.ogg', 'sound.mp3'])
@pytest.mark.parametrize('channels', [1, 2])
@pytest.mark.parametrize('given_seconds', [1.2, 3.0])
def test_files_of_sound_go_under_a_picture(tmp_path, name, channels, given_seconds):
  time = np.arange(round(given_seconds * 44100)) / 44100
  wave = np.stack([np.sin(2000 * time), np.sin(3000 * time)][:channels], axis=1) * 0.4
  soundfile.write(tmp_path / name, wave, 44100)
  assert check_given_sound(tmp_path / name, tmp_path / 'new.mp4') == channels


def test_m4a_is_copied(tmp_path):
  wave = 0.4 * np.sin(np.arange(44100 * 3) * 0.05)
  mux.write_mp4(tmp_path / 'sound.m4a', audio=np.stack([wave, -wave], 1), sample_rate=44100)
  content = [bytes(p) for p in packets_of_sound(tmp_path / 'sound.m4a')]
  assert check_given_sound(tmp_path / 'sound.m4a', tmp_path / 'new.mp4') == 2
  copied = [bytes(p) for p in packets_of_sound(tmp_path / 'new.mp4')]
  assert 90 < len(copied) < len(content) and copied == content[:len(copied)]


def packets_of_sound(path):
  with av.open(str(path)) as container:
    return [packet for packet in container.demux(audio=0) if packet.size]


def test_a_source_without_sound_is_an_error_and_leaves_no_file(tmp_path):
  mux.write_mp4(tmp_path / 'silent.mp4', frames=ramp(6), fps=6)
  with pytest.raises(MediaError, match='no audio stream'):
    mux.write_mp4(tmp_path / 'new.mp4', frames=ramp(6), fps=6, source_audio=tmp_path / 'silent.mp4')
  assert [path.name for path in tmp_path.iterdir()] == ['silent.mp4']


@needs_clips
@pytest.mark.parametrize('name, copied', [
  ('AOCvnivOSc_split_00000', True), ('4kZpQfRyy8k_split_00007', True),
  ('vas_drum_video_02480', True), ('0DCit2EBtjs_000030', False)])
def test_real_sound_goes_under_a_new_picture(tmp_path, name, copied):
  source = SHARED / 'clips' / f'{name}.mp4'
  before, after = decode(source, need_video=False), tmp_path / 'new.mp4'
  mux.write_mp4(after, frames=ramp(18), fps=6, source_audio=source)
  error = np.abs(decode(after, need_video=False).audio - before.audio[:48000])
  assert error.max() < (0.002 if copied else 0.1)


# -- new sound for a given picture

def check_new_sound(source, target):
  before = decode(source, height=36, width=64, need_audio=False)
  audio = np.zeros(round(before.duration * 16000), np.float32)
  at = len(audio) * 2 // 3
  audio[at:at + 40] = 0.9
  mux.replace_audio(source, target, audio, 16000)
  after = decode(target, height=36, width=64)
  np.testing.assert_allclose(after.frame_times, before.frame_times, atol=0.001)
  assert after.duration == pytest.approx(before.duration, abs=0.001)
  assert click_time(after) == pytest.approx(at / 16000, abs=0.010)
  with av.open(str(target)) as container:
    ends = [float((s.start_time + s.duration) * s.time_base) for s in container.streams]
    assert container.streams.video[0].start_time == 0
  # One frame of the picture; where it varies, what is decoded says the same.
  assert abs(ends[0] - ends[1]) < max(np.diff(before.frame_times))
  return before, after


@pytest.mark.parametrize('name, codec, copied', [
  ('clip.mp4', 'libx264', True), ('clip.mkv', 'libx264', True), ('clip.ts', 'libx264', True),
  ('clip.mkv', 'libvpx-vp9', True), ('clip.avi', 'mpeg4', False), ('clip.mkv', 'ffv1', False)])
def test_new_sound_keeps_the_pictures_timing(tmp_path, name, codec, copied):
  if name.endswith('.avi'):
    make_avi(tmp_path / name, 60)
  else:
    options = None if codec == 'libx264' else {'deadline': 'realtime', 'crf': '20'}
    make_clip(tmp_path / name, variable(), flash=20, codec=codec, options=options,
              sound_starts=0.1, video_starts=0.3)
  before, after = check_new_sound(tmp_path / name, tmp_path / 'new.mp4')
  difference = np.abs(before.frames.astype(int) - after.frames)
  assert difference.max() == 0 if copied else difference.mean() < 3


def test_new_sound_for_a_file_without_picture_is_an_error(tmp_path):
  mux.write_mp4(tmp_path / 'blind.mp4', audio=np.zeros(16000), sample_rate=16000)
  with pytest.raises(MediaError, match='no video stream'):
    mux.replace_audio(tmp_path / 'blind.mp4', tmp_path / 'out.mp4', np.zeros(16000), 16000)
  assert not (tmp_path / 'out.mp4').exists()


@needs_clips
@pytest.mark.parametrize('name', [
  'AOCvnivOSc_split_00000',  # HEVC, 14.76 fps
  'difffoley_car',  # 21.5 fps
  'vas_fireworks_video_03051',  # 29.97 fps
  'FmZHMPVeE8s_split_00003',  # 50 fps
  '4kZpQfRyy8k_split_00007',  # the picture starts 33 ms late
  '0DCit2EBtjs_000030',  # the sound starts 15 ms late
])
def test_real_clips_get_new_sound_and_keep_their_picture(tmp_path, name):
  before, after = check_new_sound(SHARED / 'clips' / f'{name}.mp4', tmp_path / 'new.mp4')
  np.testing.assert_array_equal(before.frames, after.frames)


@needs_bad_clips
def test_a_silent_clip_gets_sound(tmp_path):
  check_new_sound(SHARED / 'clips_bad' / 'no_audio_track.mp4', tmp_path / 'new.mp4')


@pytest.mark.parametrize('degrees', [90, 180, -90])
def test_rotated_clips_come_upright(tmp_path, degrees):
  upright = quadrants()
  stored = np.rot90(upright, -degrees // 90)
  with av.open(str(tmp_path / 'clip.mp4'), 'w') as container:
    stream = container.add_stream('libx264', rate=24)
    stream.height, stream.width, stream.pix_fmt = *stored.shape[:2], 'yuv420p'
    stream.set_display_rotation(degrees)
    for _ in range(6):
      frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(stored), format='rgb24')
      container.mux(stream.encode(frame))
    container.mux(stream.encode())
  for path in (tmp_path / 'clip.mp4', tmp_path / 'new.mp4'):
    if path.name == 'new.mp4':
      mux.replace_audio(tmp_path / 'clip.mp4', path, np.zeros(4000), 16000)
    clip = decode(path, height=48, width=80, need_audio=False)
    assert np.abs(clip.frames[0].astype(int) - quadrants(48, 80)).mean() < 8


@pytest.mark.parametrize('count', [None, 0, 700, 4096, 9000])
@pytest.mark.parametrize('samples, rate', [(0, 16_000), (2500, 16_000), (9000, 48_000),
                                           (4000, 22_050)])
def test_audio_in_parts_is_resampled_as_the_whole(monkeypatch, samples, rate, count):
  monkeypatch.setattr(mux, 'PART', 1000)
  audio = np.random.default_rng(0).uniform(-1.2, 1.2, (samples, 2)).astype(np.float32)
  frames = list(mux._aac_frames(audio, rate, count))
  assert all(len(frame) == mux.AAC_FRAME for frame in frames[:-1])
  made = np.concatenate([audio[:0], *frames])
  whole = soxr.resample(np.clip(audio, -1, 1), rate, mux.AAC_RATE)
  if count is not None:
    whole = np.pad(whole[:count], ((0, max(0, count - len(whole))), (0, 0)))
  np.testing.assert_allclose(made, whole, atol=1e-6)
