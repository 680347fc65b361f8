"""Cache of prompts' embeddings, in memory and on disk."""

import collections
import contextlib
import hashlib
import io
import pathlib
import threading

import numpy as np

from avlink_jax.codecs.text_files import as_user_error
from avlink_jax.storage.atomic import write_bytes


class EmbeddingCache:
  """Cache of rows (n, width) by key: the latest in memory and, if there is a folder, all on disk.

  Threads and processes may share it: a file (.npy, followed by its sha256) is written atomically,
  and a damaged one is ignored."""

  def __init__(self, folder=None, max_bytes=256 << 20):
    self._folder, self._max_bytes, self._bytes = folder and pathlib.Path(folder), max_bytes, 0
    self._lock, self._rows = threading.Lock(), collections.OrderedDict()

  def get(self, key):
    """Cached rows, or None."""
    with self._lock:
      if key in self._rows:
        self._rows.move_to_end(key)
        return self._rows[key]
    with as_user_error(self._folder, 'give a text cache folder that can be read', OSError):
      path = self._folder and self._folder / f'{key}.npy'
      blob = path.read_bytes() if path and path.exists() else b''
    intact = hashlib.sha256(blob[:-32]).digest() == blob[-32:]
    with contextlib.suppress(ValueError):  # an array of objects is refused
      return self._remember(key, np.load(io.BytesIO(blob), allow_pickle=False)) if intact else None

  def put(self, key, rows):
    """Stores rows. Raises UserError: the folder cannot be written."""
    self._remember(key, rows)
    if self._folder:
      np.save(file := io.BytesIO(), rows)
      blob = file.getvalue()
      write_bytes(self._folder / f'{key}.npy', blob + hashlib.sha256(blob).digest())

  def _remember(self, key, rows):
    with self._lock:
      self._bytes += rows.nbytes - getattr(self._rows.pop(key, None), 'nbytes', 0)
      self._rows[key] = rows
      while self._bytes > self._max_bytes:
        self._bytes -= self._rows.popitem(last=False)[1].nbytes
    return rows
