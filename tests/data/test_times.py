"""Media time: decoding, muxing and the doctor say the same times, whatever the container."""

from fractions import Fraction

import av
import numpy as np
import pytest
from beacons import RATE, Beacons, copied, heard, seen
from made_clips import make_clip, shown_codes

from avlink_jax.data.clip import resample_frames
from avlink_jax.data.doctor.examine import examine
from avlink_jax.data.media import mux
from avlink_jax.data.media.decode import decode

OPEN = {'x264-params': 'keyint=20:open-gop=1:bframes=4:b-adapt=0:scenecut=0'}
CLICK = 0.005  # seconds: the most that a click may be off


def new_sound(source, target):
  """Gives a clip clicks at its flashes; returns what was decoded before and after."""
  before = decode(source, need_audio=False)
  wave = np.zeros(round(before.duration * RATE) + RATE)
  for time in seen(before):
    wave[round(time * RATE):][:60] = 0.9 * np.sin(np.arange(60) * 0.8 + 1)
  mux.replace_audio(source, target, wave, RATE)
  return before, decode(target)


def check_new_sound(source, target):
  before, after = new_sound(source, target)
  np.testing.assert_allclose(after.frame_times, before.frame_times, atol=1e-3)
  assert after.duration == pytest.approx(before.duration, abs=1e-3)
  np.testing.assert_allclose(heard(after), seen(after), atol=CLICK)


def facts_of(path):
  """The doctor's facts about a file, and the names of its findings."""
  found = examine(path)
  return found.facts, {each.name for each in found.findings}


# -- time zero

@pytest.fixture(scope='module')
def cut(tmp_path_factory):
  """Sources that begin at a keyframe whose leading pictures refer to what was cut off, 33⅓ ms
  each: the cut file by its ending."""
  folder = tmp_path_factory.mktemp('cut')
  whole = Beacons(options=OPEN).write(folder / 'whole.ts')

  for ending in ('.mkv', '.ts', '.mp4'):
    begun: list = []  # the keyframe, once it came

    def keep(packet, begun=begun):
      if packet.stream.type == 'video' and packet.is_keyframe and packet.pts > 90_000 * 1.8:
        begun.append(packet.pts)
      return bool(begun)

    copied(whole, folder / f'cut{ending}', keep)
  return folder


@pytest.mark.parametrize('ending', ['.mkv', '.ts', '.mp4'])
def test_time_zero_is_the_first_picture_that_is_decoded(cut, tmp_path, ending):
  path = cut / f'cut{ending}'
  clip = decode(path)
  np.testing.assert_allclose(heard(clip)[-1:], seen(clip)[-1:], atol=CLICK)
  check_new_sound(path, tmp_path / 'new.mp4')
  frames = np.zeros((round(clip.duration * 30), 36, 64, 3), np.uint8)
  mux.write_mp4(tmp_path / 'under.mp4', frames=frames, fps=30, source_audio=path)
  np.testing.assert_allclose(heard(decode(tmp_path / 'under.mp4')), heard(clip), atol=1e-3)
  facts, _ = facts_of(path)
  assert facts['seconds'] == pytest.approx(clip.duration, abs=1e-3)


def test_the_doctor_counts_pictures_that_cannot_be_decoded(cut):
  found, = (each for each in examine(cut / 'cut.mkv').findings if each.name == 'hidden_pictures')
  assert found.what.startswith('4 pictures')


@pytest.mark.parametrize('video_starts, audio_starts', [(0, '0.3'), ('0.3', 0), (0, 0)])
def test_the_doctor_says_the_decoders_times(tmp_path, video_starts, audio_starts):
  beacons = Beacons(video_starts=Fraction(video_starts), audio_starts=Fraction(audio_starts))
  facts, _ = facts_of(beacons.write(tmp_path / 'a.mkv'))
  offset = Fraction(audio_starts) - Fraction(video_starts)
  assert facts['sound_starts'] == pytest.approx(float(offset), abs=0.001)
  assert facts['sound_ends'] == pytest.approx(0, abs=0.022)  # AAC's padding, which mkv calls sound


