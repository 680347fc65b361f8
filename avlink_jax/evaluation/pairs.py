"""Matches two folders of clips into pairs, and detects their onsets and motion.

`evaluate.py` computes the scores of the pairs.
"""

import collections
import concurrent.futures
import difflib
import hashlib
import os
import pathlib
import typing

import numpy as np

from avlink_jax.data.clip import samples_of
from avlink_jax.data.media import own_rates
from avlink_jax.data.media.decode import decode
from avlink_jax.errors import MediaError, UserError
from avlink_jax.evaluation import common
from avlink_jax.metrics import av_align, onset
from avlink_jax.samples.folder import MANIFEST, event_times, low_files, read_manifest
from avlink_jax.storage.console import Progress, say

# Where several files share a stem, audio comes from the first of these: a samples folder holds
# ID.wav, as it was generated, and ID.mp4 with the same audio through a lossy codec.
AUDIO_SUFFIXES = ('.wav', '.flac', '.ogg', '.mp3', '.m4a', '.aac', '.opus')
VIDEO_SUFFIXES = ('.mp4', '.mkv', '.webm', '.mov', '.avi', '.m4v', '.mpg', '.mpeg', '.ts', '.3gp')
WORKERS = 2
CROPPED = 0.03  # relative difference of aspects from which on pictures are cropped to one


class Files(typing.NamedTuple):
  """Files with a clip's audio and its video (None: it has none), and the factor by which that was
  enlarged (samples/folder.py)."""
  audio: pathlib.Path
  video: pathlib.Path | None
  enlarged: int = 1


class Pair(typing.NamedTuple):
  """One matched pair, reduced to what the scores need.

  Attributes:
    id: file stem.
    duration: seconds over which the two are compared.
    generated: onsets of the generated audio; none where it is silent.
    reference: onsets of the reference, None where that has no audio.
    events: float64 (E,) exact times in seconds, None where unknown.
    silent: which of 'generated', 'reference' have no audio track.
    motion: {side: Motion, None where there is no video to be compared}.
    audio_onsets: {side: float64 (K,) onsets as AV-Align detects them, None without audio or video};
      the generated side's are the reference's where it has no audio track of its own.
    video_errors: [{id, side, reason}] of files whose video could not be decoded.
    shapes: {side: Shape (data/media/own_rates.py) of its video's frames and its audio}.
    view: common.View at which both videos are compared; None unless both sides have one.
    prints: {side: text that only clips of the same content share}.
  """
  id: str
  duration: float
  generated: onset.Onsets
  reference: onset.Onsets | None
  events: np.ndarray | None
  silent: tuple
  motion: dict
  audio_onsets: dict
  video_errors: list
  shapes: dict
  view: common.View | None
  prints: dict


def find(folder: str | os.PathLike, flag: str,
         other: str | os.PathLike | None = None) -> dict[str, Files]:
  """Mapping {name: Files} of the media files in `folder` and its sub-folders.

  A clip's name is its files' stem; in a sub-folder, where the stem is not the only one, that with
  its path, `day1__dog` (as a data source names it). Hidden sub-folders, those with a manifest of
  their own, such as a samples folder's references, and the folder `other` are not looked into.

  A spectrogram rendered for a clip without video (`picture` in its manifest row) does not count as
  video, nor does what a manifest row calls `low` (low-resolution video) as a clip.

  Raises:
    UserError: no such folder, or its manifest is damaged.
  """
  folder = pathlib.Path(folder)
  if not folder.is_dir():
    raise UserError(f'{flag}={folder}: no such folder')
  order = AUDIO_SUFFIXES + VIDEO_SUFFIXES
  rows = read_manifest(folder)
  rendered = {stem for row in rows if row.get('picture') for stem in stems(row)}
  enlarged = {stem: row['enlarged'] for row in rows for stem in stems(row)
              if isinstance(row.get('enlarged'), int) and row['enlarged'] > 0}
  low = low_files(rows)
  by_place: dict[pathlib.Path, list[pathlib.Path]] = {}  # of files of one clip, without a suffix
  for path in _walk(folder, None if other is None else pathlib.Path(other).resolve()):
    if path.suffix.lower() in order and path.is_file() and path.name not in low:
      by_place.setdefault(path.relative_to(folder).with_suffix(''), []).append(path)
  counts = collections.Counter(place.name for place in by_place)
  result = {}
  for place, paths in by_place.items():
    paths.sort(key=lambda path: order.index(path.suffix.lower()))
    videos = [path for path in paths if path.suffix.lower() in VIDEO_SUFFIXES]
    stem = place.name
    name = stem if counts[stem] == 1 else place.as_posix().replace('/', '__')
    result[name] = Files(paths[0], videos[0] if videos and stem not in rendered else None,
                         enlarged.get(stem, 1))
  return result


