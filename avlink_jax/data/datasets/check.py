"""Checks of media files: whether a file can be used, and which seconds of it are the clip."""

import dataclasses
import os
import pathlib

import av
import numpy as np

from avlink_jax.data.media.container import InMemory, main_stream, opened
from avlink_jax.data.media.decode import decode
from avlink_jax.data.sturdy_pool import CRASHES, SturdyPool
from avlink_jax.errors import MediaError

SILENCE = 1e-3  # peak in [-1, 1] below which audio counts as silent: -60 dB
LARGEST = 256 << 20  # bytes of one file: a record is in memory several times over
SLACK = 1.0  # seconds by which a file that was cut to a clip may exceed it


@dataclasses.dataclass(frozen=True)
class Needs:
  """Requirements on a data set's files."""
  video: bool = False
  audio: bool = True
  min_seconds: float = 1.0
  decode: bool = True  # False: only the header is read


@dataclasses.dataclass(frozen=True)
class Candidate:
  """A file to be examined; `cut`, `start` and `end` as in rows.Row."""
  path: str
  cut: bool
  start: float
  end: float | None
  needs: Needs


@dataclasses.dataclass(frozen=True)
class Verdict:
  """Outcome: [start, end) seconds of the file are the clip, or why it cannot be used.

  `kind` is '' where it can be used, else 'short', 'silent' or 'broken'.
  """
  start: float = 0.0
  end: float = 0.0
  kind: str = ''
  reason: str = ''


def examine(candidate: Candidate) -> Verdict:
  """Reads the header, and with needs.decode decodes the clip's audio (its video without `audio`).

  A file named after the whole recording that is no longer than the clip is the clip: many people
  cut a recording and keep its name.
  """
  try:
    size = os.stat(candidate.path).st_size
    if size > LARGEST:
      return Verdict(kind='broken', reason=f'too large ({size >> 20} MiB): cut it to the clip')
    file = InMemory(pathlib.Path(candidate.path).stem, pathlib.Path(candidate.path).read_bytes())
    needs, length = candidate.needs, _length(file, candidate.needs)
    start, end = _span(candidate, length)
    return (_by_decoding if needs.decode else _by_header)(file, start, end, length, needs)
  except MediaError as error:
    return Verdict(kind='broken', reason=error.reason)
  except OSError as error:
    return Verdict(kind='broken', reason=f'cannot be read ({error.strerror})')


def _length(file, needs) -> float | None:
  """Seconds by the header, None where it states none. Raises MediaError: a stream is missing."""
  with opened(file) as container:
    if needs.video and main_stream(container.streams.video) is None:
      raise MediaError(file, 'no video stream')
    if needs.audio and main_stream(container.streams.audio) is None:
      raise MediaError(file, 'no audio stream')
    return container.duration / av.time_base if container.duration else None


def _span(candidate, length):
  """Span (start, end or None) of the clip in the file's own seconds."""
  if candidate.end is None:
    return 0.0, None
  seconds = candidate.end - candidate.start
  if candidate.cut or (length is not None and length <= seconds + SLACK):
    return 0.0, seconds
  return candidate.start, candidate.end


def _by_header(file, start, end, length, needs):
  if length is None:
    return (Verdict(kind='broken', reason='its header states no length') if end is None
            else Verdict(start, end))
  return _long_enough(start, length if end is None else min(end, length), needs)


def _by_decoding(file, start, end, length, needs):
  # Without audio, the video is decoded, small and once a second.
  options = (dict(need_video=False) if needs.audio
             else dict(need_video=True, need_audio=False, height=36, width=64, max_fps=1))
  clip = decode(file, start=start, duration=None if end is None else end - start, **options)
  verdict = _long_enough(start, start + clip.duration, needs)
  if not verdict.kind and needs.audio and not np.abs(clip.audio).max(initial=0.0) >= SILENCE:
    return Verdict(kind='silent', reason=f'no sound above {20 * np.log10(SILENCE):.0f} dB')
  return verdict


def _long_enough(start, end, needs):
  if end - start < needs.min_seconds:
    return Verdict(kind='short', reason=f'{max(end - start, 0):.2f} s, less than '
                                        f'{needs.min_seconds:g} s')
  return Verdict(start, end)


def examiner(processes: int) -> SturdyPool:
  """Pool that gives a Verdict for each candidate."""
  return SturdyPool(processes, examine,
                    lambda candidate: Verdict(kind='broken', reason=CRASHES))
