"""Decodes a media file into a Clip: video and audio on one clock.

Clock. 0 s is the moment the first frame shows (the first sample starts, where there is no
video). Everything is aligned by the timestamps in the file, never by counting: frame rates
vary, audio starts early or late, and streams have holes. Audio that starts late is preceded
by zeros, audio from before the first frame is cut, and the clip is as long as the video. Both
end where the file says they do (`times.py`): a last frame is held, an encoder's padding dropped.

Damage. A file is refused, not repaired, if
  - it is shorter than its container says: in bytes (`container.py`) or, where it says seconds
    only, by more than SHORT of them;
  - the demuxer or a decoder reports an error, or flags a packet or a frame as corrupt
    (concealed errors look like good frames);
  - its timestamps jump back by more than a second or forward by more than ten minutes;
  - it takes more time or memory than `limits.py` allows, whatever it declares.
With `duration`, what follows the span is not checked. Flipped bits that leave a valid stream
(raw PCM, VP9, now and then AAC) cannot be distinguished from content.
"""

import contextlib
import dataclasses
import math
import os
from pathlib import Path

import av
import numpy as np

from avlink_jax.data.clip import EPSILON, Clip
from avlink_jax.data.media.audio import AudioTrack
from avlink_jax.data.media.container import (
  DAMAGE,
  InMemory,
  SeekFailed,
  main_stream,
  opened,
  packets_of,
  states_bytes,
)
from avlink_jax.data.media.downmix import Downmix
from avlink_jax.data.media.limits import (
  DECODE_SECONDS,
  MAX_LENGTH,
  MAX_PIXELS,
  Allowance,
  Unusable,
  check_frame_size,
)
from avlink_jax.data.media.scaler import Scaler
from avlink_jax.data.media.times import (
  FrameClock,
  declared_end,
  frames_of,
  jumps,
  repeats,
  shown_at,
  video_end,
)
from avlink_jax.errors import MediaError

PREROLL = 1.25  # seconds before a span at which decoding starts, so that decoders settle
SHORT = 0.5  # seconds a stream may lack of its declared length (headers round, players pad)
SEEKABLE = ('mov', 'matroska')  # their packets carry the times at which frames show


def decode(
  path: str | os.PathLike | InMemory, *, height: int | None = None, width: int | None = None,
  sample_rate: int = 16000, start: float = 0.0, duration: float | None = None,
  max_fps: float | None = None, need_video: bool = True, need_audio: bool = True,
  decode_seconds: float = DECODE_SECONDS,
) -> Clip:
  """Decodes [start, start + duration) of a file, on a clock that is 0 at `start`.

  Only the span is decoded, and what its codecs need before it: in containers with an index
  (SEEKABLE) reading starts at the last keyframe before it. Frames and times are those of a decode
  from the beginning; so is the audio, up to what a lossy decoder remembers beyond PREROLL seconds
  and to the jitter of timestamps (1 ms in Matroska).

  Args:
    path: the file; or its bytes, as `container.InMemory`.
    height, width: pixels of the frames, scaled to cover and centre-cropped; without `width` it
      follows the frame's aspect, without both they are as the file is displayed (rotated,
      square pixels).
    sample_rate: Hz of the audio, a mono mix (downmix.py).
    start, duration: seconds; without `duration` up to the end of the video. A file that
      ends earlier gives a shorter clip.
    max_fps: keep only the frames that show at k / max_fps seconds of the clip. On that grid
      `clip.resample_frames` gives exactly what it would give without; between, it does not.
    need_video: True: a file without video is an error. False: the video is not decoded
      (nor checked; it is nearly all of the cost) but still sets the clock and the length; in a
      file without one the audio does.
    need_audio: True: a file without audio is an error. False: audio is decoded where there is any.
    decode_seconds: time limit, after which the file is given up.

  Returns:
    Clip with frames uint8 (N, height, width, 3), N = 0 without `need_video`, and audio
    float32 (round(clip.duration * sample_rate),), or (0,) where the file has no audio.

  Raises:
    MediaError: the file is missing, not media, an image, truncated, corrupt, lacks a stream
      that is needed, ends before `start`, takes too long or holds too much (`limits.py`).
  """
  mix = Downmix()
  clip = _decode(path, mix, height, width, sample_rate, start, duration, max_fps, need_video,
                 need_audio, decode_seconds)
  if not (stretches := mix.energies.stretches()):
    return clip
  mended = _decode(path, Downmix(stretches), None, None, sample_rate, start, duration, None, False,
                   True, decode_seconds).audio[:len(clip.audio)]
  return dataclasses.replace(clip, audio=np.pad(mended, (0, len(clip.audio) - len(mended))))


