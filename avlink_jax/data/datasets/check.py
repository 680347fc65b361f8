"""Can a file be used as a clip, and which seconds of it are the clip?"""

import dataclasses
import multiprocessing
import os
import pathlib
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import av
import numpy as np

from avlink_jax.data.media import decode as media
from avlink_jax.data.media.container import InMemory, main_stream, opened
from avlink_jax.errors import MediaError

SILENCE = 1e-3  # peak of [-1, 1] below which a sound counts as none: -60 dB
LARGEST = 256 << 20  # bytes of one file: a record is held in memory whole, several times over
SLACK = 1.0  # seconds by which a file that was cut to a clip may be longer


@dataclasses.dataclass(frozen=True)
class Needs:
  """What is asked of a data set's files."""
  video: bool = False
  audio: bool = True
  min_seconds: float = 1.0
  decode: bool = True  # False: only the header is looked at


@dataclasses.dataclass(frozen=True)
class Job:
  """A file to be examined: `cut` as in rows.Row, which also says what start and end are."""
  path: str
  cut: bool
  start: float
  end: float | None
  needs: Needs


@dataclasses.dataclass(frozen=True)
class Verdict:
  """[start, end) seconds of the file are the clip; or why it cannot be used.

  `kind` is '' where it can be used, else 'short', 'silent' or 'broken'.
  """
  start: float = 0.0
  end: float = 0.0
  kind: str = ''
  reason: str = ''


def examine(job: Job) -> Verdict:
  """Looks at the header, and where asked decodes the clip's sound (its picture where it has none).

  A file named as the whole recording that is no longer than the clip is the clip: many cut a
  recording and keep its name.
  """
  try:
    size = os.stat(job.path).st_size
    if size > LARGEST:
      return Verdict(kind='broken', reason=f'too large ({size >> 20} MiB): cut it to the clip')
    held = InMemory(pathlib.Path(job.path).stem, pathlib.Path(job.path).read_bytes())
    length = _length(held, job.needs)
    start, end = _span(job, length)
    return (_decoded if job.needs.decode else _declared)(held, start, end, length, job.needs)
  except MediaError as error:
    return Verdict(kind='broken', reason=error.reason)
  except OSError as error:
    return Verdict(kind='broken', reason=f'cannot be read ({error.strerror})')


def _length(held, needs) -> float | None:
  """Seconds by the header, None where it says nothing. MediaError: a stream is lacking."""
  with opened(held) as container:
    if needs.video and main_stream(container.streams.video) is None:
      raise MediaError(held, 'no video stream')
    if needs.audio and main_stream(container.streams.audio) is None:
      raise MediaError(held, 'no audio stream')
    return container.duration / av.time_base if container.duration else None


def _span(job, length):
  """(start, end or None) in the file's own seconds."""
  if job.end is None:
    return 0.0, None
  seconds = job.end - job.start
  if job.cut or (length is not None and length <= seconds + SLACK):
    return 0.0, seconds
  return job.start, job.end


def _declared(held, start, end, length, needs):
  if length is None:
    return (Verdict(kind='broken', reason='its header states no length') if end is None
            else Verdict(start, end))
  return _long_enough(start, length if end is None else min(end, length), needs)


def _decoded(held, start, end, length, needs):
  # The picture is decoded where there is nothing else to look at; small and once a second.
  options = (dict(need_video=False) if needs.audio
             else dict(need_video=True, need_audio=False, height=36, width=64, max_fps=1))
  clip = media.decode(held, start=start, duration=None if end is None else end - start, **options)
  verdict = _long_enough(start, start + clip.duration, needs)
  if not verdict.kind and needs.audio and not np.abs(clip.audio).max(initial=0.0) >= SILENCE:
    return Verdict(kind='silent', reason=f'no sound above {20 * np.log10(SILENCE):.0f} dB')
  return verdict


def _long_enough(start, end, needs):
  if end - start < needs.min_seconds:
    return Verdict(kind='short', reason=f'{max(end - start, 0):.2f} s, less than '
                                        f'{needs.min_seconds:g} s')
  return Verdict(start, end)


class Examiner:
  """Examines many files, in `processes` other processes (0: in this one), in order.

  A file on which a decoder crashes takes its process with it, and the pool with that; what is left
  of the jobs is then examined one by one, so that the culprit is known.
  """

  def __init__(self, processes: int):
    self._processes, self._pool, self._single = processes, None, None

  def __call__(self, jobs):
    """Yields a Verdict for each job."""
    if not self._processes:
      yield from map(examine, jobs)
      return
    futures = [self._submit(job) for job in jobs]
    for job, future in zip(jobs, futures, strict=True):
      try:
        yield future.result()
      except BrokenProcessPool:
        self._pool = None  # a new one for the next jobs
        yield self._alone(job)

  def close(self):
    """Ends the other processes."""
    for pool in filter(None, (self._pool, self._single)):
      pool.shutdown(cancel_futures=True)
    self._pool = self._single = None

  def _submit(self, job):
    self._pool = self._pool or _pool(self._processes)
    return self._pool.submit(examine, job)

  def _alone(self, job):
    self._single = self._single or _pool(1)
    try:
      return self._single.submit(examine, job).result()
    except BrokenProcessPool:
      self._single = None
      return Verdict(kind='broken', reason='a decoder crashes on it')


def _pool(processes):
  # Not forked: JAX may have started threads in this process.
  return ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context('spawn'))
