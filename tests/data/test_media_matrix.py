"""Containers × codecs × rates × offsets: what flashes and clicks in a file does so in the clip.

Pairs that differ in how they say times, rather than the whole product. Not here, because such files
hold other times than went in, and ffmpeg's framemd5 says the same of them as we do:
- sound that begins late in AVI, which has no place for that: it is written as if it began at 0;
- lossy sound in AVI, which has no place for an encoder's delay either (LAME's is 23 ms);
- MPEG-PS whose packets are so small that a pack holds several: it times only one of them, and
  framemd5 too has three frames at one time. (Flashes and clicks are in place all the same.)
"""

from fractions import Fraction

import numpy as np
import pytest
from beacons import RATE, Beacons, heard, seen

from avlink_jax.data.clip import resample_frames
from avlink_jax.data.media import mux
from avlink_jax.data.media.decode import decode

CLICK = 0.005  # seconds: the most that a click may be off
NTSC, FILM = Fraction(30_000, 1001), Fraction(24_000, 1001)

CODECS = [
  ('mp4', 'libx264', 'aac'), ('mp4', 'libx265', 'aac'), ('mp4', 'mpeg4', 'libmp3lame'),
  ('mov', 'mjpeg', 'pcm_s16le'), ('3gp', 'mpeg4', 'aac'),
  ('mkv', 'libx264', 'flac'), ('mkv', 'libx264', 'libmp3lame'), ('mkv', 'libx264', 'ac3'),
  ('mkv', 'ffv1', 'pcm_s16le'), ('webm', 'libvpx-vp9', 'libopus'), ('ogg', 'libvpx', 'libopus'),
  ('avi', 'mjpeg', 'pcm_s16le'), ('avi', 'mpeg4', 'pcm_s16le'), ('avi', 'libx264', 'pcm_s16le'),
  ('ts', 'libx264', 'aac'), ('ts', 'mpeg2video', 'mp2'), ('flv', 'libx264', 'aac'),
  ('nut', 'libx264', 'aac'), ('asf', 'mpeg4', 'libmp3lame')]
MP4, MKV, TS = (('mp4', 'libx264', 'aac'), ('mkv', 'libx264', 'aac'), ('ts', 'libx264', 'aac'))
ASF, AVI = ('asf', 'mpeg4', 'libmp3lame'), ('avi', 'mpeg4', 'pcm_s16le')
RATES = {MP4: [FILM, NTSC, Fraction(15)], TS: [FILM, NTSC], ASF: [FILM, NTSC],
         MKV: [Fraction(15), FILM, Fraction(24), Fraction(25), NTSC, Fraction(60)]}
OFFSETS = [(Fraction('0.3'), Fraction(0)), (Fraction(0), Fraction('0.3'))]
CASES = [
  *((*codecs, Fraction(30), Fraction(0), Fraction(0)) for codecs in CODECS),
  *((*codecs, rate, Fraction(0), Fraction(0)) for codecs, rates in RATES.items() for rate in rates),
  *((*codecs, rate, *starts) for codecs, rate in [
    (MP4, NTSC), (MKV, NTSC), (TS, Fraction(30)), (('webm', 'libvpx-vp9', 'libopus'), Fraction(30)),
    (('flv', 'libx264', 'aac'), NTSC), (('nut', 'ffv1', 'aac'), NTSC)] for starts in OFFSETS),
  (*AVI, Fraction(30), *OFFSETS[0])]


@pytest.mark.parametrize(
  'ending, video, audio, fps, video_starts, audio_starts', CASES,
  ids=lambda value: f'{float(value):g}' if isinstance(value, Fraction) else value)
def test_flashes_and_clicks_are_where_they_went_in(tmp_path, ending, video, audio, fps,
                                                   video_starts, audio_starts):
  video_starts = round(video_starts * fps) / fps
  beacons = Beacons(video, audio, fps, video_starts, audio_starts)
  path = beacons.write(tmp_path / f'a.{ending}')
  flashes = np.array(beacons.flashes, float)
  audible = flashes[flashes + float(video_starts) >= float(audio_starts)]

  clip = decode(path)
  np.testing.assert_allclose(seen(clip), flashes, atol=1e-4)
  np.testing.assert_allclose(heard(clip), audible, atol=CLICK)
  count = len(range(int(-(-3 * fps // 1))))
  assert len(clip.frames) == count
  assert clip.duration == pytest.approx(float(count / fps), abs=1e-3)

  # The model sees the picture that is on at each of its moments.
  shown, _ = resample_frames(decode(path, max_fps=6, need_audio=False), 0, 17, 6)
  on = [max(n for n in range(count) if n / fps <= Fraction(k, 6)) for k in range(17)]
  np.testing.assert_allclose(shown.astype(float), clip.frames[on].astype(float), atol=4)

  wave = np.zeros(4 * RATE)
  for flash in flashes:
    wave[round(flash * RATE):][:60] = 0.9 * np.sin(np.arange(60) * 0.8 + 1)
  mux.replace_audio(path, tmp_path / 'new.mp4', wave, RATE)
  new = decode(tmp_path / 'new.mp4')
  np.testing.assert_allclose(seen(new), flashes, atol=1e-3)
  np.testing.assert_allclose(heard(new), flashes, atol=CLICK)
