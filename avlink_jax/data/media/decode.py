"""A media file becomes a Clip: picture and sound decoded onto one clock.

Clock. 0 s is the moment the first picture shows (the first sample sounds, where there is no
picture). Everything is placed by the timestamps in the file, never by counting: frame rates
vary, sound starts early or late, and streams have holes. Sound that starts late is preceded
by zeros, sound from before the first picture is cut, and the clip is as long as the picture.

What counts as damaged. A file is refused, not repaired, if
  - it is shorter than its container says, in bytes (`container.py`) or, where a length is
    declared, by more than SHORT seconds in a stream;
  - the demuxer or a decoder reports an error, or flags a packet or a frame as corrupt
    (concealed errors look like a picture, so they would pass for a good clip);
  - its timestamps jump back by more than a second or forward by more than ten minutes;
  - it takes more time or memory than `limits.py` allows, whatever it claims to be.
With `duration` what follows the window is not looked at. Flipped bits that leave a valid
stream (raw PCM, VP9, now and then AAC) cannot be told from content by anyone.
"""

import contextlib
import math
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from avlink_jax.data.clip import EPSILON, Clip
from avlink_jax.data.media.audio import Sound, mono, mono_or_stereo
from avlink_jax.data.media.container import (
  DAMAGE,
  DECLARING,
  SHORT,
  FrameClock,
  Held,
  Lost,
  declared_end,
  jumps,
  main_stream,
  opened,
  packets_of,
  picture_end,
  shown_at,
  untagged_colours,
)
from avlink_jax.data.media.limits import (
  ASPECTS,
  DECODE_SECONDS,
  MAX_LENGTH,
  MAX_PIXELS,
  Allowance,
  Unusable,
  check_picture,
)
from avlink_jax.errors import MediaError

PREROLL = 1.25  # seconds before a span in which decoders find their feet
SEEKABLE = ('mov', 'matroska')  # their packets carry the times at which frames show


def decode(
  path, *, height=None, width=None, sample_rate=16000, start=0.0, duration=None,
  max_fps=None, need_video=True, need_audio=True, decode_seconds=DECODE_SECONDS,
) -> Clip:
  """Decodes [start, start + duration) of a file, on a clock that is 0 at `start`.

  Only the span is decoded, and what its codecs need before it: in containers with an index
  (SEEKABLE) reading begins at the last picture before it that needs no other. Frames and times
  are those of a decode from the beginning; so is the sound, but for what a lossy decoder
  remembers beyond PREROLL seconds and for what timestamps stray (1 ms in Matroska).

  Args:
    path: the file; or its bytes, as `container.Held`.
    height, width: pixels of the frames, scaled to cover and centre-cropped; without `width` it
      follows the picture's shape, without both they are as the file is displayed (rotated,
      square pixels).
    sample_rate: Hz of the sound, a mono mix (mean of the channels).
    start, duration: seconds; without `duration` up to the end of the picture. A file that
      ends earlier gives a shorter clip.
    max_fps: keep only the frames that show at k / max_fps seconds of the clip. On that grid
      `clip.resample_frames` gives exactly what it would give without; between, it does not.
    need_video: True: a file without picture is an error. False: the picture is not decoded
      (nor checked; it is nearly all of the cost) but still sets the clock and the length; in a
      file without one the sound does.
    need_audio: True: a file without sound is an error. False: sound is taken where it is.
    decode_seconds: how long this may take before the file is given up.

  Returns:
    Clip with frames uint8 (N, height, width, 3), N = 0 without `need_video`, and audio
    float32 (round(clip.duration * sample_rate),), or (0,) where the file has no sound.

  Raises:
    MediaError: the file is missing, not media, an image, truncated, corrupt, lacks a stream
      that is needed, ends before `start`, takes too long or holds too much (`limits.py`).
  """
  return _decode(path, mono, height, width, sample_rate, start, duration, max_fps, need_video,
                 need_audio, decode_seconds)


def decode_sound(path, *, sample_rate, duration=None) -> np.ndarray:
  """The sound of a file on `decode`'s clock, in its own channels.

  Args:
    path, duration: as in `decode`.
    sample_rate: Hz.

  Returns:
    float32 (S, C) in [-1, 1], C = 1 or 2; of more than two channels their mean.

  Raises:
    MediaError: as in `decode`; there is no sound in it.
  """
  return _decode(path, mono_or_stereo, None, None, sample_rate, 0.0, duration, None, False,
                 True, DECODE_SECONDS).audio