# -- time bases

@pytest.mark.parametrize(
  'rate', [Fraction(24), Fraction(30_000, 1001), Fraction(30), Fraction(2997, 100)], ids=str)
@pytest.mark.parametrize('ending', ['.mkv', '.flv', '.ts', '.mov'])
def test_the_same_pictures_are_the_same_conditioning_in_any_container(tmp_path, rate, ending):
  """At 30 frames a second Matroska's milliseconds made it the picture before in 10 of 31 places."""
  with av.open(str(tmp_path / 'a.mp4'), 'w') as container:
    mux._interleave(container, [mux._encode_frames(container, np.stack(
      [np.full((36, 64, 3), 20 + 12 * (n % 16), np.uint8) for n in range(round(3 * rate))]), rate)])
  expected = decode(tmp_path / 'a.mp4', need_audio=False)
  clip = decode(copied(tmp_path / 'a.mp4', tmp_path / f'a{ending}'), need_audio=False)
  np.testing.assert_allclose(clip.frame_times, expected.frame_times, atol=1e-5)
  for grid in (6, 24):
    for name, start in (('whole', 0.0), ('part', 0.5)):
      codes = [shown_codes(resample_frames(each, start, 15, grid)[0]) for each in (expected, clip)]
      np.testing.assert_array_equal(codes[1], codes[0], err_msg=name)


def test_frames_at_no_steady_rate_keep_the_times_of_their_container(tmp_path):
  pts = [0, 1000, 7000, 12345, 30011, 60013, 90_000]
  make_clip(tmp_path / 'a.mkv', pts)
  np.testing.assert_allclose(
    decode(tmp_path / 'a.mkv').frame_times, np.array(pts) / 90_000, atol=0.0011)


# -- AVI

def frame_of(packet):
  return round(packet.pts * packet.time_base * 30)


LATE = Fraction(38, 30)
REORDERED = {'mjpeg': 0, 'mpeg4': 1, 'libx264': 2}  # frames by which decoding is ahead


def delayed(codec, folder, empties=lambda packet: ()):
  """An AVI whose picture begins LATE after the sound, at true decoding times. Those of the source,
  which begins at 0, had no place before it, and were written too late."""
  source = Beacons(codec, 'pcm_s16le').write(folder / 'whole.avi')
  shift = LATE - Fraction(REORDERED[codec], 30)
  return copied(source, folder / 'late.avi', empties=empties,
                shift=lambda packet: shift * (packet.stream.type == 'video'))


@pytest.mark.parametrize('codec', REORDERED)
def test_an_avi_that_begins_with_empty_frames_is_whole_and_in_time(tmp_path, codec):
  count = 38 - REORDERED[codec]

  def empties(packet):
    first = packet.stream.type == 'video' and packet.dts == count
    return range(count) if first else ()

  path = delayed(codec, tmp_path, empties)
  for clip in (decode(path), decode(path, need_video=False)):
    assert clip.duration == pytest.approx(3, abs=0.001)
    np.testing.assert_allclose(heard(clip), [2 - float(LATE)], atol=CLICK)
  np.testing.assert_allclose(seen(decode(path)), [0, 1, 2], atol=1e-6)
  check_new_sound(path, tmp_path / 'new.mp4')
  facts, _ = facts_of(path)
  assert facts['sound_starts'] == pytest.approx(float(-LATE), abs=0.001)


def test_empty_frames_that_a_writer_put_behind_the_first_do_not_delay_the_others(tmp_path):
  """FFmpeg's writer moves the first picture of a late stream to the beginning of an AVI."""
  path = delayed('mpeg4', tmp_path)
  for clip in (decode(path), decode(path, need_video=False)):
    np.testing.assert_allclose(heard(clip), [2 - float(LATE)], atol=CLICK)
  check_new_sound(path, tmp_path / 'new.mp4')


# -- lengths

