"""Clips that flash and click at every whole second, in many containers, codecs, rates and offsets.

Every frame tells its number by its grey (made_clips.grey), but the first of each second is white,
and a click sounds when it starts to show. Where picture and sound stand in the file is known, so
that what is read from it can be compared with the truth.
"""

import dataclasses
import itertools
import math
from fractions import Fraction

import av
import numpy as np
from made_clips import grey

from avlink_jax.data.media import mux

RATE = 48000  # Hz
OPTIONS = {
  'libx264': {'crf': '10', 'g': '24', 'bf': '2'}, 'libx265': {'x265-params': 'log-level=none'},
  'libvpx-vp9': {'deadline': 'realtime', 'cpu-used': '8', 'crf': '20'},
  'mpeg4': {'qscale': '2', 'bf': '2'}, 'mpeg2video': {'bf': '2', 'b': '1M'}}
FORMATS = {'mjpeg': 'yuvj420p'}
SAMPLES = {'pcm_s16le': 's16', 'flac': 's16', 'libopus': 's16', 'mp2': 's16'}


@dataclasses.dataclass(frozen=True)
class Beacons:
  """Clip of `seconds` at `fps`; picture and sound begin at their seconds on the file's clock, and
  the sound's content there is that of the same moment in the picture's."""
  video: str = 'libx264'
  audio: str = 'aac'
  fps: Fraction = Fraction(30)
  video_starts: Fraction = Fraction(0)
  audio_starts: Fraction = Fraction(0)
  seconds: int = 3
  options: dict = dataclasses.field(default_factory=dict)

  @property
  def flashes(self) -> list[Fraction]:
    """Times of the white frames, and of the clicks, after the first frame."""
    return [math.ceil(second * self.fps) / self.fps for second in range(self.seconds)]

  def write(self, path, container_options=None):
    """Makes the file; returns its path."""
    with av.open(str(path), 'w', options=container_options or {}) as container:
      video = container.add_stream(self.video, rate=self.fps,
                                   options={**OPTIONS.get(self.video, {}), **self.options})
      video.width, video.height = 64, 36
      video.pix_fmt = FORMATS.get(self.video, 'yuv420p')
      audio = container.add_stream(self.audio, rate=RATE, layout='mono')
      tracks = [self._frames(video), self._samples(audio)]
      mux._interleave(container, [list(track) for track in tracks])
    return path

  def _frames(self, stream):
    base, first = 1 / self.fps, round(self.video_starts * self.fps)
    white = {int(flash * self.fps) for flash in self.flashes}
    for n in range(math.ceil(self.seconds * self.fps)):
      image = np.full((36, 64, 3), 255 if n in white else grey(n) // 2, np.uint8)
      frame = av.VideoFrame.from_ndarray(image, format='rgb24').reformat(format=stream.pix_fmt)
      frame.pts, frame.time_base = first + n, base
      yield from stream.encode(frame)
    yield from stream.encode()

  def _samples(self, stream):
    length = self.seconds + self.video_starts - self.audio_starts
    wave = 0.01 * np.sin(np.arange(round(length * RATE)) * 0.02)
    for flash in self.flashes:
      at = round((flash + self.video_starts - self.audio_starts) * RATE)
      if at >= 0:
        wave[at:at + 60] = 0.9 * np.sin(np.arange(60) * 0.8 + 1)[:len(wave[at:at + 60])]
    kind = SAMPLES.get(stream.codec_context.name, 'fltp')
    if kind == 's16':
      wave = np.round(wave * 32767).astype(np.int16)
    else:
      wave = wave.astype(np.float32)
    size = stream.codec_context.frame_size or 1024
    for begin in itertools.count(0, size):
      if begin >= len(wave):
        break
      frame = av.AudioFrame.from_ndarray(wave[None, begin:begin + size].copy(), kind, 'mono')
      frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
      frame.pts = begin + round(self.audio_starts * RATE)
      yield from stream.encode(frame)
    yield from stream.encode()


def copied(source, target, keep=lambda packet: True, shift=lambda packet: 0,
           empties=lambda packet: ()):
  """Copies the packets for which `keep(packet)` holds into another container, `shift(packet)`
  seconds later; returns its path. `empties(packet)`: times in ticks, after that shift, of empty
  packets ahead of one, which mean that the frame before them stays."""
  with av.open(str(source)) as given, av.open(str(target), 'w') as made:
    streams = {s.index: made.add_stream_from_template(s) for s in given.streams}
    for packet in given.demux():
      if not packet.size or not keep(packet):
        continue
      ticks = round(shift(packet) / packet.time_base)
      packet.dts = (packet.pts if packet.dts is None else packet.dts) + ticks
      packet.pts += ticks
      stream = streams[packet.stream.index]
      for at in empties(packet):
        empty = av.Packet()
        empty.pts = empty.dts = at
        empty.duration, empty.time_base, empty.stream = packet.duration, packet.time_base, stream
        made.mux_one(empty)
      packet.stream = stream
      made.mux_one(packet)
  return target


def seen(clip) -> np.ndarray:
  """Times at which a clip flashes."""
  return clip.frame_times[clip.frames.reshape(len(clip.frames), -1).mean(axis=1) > 200]


def heard(clip) -> np.ndarray:
  """Times at which a clip clicks."""
  loud = np.flatnonzero(np.abs(clip.audio) > 0.3)
  begins = np.diff(loud, prepend=-clip.sample_rate) > clip.sample_rate // 4
  return loud[begins] / clip.sample_rate
