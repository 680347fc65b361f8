"""Times on a file's own clock: when its pictures show, and when its streams end.

Decoding, muxing and the doctor take every time from here, so that they agree on it. Times are in
units of a stream's time base (ticks) where nothing else is said. A clip's time zero is
`FrameClock.zero`, the first picture that is decoded. Pictures before it may stand in the file all
the same: those of an open group that refer to a part which was cut off, or that an edit list hides.
"""

import itertools
import math
from fractions import Fraction

PADDING = 0.1  # seconds: the most that an encoder adds at the end to fill its last frame
# Frame rates in use are multiples of one over these; an average of frame rates seldom is.
RATES = (100, 2002)

# Containers whose header counts what a stream has, by kind of stream. In AVI a silent stretch of
# sound may be an empty chunk, which is counted and takes no time.
COUNTED = {'audio': ('mov', 'wav', 'flac'), 'video': ('mov', 'wav', 'flac', 'avi')}


class FrameClock:
  """Presentation times of a stream's decoded frames.

  To be called with the frames in decoder order. A frame without a timestamp is taken to show one
  period after the one before it, or the shortest time that was between two frames.

  Attributes:
    zero: presentation time of the first decoded frame, in ticks; None before there is one. Frames
      are compared by ticks; when they show beside the audio, `begins` says.
    period: ticks of a frame at the average rate.
    base: seconds of which whatever `seconds` gives is a multiple.
  """

  def __init__(self, stream):
    self._stream, self._avi, self._tick = stream, _is_avi(stream), stream.time_base
    self.period = round(1 / (stream.average_rate or 25) / self._tick)
    self.zero, self._last, self._step = None, None, None
    self._lag = self._late = 0
    self._rate = _rounded_rate(stream)
    self.base = self._tick if self._rate is None else Fraction(
      math.gcd(self._tick.numerator, self._rate.denominator),
      math.lcm(self._tick.denominator, self._rate.numerator))

  def __call__(self, frame) -> int:
    ticks = frame.dts if self._avi or frame.pts is None else frame.pts
    if ticks is None:
      ticks = ((self._stream.start_time or 0) if self._last is None
               else self._last + (self._step or self.period))
    else:
      # AVI keeps no presentation times, and where frames are reordered FFmpeg's guess at them
      # is out of order. Decoding times come out in order, late by what reordering takes.
      if self._avi and self.zero is None:
        self._lag, self._late = _reordering(self._stream, ticks)
      ticks -= self._lag
      if self._last is not None and ticks <= self._last and not self._avi:
        ticks = self._again(frame, ticks)
    if self.zero is None:
      self.zero = ticks
    elif ticks > self._last:
      self._step = min(self._step or ticks - self._last, ticks - self._last)
    self._last = ticks
    return ticks

  def _again(self, frame, ticks: int) -> int:
    """Time of a frame whose `ticks` do not come after the frame before it. Of what leaves the
    decoder last FFmpeg may not know the time, and gives it that of the frame before."""
    return ticks if frame.dts is not None else self._last + (self._step or self.period)

  @property
  def begins(self) -> Fraction:
    """Seconds on the file's clock, that of the audio's times, at which the first frame shows."""
    return (self.zero + self._late) * self._tick

  def find_zero(self, packet):
    """Decodes a packet where there is no time zero yet. Raises FFmpegError: it is broken."""
    if self.zero is None:
      for frame in frames_of(packet)[:1]:
        self(frame)

  def seconds(self, ticks: int, slack: int = 1) -> Fraction:
    """Seconds from time zero to `ticks`.

    A time base that holds no whole number of ticks for a frame (Matroska's milliseconds) rounds
    every time. At a steady rate the time that was rounded is known: the multiple of the frame's
    period at most `slack` ticks away. A file then tells the same times in any container.
    """
    seconds = (ticks - self.zero) * self._tick
    if self._rate:
      steady = round(seconds * self._rate) / self._rate
      if abs(steady - seconds) <= slack * self._tick:
        return steady
    return seconds