def decode_audio(path: str | os.PathLike | InMemory, *, sample_rate: int,
                 duration: float | None = None) -> np.ndarray:
  """Audio of a file on `decode`'s clock, in its own channels.

  Args:
    path, duration: as in `decode`.
    sample_rate: Hz.

  Returns:
    float32 (S, C) in [-1, 1], C = 1 or 2; of more than two channels their mix (downmix.py).

  Raises:
    MediaError: as in `decode`; there is no audio in it.
  """
  def heard(mix):
    return _decode(path, mix, None, None, sample_rate, 0.0, duration, None, False, True,
                   DECODE_SECONDS).audio

  mix = Downmix(keep_stereo=True)
  audio = heard(mix)
  stretches = mix.energies.stretches()
  return heard(Downmix(stretches, keep_stereo=True)) if stretches else audio


def _decode(path, mix, height, width, sample_rate, start, duration, max_fps, need_video,
            need_audio, decode_seconds) -> Clip:
  """`decode`, with the audio that `mix` makes of each AVFrame."""
  path = path if isinstance(path, InMemory) else Path(path)
  allowance = Allowance(decode_seconds)
  stop = math.inf if duration is None else start + duration

  def attempt(seeks):
    with opened(path, decode_seconds) as container:
      video = main_stream(container.streams.video)
      audio = main_stream(container.streams.audio)
      if video is None and (need_video or audio is None):
        raise MediaError(path, 'no video stream')
      if audio is None and need_audio:
        raise MediaError(path, 'no audio stream')
      video_track = video and _VideoTrack(video, start, stop, max_fps, height, width, need_video,
                                          allowance)
      audio_track = audio and AudioTrack(audio, mix, allowance)
      tracks = [track for track in (video_track, audio_track) if track]
      for track in tracks:
        track.stream.thread_type = 'AUTO'
        track.stream.codec_context.options = {'max_pixels': str(MAX_PIXELS)}
      if seeks and container.format.name.startswith(SEEKABLE):
        _seek(container, video_track or audio_track, tracks, start)
      whole = _read(container, video_track, audio_track, start, stop, allowance)
      if whole and _is_short(container, tracks) and not states_bytes(path):
        raise Unusable('truncated')
      if whole:
        for track in tracks:
          track.close()
      if video_track and video_track.zero is None:
        if need_video or not audio_track:
          raise Unusable('no video stream')
        video_track = None
      if audio_track and not audio_track.pieces:
        if need_audio or not video_track:
          raise Unusable('no audio stream')
        audio_track = None
      return _clip(path, video_track, audio_track, start, duration, sample_rate)

  try:
    if start > PREROLL:
      with contextlib.suppress(SeekFailed):
        return attempt(seeks=True)
    return attempt(seeks=False)
  except Unusable as error:
    raise MediaError(path, str(error)) from None
  except DAMAGE:
    raise MediaError(path, 'corrupt stream') from None


def _clip(path, video_track, audio_track, start, duration, sample_rate) -> Clip:
  """Clip of what the tracks hold, from `start` on. Raises Unusable."""
  reference = video_track or audio_track
  rest = reference.end - reference.zero - start
  length = rest if duration is None else min(duration, rest)
  if length <= EPSILON:
    raise Unusable(f'ends before {start:g} s')
  if not length <= MAX_LENGTH:
    raise Unusable(f'longer than {MAX_LENGTH / 3600:g} h')
  frames, times = video_track.finish() if video_track else _NO_FRAMES
  samples = round(length * sample_rate)
  return Clip(
    id=path.stem, duration=length, frames=frames, frame_times=times,
    audio=np.zeros(0, np.float32) if audio_track is None else audio_track.waveform(
      reference.zero + start, length, sample_rate, samples, int(start >= 1)),
    sample_rate=sample_rate, source=str(path), start=start,
    source_fps=float(video_track.stream.average_rate or 0) if video_track else 0.0,
    source_rate=audio_track.rate if audio_track else 0,
  )


_NO_FRAMES = (np.zeros((0, 0, 0, 3), np.uint8), np.zeros(0))


def _read(container, video_track, audio_track, start: float, stop: float, allowance) -> bool:
  """Decodes packets into both tracks up to `stop`; returns whether that was the file's end.

  Raises Unusable at the first sign of damage: what a decoder gives after it can be anything.
  """
  tracks = {track.stream.index: track for track in (video_track, audio_track) if track}
  for packet in packets_of(container, *(track.stream for track in tracks.values())):
    allowance.check_time()
    if packet is None or packet.is_corrupt:
      raise Unusable('corrupt stream')
    zero = video_track.zero if video_track else audio_track.zero
    if stop < math.inf and zero is not None and all(
        track.end is not None and track.end - zero > stop + 0.1 for track in tracks.values()):
      return False
    track = tracks[packet.stream.index]
    if track is video_track:
      track.see(packet)
    if not track.decodes:
      continue
    for frame in frames_of(packet):
      allowance.check_time()
      if frame.is_corrupt:
        # After a seek, frames may come whose references lie before it; none is in the span.
        if zero is not None and frame.time is not None and frame.time < zero + start - PREROLL / 2:
          continue
        raise Unusable('corrupt stream')
      track.add(frame)
  return True


