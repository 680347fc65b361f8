"""T5 embeddings of the captions of prepared records, each distinct caption once.

    FOLDER/text-00000-of-00003.array_record   {'rows' (n, width)} and the caption, one a record
    FOLDER/text-00000-of-00003.keys.npy       uint64, sorted: a hash of each record's caption

Keys rise from file to file, so that together they are one sorted table in memory, eight bytes a
caption; the embeddings themselves are read on demand.
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

CAPTIONS_PER_FILE = 10_000
BATCH = 64  # captions at a time


def key(caption) -> int:
  return int.from_bytes(hashlib.sha256(caption.encode(errors='surrogatepass')).digest()[:8], 'big')


def captions_by_file(captions) -> list:
  """Distinct captions, and the null prompt, in order of key: [[caption] of each file]."""
  every = sorted({'', *captions}, key=lambda caption: (key(caption), caption))
  return [every[i:i + CAPTIONS_PER_FILE] for i in range(0, len(every), CAPTIONS_PER_FILE)]


def paths(folder, file, files):
  name = records.shard_name('text', file, files)
  return Path(folder) / f'{name}.array_record', Path(folder) / f'{name}.keys.npy'


def write(folder, file, files, captions, encoder):
  """Embeds one file's captions by `encoder`, a codecs.t5_text.T5Encoder, and writes them."""
  shard, keys = paths(folder, file, files)

  def blobs():
    for i in range(0, len(captions), BATCH):
      part = captions[i:i + BATCH]
      rows = encoder.rows(part)
      for caption in part:
        yield records.encode({'caption': caption}, {'rows': rows[caption]})

  with replacing(keys) as partial_keys:
    with open(partial_keys, 'wb') as opened:
      np.save(opened, np.array([key(caption) for caption in captions], np.uint64))
    with replacing(shard) as partial:
      records.write_shard(partial, blobs())


class Embeddings:
  """T5 embeddings of the captions in a folder of records.

  Attributes: `folder`; `fingerprint` of the T5.
  """

  def __init__(self, folder, about):
    """`about` is the part `text` of records.json. Raises UserError: a missing or damaged file."""
    self.folder, self.fingerprint = Path(folder), about['fingerprint']
    self._paths = [paths(folder, file, about['files']) for file in range(about['files'])]
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
    """Rows (n, width) of a caption, None where it has none."""
    hashed = key(caption)
    if (kept := self._cache.get(hashed)) is not None:
      return kept
    at = int(np.searchsorted(self._keys, np.uint64(hashed)))
    while at < len(self._keys) and self._keys[at] == hashed:
      file = int(np.searchsorted(self._firsts, at, side='right')) - 1
      try:
        with self._lock:
          blob, = self._readers[file].read([at - int(self._firsts[file])])
        about, arrays = records.decode(blob)
      except (ValueError, RuntimeError) as error:
        raise UserError(f'{self._paths[file][0]}: damaged ({error}): remove it and run the same '
                        'prepare command again') from None
      if about['caption'] == caption:
        self._cache.put(hashed, arrays['rows'])
        return arrays['rows']
      at += 1
    return None


class JoinedEmbeddings:
  """Embeddings of several sources. Raises UserError where two T5 computed them."""

  def __init__(self, parts):
    self.folder, self.fingerprint, self._parts = parts[0].folder, parts[0].fingerprint, parts
    other = [part for part in parts if part.fingerprint != self.fingerprint]
    if other:
      raise UserError(f'{self.folder} and {other[0].folder} hold embeddings of two different T5: '
                      'prepare both with the same')

  def get(self, caption):
    """Rows (n, width) of a caption, None where no source has it."""
    candidates = (part.get(caption) for part in self._parts)
    return next((rows for rows in candidates if rows is not None), None)


def for_source(sources, config):
  """Embeddings of the records among the sources in `data.source`; None where there are none.

  Raises UserError where they were computed for another text encoder than `config` (config.text).
  """
  parts = []
  for source, _ in parse(sources):
    if not source or not records.is_records(source):
      continue
    about = records.read_about(source)['text']
    for name in ('max_tokens', 'width') if about else ():
      if about[name] != config[name]:
        raise UserError(f'{source}: its captions were embedded with {name}={about[name]}: set '
                        f'--config.text.{name}={about[name]}, or prepare them anew')
    parts += [Embeddings(source, about)] if about else []
  return JoinedEmbeddings(parts) if parts else None