def _decode(path, mix, height, width, sample_rate, start, duration, max_fps, need_video,
            need_audio, decode_seconds) -> Clip:
  """What `decode` says, with the sound that `mix` makes of each AVFrame."""
  path = path if isinstance(path, Held) else Path(path)
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
      picture = video and _Picture(video, start, stop, max_fps, height, width, need_video,
                                   allowance)
      sound = audio and Sound(audio, mix, allowance)
      tracks = [track for track in (picture, sound) if track]
      for track in tracks:
        track.stream.thread_type = 'AUTO'
        track.stream.codec_context.options = {'max_pixels': str(MAX_PIXELS)}
      if seeks and container.format.name.startswith(SEEKABLE):
        _seek(container, picture or sound, tracks, start)
      whole = _read(container, picture, sound, start, stop, allowance)
      if whole and _is_short(container, tracks):
        raise Unusable('truncated')
      if picture and picture.zero is None:
        if need_video or not sound:
          raise Unusable('no video stream')
        picture = None
      if sound and not sound.pieces:
        if need_audio or not picture:
          raise Unusable('no audio stream')
        sound = None
      return _clip(path, picture, sound, start, duration, sample_rate)

  try:
    if start > PREROLL:
      with contextlib.suppress(Lost):
        return attempt(seeks=True)
    return attempt(seeks=False)
  except Unusable as error:
    raise MediaError(path, str(error)) from None
  except DAMAGE:
    raise MediaError(path, 'corrupt stream') from None


def _clip(path, picture, sound, start, duration, sample_rate) -> Clip:
  """What was read, on the clip's clock. Raises Unusable."""
  clock = picture or sound
  rest = clock.end - clock.zero - start
  length = rest if duration is None else min(duration, rest)
  if length <= EPSILON:
    raise Unusable(f'ends before {start:g} s')
  if not length <= MAX_LENGTH:
    raise Unusable(f'longer than {MAX_LENGTH / 3600:g} h')
  frames, times = picture.finish() if picture else _NO_FRAMES
  samples = round(length * sample_rate)
  return Clip(
    id=path.stem, duration=length, frames=frames, frame_times=times,
    audio=sound.place(clock.zero + start, length, sample_rate, samples, int(start >= 1)) if sound
    else np.zeros(0, np.float32),
    sample_rate=sample_rate, source=str(path), start=start,
    source_fps=float(picture.stream.average_rate or 0) if picture else 0.0,
    source_rate=sound.rate if sound else 0,
  )


_NO_FRAMES = (np.zeros((0, 0, 0, 3), np.uint8), np.zeros(0))


def _read(container, picture, sound, start: float, stop: float, allowance) -> bool:
  """Feeds both tracks up to `stop`. Returns whether that was the end of the file.

  Raises Unusable at the first sign of damage: what a decoder gives after it can be anything.
  """
  tracks = {track.stream.index: track for track in (picture, sound) if track}
  for packet in packets_of(container, *(track.stream for track in tracks.values())):
    allowance.check_time()
    if packet is None or packet.is_corrupt:
      raise Unusable('corrupt stream')
    zero = picture.zero if picture else sound.zero
    if zero is not None and all(track.end is not None and track.end - zero > stop + 0.1
                                for track in tracks.values()):
      return False
    track = tracks[packet.stream.index]
    if not track.decodes:
      track.skip(packet)
      continue
    for frame in packet.decode():
      allowance.check_time()
      if frame.is_corrupt:
        # After a seek, frames may come whose references lie before it; none is asked for.
        if zero is not None and frame.time is not None and frame.time < zero + start - PREROLL / 2:
          continue
        raise Unusable('corrupt stream')
      track.add(frame)
  return True


def _is_short(container, tracks) -> bool:
  """Whether a stream that was read whole ends well before its declared end."""
  ends = [-math.inf if track.end is None else track.end for track in tracks]
  promises = [declared_end(track.stream) for track in tracks]
  if any(promise is not None and end < promise * track.stream.time_base - SHORT
         for track, end, promise in zip(tracks, ends, promises, strict=True)):
    return True
  # Matroska declares one length for the whole file; a stream that is not read may be longer.
  if (container.duration and container.format.name.startswith(DECLARING)
      and len(tracks) == len(container.streams) and None in promises):
    promise = ((container.start_time or 0) + container.duration) / av.time_base
    return max(ends) < promise - SHORT
  return False


def _seek(container, clock, tracks, start: float):
  """Moves to shortly before `start` seconds of the clock that `clock`'s first frame sets."""
  for packet in packets_of(container, clock.stream):
    if packet is None or packet.is_corrupt:
      raise Lost
    if frames := packet.decode():
      clock.add(frames[0])
      break
  else:
    raise Lost
  container.seek(math.floor((clock.zero + start - PREROLL) / clock.stream.time_base),
                 stream=clock.stream)
  for track in tracks:
    track.begin_anew(clock.zero + start)


