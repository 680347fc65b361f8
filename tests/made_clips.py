"""Clips made for the tests: frames that tell their number, a flash that clicks, real ones."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from avlink_jax.data.media import mux

SHARED = Path(__file__).resolve().parents[1].parent / 'shared'
TICKS = 90000  # time base of the made clips' picture
RATE = 44100  # Hz of the made clips' sound
CODES = 16  # grey levels that tell a frame's index, modulo this

needs_clips = pytest.mark.skipif(
  not (SHARED / 'clips').is_dir(), reason=f'the real clips are not here: {SHARED / "clips"}')
needs_bad_clips = pytest.mark.skipif(
  not (SHARED / 'clips_bad').is_dir(), reason=f'no broken clips here: {SHARED / "clips_bad"}')


def grey(n):
  return 20 + 12 * (n % CODES)


def steady(fps, seconds=3.0):
  """Presentation times in ticks at a constant frame rate."""
  period = TICKS / Fraction(fps).limit_denominator(1001)
  return [round(n * period) for n in range(int(seconds * TICKS / period))]


def variable(seconds=3.0):
  """Presentation times of a recorder that drops and delays frames."""
  gaps = np.random.default_rng(7).choice([1500, 3000, 3001, 4500, 9000, 20000], 400)
  times = np.cumsum(gaps) - gaps[0]
  return [int(t) for t in times if t < seconds * TICKS]


def make_clip(path, pts, *, flash=None, sound_starts=0.0, video_starts=0.0, codec='libx264',
              options=None, hole=None, jitter=0.0, rotation=0, container_options=None):
  """Writes a clip whose frames tell their index by brightness; one is white.

  The click sounds when the white frame (number `flash`) starts to show. `sound_starts` and
  `video_starts` are seconds on the file's clock; a `hole` (from, to) is left out of the
  sound's stream; `jitter` seconds disturb its timestamps.
  """
  pts = [tick + round(video_starts * TICKS) for tick in pts]
  end = pts[-1] / TICKS + 0.1
  sound = 0.3 * np.sin(np.arange(round((end - sound_starts) * RATE)) * 0.01).astype(np.float32)
  if flash is not None:
    sound *= 0.1
    at = round((pts[flash] / TICKS - sound_starts) * RATE)
    sound[at:at + 60] = 0.9 * np.sin(np.arange(60) * 0.8)
  with av.open(str(path), 'w', options=container_options or {}) as container:
    video = container.add_stream(codec, rate=30, options=options or {'crf': '10'})
    video.width, video.height, video.pix_fmt = 64, 36, 'yuv420p'
    video.codec_context.time_base = Fraction(1, TICKS)
    if rotation:
      video.set_display_rotation(rotation)
    audio = container.add_stream('aac', rate=RATE, layout='mono')
    mux._interleave(container, [_pictures(video, pts, flash),
                                _sounds(audio, sound, sound_starts, hole, jitter)])


def _pictures(stream, pts, flash):
  for n, tick in enumerate(pts):
    image = np.full((36, 64, 3), 255 if n == flash else grey(n), np.uint8)
    frame = av.VideoFrame.from_ndarray(image, format='rgb24').reformat(format='yuv420p')
    frame.pts, frame.time_base = tick, Fraction(1, TICKS)
    yield from stream.encode(frame)
  yield from stream.encode()


def _sounds(stream, sound, starts, hole, jitter):
  rng = np.random.default_rng(0)
  packets = []
  for first in range(0, len(sound), 1024):
    frame = av.AudioFrame.from_ndarray(sound[None, first:first + 1024].copy(), 'fltp', 'mono')
    frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
    frame.pts = first + round(starts * RATE)
    packets += stream.encode(frame)
  for packet in packets + stream.encode():
    if hole and hole[0] <= packet.pts / RATE < hole[1]:
      continue
    shift = round(jitter * RATE * rng.uniform(-1, 1))
    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
    yield packet


def make_avi(path, count):
  """MPEG-4 with B-frames, for which AVI has no presentation times."""
  with av.open(str(path), 'w') as container:
    stream = container.add_stream('mpeg4', rate=25, options={'bf': '2', 'b': '1M'})
    stream.width, stream.height, stream.pix_fmt = 64, 36, 'yuv420p'
    for n in range(count):
      frame = av.VideoFrame.from_ndarray(np.full((36, 64, 3), grey(n), np.uint8), format='rgb24')
      container.mux(stream.encode(frame))
    container.mux(stream.encode())


def shown_codes(frames):
  """Which of the CODES grey levels each frame has."""
  level = frames.reshape(len(frames), -1).mean(axis=1)
  return np.round((level - 20) / 12).astype(int)


def flash_time(clip):
  return clip.frame_times[np.argmax(clip.frames.reshape(len(clip.frames), -1).mean(axis=1))]


def click_time(clip):
  loud = np.abs(clip.audio)
  return np.flatnonzero(loud > 0.5 * loud.max())[0] / clip.sample_rate


def quadrants(height=96, width=160):
  image = np.zeros((height, width, 3), np.uint8)
  image[:height // 2, :width // 2] = 250, 10, 10
  image[:height // 2, width // 2:] = 10, 250, 10
  image[height // 2:, :width // 2] = 10, 10, 250
  image[height // 2:, width // 2:] = 250, 250, 10
  return image
