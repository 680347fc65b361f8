"""Mode `evaluate`: scores any folder of clips against a folder of references, ours or anybody's.

Clips are matched by file stem and compared over the length that both sounds have. Every score
comes with its control: the same generated sounds against other clips' references, which is what
a model reaches that makes the right kind of sound at any time it likes.
"""

import concurrent.futures
import json
import math
import os
import pathlib
import sys
import typing

import numpy as np

from avlink_jax.data import media
from avlink_jax.errors import MediaError, UserError
from avlink_jax.export import event_times, read_manifest, write_text
from avlink_jax.metrics import onset

# Where a stem stands twice in a folder, the first of these is heard: a samples folder holds
# ID.wav, as it was made, and ID.mp4 with the same sound through a lossy codec.
SOUND_SUFFIXES = ('.wav', '.flac', '.ogg', '.mp3', '.m4a', '.aac', '.opus')
VIDEO_SUFFIXES = ('.mp4', '.mkv', '.webm', '.mov', '.avi', '.m4v', '.mpg', '.mpeg', '.ts', '.3gp')
CONTROL_SHIFTS = 5
WORKERS = 2


class Heard(typing.NamedTuple):
  """One matched pair, reduced to what the scores need.

  Attributes:
    id: file stem.
    duration: seconds over which the two are compared.
    generated: onsets of the generated sound; none where it is silent.
    reference: onsets of the reference, None where that has no sound at all.
    events: float64 (E,) exact times in seconds, None where unknown.
    silent: which of 'generated', 'reference' have no sound track.
  """
  id: str
  duration: float
  generated: onset.Onsets
  reference: onset.Onsets | None
  events: np.ndarray | None
  silent: tuple


def evaluate(generated: str, reference: str, output: str | None = None) -> dict:
  """Scores the clips in folder `generated` against those in folder `reference`.

  Args:
    generated: folder of clips, any media with sound. One without a sound track counts as
      silence: nothing was generated.
    reference: folder of clips; `manifest.jsonl` in it may give exact `events` (seconds).
    output: JSON file to write, replaced whole or not at all; None writes none.

  Returns:
    What the JSON holds: `clips` (how many were compared), the mean over clips of every
    `onset_NAME` (and `event_NAME`, against exact times; `reference_event_NAME`, what the
    reference's own sound reaches there) for `onset.NAMES`, the same with the prefix `control_`,
    how many clips those rest on, what was left out and why, and `per_clip`.
    A figure that no clip defines is None.

  Raises:
    UserError: a folder is missing, nothing matches, nothing can be read, no place to write to.
  """
  if output:
    _require_writable(pathlib.Path(output))
  ours, theirs = _clips_in(generated, '--generated'), _clips_in(reference, '--reference')
  matched = sorted(ours.keys() & theirs.keys())
  if not matched:
    raise UserError(
      f'no clip in {generated} ({len(ours)} clips) has the name of one in {reference} '
      f'({len(theirs)} clips): files are matched by name without suffix')
  events = _exact_events(reference)
  heard, unreadable = _hear_all(
    [(stem, ours[stem], theirs[stem], events.get(stem)) for stem in matched])
  if not heard:
    first = unreadable[0]
    raise UserError(f'none of the {len(matched)} matched clips can be read; '
                    f'the first: {first["file"]}: {first["reason"]}')
  rows = _rows(heard)
  result = {'clips': len(rows), **_means(rows), **{
    'clips_with_reference_onsets': sum(bool(row['reference_onsets']) for row in rows),
    'clips_with_events': sum(bool(row['events']) for row in rows),
    'unmatched_generated': sorted(ours.keys() - theirs.keys()),
    'unmatched_reference': sorted(theirs.keys() - ours.keys()),
    'unreadable': unreadable,
    'without_sound': [{'id': h.id, 'side': side} for h in heard for side in h.silent],
    'per_clip': rows,
  }}
  if output:
    write_text(output, json.dumps(result, indent=1, allow_nan=False) + '\n')
  return result


def summary(result: dict) -> str:
  """The means of `evaluate` as a table of text, each beside its control."""
  def show(value):
    return '    –' if value is None else f'{value:5.3f}'
  lines = [f'{result["clips"]} clips' + ' ' * 26 + 'score  control']
  for name in _metric_names(result):
    lines.append(f'{name:32}  {show(result[name])}  {show(result.get("control_" + name))}')
  for name in ('unmatched_generated', 'unmatched_reference', 'without_sound'):
    if result[name]:
      lines.append(f'{name}: {len(result[name])}')
  lines += [f'unreadable: {clip["file"]}: {clip["reason"]}' for clip in result['unreadable']]
  return '\n'.join(lines)


def _metric_names(result):
  return [name for name, value in result.items()
          if name.startswith(('onset_', 'event_', 'reference_event_'))]


