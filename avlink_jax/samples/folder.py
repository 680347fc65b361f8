"""A samples folder: what was made, in files that any player opens, and a manifest that says how.

    ID.mp4           picture and sound, of the same length within one video frame; a sound that has
                     no picture is shown as its spectrogram, a picture without sound is silent
    ID_low.mp4       the same at the base model's size and rate, of what was upsampled
    ID.wav           the sound as it was made, where sound was made
    manifest.jsonl   a row a clip: id, task, source, prompt, seed, steps, guidance, duration, files

Files appear whole under their names, and a clip's row when all of its files are there.
`samples/gallery.py` adds the page to look at them; `evaluate.py` reads two such folders.
"""

import hashlib
import json
import math
import pathlib
import re
import tempfile

import numpy as np

from avlink_jax.data.media import mux
from avlink_jax.errors import UserError
from avlink_jax.samples.spectrogram import FRAME_FPS, spectrogram_frames
from avlink_jax.storage.atomic import write_text

MANIFEST = 'manifest.jsonl'
FIELDS = ('id', 'task', 'source', 'prompt', 'seed', 'steps', 'guidance', 'duration', 'files')
WATCHABLE_WIDTH = 256  # pixels; smaller pictures are enlarged by a whole factor
SUFFIXES = '.mp4', '_low.mp4', '.wav'
NAME_BYTES = 200  # file systems take 255, and the hash and the suffix need some


def write_sample(folder, id: str, *, frames=None, fps=None, audio=None, sample_rate=None,
                 record=None, source_video=None, source_audio=None, made=None, low=None,
                 low_fps=None) -> dict:
  """Writes one sample's files and its row in the manifest; the same id replaces both.

  Of an older sample of that id nothing is left before the first new file is there, so that what
  an interruption leaves is never half of each.

  Args:
    folder: samples folder; made where it is missing.
    id: the clip's name. Its files are called `file_stem(id)`.
    frames: uint8 (N, H, W, 3) RGB, None where there is no picture or `source_video` has it.
      Pictures narrower than 256 pixels are enlarged by a whole factor, pixels kept square.
    fps: frames a second of `frames`.
    audio: float32 (S,) mono in [-1, 1], None where there is no sound.
    sample_rate: Hz of `audio`.
    record: the row's other fields (task, source, prompt, seed, ..., and whatever else the
      reader should know, such as `events`). Numpy scalars and arrays are welcome.
    source_video: path of the conditioning clip: its own picture is kept, under `audio`, which
      must be given.
    source_audio: path of the conditioning clip, where the sound was given: its own sound, stereo
      if it is, goes under `frames`, which must be given; `audio` is not looked at then.
    made: which of 'audio' and 'video' were generated; it stands in the row. ID.wav is written
      only where sound was. None: not told, and any `audio` becomes ID.wav.
    low, low_fps: frames, as `frames`, that those were upsampled from, and how many a second; they
      become ID_low.mp4, under the same sound.

  Returns:
    the row, as it stands in the manifest. `files` maps `video`, `audio` and `low` to names in the
    folder; fields of the contract that nobody gave are None. `picture` is 'spectrogram' where
    the picture was drawn from the sound.

  Raises:
    UserError: the folder cannot be written, or a source would be overwritten.
    MediaError: `source_video` or `source_audio` cannot be read.
  """
  folder = make_folder(folder)
  stem = file_stem(id)
  files, duration, told = {}, None, {} if made is None else {'made': sorted(made)}
  video, small, wav = (folder / f'{stem}{suffix}' for suffix in SUFFIXES)
  has_frames = frames is not None and len(frames) > 0
  if source_audio is not None and not has_frames:
    raise ValueError('source_audio goes under frames, and there are none')
  for source in filter(None, (source_video, source_audio)):
    # Also a wav that is not written now: it may be an older sample's, which is removed.
    if pathlib.Path(source).resolve() in (video.resolve(), small.resolve(), wav.resolve()):
      raise UserError(f'{source} is the input itself: give another folder for the output')
  _take_back(folder, id)
  if audio is not None:
    duration = len(audio) / sample_rate
  if audio is not None and source_audio is None and (made is None or 'audio' in made):
    files['audio'] = wav.name
    mux.write_wav(wav, audio, sample_rate)
  if source_video is not None:
    mux.replace_audio(source_video, video, audio, sample_rate)
  elif has_frames:
    duration = len(frames) / fps
    sound = dict(audio=audio, sample_rate=sample_rate, source_audio=source_audio)
    mux.write_mp4(video, frames=enlarge(frames), fps=fps, **sound)
    if low is not None:
      files['low'] = small.name
      mux.write_mp4(small, frames=enlarge(low), fps=low_fps, **sound)
  elif audio is not None:
    told['picture'] = 'spectrogram'
    mux.write_mp4(video, frames=spectrogram_frames(audio, sample_rate), fps=FRAME_FPS,
                  audio=audio, sample_rate=sample_rate)
  if source_video is not None or has_frames or audio is not None:
    files['video'] = video.name
  row = dict.fromkeys(FIELDS)
  row.update({'duration': duration, **(record or {}), **told, 'id': id, 'files': files})
  _put_row(folder, row)
  return row


