"""Writes frames and audio as files that people can play: H.264 + AAC in mp4, PCM in wav.

A file takes its final name when it is complete (`storage/atomic.py`).
"""

import contextlib
import heapq
import io
import itertools
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile
import soxr
from av.video.reformatter import ColorRange, Colorspace, Interpolation

from avlink_jax.data.media.container import main_stream, opened, packets_of, untagged_colours
from avlink_jax.data.media.decode import decode_audio
from avlink_jax.data.media.original import mixed, original_audio
from avlink_jax.data.media.survey import Survey, demux, survey_of, video_stream
from avlink_jax.data.media.times import FrameClock, frames_of
from avlink_jax.errors import MediaError
from avlink_jax.storage.atomic import replacing, write_bytes

# Audio goes to AAC at 48 kHz whatever its rate: every browser plays it, and the padding at the
# end, which readers that ignore edit lists decode too, is 21 ms instead of 64 at 16 kHz.
AAC_RATE = 48000
AAC_FRAME = 1024  # samples
PART = 1 << 20  # samples that are resampled at once
BT709 = 1  # FFmpeg's number for it as matrix, as primaries and as transfer alike


def write_mp4(path, *, frames=None, fps=None, audio=None, sample_rate=None, source_audio=None):
  """Writes video, audio or both, starting together at 0 s.

  Args:
    path: the file; its folder is created if need be.
    frames: uint8 (N, H, W, 3) RGB, N >= 1. An odd height or width is padded to even by
      repeating the last row or column.
    fps: frames per second, any positive number.
    audio: float (S,) mono or (S, C) in [-1, 1], C = 1 or 2. With frames it is cut, or padded
      with zeros, to the video's length, N / fps seconds.
    sample_rate: Hz of `audio`.
    source_audio: path of a clip whose own audio goes under the frames, from its first frame
      (without one, its first sample) on and in stereo if it is: AAC is copied packet by packet
      where it covers the video, everything else is encoded anew.

  Raises:
    MediaError: `source_audio` has no usable audio.
    UserError: the file cannot be written.
  """
  if frames is None and (audio is None or source_audio is not None):
    raise ValueError('neither frames nor audio to write')
  with (contextlib.nullcontext() if source_audio is None else opened(source_audio) as source,
        replacing(path) as temporary, _mp4(temporary) as container):
    tracks, length = [], None
    if frames is not None:
      rate = Fraction(fps).limit_denominator(1001)
      length = len(frames) / rate
      tracks.append(_encode_frames(container, frames, rate))
    if source is not None:
      copied = _copy_audio(container, source, length, 1 / rate)
      audio, sample_rate = (None, None) if copied else (
        decode_audio(source_audio, sample_rate=AAC_RATE, duration=float(length)), AAC_RATE)
      tracks += [copied] if copied else []
    if audio is not None:
      tracks.append(_encode_audio(container, audio, sample_rate, length))
    _interleave(container, tracks)


def replace_audio(source, path, audio, sample_rate, original='drop'):
  """Writes the video of `source` with `audio` (float (S,), mono) as its audio.

  `original` says what becomes of its own audio, if it has any: 'drop', 'mix' (both in one track),
  or 'second_track' (another track beside the new one, which players take by default).

  The video is copied packet by packet where browsers play its codec in mp4, and encoded anew as
  H.264 where they do not, or where the file has frames before the first that is shown. Frames
  keep their times, counted from the first one; the audio starts with it and is cut, or padded
  with zeros, to the video's length.

  Returns the codec of the video that was written, such as 'h264' or 'hevc'.

  Raises:
    MediaError: `source` has no usable video.
    UserError: `path` cannot be written.
  """
  with opened(source) as container:
    survey = survey_of(container, source)
  own = None if original == 'drop' else original_audio(source, AAC_RATE)
  if own is not None and original == 'mix':
    audio, sample_rate = mixed(own, audio, sample_rate, AAC_RATE), AAC_RATE
  try:
    with opened(source) as container, replacing(path) as temporary, _mp4(temporary) as output:
      video_packets = (_encode_anew if survey.packets is None else _copy_packets)(
        output, container, source, survey)
      tracks = [video_packets, _encode_audio(output, audio, sample_rate, survey.length)]
      if own is not None and original == 'second_track':
        tracks.append(_encode_audio(output, own, AAC_RATE, survey.length))
      _interleave(output, tracks)
  except av.error.FFmpegError:  # disk errors are UserErrors by now
    raise MediaError(source, 'corrupt stream') from None
  return 'h264' if survey.packets is None else survey.codec


