"""Samples folders: generated clips in files that any player opens, and a manifest.

    ID.mp4           video and audio, of the same length within one video frame; audio without
                     video is shown as its spectrogram, video without audio is silent
    ID_low.mp4       of upsampled video: the same at the base model's size and rate
    ID.wav           the audio, where it was generated
    manifest.jsonl   a row a clip: id, task, source, prompt, seed, steps, guidance, duration, files

Files are complete when they appear under their names, and a clip's row is written after all of its
files. `samples/gallery.py` adds a page that shows them; `evaluate.py` reads two such folders.
"""

import hashlib
import json
import math
import os
import pathlib
import re
import tempfile
from collections.abc import Iterable
from typing import Any

import numpy as np

from avlink_jax.data.media import mux
from avlink_jax.data.media.original import left_out
from avlink_jax.errors import UserError
from avlink_jax.samples.spectrogram import FRAME_FPS, spectrogram_frames
from avlink_jax.storage.atomic import write_text

MANIFEST = 'manifest.jsonl'
FIELDS = ('id', 'task', 'source', 'prompt', 'seed', 'steps', 'guidance', 'duration', 'files')
WATCHABLE_WIDTH = 256  # pixels; smaller frames are enlarged by a whole factor
SUFFIXES = '.mp4', '_low.mp4', '.wav'
NAME_BYTES = 200  # file systems allow 255, of which hash and suffix take some


def write_sample(folder: str | os.PathLike, id: str, *, frames: np.ndarray | None = None,
                 fps: float = 0.0, audio: np.ndarray | None = None,
                 sample_rate: int = 0, record: dict | None = None,
                 source_video: str | os.PathLike | None = None,
                 source_audio: str | os.PathLike | None = None,
                 generated: Iterable[str] | None = None, low: np.ndarray | None = None,
                 low_fps: float = 0.0, original_sound: str = 'drop') -> dict:
  """Writes one sample's files and its row in the manifest; the same id replaces both.

  An older sample of that id is removed before the first new file is written, so that an
  interruption never leaves half of each.

  Args:
    folder: samples folder; created where it is missing.
    id: the clip's name. Its files are called `file_stem(id)`.
    frames: uint8 (N, H, W, 3) RGB, None where there is no video or `source_video` has it.
      Frames narrower than 256 pixels are enlarged by a whole factor, pixels kept square.
    fps: frames a second of `frames`.
    audio: float32 (S,) mono in [-1, 1], None where there is no audio.
    sample_rate: Hz of `audio`.
    record: the row's other fields (task, source, prompt, seed, ..., and others, such as
      `events`). Numpy scalars and arrays are allowed.
    source_video: path of the conditioning clip, in V2A: its own video is kept, with `audio`, which
      is required.
    source_audio: path of the conditioning clip, in A2V: its own audio, stereo if it is, goes with
      `frames`, which are required; `audio` is ignored then.
    generated: which of 'audio' and 'video' were generated; the row has it as `made`. ID.wav is
      written only where audio was. None: unknown, and any `audio` becomes ID.wav.
    low, low_fps: low-resolution frames that `frames` were upsampled from, and their rate; they
      become ID_low.mp4, with the same audio.
    original_sound: what becomes of `source_video`'s own audio (data/media/mux.replace_audio).

  Returns:
    the row of the manifest. `files` maps `video`, `audio` and `low` to names in the folder; fields
    of the contract without a value are None. `enlarged` is by how much the frames were, if so.
    `picture` is 'spectrogram' where the video was rendered from the audio. `left_out` names tracks
    of `source_video` that are in no new file; `video_codec` is 'hevc' where its video was kept as
    that, which not every browser plays.

  Raises:
    UserError: the folder cannot be written, or a source or a foreign file would be overwritten.
    MediaError: `source_video` or `source_audio` cannot be read.
  """
  folder = make_folder(folder)
  stem = file_stem(id)
  files, duration = {}, None
  extra: dict[str, Any] = {} if generated is None else {'made': sorted(generated)}
  video, low_video, wav = (folder / f'{stem}{suffix}' for suffix in SUFFIXES)
  if frames is not None and not len(frames):
    frames = None
  if source_audio is not None and frames is None:
    raise ValueError('source_audio goes under frames, and there are none')
  # The wav too, even if none is written now: it may be an older sample's, which is removed.
  own = [path.resolve() for path in (video, low_video, wav)]
  for source in (source_video, source_audio):
    if source and pathlib.Path(source).resolve() in own:
      raise UserError(f'{source} is the input itself: give another folder for the output')
  _claim(folder, id)
  if audio is not None:
    duration = len(audio) / sample_rate
  if audio is not None and source_audio is None and (generated is None or 'audio' in generated):
    files['audio'] = wav.name
    mux.write_wav(wav, audio, sample_rate)
  if source_video is not None:
    codec = mux.replace_audio(source_video, video, audio, sample_rate, original_sound)
    if codec == 'hevc':
      extra['video_codec'] = codec
    if tracks := left_out(source_video, with_sound=original_sound != 'drop'):
      extra['left_out'] = tracks
  elif frames is not None:
    duration = len(frames) / fps
    audio_options = dict(audio=audio, sample_rate=sample_rate, source_audio=source_audio)
    mux.write_mp4(video, frames=enlarge(frames), fps=fps, **audio_options)
    if enlarged_by(frames) > 1:
      extra['enlarged'] = enlarged_by(frames)
    if low is not None:
      files['low'] = low_video.name
      mux.write_mp4(low_video, frames=enlarge(low), fps=low_fps, **audio_options)
  elif audio is not None:
    extra['picture'] = 'spectrogram'
    mux.write_mp4(video, frames=spectrogram_frames(audio, sample_rate), fps=FRAME_FPS,
                  audio=audio, sample_rate=sample_rate)
  if any(medium is not None for medium in (source_video, frames, audio)):
    files['video'] = video.name
  row = dict.fromkeys(FIELDS)
  row.update({'duration': duration, **(record or {}), **extra, 'id': id, 'files': files})
  _put_row(folder, row)
  return row


