"""Examination of one media file: what it is, what is odd about it, and what is done with it.

Everything is read as training reads it (data/media): a file that is unusable there is unusable
here, for the same reason.
"""

import dataclasses
import math
import pathlib

import av
import numpy as np

from avlink_jax.data.media.container import DAMAGE, main_stream, opened, packets_of
from avlink_jax.data.media.decode import decode, decode_audio
from avlink_jax.data.media.downmix import cancelled, mono
from avlink_jax.data.media.silence import SILENCE, covered, lacking
from avlink_jax.data.media.times import (
  FrameClock,
  audio_end,
  frames_of,
  repeats,
  shown_at,
  video_end,
)
from avlink_jax.errors import MediaError

UNUSABLE, HAND, NOTE = 'unusable', 'look', 'note'  # severities, the worst first
SEVERITIES = (UNUSABLE, HAND, NOTE)
RATE = 16_000  # Hz at which sound is looked at
CLIPPED = 1e-3  # share of samples at full scale from which sound is clipped
OFFSET = 0.1  # seconds between the beginnings or ends of sound and picture that are worth a look
HOLE = 0.1  # seconds without packets of sound
VARIABLE = 0.02  # standard deviation of the frames' durations, of their mean
SHORTEST = 0.5  # seconds
HDR = {16: 'PQ', 18: 'HLG'}  # FFmpeg's numbers of transfer functions
THUMBNAIL = 72  # pixels, height
UNLESS = 'unless with data.drop_silent'  # what of little sound is left out


@dataclasses.dataclass(frozen=True)
class Finding:
  """One thing about a file: how severe, a name for scripts, what it is, what is done about it."""
  severity: str
  name: str
  what: str
  done: str = ''


@dataclasses.dataclass
class Examination:
  """What was found out about a file.

  Attributes:
    path: the file.
    facts: {name: value}, JSON-like.
    findings: list of Finding.
    thumbnail: uint8 (H, W, 3) of its middle, None without a picture.
    wave: float32 (S,) at RATE, None without sound.
  """
  path: pathlib.Path
  facts: dict
  findings: list
  thumbnail: np.ndarray | None = None
  wave: np.ndarray | None = None

  @property
  def severity(self):
    """The worst severity of its findings; '' without any."""
    return next((each for each in SEVERITIES
                 if any(found.severity == each for found in self.findings)), '')


def examine(path) -> Examination:
  """Examines a file; what is wrong with it becomes findings, whatever it is."""
  result = Examination(pathlib.Path(path), {}, [])
  try:
    with opened(path) as container:
      _streams(container, result)
    _picture(path, result)
    _sound(path, result)
  except MediaError as error:
    result.findings.append(Finding(UNUSABLE, 'unusable', error.reason, 'is left out'))
  result.findings.sort(key=lambda found: SEVERITIES.index(found.severity))
  return result


def _streams(container, result):
  """What headers and packets say: kinds of streams, and their times."""
  facts, add = result.facts, result.findings.append
  video, audio = (main_stream(of) for of in (container.streams.video, container.streams.audio))
  facts |= {'container': container.format.name, 'tracks': len(container.streams)}
  if video is None:
    add(Finding(HAND, 'no_picture', 'no picture', 'is a clip for tasks of audio alone'))
  else:
    _video_facts(video, facts, add)
  if audio is None:
    add(Finding(HAND, 'no_sound', 'no sound', 'is left out of what trains on sound'))
  else:
    facts |= {'audio': audio.codec_context.name, 'sample_rate': audio.rate,
              'channels': audio.codec_context.channels}
  others = [stream.type for stream in container.streams if stream not in (video, audio)]
  if others:
    add(Finding(NOTE, 'more_tracks', f'further tracks: {", ".join(others)}', 'are not used'))
  _timing(container, video, audio, result)


def _video_facts(video, facts, add):
  context = video.codec_context
  facts |= {'video': context.name, 'width': context.width, 'height': context.height,
            'fps': round(float(video.average_rate or 0), 3)}
  if (transfer := HDR.get(int(context.color_trc or 0))) is not None:
    add(Finding(NOTE, 'hdr', f'HDR ({transfer})', 'is read as if it were not: it looks flat'))
  layout = context.format
  if layout is not None and layout.name.startswith(('yuva', 'rgba', 'bgra', 'argb', 'abgr')):
    add(Finding(NOTE, 'alpha', 'transparency', 'is dropped'))


def _timing(container, video, audio, result):
  """Where sound and picture begin and end, holes and uneven frames."""
  facts, add = result.facts, result.findings.append
  shows, sounds, hidden, zero, begins = _times(container, video, audio)
  if hidden:
    add(Finding(NOTE, 'hidden_pictures', f'{hidden} pictures before the first that can be decoded',
                'are left out: time 0 is the first that can'))
  if len(shows) > 2:
    steps = np.diff([time for time, _ in shows])
    if steps.std() > VARIABLE * steps.mean():
      add(Finding(NOTE, 'variable_rate', f'frames of {1e3 * steps.min():.0f} to '
                  f'{1e3 * steps.max():.0f} ms', 'keep their times'))
  if shows and sounds and begins is not None:
    start, end = begins - zero, audio_end(audio, sum(sounds[-1])) - sum(shows[-1])
    facts |= {'sound_starts': round(start, 3), 'sound_ends': round(end, 3)}
    for value, name, verb in ((start, 'start_offset', 'begins'), (end, 'end_offset', 'ends')):
      if abs(value) > OFFSET:
        add(Finding(HAND if abs(value) > 10 * OFFSET else NOTE, name,
                    f'sound {verb} {abs(value):.2f} s {"after" if value > 0 else "before"} the '
                    'picture', 'stays in time: cut, or filled up with silence'))
  if len(sounds) > 1:
    gaps = [after - sum(row) for row, (after, _) in zip(sounds, sounds[1:], strict=False)]
    if holes := [gap for gap in gaps if gap > HOLE]:
      add(Finding(HAND, 'holes', f'{len(holes)} holes in the sound, {sum(holes):.2f} s in all',
                  'become silence'))
  if begins is not None and sounds[0][0] < begins:
    facts['priming'] = round(begins - sounds[0][0], 4)