def _clips_in(folder, flag):
  """{stem: path} of the media files that stand directly in `folder`."""
  folder = pathlib.Path(folder)
  if not folder.is_dir():
    raise UserError(f'{flag}={folder}: no such folder')
  order = SOUND_SUFFIXES + VIDEO_SUFFIXES
  found = {}
  for path in sorted(folder.iterdir(), key=lambda path: path.name):
    if path.suffix.lower() in order and path.is_file():
      best = found.setdefault(path.stem, path)
      if order.index(path.suffix.lower()) < order.index(best.suffix.lower()):
        found[path.stem] = path
  return found


def _exact_events(reference):
  """{stem: float64 (E,)} from the reference folder's manifest, for rows that know their events."""
  events = {}
  for row in read_manifest(reference):
    times = event_times(row)
    if times is not None:
      for stem in {row['id'], *(pathlib.Path(str(name)).stem for name in row['files'].values())}:
        events[stem] = times
  return events


def _require_writable(output):
  """Finds out before the work rather than after it."""
  try:
    output.parent.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UserError(f'--output={output}: cannot make its folder ({error.strerror})') from error
  if output.is_dir() or not os.access(output.parent, os.W_OK):
    raise UserError(f'--output={output}: not a file that can be written')


def _hear_all(pairs):
  """Listens to all pairs -> ([Heard], [{id, file, reason}]), both in the order of `pairs`."""
  heard, unreadable = [], []
  # Threads, not processes: decoding, FFT and resampling release the interpreter's lock, and
  # this process may hold an accelerator that a fork must not share.
  with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
    futures = [pool.submit(_hear, *pair) for pair in pairs]
    for k, future in enumerate(futures):
      try:
        heard.append(future.result())
      except MediaError as error:
        unreadable.append({'id': pairs[k][0], 'file': error.path, 'reason': error.reason})
      if sys.stderr.isatty() or k + 1 == len(pairs):
        print(f'\revaluate: {k + 1}/{len(pairs)} clips, {len(unreadable)} unreadable',
              end='\n' if k + 1 == len(pairs) else '', file=sys.stderr, flush=True)
  return heard, unreadable


def _hear(stem, generated, reference, events):
  """Decodes both sounds of a pair, cuts them to the common length, finds their onsets."""
  clips = {
    side: media.decode(path, sample_rate=onset.DETECTION_RATE, need_video=False, need_audio=False)
    for side, path in (('generated', generated), ('reference', reference))}
  duration = min(clip.duration for clip in clips.values())
  found = {}
  for side, clip in clips.items():
    if not np.isfinite(clip.audio).all():
      raise MediaError(clip.source, 'its sound holds values that are not finite')
    common = clip.audio[:round(duration * clip.sample_rate)]
    found[side] = onset.detect_onsets(common, clip.sample_rate).before(duration)
  silent = tuple(side for side, clip in clips.items() if not clip.audio.size)
  return Heard(
    id=stem, duration=duration, generated=found['generated'],
    reference=None if 'reference' in silent else found['reference'],
    events=None if events is None else events[(events >= 0) & (events < duration)],
    silent=silent)


def _rows(heard):
  """One dict a clip: its scores, and its controls averaged over the other references."""
  rows = []
  shifts = control_shifts(len(heard))
  for k, clip in enumerate(heard):
    row = {
      'id': clip.id, 'duration': round(clip.duration, 6),
      'generated_onsets': len(clip.generated.times),
      'reference_onsets': None if clip.reference is None else len(clip.reference.times),
      'events': None if clip.events is None else len(clip.events),
      **_scores(clip, clip)}
    others = [_scores(clip, heard[(k + shift) % len(heard)]) for shift in shifts]
    for name in _metric_names(row):
      if not name.startswith('reference_'):
        row['control_' + name] = _mean(other[name] for other in others)
    rows.append(row)
  return rows


def control_shifts(count: int) -> list:
  """By how many places the references are turned for the control: up to 5 turns, never 0.

  Spread evenly over all of them, since neighbours in order of name are often cut from the same
  recording.
  """
  turns = min(CONTROL_SHIFTS, count - 1)
  return [round(count * (k + 1) / (turns + 1)) for k in range(turns)]


def _scores(clip, other):
  """The scores of `clip`'s sound against `other`'s reference, over the length that both have."""
  end = min(clip.duration, other.duration)
  made = clip.generated.before(end)
  heard = None if other.reference is None else other.reference.before(end)
  times = None if other.events is None else other.events[other.events < end]
  families = {
    'onset_': None if heard is None else onset.scores(heard, made),
    'event_': None if times is None else onset.scores_against_times(made, times),
    'reference_event_': None if heard is None or times is None
    else onset.scores_against_times(heard, times),
  }
  return {prefix + name: None if scores is None else scores[name]
          for prefix, scores in families.items() for name in onset.NAMES}


def _means(rows):
  """Means over the rows that define each figure; no event figures where no clip has events."""
  families = ('onset_', 'event_', 'reference_event_')
  if all(row['events'] is None for row in rows):
    families = ('onset_',)
  names = [name for name in rows[0] if name.removeprefix('control_').startswith(families)]
  return {name: _mean(row[name] for row in rows) for name in names}


def _mean(values):
  values = [value for value in values if value is not None]
  return math.fsum(values) / len(values) if values else None