def _is_short(container, tracks) -> bool:
  """Tells whether a stream that was read to its end stops well before its declared end."""
  ends = [-math.inf if track.end is None else track.end for track in tracks]
  declared = [declared_end(track.stream) for track in tracks]
  if any(by_header is not None and end < by_header * track.stream.time_base - SHORT
         for track, end, by_header in zip(tracks, ends, declared, strict=True)):
    return True
  # Matroska may declare one length for the whole file; a stream that is not read may be longer.
  if (container.duration and container.format.name.startswith('matroska')
      and len(tracks) == len(container.streams) and None in declared):
    by_header = ((container.start_time or 0) + container.duration) / av.time_base
    return max(ends) < by_header - SHORT
  return False


def _seek(container, reference, tracks, start: float):
  """Seeks to shortly before `start` seconds; 0 s is the first frame of the track `reference`."""
  for packet in packets_of(container, reference.stream):
    if packet is None or packet.is_corrupt:
      raise SeekFailed
    if frames := frames_of(packet):
      reference.add(frames[0])
      break
  else:
    raise SeekFailed
  container.seek(math.floor((reference.zero + start - PREROLL) / reference.stream.time_base),
                 stream=reference.stream)
  for track in tracks:
    track.restart(reference.zero + start)


class _VideoTrack:
  """The frames of [start, stop) seconds after the first, scaled as they are decoded.

  `zero` and `end` are on the file's own clock: when the first frame starts and the last ends.
  """

  def __init__(self, stream, start, stop, max_fps, height, width, decodes, allowance):
    check_frame_size(stream.codec_context.height, stream.codec_context.width)
    self.stream, self._last = stream, None  # (ticks, duration) of the last frame that was read
    self._decoding = decodes
    self._start, self._stop, self._max_fps = start, stop, max_fps
    self._clock = FrameClock(stream)
    self._scaler = Scaler(stream, height, width)
    self._pending = None  # (time, frame): whether it is kept depends on when the next one shows
    self._frames, self._times, self._allowance = [], [], allowance
    self._seeking = False

  def restart(self, start):
    """Drops the pending frame, after a seek to before `start` on the file's clock."""
    del start
    self._pending, self._seeking = None, True

  @property
  def zero(self) -> float | None:
    return None if self._clock.zero is None else float(self._clock.begins)

  @property
  def end(self) -> float | None:
    if self.zero is None or self._last is None:
      return None
    return self.zero + float(self._clock.seconds(sum(self._last), 2))  # both are rounded

  @property
  def decodes(self) -> bool:
    """Need for further frames: unneeded video is decoded up to its first, which sets the clock."""
    return self._decoding or self.zero is None

  def add(self, frame):
    ticks = self._clock(frame)
    time = float(self._clock.seconds(ticks))
    if self._seeking and time > self._start:
      raise SeekFailed
    self._seeking = False
    if self._pending is not None:
      if jumps(time - self._pending[0]):
        raise Unusable('timestamps jump')
      if time <= self._pending[0] + EPSILON:
        return  # a second frame for the same moment: the first one stands
      self._keep_pending(time)
    self._pending = (time, frame)
    self._extend(ticks, frame.duration)

  def see(self, packet):
    """Notes a packet: the end of one that is not decoded, or that repeats the frame before it.

    Where the video is not decoded, the decoder keeps as many frames as it has threads.
    """
    ticks = shown_at(packet)
    unseen = repeats(packet) or (not self._decoding and packet.size and not packet.is_discard)
    if ticks is not None and unseen:
      self._extend(ticks, packet.duration)

  def close(self):
    """Holds the last frame up to the declared end, once the stream was read to its end."""
    if self._last is None:
      return
    last, duration = self._last
    held = video_end(self.stream, last, duration) - last
    if jumps(held * self.stream.time_base):
      raise Unusable('timestamps jump')
    self._last = last, held

  def finish(self):
    """Kept frames, uint8 (N, H, W, 3), and the times at which they start to show, float64 (N,)."""
    if not self._decoding:
      return _NO_FRAMES
    if self._pending is None:
      raise SeekFailed
    self._keep_pending(max(self.end - self.zero, self._start + 2 * EPSILON))
    times = np.maximum(np.array(self._times) - self._start, 0)
    return np.stack(self._frames), times

  def _extend(self, ticks: int, duration: int):
    """Counts a frame that shows at `ticks` for `duration`."""
    if self._last is None or ticks >= self._last[0]:
      self._last = ticks, duration or self._clock.period

  def _keep_pending(self, until: float):
    """Keeps the pending frame, which shows until `until`, if it is on at a moment that counts."""
    time, frame = self._pending
    begin, end = max(time, self._start), min(until, self._stop)
    if self._max_fps:
      tick = math.ceil((begin - self._start - EPSILON) * self._max_fps)
      begin = self._start + tick / self._max_fps
    if self._decoding and begin < end - EPSILON:
      self._frames.append(self._scaler(frame))
      self._times.append(time)
      self._allowance.take(self._frames[-1].nbytes)
