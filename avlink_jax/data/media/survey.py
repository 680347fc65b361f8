"""Timing of a video stream, read from its packets before any is copied."""

import bisect
import itertools
from fractions import Fraction
from typing import NamedTuple

from avlink_jax.data.media.container import main_stream, packets_of
from avlink_jax.data.media.times import FrameClock, jumps, repeats, shown_at, video_end
from avlink_jax.errors import MediaError

# Names of the decoders of what browsers play in mp4. HEVC some do not; it is kept all the same, for
# its colours and depth, and whoever shows the file can say so.
COPYABLE = frozenset(('h264', 'hevc', 'av1', 'libdav1d', 'vp9'))
H264_PIXELS = ('yuv420p', 'yuvj420p')  # no browser plays H.264 of more bits, or finer colour


class Survey(NamedTuple):
  """Timing of a video stream, read from its packets before any is copied.

  Times are in units of `base` seconds, with the first frame at 0.

  base: see FrameClock.
  shows: presentation times, in order, and last the end of the video.
  codec: name of the video's decoder.
  packets: (presentation, decoding) time of each packet, in the file's order; None where the packets
    cannot go into an mp4 as they are and keep their timing.
  """
  base: Fraction
  shows: list
  codec: str
  packets: list | None

  @property
  def length(self) -> Fraction:
    """Seconds from the first frame to the end."""
    return self.shows[-1] * self.base

  def lasting(self, shown: int) -> int:
    """Duration of the frame that shows at `shown`."""
    after = min(bisect.bisect_right(self.shows, shown), len(self.shows) - 1)
    return max(1, self.shows[after] - shown)


def survey_of(container, source) -> Survey:
  stream = video_stream(container, source)
  clock = FrameClock(stream)
  shows: list[int] = []
  decoded, last = [], None
  context = stream.codec_context
  copyable = context.name in COPYABLE and (
    context.name != 'h264' or context.pix_fmt in H264_PIXELS)
  for packet in demux(container, stream, source):
    clock.find_zero(packet)
    ticks = shown_at(packet)
    if packet.size:
      copyable &= ticks is not None and ticks == packet.pts and not packet.is_discard
      copyable &= bool(shows) or packet.is_keyframe
      if ticks is None:
        ticks = shows[-1] + clock.period if shows else 0
      if not packet.is_discard:
        shows.append(ticks)
        decoded.append(packet.dts)
    elif not repeats(packet):
      continue
    if not packet.is_discard and (last is None or ticks >= last[0]):
      last = ticks, packet.duration or clock.period
  if clock.zero is None or last is None:
    raise MediaError(source, 'no video stream')
  end = int(clock.seconds(video_end(stream, *last), 2) / clock.base)
  copyable &= min(shows) == clock.zero and len(set(shows)) == len(shows)
  shows = [int(clock.seconds(ticks) / clock.base) for ticks in shows]
  packets = None
  if copyable:
    unit = stream.time_base / clock.base
    decoded = [None if dts is None else int((dts - clock.zero) * unit) for dts in decoded]
    packets = list(zip(shows, _decoding_times(shows, decoded), strict=True))
  shows = sorted({0, *(shown for shown in shows if 0 < shown < end), end})
  if any(jumps((b - a) * clock.base) for a, b in itertools.pairwise(shows)):
    raise MediaError(source, 'timestamps jump')
  return Survey(clock.base, shows, context.name, packets)


def _decoding_times(pts: list, dts: list) -> list:
  """Decoding times that rise from packet to packet and never come after the packet's own pts.

  The file's own where they do; Matroska has none for the first packets, other files have wrong
  ones. Else the presentation times in order, earlier by as much as reordering needs.
  """
  if (None not in dts and all(a < b for a, b in itertools.pairwise(dts))
      and all(a <= b for a, b in zip(dts, pts, strict=True))):
    return dts
  in_order = sorted(pts)
  delay = max(sorted_ - own for sorted_, own in zip(in_order, pts, strict=True))
  return [time - delay for time in in_order]


def video_stream(container, source):
  """The main video stream. Raises MediaError: there is none."""
  stream = main_stream(container.streams.video)
  if stream is None:
    raise MediaError(source, 'no video stream')
  return stream


def demux(container, stream, source):
  """Yields the stream's packets. Raises MediaError where the container is broken."""
  for packet in packets_of(container, stream):
    if packet is None or packet.is_corrupt:
      raise MediaError(source, 'corrupt stream')
    yield packet