def _reordering(stream, ticks: int) -> tuple[int, int]:
  """Ticks that an AVI's decoder is late by, whose first frame came out at decoding time `ticks`;
  and how many of them pass on the file's clock before that frame shows.

  At the beginning of a file decoding times would lie before 0: writers shift them, and not the
  audio, so that none pass. Of a stream that begins late they are what they are, and all do.
  """
  entries = itertools.islice(stream.index_entries, 64)
  times = [entry.timestamp for entry in entries if entry.size]
  if ticks not in times:
    return ticks - (stream.start_time or 0), 0
  # Writers put the empty frames before a late picture behind its first one: the time of the first
  # entry is unsure, and the others say how much time as many frames take.
  delay = times.index(ticks)
  first, last = (1, delay + 1) if delay + 1 < len(times) else (0, delay)
  lag = times[last] - times[first]
  begins_late = len(times) > 2 and 2 * times[1] > times[2]
  return lag, lag if begins_late else 0


def shown_at(packet):
  """Presentation time of a packet's frame, in ticks; None where unknown.

  In AVI it is the time of some frame, not always this one.
  """
  return packet.dts if packet.pts is None or _is_avi(packet.stream) else packet.pts


def repeats(packet) -> bool:
  """Tells whether a packet is empty, which means: the frame before it stays (Theora, AVI).

  The packets that flush decoders at the end of a file are empty too, but have no times.
  """
  return not packet.size and shown_at(packet) is not None


def frames_of(packet) -> list:
  """Decoded frames of a packet. Raises FFmpegError where they are broken."""
  # A decoder takes an empty packet for the end of the stream.
  return [] if repeats(packet) else packet.decode()


def jumps(seconds: float) -> bool:
  """Tells whether the step between neighbouring timestamps is implausible."""
  return not -1 < seconds < 600


def declared_end(stream) -> int | None:
  """End of a stream by its header, in ticks; None where it declares none."""
  container = stream.container.format.name
  if container.startswith('matroska'):
    return _matroska_end(stream)
  if stream.duration and container.startswith(COUNTED[stream.type]):
    return (stream.start_time or 0) + stream.duration
  return None


def video_end(stream, last: int, duration: int) -> int:
  """End of the last frame, which shows at `last` for `duration`; all in ticks.

  The header comes first: a last frame is held up to the end that it declares; mp4 stores gaps
  between decoding times instead of durations, and they differ where the frame rate varies.
  """
  declared = declared_end(stream)
  return declared if declared is not None and declared > last else last + duration


def audio_end(stream, end: float) -> float:
  """End of the audio, in seconds: without what the encoder added to fill the last frame."""
  declared = declared_end(stream)
  if declared is None:
    return end
  by_header = float(declared * stream.time_base)
  return by_header if 0 < end - by_header <= PADDING else end


def _matroska_end(stream) -> int | None:
  """End by the tag that most writers add for each track; that of the file for an only track."""
  container = stream.container
  if container.duration is None:
    return None
  end = Fraction((container.start_time or 0) + container.duration, 1_000_000)
  try:
    hours, minutes, seconds = stream.metadata.get('DURATION', '').split(':')
    tag = 3600 * int(hours) + 60 * int(minutes) + Fraction(seconds)
  except (ValueError, ZeroDivisionError):
    return round(end / stream.time_base) if len(container.streams) == 1 else None
  if '_STATISTICS_WRITING_APP' in stream.metadata:  # mkvmerge's tag counts from the track's start
    tag += (stream.start_time or 0) * stream.time_base
  return round(min(tag, end) / stream.time_base)


def _rounded_rate(stream) -> Fraction | None:
  """Frame rate, where it is a usual one whose period the time base cannot hold."""
  for rate in (stream.average_rate, stream.base_rate):
    if rate and any((rate * whole).denominator == 1 for whole in RATES):
      return rate if (1 / rate / stream.time_base).denominator > 1 else None
  return None


def _is_avi(stream) -> bool:
  return stream.container.format.name == 'avi'