class _Picture:
  """The frames of [start, stop) seconds after the first, scaled as they come.

  `zero` and `end` are on the file's own clock: when the first frame shows, the last ends.
  """

  def __init__(self, stream, start, stop, max_fps, height, width, decodes, allowance):
    check_picture(stream.codec_context.height, stream.codec_context.width)
    self.stream, self.zero, self.end = stream, None, None
    self._wanted = decodes
    self._start, self._stop, self._max_fps = start, stop, max_fps
    self._clock = FrameClock(stream)
    self._scaler = _Scaler(stream, height, width)
    self._held = None  # (time, frame): whether it is kept depends on when the next one shows
    self._frames, self._times, self._allowance = [], [], allowance
    self._sought = False

  def begin_anew(self, start):
    """After a seek: the next frame does not follow the last one, and lies before `start`."""
    del start
    self._held, self._sought = None, True

  @property
  def decodes(self) -> bool:
    """A picture nobody needs is decoded up to its first frame, which sets the clock."""
    return self._wanted or self.zero is None

  def add(self, frame):
    ticks = self._clock(frame)
    shows = float(ticks * self.stream.time_base)
    if self.zero is None:
      self.zero = shows
    time = shows - self.zero
    if self._sought and time > self._start:
      raise Lost
    self._sought = False
    if self._held is not None:
      if jumps(time - self._held[0]):
        raise Unusable('timestamps jump')
      if time <= self._held[0] + EPSILON:
        return  # a second picture for the same moment: the first one stands
      self._release(time)
    self._held = (time, frame)
    self.end = self._ends(ticks, frame.duration)

  def skip(self, packet):
    """Takes the length, without decoding, from a packet."""
    ticks = shown_at(packet)
    if ticks is not None and packet.size and not packet.is_discard:
      self.end = max(self.end, self._ends(ticks, packet.duration))

  def finish(self):
    """The frames kept, uint8 (N, H, W, 3), and when each starts to show, float64 (N,)."""
    if not self._wanted:
      return _NO_FRAMES
    if self._held is None:
      raise Lost
    self._release(max(self.end - self.zero, self._start + 2 * EPSILON))
    times = np.maximum(np.array(self._times) - self._start, 0)
    return np.stack(self._frames), times

  def _ends(self, ticks: int, duration: int) -> float:
    ends = picture_end(self.stream, ticks, duration or self._clock.period)
    return float(ends * self.stream.time_base)

  def _release(self, until: float):
    """Keeps the held frame if it shows before `until` at a moment that counts."""
    time, frame = self._held
    begin, end = max(time, self._start), min(until, self._stop)
    if self._max_fps:
      tick = math.ceil((begin - self._start - EPSILON) * self._max_fps)
      begin = self._start + tick / self._max_fps
    if self._wanted and begin < end - EPSILON:
      self._frames.append(self._scaler(frame))
      self._times.append(time)
      self._allowance.take(self._frames[-1].nbytes)


class _Scaler:
  """AVFrame -> uint8 (height, width, 3): upright, scaled to cover, cropped to the centre."""

  def __init__(self, stream, height, width):
    self._height, self._size = height, None if height is None or width is None else (height, width)
    self._aspect = float(stream.sample_aspect_ratio or 1)
    if not ASPECTS[0] <= self._aspect <= ASPECTS[1]:
      raise Unusable('corrupt stream')
    self._reformatter = VideoReformatter()

  def __call__(self, frame) -> np.ndarray:
    quarters = round(frame.rotation / 90) % 4  # counter-clockwise, as numpy.rot90 turns
    shown = (frame.height, max(1, round(frame.width * self._aspect)))
    if self._size is None:  # later frames follow the first, should the stream change size
      upright = shown[::-1] if quarters % 2 else shown
      scale = 1 if self._height is None else self._height / upright[0]
      self._size = tuple(max(1, round(scale * side)) for side in upright)
    height, width = self._size[::-1] if quarters % 2 else self._size
    cover = max(height / shown[0], width / shown[1])
    scaled = [max(side, round(cover * was))
              for side, was in zip((height, width), shown, strict=True)]
    check_picture(*scaled)
    image = self._reformatter.reformat(
      frame, width=scaled[1], height=scaled[0], format='rgb24', threads=1,
      # swscale's area filter is the right one for shrinking only.
      interpolation=(Interpolation.AREA if cover < 1 else Interpolation.BICUBIC)
      | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT,
      src_colorspace=untagged_colours(frame),
    ).to_ndarray()
    top, left = (scaled[0] - height) // 2, (scaled[1] - width) // 2
    return np.ascontiguousarray(np.rot90(image[top:top + height, left:left + width], quarters))
