"""T5's embeddings of the captions of prepared records: each distinct caption once.

    FOLDER/text-00000-of-00003.array_record   {'rows' (n, width)} and the caption, one a record
    FOLDER/text-00000-of-00003.keys.npy       uint64, sorted: a hash of each record's caption

Keys rise from file to file, so that all of them together are one sorted table in memory, eight
bytes a caption; the embeddings themselves are read when a caption comes up.
"""

import hashlib
import threading
from pathlib import Path

import numpy as np

from avlink_jax.codecs.t5_text import EmbeddingCache
from avlink_jax.data.sources import records
from avlink_jax.data.sources.mixture import parse
from avlink_jax.errors import UserError
from avlink_jax.storage.atomic import replacing

CAPTIONS = 10_000  # a file
AT_ONCE = 64  # captions given to T5 at a time


def key(caption) -> int:
  return int.from_bytes(hashlib.sha256(caption.encode(errors='surrogatepass')).digest()[:8], 'big')


def plan(captions) -> list:
  """Distinct captions, and the null prompt, as files: [[caption, in order of key], ...]."""
  every = sorted({'', *captions}, key=lambda caption: (key(caption), caption))
  return [every[i:i + CAPTIONS] for i in range(0, len(every), CAPTIONS)]


def paths(folder, file, files):
  name = records.shard_name('text', file, files)
  return Path(folder) / f'{name}.array_record', Path(folder) / f'{name}.keys.npy'


def write(folder, file, files, captions, encoder):
  """Embeds one file's captions by `encoder`, a codecs.t5_text.T5Encoder, and writes them."""
  shard, keys = paths(folder, file, files)

  def blobs():
    for i in range(0, len(captions), AT_ONCE):
      part = captions[i:i + AT_ONCE]
      made = encoder.rows(part)
      for caption in part:
        yield records.encode({'caption': caption}, {'rows': made[caption]})

  with replacing(keys) as partial_keys:
    with open(partial_keys, 'wb') as opened:
      np.save(opened, np.array([key(caption) for caption in captions], np.uint64))
    with replacing(shard) as partial:
      records.write_shard(partial, blobs())


class Embeddings:
  """What T5 made of the captions of a folder of records.

  Attributes: `folder`; `fingerprint` of the T5 that made them.
  """

  def __init__(self, folder, told):
    """`told` is the part `text` of records.json. UserError: a file is missing or damaged."""
    self.folder, self.fingerprint = Path(folder), told['fingerprint']
    self._paths = [paths(folder, file, told['files']) for file in range(told['files'])]
    try:
      keys = [np.load(path, allow_pickle=False) for _, path in self._paths]
      self._readers = [records.open_shard(path) for path, _ in self._paths]
    except (OSError, ValueError) as error:
      raise UserError(f'{folder}: embeddings of captions are missing or damaged ({error}): run the '
                      'same prepare command again') from None
    for part, reader, (path, _) in zip(keys, self._readers, self._paths, strict=True):
      if len(part) != reader.num_records():
        raise UserError(f'{path} is cut short: remove it and run the same prepare command again')
    self._keys = np.concatenate(keys)
    self._firsts = np.cumsum([0] + [len(part) for part in keys])
    self._lock, self._cache = threading.Lock(), EmbeddingCache()

  def get(self, caption):
    """Rows (n, width), None for a caption that is not there."""
    wanted = key(caption)
    if (kept := self._cache.get(wanted)) is not None:
      return kept
    at = int(np.searchsorted(self._keys, np.uint64(wanted)))
    while at < len(self._keys) and self._keys[at] == wanted:
      file = int(np.searchsorted(self._firsts, at, side='right')) - 1
      try:
        with self._lock:
          blob, = self._readers[file].read([at - int(self._firsts[file])])
        told, arrays = records.decode(blob)
      except (ValueError, RuntimeError) as error:
        raise UserError(f'{self._paths[file][0]}: damaged ({error}): remove it and run the same '
                        'prepare command again') from None
      if told['caption'] == caption:
        self._cache.put(wanted, arrays['rows'])
        return arrays['rows']
      at += 1
    return None


class Several:
  """The Embeddings of several sources, of one and the same T5. Raises UserError where they are of
  two."""

  def __init__(self, parts):
    self.folder, self.fingerprint, self._parts = parts[0].folder, parts[0].fingerprint, parts
    other = [part for part in parts if part.fingerprint != self.fingerprint]
    if other:
      raise UserError(f'{self.folder} and {other[0].folder} hold embeddings of two different T5: '
                      'prepare both with the same')

  def get(self, caption):
    """As of each."""
    found = (part.get(caption) for part in self._parts)
    return next((rows for rows in found if rows is not None), None)


def of_source(given, config):
  """Embeddings that the records among the sources in `data.source` hold; None where none does.

  Raises UserError where they were made for another text encoder than `config` (config.text).
  """
  parts = []
  for source, _ in parse(given):
    if not source or not records.is_records(source):
      continue
    told = records.read_about(source)['text']
    for name in ('max_tokens', 'width') if told else ():
      if told[name] != config[name]:
        raise UserError(f'{source}: its captions were embedded with {name}={told[name]}: set '
                        f'--config.text.{name}={told[name]}, or prepare them anew')
    parts += [Embeddings(source, told)] if told else []
  return Several(parts) if parts else None
