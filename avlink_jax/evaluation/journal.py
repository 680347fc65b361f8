"""Journal of an evaluation: a line a pair beside its output, until that is written.

Decoding and onset detection are nearly all of evaluate's work. A pair is recognised by its files'
names, sizes and modification times; an incomplete or unreadable line is ignored.
"""

import json
import os
import pathlib
from typing import Any, TextIO

import numpy as np

from avlink_jax.data.media.own_rates import Shape
from avlink_jax.errors import UserError
from avlink_jax.evaluation.common import View
from avlink_jax.evaluation.pairs import Pair
from avlink_jax.metrics.av_align import Motion
from avlink_jax.metrics.onset import Onsets
from avlink_jax.storage import digest

FORMAT = 3  # to be raised when the same files begin to give other results


class Journal:
  """Results in `OUTPUT.observed.jsonl`; without an output none are stored."""

  def __init__(self, output: str | os.PathLike | None, seconds: float | None = None):
    self._seconds = seconds  # that are compared of each pair at most
    self._path = None if output is None else pathlib.Path(f'{output}.observed.jsonl')
    self._lines = {} if self._path is None else _read(self._path)
    self._file: TextIO | None = None

  def get(self, pair: tuple) -> Pair | None:
    """Stored Pair of (stem, Files, Files, events), None where there is none."""
    found = self._lines.get(_key(pair, self._seconds)) if self._lines else None
    try:
      return None if found is None else _from_json(found)
    except (KeyError, TypeError, ValueError):
      return None

  def put(self, pair: tuple, found: Pair) -> None:
    """Appends a result. Raises UserError: it cannot be written."""
    if self._path is None:
      return
    try:
      file = self._file = self._file or self._path.open('a', encoding='utf-8')
      # The newline ends a line that was cut off before.
      line = {'key': _key(pair, self._seconds), 'found': _to_json(found)}
      file.write(f'\n{json.dumps(line)}')
      file.flush()
    except OSError as error:
      raise UserError(f'{self._path}: cannot be written ({error.strerror})') from None

  def close(self, done: bool = False) -> None:
    """Closes the journal, and removes it once `done`: the output holds all of it then."""
    if self._file is not None:
      self._file.close()
    if done and self._path is not None:
      self._path.unlink(missing_ok=True)


def _read(path):
  lines = {}
  try:
    content = path.read_text(encoding='utf-8', errors='replace')
  except OSError:  # there is none, most of the time
    return lines
  for line in content.split('\n'):
    try:
      row = json.loads(line)
      lines[row['key']] = row['found']
    except (ValueError, KeyError, TypeError, RecursionError):
      continue
  return lines


def _key(pair, seconds=None):
  stem, *sides, events = pair
  identity = [FORMAT, seconds, stem, None if events is None else events.tolist()]
  for files in sides:
    identity.append(files.enlarged)
    for path in (path for path in files[:2] if path is not None):
      status = path.stat()
      identity.append([str(path), status.st_size, status.st_mtime_ns])
  return digest.key(identity)


def _to_json(pair: Pair):
  values = pair._asdict()
  values['shapes'] = {side: list(shape) for side, shape in pair.shapes.items()}
  values['motion'] = {side: motion and list(motion) for side, motion in pair.motion.items()}
  return json.loads(json.dumps(values, default=lambda array: array.tolist()))


def _from_json(values) -> Pair:
  def array(x) -> Any:
    return None if x is None else np.asarray(x, np.float64)

  def onsets(x) -> Any:
    return None if x is None else Onsets(*map(array, x))

  return Pair(
    id=values['id'], duration=values['duration'], generated=onsets(values['generated']),
    reference=onsets(values['reference']), events=array(values['events']),
    silent=tuple(values['silent']),
    motion={side: motion and Motion(array(motion[0]), *motion[1:])
            for side, motion in values['motion'].items()},
    audio_onsets={side: array(times) for side, times in values['audio_onsets'].items()},
    video_errors=values['video_errors'],
    shapes={side: Shape(*shape) for side, shape in values['shapes'].items()},
    view=values['view'] and View(*values['view']), prints=values['prints'])
