"""Prepared records as a data source: examples in sharded ArrayRecord files (data/prepare/).

    FOLDER/records.json                        version, layout, codec, text encoder, counts
    FOLDER/train-00003-of-00016.array_record   examples, one a record
    FOLDER/train-00003-of-00016.json           its counts, sizes, and what was skipped and why
    FOLDER/text-00000-of-00001.array_record    embeddings of captions, where T5 reads them

A record is a safetensors blob, which holds arrays and runs nothing:

    about     uint8, JSON: version, id, duration, captions, source, start, source_fps,
              source_rate, licence, sound_peak
    frames    uint8 (N, H, W, 3) at n/fps seconds
    sound     int16 (S,), full scale is `sound_peak`
    latents   float16 (T, C), the audio codec's, of the whole window, padding included
    video_latents      uint16 (T, H, W, C), the bits of bfloat16, the video codec's, likewise
    high, high_sizes   JPEG frames at `high.fps`, one after another, and the bytes of each
    events    float64 (E,) seconds, where exact times are known
"""

import collections
import dataclasses
import io
import json
import re
import threading
import typing
from pathlib import Path

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy
from array_record.python import array_record_module
from PIL import Image

from avlink_jax.data.clip import Clip, frames_of, part, pixels_of
from avlink_jax.errors import MediaError, NoSplit, UserError

VERSION = 1
ABOUT = 'records.json'
FIELDS = {'layout', 'audio', 'video', 'high', 'codec', 'text'}  # required in records.json
HIGH = (24.0, 288, 512)  # frames a second, height, width of the high-resolution frames
OPEN_SHARDS = 256  # files kept open at a time; a process may have some thousand
WRITING = 'group_size:1,zstd:1'  # a record by itself; denser settings take longer for 1 %
READING = 'readahead_buffer_size:0,max_parallelism:0'  # one record at a time, from anywhere


class Latents(typing.NamedTuple):
  """How latents of a modality are stored.

  codec: the codec's key in records.json, which older records may lack; also prepare's flag, and the
  key in `config.frozen`. medium: what there is without latents. array: of a record, of numbers of
  `dtype`, whose bits are `stored` as another type where safetensors' numpy reads only that. reads:
  names in data/batch.py of what is read of the medium itself.
  """
  codec: str
  medium: str
  array: str
  dtype: type
  stored: type
  reads: tuple[str, ...]


LATENTS = {  # by modality
    'audio': Latents('codec', 'sound', 'latents', np.float16, np.float16, ('mel', 'wave')),
    'video': Latents('video_codec', 'pictures', 'video_latents', ml_dtypes.bfloat16, np.uint16, ())}


def is_records(folder) -> bool:
  """Tells whether a folder holds prepared records."""
  return (Path(folder) / ABOUT).is_file()


def read_about(folder) -> dict:
  """Content of `records.json`. Raises UserError: missing, no JSON, or of another version."""
  path = Path(folder) / ABOUT
  try:
    about = json.loads(path.read_text(encoding='utf-8'))
    version = about['version']
    if version == VERSION and (lacking := FIELDS - about.keys()):
      raise KeyError(', '.join(sorted(lacking)))
  except FileNotFoundError:
    raise UserError(f'{folder}: no prepared records ({ABOUT} is missing): make them with '
                    'python -m avlink_jax.data.prepare') from None
  except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
    raise UserError(f'{path}: cannot be read as the records\' description ({error})') from None
  if version != VERSION:
    raise UserError(f'{path}: records of version {version}; this program reads version {VERSION}: '
                    'prepare them anew')
  return about


def shard_name(split, shard, shards) -> str:
  return f'{split}-{shard:05d}-of-{shards:05d}'


def encode(about: dict, arrays: dict) -> bytes:
  """Encodes JSON values and arrays as one record."""
  header = json.dumps({'version': VERSION, **about}).encode()
  return safetensors.numpy.save({
      'about': np.frombuffer(header, np.uint8),
      **{name: np.ascontiguousarray(array) for name, array in arrays.items()}})


