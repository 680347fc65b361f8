"""Look-up of the media files of a list's rows."""

import os
import pathlib

from avlink_jax.data.sources.folder import AUDIO_EXTENSIONS, EXTENSIONS
from avlink_jax.errors import UserError


class Files:
  """Media files under a folder, by name: one walk, then look-ups in memory.

  Hidden files are left out. Where video is needed, files with audio alone are too.
  """

  def __init__(self, folder, need_video: bool):
    """Lists the files. Raises UserError: no such folder, or no media in it."""
    folder = pathlib.Path(folder)
    if not folder.is_dir():
      raise UserError(f'{folder}: no such folder; give --manual_dir the folder with the data '
                      "set's lists and media")
    suffixes = EXTENSIONS if need_video else EXTENSIONS | AUDIO_EXTENSIONS
    self._by_stem, visited = {}, set()
    for directory, folders, names in os.walk(folder, followlinks=True):
      real = os.path.realpath(directory)
      if real in visited:  # links may form circles
        folders.clear()
        continue
      visited.add(real)
      folders[:] = sorted(name for name in folders if not name.startswith('.'))
      for name in sorted(names):
        stem, suffix = os.path.splitext(name)
        if suffix.lower() in suffixes and not name.startswith('.'):
          self._by_stem.setdefault(stem, []).append(os.path.join(directory, name))
    if not self._by_stem:
      raise UserError(f'{folder}: no media files in it (looked for '
                      f'{" ".join(sorted(suffixes))})')

  def find(self, names) -> str | None:
    """Path of the file that has one of the names (`rows.Row.cut`), None where none has."""
    for name in names:
      tail = os.sep + name.replace('/', os.sep)
      for path in self._by_stem.get(os.path.basename(name), ()):
        if os.path.splitext(path)[0].endswith(tail):
          return path
    return None
