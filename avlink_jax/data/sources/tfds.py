"""Built tfds data sets as a data source (`data/clip.py` defines one)."""

import dataclasses
import json
import re

import tensorflow_datasets as tfds

from avlink_jax.data.clip import Clip, part
from avlink_jax.data.datasets import schema
from avlink_jax.data.media.container import InMemory
from avlink_jax.data.media.decode import decode
from avlink_jax.data.media.limits import DECODE_SECONDS
from avlink_jax.data.media.own_rates import in_own_rates
from avlink_jax.data.sources.captions import LONGEST_CAPTION, clean_caption
from avlink_jax.data.sources.folder import SPLITS
from avlink_jax.errors import MediaError, NoSplit, UserError

BLOCK = 1 << 16  # bytes; an ArrayRecord file is a whole number of blocks, its index in the last
INFO = 'dataset_info.json'  # tfds writes it last, so where it is the data are whole
HOLD_OUT = {'validation': 0, 'test': 10}  # index within every HOLD_OUT_EVERY clips
HOLD_OUT_EVERY = 20


class TfdsSource:
  """One split of a data set that `avlink_jax.data.build` (or tfds) has made.

  Splits are 'train', 'validation' and 'test' for every data set. A split that it lacks is held out
  of its train split: of every twenty clips the first is validation, the eleventh test, and train is
  without them. With fewer than twenty-one clips train holds all of them, and so do the others.

  Clips are decoded from the bytes in the record; only [start, end) of them.

  Attributes:
    notes: lines for the user about what is odd but not wrong.
    folder: of the data set's files.
  """

  def __init__(self, name, split, data_dir=None, *, height: int, width: int, sample_rate: int,
               max_fps=None, need_video=True, need_audio=True, decode_seconds=DECODE_SECONDS):
    """Opens the data set; nothing is decoded yet.

    Args:
      name: of the data set: 'vggsound', 'fma/small' (with its config), 'vggsound:1.0.0' (with its
        version; the newest otherwise).
      split: 'train', 'validation', 'test'.
      data_dir: where tfds keeps data sets; by default ~/tensorflow_datasets. May be gs://.
      height, width, sample_rate, max_fps, need_video, need_audio, decode_seconds: as in
        `media.decode`.

    Raises:
      UserError: the data set is not there, has other features, or no such split.
    """
    self.notes = []
    self._name = name
    self._options = dict(height=height, width=width, sample_rate=sample_rate, max_fps=max_fps,
                         need_video=need_video, need_audio=need_audio,
                         decode_seconds=decode_seconds)
    self.folder = find(name, data_dir or tfds.core.constants.DATA_DIR)
    builder = tfds.builder_from_directory(self.folder)
    missing = set(schema.features()) - set(builder.info.features)
    if missing:
      raise UserError(f'{self.folder}: its examples lack {", ".join(sorted(missing))}; build it '
                      f'with python -m avlink_jax.data.build')
    sizes = {key: info.num_examples for key, info in builder.info.splits.items()
             if sum(info.shard_lengths)}
    kept, self._indices = self._choose(split, sizes)
    _check_shards(builder.info.splits[kept].filepaths)
    self._split = split
    self._of = [builder.info.full_name, {key: list(info.shard_lengths)
                                         for key, info in builder.info.splits.items()}]
    self._data = builder.as_data_source(split=kept)

  def __len__(self) -> int:
    return len(self._indices)

  @property
  def identity(self):
    """What the clips are, wherever they lie (data/identity.py): data set, version, sizes."""
    return ['tfds', self._of, self._split, len(self)]

  def name(self, i: int) -> str:
    """The clip's id, unique in the data set; where its record is damaged, its number."""
    try:
      return self.example(i)['id']
    except MediaError as error:
      return error.path

  def caption(self, i: int) -> str:
    """Audio caption of clip i, or else its video caption; '' where it has neither."""
    example = self.example(i)
    return _caption(example['audio_caption'] or example['video_caption'])

  def example(self, i: int) -> dict:
    """Stored example of clip i (datasets/schema.py), undecoded, with str for its texts.

    Raises MediaError: its record is damaged (records carry checksums).
    """
    try:
      return schema.read(self._data[self._indices[i]])
    except RuntimeError:  # what ArrayRecord raises
      raise MediaError(f'{self._name}-{self._split}-{i:08d}', 'damaged record') from None

  def load(self, i: int) -> Clip:
    """Decodes clip i. Raises MediaError where it cannot be used."""
    example = self.example(i)
    return self._decode(example, example['start'], example['end'] - example['start'])

  def seconds(self, i: int) -> float:
    """Length of clip i in seconds, without decoding its video. Raises MediaError."""
    example = self.example(i)
    return decode(
      InMemory(example['id'], example['media']), start=example['start'],
      duration=example['end'] - example['start'], need_video=False, need_audio=False,
      decode_seconds=self._options['decode_seconds']).duration

  def original(self, i: int, clip: Clip, layout) -> Clip:
    """Media of `clip`, which is clip i or its beginning, in the file's own size and rates
    (data/media/own_rates.py). Raises MediaError."""
    del layout
    example = self.example(i)
    return in_own_rates(InMemory(example['id'], example['media']), clip, example['start'],
                        self._options['decode_seconds'])

  def load_part(self, i: int, start: float, seconds: float, window=None) -> Clip:
    """Decodes [start, start + seconds) of clip i alone, and crops its frames to the window."""
    example = self.example(i)
    begin = example['start'] + start
    return part(self._decode(example, begin, min(seconds, example['end'] - begin)), 0.0, seconds,
                window)

  def _decode(self, example, start, seconds) -> Clip:
    media_file, options = InMemory(example['id'], example['media']), self._options
    generated = example['metadata'].get('sound') == 'generated'
    if generated and options['need_audio']:
      raise MediaError(media_file, 'has no reference sound')
    clip = decode(media_file, start=start, duration=seconds, **options)
    if generated:
      clip = dataclasses.replace(clip, audio=clip.audio[:0])
    return dataclasses.replace(clip, id=example['id'], source=f'tfds:{self._name}/{example["id"]}',
                               audio_caption=_caption(example['audio_caption']),
                               video_caption=_caption(example['video_caption']),
                               licence=_caption(example['licence']))

  def _choose(self, split, sizes):
    """Chooses the tfds split to read, and the indices of its clips."""
    if split not in SPLITS:
      raise UserError(f'unknown split {split!r}: one of {", ".join(SPLITS)}')
    if split in sizes and split != 'train':
      return split, range(sizes[split])
    if 'train' not in sizes:
      raise NoSplit(f'{self._name} has no {split} split, only {", ".join(sizes) or "empty ones"}')
    count = sizes['train']
    missing = {key: place for key, place in HOLD_OUT.items() if key not in sizes}
    if split == 'train' and missing:
      self.notes.append(f'{self._name} has no {" and no ".join(missing)} split of its own: '
                        + (f'one in {HOLD_OUT_EVERY} of its train clips is held out for each'
                           if count > HOLD_OUT_EVERY else
                           'train is too small to hold clips out for it'))
    if not missing or count <= HOLD_OUT_EVERY:
      return 'train', range(count)
    if split == 'train':
      taken = set(missing.values())
      return 'train', [i for i in range(count) if i % HOLD_OUT_EVERY not in taken]
    return 'train', range(missing[split], count, HOLD_OUT_EVERY)