def decode(blob: bytes):
  """Decodes a record into (about, arrays). Raises ValueError: no record, or another version."""
  try:
    arrays = safetensors.numpy.load(blob)
    about = json.loads(arrays.pop('about').tobytes())
    version = about['version']
  except (safetensors.SafetensorError, KeyError, TypeError, RecursionError) as error:
    raise ValueError(f'not a record ({error})') from None
  if version != VERSION:
    raise ValueError(f'a record of version {version}, not {VERSION}')
  return about, arrays


def of_clip(clip: Clip, **more) -> bytes:
  """Encodes a clip, at most a window long and its frames on the layout's grid, as a record.

  `more` are further arrays; audio is stored in 16 bits, scaled to its peak.
  """
  arrays, peak = dict(more), float(np.abs(clip.audio).max(initial=0.0))
  if len(clip.frames):
    arrays['frames'] = clip.frames
  if len(clip.audio):
    arrays['sound'] = np.round(clip.audio * (32767 / max(peak, 1e-8))).astype(np.int16)
  for name, latents in clip.latents.items():
    how = LATENTS[name]
    arrays[how.array] = latents.astype(how.dtype).view(how.stored)
  if clip.events is not None:
    arrays['events'] = clip.events
  about = {name: getattr(clip, name) for name in (
      'id', 'duration', 'audio_caption', 'video_caption', 'source', 'start', 'source_fps',
      'source_rate', 'licence')}
  return encode({**about, 'sound_peak': peak}, arrays)


def to_clip(blob: bytes, about: dict) -> Clip:
  """Clip of a record; `about` is its folder's records.json. Raises ValueError: not as it says."""
  own, arrays = decode(blob)
  layout = about['layout']
  frames = arrays.get('frames', np.zeros((0, 0, 0, 3), np.uint8))
  audio = arrays.get('sound', np.zeros(0, np.int16))
  latents = {name: arrays[how.array].view(how.dtype).astype(np.float32)
             for name, how in LATENTS.items() if how.array in arrays}
  if about['video'] and not ('video' in latents and not len(frames)) and (
      frames.shape[1:] != (layout['height'], layout['width'], 3)):
    raise ValueError(f'its frames are {frames.shape}')
  return Clip(
      id=own['id'], duration=own['duration'], frames=frames,
      frame_times=np.arange(len(frames)) / layout['fps'],
      audio=audio.astype(np.float32) * np.float32(own['sound_peak'] / 32767),
      sample_rate=layout['sample_rate'], audio_caption=own['audio_caption'],
      video_caption=own['video_caption'], events=arrays.get('events'), source=own['source'],
      latents=latents, start=own['start'],
      source_fps=own['source_fps'], source_rate=own['source_rate'], licence=own['licence'])


def decode_high(arrays, shown=slice(None)) -> np.ndarray:
  """High-resolution frames of a record's arrays, or some of them: uint8 (N, H, W, 3)."""
  sizes = arrays['high_sizes']
  ends = np.cumsum(sizes)
  return np.stack([np.asarray(Image.open(io.BytesIO(arrays['high'][end - size:end].tobytes())))
                   for size, end in zip(sizes[shown], ends[shown], strict=True)])