def write_wav(path, audio, sample_rate):
  """Writes float (S,) mono in [-1, 1] as 16-bit PCM. Raises UserError if it cannot."""
  buffer = io.BytesIO()
  soundfile.write(buffer, np.clip(audio, -1, 1), sample_rate, 'PCM_16', format='WAV')
  write_bytes(path, buffer.getvalue())


def _mp4(path: Path):
  # faststart puts the index first, so that a browser can start before it has the whole file.
  return av.open(f'file:{path}', 'w', format='mp4', options={'movflags': '+faststart'})


def _interleave(container, tracks: list):
  """Muxes iterators of packets in decoding order."""
  for packet in heapq.merge(*tracks, key=lambda packet: packet.dts * packet.time_base):
    container.mux_one(packet)


def _encode_frames(container, frames: np.ndarray, rate: Fraction):
  """Adds an H.264 stream; returns an iterator of its packets."""
  odd_height, odd_width = frames.shape[1] % 2, frames.shape[2] % 2
  stream = _h264(container, frames.shape[2] + odd_width, frames.shape[1] + odd_height, rate)

  def packets():
    for n, image in enumerate(frames):
      image = np.pad(image, ((0, odd_height), (0, odd_width), (0, 0)), mode='edge')
      frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format='rgb24')
      frame = _to_yuv(frame, stream)
      frame.pts, frame.time_base = n, 1 / rate
      yield from stream.encode(frame)
    yield from stream.encode()
  return packets()


def _h264(container, width: int, height: int, rate: Fraction):
  stream = container.add_stream('libx264', rate=rate, options={'crf': '18'})
  stream.width, stream.height, stream.pix_fmt = width, height, 'yuv420p'
  context = stream.codec_context
  context.colorspace = context.color_primaries = context.color_trc = BT709
  context.color_range = ColorRange.MPEG
  return stream


def _to_yuv(frame, stream):
  """The frame in the stream's size and colours."""
  return frame.reformat(
    width=stream.width, height=stream.height, format='yuv420p',
    src_colorspace=untagged_colours(frame), dst_colorspace=Colorspace.ITU709,
    dst_color_range=ColorRange.MPEG,
    interpolation=Interpolation.BICUBIC | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INP)


def _encode_audio(container, audio, sample_rate: int, length: Fraction | None):
  """Adds an AAC stream of `length` seconds (None: all of it); returns its packets."""
  audio = np.asarray(audio, np.float32)
  audio = audio[:, None] if audio.ndim == 1 else audio
  layout = 'mono' if audio.shape[1] == 1 else 'stereo'
  stream = container.add_stream('aac', rate=AAC_RATE, layout=layout)
  stream.bit_rate = 128000 * audio.shape[1]

  def packets():
    count = None if length is None else round(length * AAC_RATE)
    for n, samples in enumerate(_aac_frames(audio, sample_rate, count)):
      frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(samples.T), format='fltp', layout=layout)
      frame.sample_rate, frame.pts = AAC_RATE, n * AAC_FRAME
      frame.time_base = Fraction(1, AAC_RATE)
      yield from stream.encode(frame)
    yield from stream.encode()
  return packets()


def _resampled(audio, sample_rate: int):
  """Yields audio (S, C), clipped to full scale, at AAC_RATE and in parts: an hour is three times as
  large there."""
  resampler = None if sample_rate == AAC_RATE else soxr.ResampleStream(
    sample_rate, AAC_RATE, audio.shape[1], 'float32')
  for first in range(0, max(len(audio), 1), PART):
    part = np.clip(audio[first:first + PART], -1, 1)
    yield part if resampler is None else resampler.resample_chunk(
      part, last=first + PART >= len(audio))


def _aac_frames(audio, sample_rate: int, count: int | None):
  """Yields audio (S, C) in frames (AAC_FRAME, C) at AAC_RATE, of which the last may be shorter:
  `count` samples in all, zeros where there are too few, or as many as there are (None)."""
  parts, left, done = _resampled(audio, sample_rate), audio[:0], 0
  if count is not None:
    parts = itertools.chain(parts, itertools.repeat(np.zeros((AAC_FRAME, audio.shape[1]))))
  for part in parts:
    left = np.concatenate([left, part], dtype=np.float32)[:None if count is None else count - done]
    whole = len(left) // AAC_FRAME * AAC_FRAME
    for first in range(0, whole, AAC_FRAME):
      yield left[first:first + AAC_FRAME]
    left, done = left[whole:], done + whole
    if done + len(left) == count:
      break
  if len(left):
    yield left