def _walk(folder, other):
  """Yields the files of a folder and of its sub-folders, in order of name; see `find`."""
  below = []
  for path in sorted(folder.iterdir(), key=lambda path: path.name):
    if not path.is_dir():
      yield path
    elif not (path.name.startswith('.') or (path / MANIFEST).exists() or path.resolve() == other):
      below.append(path)
  for path in below:
    yield from _walk(path, other)


def none_match(ours: dict, theirs: dict, generated: str | os.PathLike,
               reference: str | os.PathLike) -> str:
  """Message that no name is in both folders, with a name of each, as like as they come."""
  sides = [(folder, found) for folder, found in ((generated, ours), (reference, theirs))]
  for folder, found in sides:
    if not found:
      return f'{folder}: no media files in it, nor in sub-folders without a manifest of their own'
  name = min(ours)
  like = difflib.get_close_matches(name, sorted(theirs), 1, 0.0) or sorted(theirs)
  return (f'no clip in {generated} ({len(ours)} clips, such as {name}) has the name of one in '
          f'{reference} ({len(theirs)} clips, such as {like[0]}): files are matched by name '
          'without suffix')


def identical(pairs: list[Pair]) -> dict[str, list[list[str]]]:
  """Mapping {side: lists of the ids of clips that are the same}, of two or more each."""
  found: dict[str, list[list[str]]] = {}
  for side in ('generated', 'reference'):
    groups: dict[str, list[str]] = {}
    for pair in pairs:
      groups.setdefault(pair.prints[side], []).append(pair.id)
    found[side] = [ids for ids in groups.values() if len(ids) > 1]
  return found


def exact_events(folder: str | os.PathLike) -> dict[str, np.ndarray]:
  """Mapping {stem: float64 (E,)} from a folder's manifest, for rows with events."""
  events = {}
  for row in read_manifest(folder):
    times = event_times(row)
    if times is not None:
      events.update(dict.fromkeys(stems(row), times))
  return events