class Records:
  """A folder of prepared records as a data source (data/clip.py), one split of it.

  Attributes:
    about: content of records.json.
    uses_high: whether the layout asks for the high-resolution frames (prepare's --high).
  """

  def __init__(self, folder, split, layout, reads=('audio', 'video')):
    """Checks the list of shards and each one's size; no record is read yet.

    Args:
      folder: of the records.
      split: 'train', 'validation' or 'test'.
      layout: data/batch.py's; the records must be prepared for it.
      reads: what the task needs of an example, names as in data/batch.py.

    Raises UserError: no records, unfinished, a shard is missing or cut short, or prepared for
    another layout or without what is needed. NoSplit: none of its records are of the split.
    """
    self.folder, self.split = Path(folder), split
    self.about = read_about(folder)
    if 'counts' not in self.about:
      raise UserError(f'{folder}: preparing is not finished: run the same command again')
    self.uses_high = is_high(self.about, layout)
    check_layout(self.about, layout, folder)
    counts = _counts(self.about, split, folder)
    self._shards = [(self.folder / f'{name}.array_record', size) for name, size, _ in counts]
    self._firsts = np.cumsum([0] + [count for *_, count in counts])
    if not len(self):
      raise NoSplit(f'{folder}: there are no records of the split {split}')
    for path, size in self._shards:
      if not path.is_file() or path.stat().st_size != size:
        state = 'is cut short' if path.is_file() else 'is missing'
        raise UserError(f'{path} {state}: remove it and run the same prepare command again')
    self._check_reads(reads, in_parts=bool(layout.crop))
    self._readers, self._lock = collections.OrderedDict(), threading.Lock()

  def __len__(self) -> int:
    return int(self._firsts[-1])

  @property
  def identity(self):
    """What the records are, wherever they lie (data/identity.py)."""
    of = {name: (self.about[name] or {}).get('fingerprint') for name in ('codec', 'text')}
    kept = {name: self.about.get(name) for name in ('layout', 'audio', 'video', 'high', 'listing')}
    return ['records', self.split, kept, of, self.about['counts'].get(self.split, {})]

  def name(self, i: int) -> str:
    """Id of the example; where it cannot be read, its number."""
    try:
      return self.load(i).id
    except MediaError:
      return f'{self.split} {i}'

  def load(self, i: int) -> Clip:
    """Reads example i. Raises MediaError where its record is damaged."""
    return self._apply(i, lambda blob: self._clip(blob, 0.0, np.inf))

  def seconds(self, i: int) -> float:
    """Length of example i in seconds. Raises MediaError where its record is damaged."""
    return self._apply(i, lambda blob: decode(blob)[0]['duration'])

  def load_part(self, i: int, start: float, seconds: float, window=None) -> Clip:
    """Reads example i and cuts it as `clip.part` does. Raises MediaError."""
    cut = self._apply(i, lambda blob: self._clip(blob, start, seconds))
    rows, columns = pixels_of(window)
    return dataclasses.replace(cut, frames=cut.frames[:, rows, columns])

  def high(self, i: int) -> np.ndarray:
    """High-resolution frames of example i, uint8 (N, H, W, 3) at `about['high']['fps']`.

    Raises MediaError where its record is damaged, UserError where none were stored.
    """
    if not self.about['high']:
      raise UserError(f'{self.folder} holds no large pictures: prepare with --high')
    return self._apply(i, lambda blob: decode_high(decode(blob)[1]))

  def _clip(self, blob, start, seconds):
    """Clip of [start, start + seconds) of a record; all of it where `seconds` is infinite."""
    clip = to_clip(blob, self.about)
    if self.uses_high:
      _, arrays = decode(blob)
      times = np.arange(len(arrays['high_sizes'])) / self.about['high']['fps']
      shown = frames_of(times, start, seconds)
      clip = dataclasses.replace(clip, frames=decode_high(arrays, shown), frame_times=times[shown])
    if seconds == np.inf:
      return clip
    return part(dataclasses.replace(clip, latents={}), start, seconds)

  def _apply(self, i, read):
    """Result of `read` for record i. Raises MediaError where it is damaged."""
    shard = int(np.searchsorted(self._firsts, i, side='right')) - 1
    position = i - int(self._firsts[shard])
    path = self._shards[shard][0]
    try:
      return read(self._read(path, position))
    except (ValueError, KeyError, TypeError, RuntimeError, IndexError, OSError) as error:
      raise MediaError(f'{path.name}:{position}', f'damaged record ({error})'[:200]) from None

  def _read(self, path, position):
    with self._lock:
      reader = self._readers.pop(path, None) or open_shard(path)
      self._readers[path] = reader
      if len(self._readers) > OPEN_SHARDS:
        self._readers.popitem(last=False)[1].close()
      blob, = reader.read([position])
    return blob

  def codec(self, name):
    """What records.json says of the codec whose latents of a modality there are, or None."""
    return self.about.get(LATENTS[name].codec)

  def _check_reads(self, reads, in_parts):
    if 'video_features' in reads:
      raise UserError(f'{self.folder}: prepared records hold no features from outside: use the '
                      'folder of clips itself')
    if 'video' in reads and not self.about['video']:
      raise UserError(f'{self.folder}: records of sound alone; this task needs pictures')
    if {'audio', 'mel', 'wave'} & set(reads) and not self.about['audio']:
      raise UserError(f'{self.folder}: records of pictures alone; this task needs sound')
    for name, how in LATENTS.items():
      # Latents are of whole windows.
      needed = {*how.reads, *((name,) if in_parts else ())} & set(reads)
      if needed and self.codec(name) and self.split == 'train':
        raise UserError(f'{self.folder}: the training records hold latents and no {how.medium}, '
                        f'which this task needs: prepare without --{how.codec}')