def _copy_audio(output, container, length: Fraction, slack: Fraction):
  """Adds a stream like the source's AAC; returns its packets, cut to [0, length) seconds.

  None where they would not be the same audio at the same time: another codec, gaps between
  packets, a clock that only the decoder knows, or an end more than `slack` seconds early.
  """
  audio, video = (main_stream(of) for of in (container.streams.audio, container.streams.video))
  if audio is None or audio.codec_context.name != 'aac' or (
      audio.codec_context.profile != 'LC' or not audio.codec_context.extradata):
    return None
  packets, clock = [], video and FrameClock(video)
  for packet in packets_of(container, *filter(None, (audio, video))):
    if packet is None or packet.is_corrupt or packet.size and packet.pts is None:
      return None
    if packet.size and packet.stream is audio:
      packets.append(packet)
    elif packet.stream is video:
      clock.find_zero(packet)
  if not packets or any(
      a.duration != AAC_FRAME * audio.time_base * audio.rate or a.pts + a.duration != b.pts
      for a, b in itertools.pairwise(packets)):
    return None
  # Without video 0 s is the first sample: after the silence that the encoder put before it.
  if (clock.zero is None if clock else not (packets[0].is_discard and audio.start_time == 0)):
    return None
  begin = 0 if clock is None else clock.begins
  zero, end = (round(time / audio.time_base) for time in (begin, begin + length))
  if packets[-1].pts + packets[-1].duration < end - slack / audio.time_base:
    return None
  # A packet's audio overlaps with the one before: that is kept too, and an edit list hides it.
  first = max(0, next(k for k, p in enumerate(packets) if p.pts + p.duration > zero) - 1)
  kept = [packet for packet in packets[first:] if packet.pts < end]
  target = output.add_stream_from_template(audio, opaque=True)
  for packet in kept:
    packet.duration = min(packet.duration, end - packet.pts)
    packet.pts, packet.dts, packet.stream = packet.pts - zero, packet.pts - zero, target
  return iter(kept)


def _copy_packets(output, container, source, survey: Survey):
  """Adds a stream like the source's; returns its packets, the first frame at 0 s."""
  stream = video_stream(container, source)
  target = output.add_stream_from_template(stream, opaque=True)
  target.time_base = survey.base
  if stream.codec_context.name == 'hevc':
    target.codec_context.codec_tag = 'hvc1'  # the only one of its two tags that Safari plays

  def packets():
    filled = (packet for packet in demux(container, stream, source) if packet.size)
    for packet, (pts, dts) in zip(filled, survey.packets, strict=True):
      packet.pts, packet.dts, packet.stream = pts, dts, target
      packet.time_base = survey.base
      yield packet
  return _lasting(packets(), survey)


def _encode_anew(output, container, source, survey: Survey):
  """Adds an H.264 stream with the source's frames and timing; returns its packets."""
  stream = video_stream(container, source)
  stream.thread_type = 'AUTO'
  context = stream.codec_context
  target = _h264(output, context.width + context.width % 2, context.height + context.height % 2,
                 stream.average_rate or Fraction(25))
  target.codec_context.time_base = survey.base
  # Of frames as uneven as a GIF's, B-frames have decoding times that cut the last one short in mp4.
  target.codec_context.max_b_frames = 0
  if stream.sample_aspect_ratio:
    target.codec_context.sample_aspect_ratio = stream.sample_aspect_ratio
  clock = FrameClock(stream)

  def frames():
    last = None
    for frame in _decode(container, stream, source):
      shown = int(clock.seconds(clock(frame)) / survey.base)
      if last is None:
        target.set_display_rotation(frame.rotation)
      elif shown <= last:
        continue  # as `decode` does
      last = shown
      converted = _to_yuv(frame, target)
      converted.pts, converted.time_base, converted.pict_type = shown, survey.base, 0
      yield converted

  def packets():
    for frame in itertools.chain(frames(), [None]):
      yield from target.encode(frame)
  return _lasting(packets(), survey)


def _lasting(packets, survey: Survey):
  """Yields packets with their durations, so that the last frame is held as long as in the source.

  A track of an mp4 lasts from the first decoding time to the last, and as long as the packet that
  is decoded last, which need not be the frame that shows last.
  """
  first = last = None
  for packet in packets:
    packet.duration = survey.lasting(packet.pts)
    if last is None:
      first = packet.dts
    else:
      yield last
    last = packet
  if last is not None:
    last.duration = max(1, survey.shows[-1] + first - last.dts)
    yield last


def _decode(container, stream, source):
  """Yields the stream's frames. Raises MediaError where the stream is broken."""
  for packet in demux(container, stream, source):
    try:
      frames = frames_of(packet)
    except av.error.FFmpegError:
      raise MediaError(source, 'corrupt stream') from None
    yield from frames
