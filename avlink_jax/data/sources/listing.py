"""The media files of a folder, and what else lies there: nothing is left out without a word."""

import collections
import dataclasses
from pathlib import Path

from avlink_jax.data.media import moving
from avlink_jax.data.media.container import opened
from avlink_jax.data.sources.captions import TABLES
from avlink_jax.errors import MediaError, UserError
from avlink_jax.samples.folder import low_files, read_manifest

EXTENSIONS = frozenset(
  '.3gp .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .webm .wmv'.split())
AUDIO_EXTENSIONS = frozenset('.aac .flac .m4a .mp3 .ogg .opus .wav'.split())
# Tables and archives, in whose bytes FFmpeg now and then finds a stream.
NO_MEDIA = frozenset('.7z .bz2 .csv .gz .html .json .jsonl .npz .pdf .rar .tar .tgz .tsv .xz '
                     '.zip'.split())
BESIDE = frozenset(('.txt', '.npz'))  # captions and features of the clip of the same stem
SHOWN = 8  # endings that a note names


@dataclasses.dataclass
class Listing:
  """Files under a folder.

  Attributes:
    media: those with one of the endings asked for, sorted by path.
    low: low-resolution videos of a samples folder (samples/folder.py), which are no clips.
    others: of other endings, but for captions and features that are read.
  """
  media: list
  low: list = dataclasses.field(default_factory=list)
  others: list = dataclasses.field(default_factory=list)

  def by_ending(self) -> dict:
    """Mapping {ending in lower case: [its files]} of the others, the most frequent first."""
    found = collections.defaultdict(list)
    for path in self.others:
      found[path.suffix.lower() or 'without ending'].append(path)
    return dict(sorted(found.items(), key=lambda row: (-len(row[1]), row[0])))

  def notes(self, root: Path) -> list[str]:
    """Lines for the user about what is left out."""
    notes = [f'{root}: {len(self.low)} low-resolution videos of samples are left out'
             ] if self.low else []
    if kinds := self.by_ending():
      rows = [f'{len(paths)} {ending} ({paths[0].name[:80]}{", …" if len(paths) > 1 else ""})'
              for ending, paths in list(kinds.items())[:SHOWN]]
      more = f' and {len(kinds) - SHOWN} further endings' if len(kinds) > SHOWN else ''
      notes.append(f'{root}: {len(self.others)} files are left out, by their endings no clips '
                   f'here: {", ".join(rows)}{more}')
    return notes


def under(root: Path, extensions: frozenset, pictures=False) -> Listing:
  """Lists a folder, without hidden files; with `pictures`, those that move are media too.

  Raises UserError: no media in it."""
  low, found = _low_resolution(root), Listing([])
  for path in sorted(root.rglob('*'), key=lambda path: path.relative_to(root).as_posix()):
    if any(part.startswith('.') for part in path.relative_to(root).parts) or not path.is_file():
      continue
    ending = path.suffix.lower()
    media = ending in extensions or pictures and ending in moving.ENDINGS and moving.moves(path)
    (found.low if path in low else found.media if media else found.others).append(path)
  if not found.media:
    raise UserError(f'{root}: no media files in it (looked for {" ".join(sorted(extensions))})')
  stems = {path.with_suffix('') for path in found.media}
  tables = {root / name for name in TABLES}
  found.others = [path for path in found.others if path not in tables and not (
      path.suffix.lower() in BESIDE and path.with_suffix('') in stems)]
  return found


def check_file(path: Path):
  """Raises UserError where a single file is no media by its ending, and by its content neither."""
  ending = path.suffix.lower()
  if ending in EXTENSIONS | AUDIO_EXTENSIONS:
    return  # if it is broken, so is the clip
  reason = 'not a media file'
  if ending not in NO_MEDIA:
    try:
      with opened(path):
        return
    except MediaError as error:
      reason = error.reason
  raise UserError(f'{path}: {reason}; give a folder of clips, a media file, or a text file (.txt) '
                  'that lists some')


def _low_resolution(root: Path) -> set:
  """Low-resolution videos of a samples folder."""
  try:
    return {root / name for name in low_files(read_manifest(root))}
  except UserError:  # somebody else's manifest
    return set()