def find(name: str, data_dir) -> tfds.core.Path:
  """Folder of a built data set: DATA_DIR/NAME[/CONFIG]/VERSION, the newest version.

  Raises UserError: there is none.
  """
  name, _, version = name.partition(':')
  root = tfds.core.Path(data_dir).expanduser() / name
  places = [root] + ([place for place in sorted(root.iterdir()) if place.is_dir()]
                     if root.is_dir() else [])
  built = [folder for place in places for folder in (place.glob('*') if place.is_dir() else ())
           if re.fullmatch(r'\d+\.\d+\.\d+', folder.name) and (folder / INFO).exists()
           and version in ('', folder.name)]
  configs = {folder.parent for folder in built}
  if root in configs:
    built = [folder for folder in built if folder.parent == root]
  elif len(configs) > 1:
    built = _default_config(root, built)
  if not built:
    raise UserError(f'{root}: no data set{f" of version {version}" if version else ""} there; '
                    f'build it: python -m avlink_jax.data.build {name.split("/")[0]} '
                    f'--manual_dir=FOLDER --data_dir={data_dir}')
  return max(built, key=lambda folder: tuple(int(part) for part in folder.name.split('.')))


def _check_shards(paths):
  """Raises UserError where a shard is missing or truncated."""
  for path in map(tfds.core.Path, paths):
    size = path.stat().length if path.exists() else 0
    if not size or size % BLOCK:
      raise UserError(f'{path}: {"cut short" if size else "missing or empty"}; copy it again or '
                      'build the data set anew')


def _default_config(root, built):
  """Folders of the default config, which tfds records. Raises UserError: there is none."""
  names = sorted({folder.parent.name for folder in built})
  note = root / '.config' / 'metadata.json'
  default = json.loads(note.read_text()).get('default_config_name') if note.exists() else None
  if default not in names:
    raise UserError(f'{root}: say which of its configs: '
                    + ', '.join(f'{root.name}/{name}' for name in names))
  return [folder for folder in built if folder.parent.name == default]


def _caption(text: str) -> str:
  return clean_caption(text[:LONGEST_CAPTION])