def exact_strengths(folder: str | os.PathLike) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Mapping {stem: (seconds (E,), strengths (E,))} from a folder's manifest, for rows that have as
  many `strengths` as `events`."""
  found = {}
  for row in read_manifest(folder):
    try:
      times, strengths = (np.asarray(row[key], np.float64).reshape(-1)
                          for key in ('events', 'strengths'))
    except (KeyError, TypeError, ValueError):
      continue
    if len(times) == len(strengths):
      found.update(dict.fromkeys(stems(row), (times, strengths)))
  return found


def generation_settings(generated: str | os.PathLike,
                        reference: str | os.PathLike) -> dict[str, dict]:
  """Settings of generated clips: {stem: {"prompts": {kind: str}, "condition_prompts": {kind: str},
  "negative_prompt", "seed", "guidance"}}.

  From their manifest, or else the prompt of the reference, which may be what a clip was generated
  from. Prompts are of the generated modalities: of both where the row does not name them.
  """
  result: dict[str, dict] = {}
  for folder, own in ((reference, False), (generated, True)):
    for row in read_manifest(folder):
      each = row['prompts'] if isinstance(row.get('prompts'), dict) else {}
      if row.get('prompt') is None and not each:
        continue
      generated_kinds = row['made'] if isinstance(row.get('made'), list) else ['audio', 'video']
      settings: dict[str, typing.Any] = {'prompts': {
          kind: str(each.get(kind, row.get('prompt')) or '')
          for kind in ('audio', 'video') if kind in generated_kinds}}
      if own:
        settings |= {key: row.get(key) for key in ('seed', 'guidance', 'negative_prompt')}
        settings['condition_prompts'] = {
            kind: str(text) for kind, text in each.items() if kind not in generated_kinds}
      result.update(dict.fromkeys(stems(row), settings))
  return result


def stems(row: dict) -> set[str]:
  """Names by which a manifest's row may be meant: its id, and its files' stems."""
  return {row['id'], *(pathlib.Path(str(name)).stem for name in row['files'].values())}


def measure_pairs(pairs: list[tuple[str, Files, Files, np.ndarray | None]], journal: typing.Any,
                  seconds: float | None = None) -> tuple[list[Pair], list[dict]]:
  """Decodes and measures all pairs: ([Pair], [{id, file, reason}] of the unreadable), in order.

  Args:
    pairs: [(stem, Files of the generated, Files of the reference, events or None)].
    journal: evaluation/journal.py's; holds the results of an interrupted evaluation.
    seconds: length that is compared at most; None: all that both have.
  """
  measured, unreadable = [], []
  known = [journal.get(pair) for pair in pairs]
  if any(known):
    say(f'evaluate: {sum(map(bool, known))}/{len(pairs)} clips are known from before it was '
        'interrupted')
  # Threads, not processes: decoding, FFT, flow and resampling release the interpreter's lock,
  # and this process may hold an accelerator that a fork must not share.
  pool = concurrent.futures.ThreadPoolExecutor(WORKERS)
  progress = Progress('evaluate:', len(pairs))
  try:
    futures = [None if result else pool.submit(_measure, *pair, seconds)
               for pair, result in zip(pairs, known, strict=True)]
    for k, future in enumerate(futures):
      try:
        measured.append(future.result() if future else known[k])
        if future:
          journal.put(pairs[k], measured[-1])
      except MediaError as error:
        unreadable.append({'id': pairs[k][0], 'file': error.path, 'reason': error.reason})
      progress.add(note=f'{len(unreadable)} unreadable')
  finally:  # an interrupt does not wait for the rest
    pool.shutdown(cancel_futures=True)
  return measured, unreadable


def _measure(stem, generated, reference, events, seconds):
  """Decodes both clips of a pair, cuts their audio to the common length, detects onsets."""
  sides = {'generated': generated, 'reference': reference}
  shapes = {side: _shape(files) for side, files in sides.items()}
  view = None
  if all(shape.height for shape in shapes.values()):
    view = common.view_of(*shapes.values(), enlarged=[files.enlarged for files in sides.values()])
  clips, motion, prints, video_errors = {}, {}, {}, []
  for side, files in sides.items():
    # The reference's video only shows what generated video could score.
    video = files.video if side == 'generated' or motion['generated'] else None
    clips[side], motion[side], prints[side], reason = _decode(
      files.audio, video, shapes[side], view)
    if reason:
      video_errors.append({'id': stem, 'side': side, 'reason': reason})
  duration = min(clip.duration for clip in clips.values())
  duration = duration if seconds is None else min(duration, seconds)
  onsets, audio_onsets = {}, {}
  for side, clip in clips.items():
    audio = clip.audio[samples_of(clip.sample_rate, 0.0, duration)]
    onsets[side] = onset.detect_onsets(audio, clip.sample_rate).before(duration)
    audio_onsets[side] = av_align.audio_onsets(audio, clip.sample_rate) if (
      motion['generated'] and clip.audio.size) else None
  silent = tuple(side for side, clip in clips.items() if not clip.audio.size)
  if 'generated' in silent:
    audio_onsets['generated'] = audio_onsets['reference']
  return Pair(
    id=stem, duration=duration, generated=onsets['generated'],
    reference=None if 'reference' in silent else onsets['reference'],
    events=None if events is None else events[(events >= 0) & (events < duration)],
    silent=silent, motion=motion, audio_onsets=audio_onsets, video_errors=video_errors,
    shapes=shapes, view=view, prints=prints)


def _shape(files):
  """Shape of a side's files; zeros where they cannot be read, which is told when they are decoded.
  """
  try:
    shape = own_rates.shape_of(files.video or files.audio, files.video is not None)
    if files.video in (None, files.audio):
      return shape
    return shape._replace(sample_rate=own_rates.shape_of(files.audio, False).sample_rate)
  except MediaError:
    return own_rates.Shape(0, 0, 0.0, 0)


def _decode(audio, video, shape, view):
  """Decodes (clip with its audio, its Motion or None, print of both, reason for missing video or
  None)."""
  motion = reason = decoded = None
  content = hashlib.sha256()
  if video is not None:
    try:
      decoded = decode(video, height=av_align.HEIGHT, width=_width(shape, view),
                       max_fps=common.thinned(shape.fps, view) if view else None,
                       sample_rate=onset.DETECTION_RATE, need_audio=False)
      motion = av_align.motion(decoded.frames, decoded.frame_times, decoded.duration)
      content.update(decoded.frames)
    except MediaError as error:  # its audio may be good, and is scored by itself
      reason = error.reason
  if decoded is None or video != audio:
    decoded = decode(audio, sample_rate=onset.DETECTION_RATE, need_video=False,
                     need_audio=False)
  content.update(decoded.audio)
  return decoded, motion, content.hexdigest()[:16], reason


def _width(shape, view):
  """Width of frames at av_align.HEIGHT that are cropped to the view's aspect; None: as they are."""
  if view is None or abs(view.width / view.height * shape.height / shape.width - 1) < CROPPED:
    return None
  return max(1, round(av_align.HEIGHT * view.width / view.height))
