"""Embeddings of the captions of prepared records, each distinct caption once.

    FOLDER/text-00000-of-00003.array_record   {'rows' (n, width)} and the caption, one a record
    FOLDER/text-00000-of-00003.keys.npy       uint64, sorted: a hash of each record's caption

Where audio and video have text encoders of their own, `text_audio` and `text_video` stand in the
place of `text`.

Keys rise from file to file, so that together they are one sorted table in memory, eight bytes a
caption; the embeddings themselves are read on demand.
"""

import hashlib
import threading
from pathlib import Path

import numpy as np

from avlink_jax.codecs.pretrained_text import KINDS
from avlink_jax.codecs.text_cache import EmbeddingCache
from avlink_jax.codecs.text_habits import suffix
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


def tables(text) -> dict:
  """Descriptions by the name of their files, {'text': …} or {'text_audio': …, 'text_video': …}, of
  the part `text` of records.json."""
  if not text or 'fingerprint' in text:
    return {'text': text} if text else {}
  return {f'text_{name}': about for name, about in text.items()}


def paths(folder, file, files, table='text'):
  name = records.shard_name(table, file, files)
  return Path(folder) / f'{name}.array_record', Path(folder) / f'{name}.keys.npy'


def write(folder, file, files, captions, encoder, table='text'):
  """Embeds one file's captions by `encoder`, a codecs.pretrained_text.Encoder, and writes them."""
  shard, keys = paths(folder, file, files, table)

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
  """Embeddings of the captions in a folder of records. Those of one table are equal.

  Attributes: `folder`; `fingerprint` and `dtype` of the text encoder; `width` of its embeddings.
  """

  def __init__(self, folder, about, table='text'):
    """`about` is what records.json says of the table. Raises UserError: a missing or damaged
    file."""
    self.folder, self.fingerprint = Path(folder), about['fingerprint']
    self.width, self.dtype = about.get('width'), about.get('dtype', 'float32')
    self._paths = [paths(folder, file, about['files'], table) for file in range(about['files'])]
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

  def __eq__(self, other):
    return isinstance(other, Embeddings) and self._paths == other._paths

  def __hash__(self):
    return hash(tuple(self._paths))

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
  """Embeddings of several sources. Raises UserError where two encoders computed them."""

  def __init__(self, parts, title):
    self.folder, self.fingerprint, self.parts = parts[0].folder, parts[0].fingerprint, tuple(parts)
    self.width, self.dtype = parts[0].width, parts[0].dtype
    other = [part for part in parts if part.fingerprint != self.fingerprint]
    if other:
      raise UserError(f'{self.folder} and {other[0].folder} hold embeddings of two different '
                      f'{title}: prepare both with the same')

  def __eq__(self, other):
    return isinstance(other, JoinedEmbeddings) and self.parts == other.parts

  def __hash__(self):
    return hash(self.parts)

  def get(self, caption):
    """Rows (n, width) of a caption, None where no source has it."""
    candidates = (part.get(caption) for part in self.parts)
    return next((rows for rows in candidates if rows is not None), None)


def for_source(sources, modality, kind, width, max_tokens, seconds):
  """Embeddings of a modality's captions in the records among the sources in `data.source`; None
  where there are none.

  Raises UserError where they were computed for another text encoder than one of this `kind`, with
  embeddings of this width (0: any), so many places, and told of clips of so many seconds (None: not
  told).
  """
  parts = []
  for source, _ in parse(sources):
    if not source or not records.is_records(source):
      continue
    by_table = tables(records.read_about(source)['text'])
    table = 'text' if 'text' in by_table else f'text_{modality}'
    if (about := by_table.get(table)) is None:
      continue
    section = 'text' if kind == 't5' and table == 'text' else f'texts.{modality}'
    made_by = about.get('kind', 't5')
    if made_by != kind:
      raise UserError(f'{source}: its captions were embedded by {KINDS[made_by].title}, and this '
                      f'run reads {modality} prompts by {KINDS[kind].title}: prepare them anew')
    wanted = {'max_tokens': max_tokens, 'width': width or about['width']}
    for name, value in wanted.items():
      if about[name] != value:
        raise UserError(f'{source}: its captions were embedded with {name}={about[name]}: set '
                        f'--config.{section}.{name}={about[name]}, or prepare them anew')
    if seconds is not None and suffix(about['seconds']) != suffix(seconds):
      raise UserError(f'{source}: its captions were embedded with{suffix(about["seconds"])}: set '
                      f'--config.data.seconds={about["seconds"]:g}, or prepare them anew')
    parts.append(Embeddings(source, about, table))
  return JoinedEmbeddings(parts, KINDS[kind].title) if parts else None
