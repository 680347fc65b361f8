"""A folder of real clips as a data source, with captions and splits."""

import dataclasses
import hashlib
from collections import Counter
from pathlib import Path

from avlink_jax.data.clip import Clip, part
from avlink_jax.data.media.decode import decode
from avlink_jax.data.media.limits import DECODE_SECONDS
from avlink_jax.data.media.own_rates import in_own_rates
from avlink_jax.data.sources import captions as caption_files
from avlink_jax.data.sources import features as features_beside
from avlink_jax.data.sources import file_list, listing
from avlink_jax.data.sources.listing import AUDIO_EXTENSIONS, EXTENSIONS
from avlink_jax.errors import NoSplit, UserError
from avlink_jax.storage import digest

SPLITS = ('train', 'validation', 'test')
SPLIT_BOUNDS = (0.90, 0.95)  # of the hash's range: where validation and test begin
USUAL_FPS = 30.0  # of clips, where none is given
MEASURED = 1000  # files whose size is asked for; more would take minutes on a network's disk


class Folder:
  """The media files under a folder, sorted by path; or one file, or those that a text file lists,
  one a line, paths or addresses (`file_list.py`).

  Hidden files are left out, in a samples folder the low-resolution videos (samples/folder.py), and
  what is no media by its ending, which is counted in `notes` (listing.py).
  Where no video is needed, files with audio alone are clips too: their length is the audio's. Where
  no audio is needed, pictures that move are (GIF, APNG, WebP).

  Splits. Where the folder has a sub-folder named train, validation or test, these are the
  splits. Otherwise each file's place is a hash of its name: the lowest 90 % are train, then
  5 % validation, 5 % test, so a file keeps its place when others come or go. With three or
  more files no split is empty (the bounds move by as few files as that takes); with fewer,
  every split holds all of them.

  Names. A clip is called by its file's path without the ending, `/` as `__` (`day1/dog.mp4` ->
  `day1__dog`), below the folder or its split's: so what else there is does not matter. Of files in
  one folder that differ in the ending alone the first keeps that name (mp4, other videos, sound),
  and others have theirs (`dog-mov`). In a list, whose paths may be long, it is the stem, or the
  path where an earlier line has that.

  Captions. A table in the folder (or beside a list), `captions.csv` or another of captions.TABLES,
  or `captions`, a path; '' for none. A clip without a row has the text of `dog.txt` beside
  `dog.mp4`. With `template`, a text such as 'the sound of {label}', captions are formatted from the
  columns it names; without a table, from `{folder}`, a file's folder name. (captions.py)

  Attributes:
    notes: lines for the user about what is odd but not wrong (captions without a file, ...).
  """

  def __init__(self, path, *, height: int, width: int, sample_rate: int, max_fps=None,
               split=None, captions=None, template=None, need_video=True, need_audio=True,
               features=0, features_rate=0.0, decode_seconds=DECODE_SECONDS, without=None,
               for_sampling=False, part_fps=None):
    """Lists the clips; nothing is decoded yet.

    Args:
      path: a folder or one media file.
      height, width, sample_rate, max_fps, need_video, need_audio, decode_seconds: as in
        `media.decode`: with `need_video` False every clip comes without frames.
      split: 'train', 'validation', 'test', or None for all files.
      captions: path of the table; by default one in the folder, if it is there; '' for none.
      template: format of captions, see above.
      without: folder whose files are no clips, such as an output within this one.
      features: width of the vectors to be read from the .npz beside each clip, 0 for none;
        features_rate: vectors a second where the .npz does not say (data/sources/features.py).
      part_fps: as max_fps, of clips of which a part is loaded.
      for_sampling: whether clips have noise of what they are, their file's stem and bytes, wherever
        it lies and whatever else does.

    Raises:
      UserError: no such folder, nothing in it, an unknown split, an unreadable table. NoSplit:
        there are folders of splits, and none of this one.
    """
    root = Path(path)
    if split is not None and split not in SPLITS:
      raise UserError(f'unknown split {split!r}: one of {", ".join(SPLITS)}')
    self.notes = []
    self._features = features, features_rate
    self._for_sampling, self._part_fps = for_sampling, part_fps or max_fps
    self._decode_options = dict(height=height, width=width, sample_rate=sample_rate,
                                max_fps=max_fps, need_video=need_video, need_audio=need_audio,
                                decode_seconds=decode_seconds)
    extensions = EXTENSIONS if need_video else EXTENSIONS | AUDIO_EXTENSIONS
    if file_list.is_list(root):
      every = file_list.read(root, extensions, self.notes)
    elif root.is_file():
      listing.check_file(root)
      every = [root]
    elif root.is_dir():
      found = listing.under(root, extensions, pictures=need_video and not need_audio)
      if without is not None:
        found = self._outside(found, root, Path(without))
      every = found.media
    else:
      raise UserError(f'{root}: no such folder; give a folder of clips or a media file')
    names = _names(root, every, split) if root.is_dir() else _names_in_list(every)
    self._captions = caption_files.read(root, every, captions, template)
    self.notes += self._captions.notes + (found.notes(root) if root.is_dir() else [])
    self._files = every if split is None else self._files_of(root, every, split)
    self._names = [names[file] for file in self._files]
    if twice := [name for name, count in Counter(self._names).items() if count > 1]:
      raise UserError(f'{root}: several clips would be called {twice[0]}; rename one of them')

  def __len__(self) -> int:
    return len(self._files)

  @property
  def identity(self):
    """What the clips are, wherever they lie (data/identity.py): names and captions of all, bytes of
    MEASURED of them, evenly spread."""
    step = -(-len(self._files) // MEASURED)
    sizes = [_size(file) for file in self._files[::step]]
    return ['folder', self._names, [self.caption(i) for i in range(len(self))], sizes]

  def name(self, i: int) -> str:
    """The clip's id, unique in the folder."""
    return self._names[i]

  @property
  def coverage(self) -> str:
    """How many clips have captions, for the user."""
    return self._captions.coverage(self._files)

  def caption(self, i: int, medium: str = 'audio') -> str:
    """Caption of clip i about its audio or its video, cleaned; '' where it has none."""
    return getattr(self._captions.of(self._files[i]), medium)

  @property
  def bytes_per_second(self) -> int:
    """Size of a decoded clip, at most; 0 where clips have vectors, which belong to whole clips."""
    if self._features[0]:
      return 0
    o = self._decode_options
    frames = 3 * o['height'] * o['width'] * (o['max_fps'] or USUAL_FPS) if o['need_video'] else 0
    return round(frames + 4 * o['sample_rate'])

  def load(self, i: int, start=0.0, duration=None, **options) -> Clip:
    """Decodes clip i, or `duration` seconds of it from `start` on; `options` as in media.decode.

    Raises MediaError where the file cannot be used.
    """
    file = self._files[i]
    caption = self._captions.of(file)
    with file_list.local(file) as path:
      clip = decode(path, start=start, duration=duration, **self._decode_options | options)
      width, rate = self._features
      vectors, rate = features_beside.read(path, width, rate) if width else (None, 0.0)
      noise = f'{file.stem} {digest.of_file(path)}' if self._for_sampling else ''
    return dataclasses.replace(
        clip, id=self._names[i], source=str(file), audio_caption=caption.audio,
        video_caption=caption.video, features=vectors, features_rate=rate,
        licence=caption.licence, noise=noise)

  def seconds(self, i: int) -> float:
    """Length of clip i in seconds, without decoding its video. Raises MediaError."""
    with file_list.local(self._files[i]) as path:
      return decode(path, need_video=False, need_audio=False,
                    decode_seconds=self._decode_options['decode_seconds']).duration

  def original(self, i: int, clip: Clip, layout) -> Clip:
    """Media of `clip`, which is clip i or its beginning, in the file's own size and rates
    (data/media/own_rates.py). Raises MediaError."""
    del layout
    with file_list.local(self._files[i]) as path:
      return in_own_rates(path, clip, decode_seconds=self._decode_options['decode_seconds'])

  def load_part(self, i: int, start: float, seconds: float, window=None) -> Clip:
    """Decodes [start, start + seconds) of clip i alone, and crops its frames to the window."""
    return part(self.load(i, start, seconds, max_fps=self._part_fps), 0.0, seconds, window)

  def _outside(self, found, root: Path, without: Path):
    """The part of a Listing that does not lie in `without`, where that is a folder within `root`;
    the rest is noted. Raises UserError: there is no other media."""
    inside = without.resolve()
    if inside == root.resolve() or not inside.is_relative_to(root.resolve()):
      return found
    kept = listing.Listing(*([file for file in files if not file.resolve().is_relative_to(inside)]
                             for files in (found.media, found.low, found.others)))
    if len(kept.media) < len(found.media):
      self.notes.append(f'{root}: {len(found.media) - len(kept.media)} files in {without}, the '
                        'output, are no input')
    if not kept.media:
      raise UserError(f'{root}: no media files in it but those of {without}, the output')
    return kept

  def _files_of(self, root: Path, every: list, split: str) -> list:
    in_folders = [file for file in every if _split_of(root, file)] if root.is_dir() else []
    if not in_folders:
      if len(every) < 3:
        self.notes.append(f'{root}: fewer than three clips, so every split holds all of them')
      return hash_split(every, split)
    if len(in_folders) < len(every):
      self.notes.append(f'{root}: {len(every) - len(in_folders)} clips lie outside '
                        f'{"/, ".join(SPLITS)}/ and belong to no split')
    files = [file for file in in_folders if _split_of(root, file) == split]
    if not files:
      raise NoSplit(f'{root}: has split folders but no clips in {split}/')
    return files


def _size(file) -> int:
  """Bytes of a file; -1 of a remote one, or one that cannot be looked at."""
  try:
    return -1 if isinstance(file, file_list.Address) else file.stat().st_size
  except OSError:
    return -1


def hash_split(files: list, split: str) -> list:
  """Files of one split, in the order of `files`, by the rule in `Folder`."""
  if len(files) < 3:
    return list(files)
  place = {file: (_hash(file.name), str(file)) for file in files}
  ordered = sorted(files, key=place.get)
  validation, test = (sum(place[file][0] < cut for file in files) for cut in SPLIT_BOUNDS)
  validation = min(max(validation, 1), len(files) - 2)
  test = min(max(test, validation + 1), len(files) - 1)
  chosen = {'train': ordered[:validation], 'validation': ordered[validation:test],
            'test': ordered[test:]}
  kept = set(chosen[split])
  return [file for file in files if file in kept]


def _hash(name: str) -> float:
  """A number in [0, 1) that is the same on every machine."""
  return int.from_bytes(hashlib.sha256(name.encode('utf-8', 'surrogateescape')).digest()[:8],
                        'big') / 2 ** 64


def _split_of(root: Path, file) -> str:
  """Split by whose folder in `root` a file lies; '' in none."""
  first, *others = file.relative_to(root).parts
  return first if others and first in SPLITS else ''


def _names(root: Path, files: list, split) -> dict:
  """Mapping {file: name} of files in a folder, by the rule in `Folder`; with a split, its folder is
  no part of the names."""
  names: dict = {}
  for file in sorted(files, key=_rank):
    place = file.relative_to(root / split if split and _split_of(root, file) == split else root)
    name = place.with_suffix('').as_posix().replace('/', '__')
    others = names.setdefault((file.parent, file.stem), {})
    others[file] = f'{name}-{file.suffix[1:]}' if others else name
  return {file: name for of_stem in names.values() for file, name in of_stem.items()}


def _rank(file) -> tuple:
  """Order of files that differ in the ending alone."""
  ending = file.suffix.lower()
  return ending in AUDIO_EXTENSIONS, ending != '.mp4', ending, file.suffix != ending, str(file)


def _names_in_list(files: list) -> dict:
  """Mapping {file: name} of the files of a list, or of one file."""
  names, taken = {}, set()
  for file in files:
    path = file.as_posix().strip('/').replace('/', '__').replace('.', '-')
    names[file] = path if file.stem in taken else file.stem
    taken.add(names[file])
  return names