@pytest.mark.parametrize('ending', ['.m4a', '.mov', '.wav', '.flac', '.opus'])
@pytest.mark.parametrize('seconds', [1.0, 2.5])
def test_sound_ends_where_the_file_says(tmp_path, ending, seconds):
  codec = {'.wav': 'pcm_s16le', '.flac': 'flac', '.opus': 'libopus'}
  wave = (0.3 * np.sin(np.arange(round(seconds * RATE)) * 0.05)).astype(np.float32)
  with av.open(str(tmp_path / f'a{ending}'), 'w') as container:
    stream = container.add_stream(codec.get(ending, 'aac'), rate=RATE, layout='mono')
    container.mux(encoded(stream, wave))
  clip = decode(tmp_path / f'a{ending}', need_video=False)
  assert clip.duration == pytest.approx(seconds, abs=0.001)


def encoded(stream, wave):
  """Packets of a wave."""
  kind = stream.codec_context.format.name
  if kind == 's16':
    wave = np.round(wave * 32767).astype(np.int16)
  frame = av.AudioFrame.from_ndarray(wave[None], kind, 'mono')
  frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), 0
  return stream.encode(frame) + stream.encode()


def test_a_last_frame_that_is_held_up_to_the_declared_end_is_no_truncation(tmp_path):
  source = Beacons('mjpeg', 'pcm_s16le').write(tmp_path / 'whole.avi')
  path = copied(source, tmp_path / 'held.avi',
                keep=lambda packet: packet.stream.type == 'audio' or packet.pts < 60)
  content = bytearray(path.read_bytes())
  length = content.index(b'vids') + 32  # of the header's fields: the number of frames
  assert content[length] == 60
  content[length] = 90
  path.write_bytes(content)
  assert decode(path).duration == pytest.approx(3, abs=0.001)
  check_new_sound(path, tmp_path / 'new.mp4')


def test_a_picture_that_ends_before_the_sound_is_no_truncation(tmp_path):
  source = Beacons().write(tmp_path / 'whole.mp4')
  path = copied(source, tmp_path / 'a.mkv', keep=lambda packet: packet.stream.type == 'audio'
                or packet.pts * packet.time_base < 1)
  assert decode(path).duration == pytest.approx(1, abs=0.002)


def test_empty_frames_at_an_avis_end_hold_its_last_frame(tmp_path):
  source = Beacons('mjpeg', 'pcm_s16le').write(tmp_path / 'whole.avi')

  def held(packet):
    return range(30, 89) if packet.stream.type == 'video' and packet.pts == 89 else ()

  path = copied(source, tmp_path / 'a.avi', empties=held,
                keep=lambda packet: packet.stream.type == 'audio' or not 30 <= packet.pts < 89)
  assert decode(path).duration == pytest.approx(3, abs=0.001)


# -- empty packets

def test_an_empty_packet_repeats_the_frame_before_it(tmp_path):
  """As in Theora, where a decoder took it for the end: 'corrupt stream'."""
  source = Beacons('mpeg4', options={'bf': '0'}).write(tmp_path / 'whole.nut')
  kept = {}

  def keep(packet):
    return packet.stream.type == 'audio' or frame_of(packet) % 10 < 7 or frame_of(packet) == 89

  def empties(packet):
    if packet.stream.type == 'audio':
      return ()
    last, kept['last'] = kept.get('last'), packet.pts
    step = round(1 / 30 / packet.time_base)
    return () if last is None else range(last + step, packet.pts - step // 2, step)

  path = copied(source, tmp_path / 'repeats.nut', keep=keep, empties=empties)
  with av.open(str(path)) as container:
    assert sum(not packet.size for packet in container.demux(video=0)) > 25
  clip = decode(path)
  assert len(clip.frames) == sum(n % 10 < 7 or n == 89 for n in range(90))
  assert clip.duration == pytest.approx(3, abs=0.001)
  np.testing.assert_allclose(seen(clip), [0, 1, 2], atol=1e-6)
  np.testing.assert_allclose(heard(clip), [0, 1, 2], atol=CLICK)
  check_new_sound(path, tmp_path / 'new.mp4')
  assert 'unusable' not in facts_of(path)[1]