def _times(container, video, audio):
  """Times by the packets, in seconds on the file's clock: (time, duration) of each frame that shows
  and of each piece of sound, the number of pictures before the first that is decoded, the time of
  that picture, and that of the first sample; the last two None where there is none."""
  clock, begins = video and FrameClock(video), None
  shows, sounds, last = [], [], None
  for packet in packets_of(container, *filter(None, (video, audio))):
    if packet is None:
      break
    try:
      if packet.stream is video:
        clock.find_zero(packet)
      elif begins is None:
        begins = next((frame.time for frame in frames_of(packet)), None)
    except DAMAGE:
      break
    ticks, base = shown_at(packet), packet.stream.time_base
    if ticks is None:
      continue
    if packet.stream is not video:
      sounds.append((float(ticks * base), float((packet.duration or 0) * base)))
    elif not packet.is_discard:
      last = max(last or (ticks, 0), (ticks, packet.duration or clock.period))
      if not repeats(packet):
        shows.append(ticks)
  if clock is None or clock.zero is None or last is None:
    return [], sorted(sounds), 0, None, begins
  hidden = sum(ticks < clock.zero for ticks in shows)
  zero, shows = float(clock.begins), sorted(
    {clock.zero, *(ticks for ticks in shows if ticks > clock.zero)})
  ends = [*shows[1:], max(video_end(video, *last), shows[-1] + 1)]
  times = [zero + float(clock.seconds(ticks)) for ticks in [*shows, ends[-1]]]
  return ([(time, after - time) for time, after in zip(times, times[1:], strict=False)],
          sorted(sounds), hidden, zero, begins)


def _picture(path, result):
  """What decoding the picture says."""
  if 'video' not in result.facts:
    return
  facts, add = result.facts, result.findings.append
  clip = decode(path, height=THUMBNAIL, max_fps=2.0, need_audio=False)
  facts['seconds'] = round(clip.duration, 3)
  result.thumbnail = clip.frames[len(clip.frames) // 2]
  if clip.duration < SHORTEST:
    add(Finding(HAND, 'short', f'{clip.duration:.2f} s long',
                'is left out below data.min_seconds'))
  with opened(path) as container:
    stream = main_stream(container.streams.video)
    frame = next((frame for frame in _frames(container, stream)), None)
  if frame is not None and frame.interlaced_frame:
    add(Finding(NOTE, 'interlaced', 'interlaced', 'both fields stay in a frame'))
  if frame is not None and frame.rotation:
    facts['rotation'] = frame.rotation
    add(Finding(NOTE, 'rotated', f'rotated by {frame.rotation}°', 'is turned upright'))
  if len(clip.frames) > 1 and np.abs(np.diff(clip.frames.astype(np.int16), axis=0)).mean() < 0.2:
    add(Finding(HAND, 'still', 'the picture does not move', 'tells nothing about times'))


def _frames(container, stream):
  try:
    yield from container.decode(stream)
  except av.error.FFmpegError:
    return


def _sound(path, result):
  """What decoding the sound says: level, silence, clipping, channels that cancel."""
  if 'audio' not in result.facts:
    return
  facts, add = result.facts, result.findings.append
  own = decode_audio(path, sample_rate=RATE)
  result.wave = mono(own, RATE)
  facts.setdefault('seconds', round(len(own) / RATE, 3))
  peak = float(np.abs(own).max(initial=0))
  rms = float(np.sqrt(np.mean(np.square(own, dtype=np.float64)))) if own.size else 0.0
  facts |= {'peak_dbfs': _decibels(peak), 'rms_dbfs': _decibels(rms)}
  lack = lacking(own, RATE)
  if peak < SILENCE:
    add(Finding(HAND, 'silent', lack, f'is trained on as silence, {UNLESS}'))
    return
  if own.shape[1] > 1 and (stretches := cancelled(own, RATE)):
    seconds = sum(min(end, len(own) / RATE) - max(begin, 0) for begin, end, _ in stretches)
    where = '' if math.isinf(stretches[0].begin) else (
        f' in {seconds:.1f} s of it, from {max(stretches[0].begin, 0):.1f} s on')
    add(Finding(NOTE, 'counter_phase', f'the channels cancel each other in a mono mix{where}',
                'the louder one is heard alone there'))
  facts['sound_covers'] = round(covered(own, RATE), 3)
  if lack:
    add(Finding(HAND, 'little_sound', lack, f'is trained on, {UNLESS}'))
  if (share := float(np.mean(np.abs(own) > 0.999))) > CLIPPED:
    add(Finding(NOTE, 'clipped', f'{share:.1%} of its samples at full scale', 'stays as it is'))


def _decibels(value):
  """dB of full scale, None of nothing."""
  return round(float(20 * np.log10(value)), 1) if value > 0 else None
