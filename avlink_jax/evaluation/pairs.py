"""Two folders of clips become pairs: what is heard in each, what moves, and what was left out.

`evaluate.py` scores what comes out of here.
"""

import concurrent.futures
import pathlib
import typing

import numpy as np

from avlink_jax.data.clip import samples_of
from avlink_jax.data.media import decode as media
from avlink_jax.errors import MediaError, UserError
from avlink_jax.metrics import av_align, onset
from avlink_jax.samples.folder import event_times, low_files, read_manifest
from avlink_jax.storage.console import Progress, say

# Where a stem stands twice in a folder, the first of these is heard: a samples folder holds
# ID.wav, as it was made, and ID.mp4 with the same sound through a lossy codec.
SOUND_SUFFIXES = ('.wav', '.flac', '.ogg', '.mp3', '.m4a', '.aac', '.opus')
VIDEO_SUFFIXES = ('.mp4', '.mkv', '.webm', '.mov', '.avi', '.m4v', '.mpg', '.mpeg', '.ts', '.3gp')
WORKERS = 2


class Files(typing.NamedTuple):
  """Where a clip's sound is looked for, and its picture (None: it has none)."""
  sound: pathlib.Path
  picture: pathlib.Path | None


class Pair(typing.NamedTuple):
  """One matched pair, reduced to what the scores need.

  Attributes:
    id: file stem.
    duration: seconds over which the two are compared.
    generated: onsets of the generated sound; none where it is silent.
    reference: onsets of the reference, None where that has no sound at all.
    events: float64 (E,) exact times in seconds, None where unknown.
    silent: which of 'generated', 'reference' have no sound track.
    motion: {side: Motion, None where there is no picture to be compared}.
    heard: {side: float64 (K,) onsets as AV-Align takes them, None without sound or picture};
      the generated side's are the reference's where it has no sound track of its own.
    unseen: [{id, side, reason}] of video files whose picture could not be had.
  """
  id: str
  duration: float
  generated: onset.Onsets
  reference: onset.Onsets | None
  events: np.ndarray | None
  silent: tuple
  motion: dict
  heard: dict
  unseen: list


def find(folder, flag: str) -> dict:
  """{stem: Files} of the media files that stand directly in `folder`.

  A picture that was drawn for a clip without one (`picture` in its manifest row) is none, and what
  a manifest row calls `low` (a picture before it was enlarged) no clip.

  Raises:
    UserError: no such folder, or its manifest is damaged.
  """
  folder = pathlib.Path(folder)
  if not folder.is_dir():
    raise UserError(f'{flag}={folder}: no such folder')
  order = SOUND_SUFFIXES + VIDEO_SUFFIXES
  rows = read_manifest(folder)
  drawn = {stem for row in rows if row.get('picture') for stem in _stems(row)}
  low = low_files(rows)
  standing = {}
  for path in sorted(folder.iterdir(), key=lambda path: path.name):
    if path.suffix.lower() in order and path.is_file() and path.name not in low:
      standing.setdefault(path.stem, []).append(path)
  found = {}
  for stem, paths in standing.items():
    paths.sort(key=lambda path: order.index(path.suffix.lower()))
    pictures = [path for path in paths if path.suffix.lower() in VIDEO_SUFFIXES]
    found[stem] = Files(paths[0], pictures[0] if pictures and stem not in drawn else None)
  return found


def exact_events(folder) -> dict:
  """{stem: float64 (E,)} from a folder's manifest, for rows that know their events."""
  events = {}
  for row in read_manifest(folder):
    times = event_times(row)
    if times is not None:
      events.update(dict.fromkeys(_stems(row), times))
  return events


def asked(generated, reference) -> dict:
  """{stem: {'prompts': {'audio': str, 'video': str}, 'seed', 'guidance'}} of generated clips.

  From the manifest beside them; of a clip that it does not know the prompt of its reference, which
  may be what it was made of. A prompt is of what was made: of both where nothing says which.
  """
  found = {}
  for folder, own in ((reference, False), (generated, True)):
    for row in read_manifest(folder):
      each = row['prompts'] if isinstance(row.get('prompts'), dict) else {}
      if row.get('prompt') is None and not each:
        continue
      made = row['made'] if isinstance(row.get('made'), list) else ['audio', 'video']
      told = {'prompts': {kind: str(each.get(kind, row.get('prompt')) or '')
                          for kind in ('audio', 'video') if kind in made}}
      told |= {key: row.get(key) for key in ('seed', 'guidance')} if own else {}
      found.update(dict.fromkeys(_stems(row), told))
  return found


