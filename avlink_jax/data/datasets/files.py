"""Which media files there are, and which of them is a row's."""

import os
import pathlib

from avlink_jax.data.sources.folder import AUDIO_EXTENSIONS, EXTENSIONS
from avlink_jax.errors import UserError


class Files:
  """The media files under a folder, by name: one walk, then look-ups in memory.

  Hidden files are left out. Where a picture is needed, files of sound alone are too.
  """

  def __init__(self, folder, need_video: bool):
    """Raises UserError: there is no such folder, or no media in it."""
    folder = pathlib.Path(folder)
    if not folder.is_dir():
      raise UserError(f'{folder}: no such folder; give --manual_dir the folder with the data '
                      "set's lists and media")
    suffixes = EXTENSIONS if need_video else EXTENSIONS | AUDIO_EXTENSIONS
    self._by_stem, seen = {}, set()
    for place, folders, names in os.walk(folder, followlinks=True):
      real = os.path.realpath(place)
      if real in seen:  # links may go round in circles
        folders.clear()
        continue
      seen.add(real)
      folders[:] = sorted(name for name in folders if not name.startswith('.'))
      for name in sorted(names):
        stem, suffix = os.path.splitext(name)
        if suffix.lower() in suffixes and not name.startswith('.'):
          self._by_stem.setdefault(stem, []).append(os.path.join(place, name))
    if not self._by_stem:
      raise UserError(f'{folder}: no media files in it (looked for '
                      f'{" ".join(sorted(suffixes))})')

  def find(self, names) -> str | None:
    """The file that has one of the names (`rows.Row.cut`), None where none has."""
    for name in names:
      tail = os.sep + name.replace('/', os.sep)
      for path in self._by_stem.get(os.path.basename(name), ()):
        if os.path.splitext(path)[0].endswith(tail):
          return path
    return None