def enlarge(frames, width: int = WATCHABLE_WIDTH):
  """Repeats pixels so that the picture is at least `width` wide. (N, H, W, 3) -> (N, kH, kW, 3)."""
  factor = max(1, math.ceil(width / frames.shape[2]))
  return np.repeat(np.repeat(frames, factor, axis=1), factor, axis=2)


def file_stem(id: str) -> str:
  """A file name for an id: the id itself wherever it can be one, so that `evaluate` finds pairs.

  Path separators, control characters, lone surrogates and leading dots go, and what is longer
  than 200 bytes is cut; an id that had to be changed gets eight digits of its hash at the end,
  so that two ids never share a name.
  """
  stem = re.sub(r'[/\\\x00-\x1f\x7f-\x9f\ud800-\udfff]', '_', id).lstrip('.')
  stem = stem.encode()[:NAME_BYTES].decode(errors='ignore')
  if stem and stem == id:
    return stem
  return f'{stem or "clip"}-{hashlib.sha256(id.encode("utf-8", "surrogatepass")).hexdigest()[:8]}'


def make_folder(folder) -> pathlib.Path:
  """Makes sure that `folder` is there and can be written to, else raises UserError."""
  folder = pathlib.Path(folder)
  try:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
      pass
  except OSError as error:
    raise UserError(f'cannot write into the folder {folder} ({error.strerror}): '
                    'give one that can be written') from error
  return folder


def read_manifest(folder) -> list:
  """The rows of a folder's `manifest.jsonl`, each with `id` and `files`; [] where there is none.

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


def low_files(rows) -> set:
  """Names of the files that are pictures before they were enlarged: of `read_manifest`'s rows."""
  files = [(kind, str(name)) for row in rows for kind, name in row['files'].items()]
  return {name for kind, name in files if kind == 'low'} - {
    name for kind, name in files if kind != 'low'}


def whole(folder) -> dict:
  """{id: row} of the clips in a samples folder of which every file is there."""
  folder = pathlib.Path(folder)
  return {row['id']: row for row in read_manifest(folder) if row['files'] and all(
      name in _names(row['id']) and (folder / name).is_file()
      for name in map(str, row['files'].values()))}


def event_times(row):
  """The exact times in a manifest's row: float64 (E,) seconds, None where it knows none.

  Raises:
    UserError: what stands there are no times.
  """
  if row.get('events') is None:
    return None
  try:
    return np.sort(np.asarray(row['events'], np.float64).reshape(-1))
  except (TypeError, ValueError) as error:
    raise UserError(f'{MANIFEST}: the events of {row["id"]!r} are no list of seconds') from error


def _names(id):
  """What the files of a clip may be called. Nothing else is ever removed."""
  return {f'{file_stem(id)}{suffix}' for suffix in SUFFIXES}


def _take_back(folder, id):
  """Removes an older sample's files; its row keeps its place, and says that there are none."""
  old = next((row for row in read_manifest(folder) if row['id'] == id and row['files']), None)
  if old is not None:
    for name in _names(id) & set(map(str, old['files'].values())):
      (folder / name).unlink(missing_ok=True)
    _put_row(folder, {**old, 'files': {}})


def _put_row(folder, row):
  rows = {old['id']: old for old in read_manifest(folder)}
  rows[row['id']] = row
  lines = [json.dumps(r, default=_plain) for r in rows.values()]
  write_text(folder / MANIFEST, '\n'.join(lines) + '\n')


def _plain(value):
  """Numpy's and pathlib's values as JSON knows them."""
  if isinstance(value, np.ndarray | np.generic):
    return value.tolist()
  if isinstance(value, pathlib.PurePath):
    return str(value)
  raise TypeError(f'a manifest row cannot hold {type(value).__name__}')