def _stems(row):
  return {row['id'], *(pathlib.Path(str(name)).stem for name in row['files'].values())}


def observe_all(pairs, journal, seconds=None) -> tuple:
  """Decodes all pairs -> ([Pair], [{id, file, reason}] of the unreadable), both in order.

  Args:
    pairs: [(stem, Files of the generated, Files of the reference, events or None)].
    journal: what was found earlier and need not be found again, `get(pair)`, and where the rest is
      noted as it comes, `put(pair, found)` (evaluation/journal.py).
    seconds: how much of each pair is compared at most; None: all that both have.
  """
  observed, unreadable = [], []
  known = [journal.get(pair) for pair in pairs]
  if any(known):
    say(f'evaluate: {sum(map(bool, known))}/{len(pairs)} clips are known from before it was '
        'interrupted')
  # Threads, not processes: decoding, FFT, flow and resampling release the interpreter's lock,
  # and this process may hold an accelerator that a fork must not share.
  pool = concurrent.futures.ThreadPoolExecutor(WORKERS)
  progress = Progress('evaluate:', len(pairs))
  try:
    futures = [None if found else pool.submit(_observe, *pair, seconds)
               for pair, found in zip(pairs, known, strict=True)]
    for k, future in enumerate(futures):
      try:
        observed.append(future.result() if future else known[k])
        if future:
          journal.put(pairs[k], observed[-1])
      except MediaError as error:
        unreadable.append({'id': pairs[k][0], 'file': error.path, 'reason': error.reason})
      progress.add(note=f'{len(unreadable)} unreadable')
  finally:  # who interrupts this does not want to wait for all the rest
    pool.shutdown(cancel_futures=True)
  return observed, unreadable


def _observe(stem, generated, reference, events, seconds):
  """Decodes both clips of a pair, cuts their sounds to the common length, finds what happens."""
  clips, motion, unseen = {}, {}, []
  for side, files in (('generated', generated), ('reference', reference)):
    # The reference's picture only says what a generated one could score.
    wanted = files.picture if side == 'generated' or motion['generated'] else None
    clips[side], motion[side], reason = _decode(files.sound, wanted)
    if reason:
      unseen.append({'id': stem, 'side': side, 'reason': reason})
  duration = min(clip.duration for clip in clips.values())
  duration = duration if seconds is None else min(duration, seconds)
  onsets, heard = {}, {}
  for side, clip in clips.items():
    common = clip.audio[samples_of(clip.sample_rate, 0.0, duration)]
    onsets[side] = onset.detect_onsets(common, clip.sample_rate).before(duration)
    heard[side] = av_align.sound_onsets(common, clip.sample_rate) if (
      motion['generated'] and clip.audio.size) else None
  silent = tuple(side for side, clip in clips.items() if not clip.audio.size)
  if 'generated' in silent:
    heard['generated'] = heard['reference']
  return Pair(
    id=stem, duration=duration, generated=onsets['generated'],
    reference=None if 'reference' in silent else onsets['reference'],
    events=None if events is None else events[(events >= 0) & (events < duration)],
    silent=silent, motion=motion, heard=heard, unseen=unseen)


def _decode(sound, picture):
  """(clip with its sound, its Motion or None, why a picture could not be had or None)."""
  motion = reason = seen = None
  if picture is not None:
    try:
      seen = media.decode(picture, height=av_align.HEIGHT, sample_rate=onset.DETECTION_RATE,
                          need_audio=False)
      motion = av_align.motion(seen.frames, seen.frame_times, seen.duration)
    except MediaError as error:  # its sound may be good, and is judged by itself
      reason = error.reason
  if seen is None or picture != sound:
    seen = media.decode(sound, sample_rate=onset.DETECTION_RATE, need_video=False,
                        need_audio=False)
  return seen, motion, reason