def _counts(about, split, folder):
  """[(shard, bytes, records)] of a split by records.json. Raises UserError: damaged."""
  try:
    found = [(name, int(of_shard['bytes']), int(of_shard['records']))
             for name, of_shard in sorted(about['counts'].get(split, {}).items())]
  except (AttributeError, KeyError, TypeError, ValueError):
    found = [('', 0, 0)]
  # A name becomes part of a path: only ours are accepted.
  if all(re.fullmatch(rf'{split}-\d{{5,}}-of-\d{{5,}}', name) and min(size, count) >= 0
         for name, size, count in found):
    return found
  raise UserError(f'{Path(folder) / ABOUT}: its counts are damaged: run the same prepare command '
                  'again')


def open_shard(path):
  """Opens a reader of one shard. Raises OSError."""
  reader = array_record_module.ArrayRecordReader(str(path), READING)
  if not reader.ok():
    raise OSError(f'{path}: not an ArrayRecord file, or cut short')
  return reader


def write_shard(path, blobs):
  """Writes an ArrayRecord file under a temporary name. Raises OSError, as for a full disk."""
  writer = array_record_module.ArrayRecordWriter(str(path), WRITING)
  try:
    for blob in blobs:
      writer.write(blob)
    writer.close()
  except RuntimeError as error:
    raise OSError(str(error)) from None


def check_layout(about, layout, folder):
  """Raises UserError where records were prepared for another layout (data/batch.py)."""
  prepared, needed = about['layout'], layout_of(layout.clip)
  if is_high(about, layout):
    prepared = {**prepared, **about['high']}
  differing = [name for name in prepared if prepared[name] != needed[name]]
  if differing:
    values = ', '.join(f'{name} {prepared[name]:g} (the config says {needed[name]:g})'
                       for name in differing)
    raise UserError(f'{folder}: records of another layout: {values}: change --config.data, or '
                    f'prepare them anew{high_hint(needed)}')


def is_high(about, layout) -> bool:
  """Tells whether a layout's frames are the high-resolution ones that the records hold."""
  needed = layout_of(layout)
  return about['high'] == {name: needed[name] for name in ('fps', 'height', 'width')}


def high_hint(needed):
  """' with --high' where the layout needs the high-resolution frames, else ''."""
  return ' with --high' if (needed['fps'], needed['height'], needed['width']) == HIGH else ''


def layout_of(layout) -> dict:
  """Sizes of a Layout as records.json stores them."""
  return {'seconds': layout.seconds, 'fps': layout.fps, 'height': layout.height,
          'width': layout.width, 'sample_rate': layout.sample_rate}