def enlarge(frames: np.ndarray, width: int = WATCHABLE_WIDTH) -> np.ndarray:
  """Repeats pixels so that frames are at least `width` wide: (N, H, W, 3) -> (N, kH, kW, 3)."""
  factor = enlarged_by(frames, width)
  return np.repeat(np.repeat(frames, factor, axis=1), factor, axis=2)


def enlarged_by(frames: np.ndarray, width: int = WATCHABLE_WIDTH) -> int:
  """Factor of `enlarge`."""
  return max(1, math.ceil(width / frames.shape[2]))


def file_stem(id: str) -> str:
  """File name for an id: the id itself wherever possible, so that `evaluate` matches pairs.

  Path separators, control characters, lone surrogates and leading dots are removed, and names
  are cut to 200 bytes; a changed id gets eight digits of its hash at the end, so that two ids
  never share a name.
  """
  stem = re.sub(r'[/\\\x00-\x1f\x7f-\x9f\ud800-\udfff]', '_', id).lstrip('.')
  stem = stem.encode()[:NAME_BYTES].decode(errors='ignore')
  if stem and stem == id:
    return stem
  return f'{stem or "clip"}-{hashlib.sha256(id.encode("utf-8", "surrogatepass")).hexdigest()[:8]}'


def make_folder(folder: str | os.PathLike) -> pathlib.Path:
  """Creates `folder` if need be; raises UserError where it cannot be written to."""
  folder = pathlib.Path(folder)
  try:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
      pass
  except OSError as error:
    raise UserError(f'cannot write into the folder {folder} ({error.strerror}): '
                    'give one that can be written') from error
  return folder


def read_manifest(folder: str | os.PathLike) -> list[dict]:
  """Rows of a folder's `manifest.jsonl`, each with `id` and `files`; [] where there is none.

  Raises:
    UserError: a line is no row.
  """
  path = pathlib.Path(folder) / MANIFEST
  if not path.is_file():
    return []
  rows = []
  for number, line in enumerate(path.read_text(encoding='utf-8', errors='replace').split('\n'), 1):
    if not line.strip():
      continue
    try:
      row = json.loads(line)
      rows.append({**row, 'id': str(row['id']), 'files': dict(row.get('files') or {})})
    except (ValueError, KeyError, TypeError, RecursionError) as error:
      raise UserError(f'{path}, line {number}: not a JSON object with an id') from error
  return rows


def low_files(rows: list[dict]) -> set[str]:
  """Names of the low-resolution videos in `read_manifest`'s rows."""
  files = [(kind, str(name)) for row in rows for kind, name in row['files'].items()]
  return {name for kind, name in files if kind == 'low'} - {
    name for kind, name in files if kind != 'low'}


def complete(folder: str | os.PathLike) -> dict[str, dict]:
  """Mapping {id: row} of the clips in a samples folder whose files all exist."""
  folder = pathlib.Path(folder)
  return {row['id']: row for row in read_manifest(folder) if row['files'] and all(
      name in _names(row['id']) and (folder / name).is_file()
      for name in map(str, row['files'].values()))}


def event_times(row: dict) -> np.ndarray | None:
  """Exact event times of a manifest's row: float64 (E,) seconds, None where it has none.

  Raises:
    UserError: they are no list of seconds.
  """
  if row.get('events') is None:
    return None
  try:
    return np.sort(np.asarray(row['events'], np.float64).reshape(-1))
  except (TypeError, ValueError) as error:
    raise UserError(f'{MANIFEST}: the events of {row["id"]!r} are no list of seconds') from error


def _names(id):
  """Possible file names of a clip. No other file is ever removed."""
  return {f'{file_stem(id)}{suffix}' for suffix in SUFFIXES}


def _claim(folder, id):
  """Removes an older sample's files and leaves a row without files, so that what is written from
  now on is known to be the sample's. Raises UserError: such a file is there and no sample's."""
  old = next((row for row in read_manifest(folder) if row['id'] == id), None)
  names = _names(id)
  if old is None:
    for name in sorted(names):
      if (folder / name).exists():
        raise UserError(f'{folder / name} is no sample of ours and would be overwritten: move it, '
                        'or give another folder')
    old = {'id': id}
  elif old['files']:
    for name in names & set(map(str, old['files'].values())):
      (folder / name).unlink(missing_ok=True)
  elif old == {'id': id, 'files': {}}:
    return
  _put_row(folder, {**old, 'files': {}})


def _put_row(folder, row):
  rows = {old['id']: old for old in read_manifest(folder)}
  rows[row['id']] = row
  lines = [json.dumps(r, default=_to_json) for r in rows.values()]
  write_text(folder / MANIFEST, '\n'.join(lines) + '\n')


def _to_json(value):
  """Converts numpy's and pathlib's values for JSON."""
  if isinstance(value, np.ndarray | np.generic):
    return value.tolist()
  if isinstance(value, pathlib.PurePath):
    return str(value)
  raise TypeError(f'a manifest row cannot hold {type(value).__name__}')
