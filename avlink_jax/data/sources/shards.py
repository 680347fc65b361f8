"""Unfinished shards: what is done of one survives a kill, and nothing is done twice.

Each clip's records are appended to a journal as soon as they are encoded. When all clips of a shard
are done, the journal becomes the shard, which gets its name last. An incomplete entry at the
journal's end, which a kill leaves, is dropped, and its clip is prepared again.
"""

import contextlib
import fcntl
import json
import os
import zlib
from pathlib import Path

from avlink_jax.data.sources import records
from avlink_jax.errors import UserError
from avlink_jax.storage.atomic import replacing, write_text

HEADER = 8  # bytes of an entry's length and checksum
ATTEMPTS = 3  # at a clip that ends the process, before it is skipped
DEADLY = 'ended the process that decoded it'


def paths(folder, name):
  """Paths of a shard, its report and its journal."""
  folder = Path(folder)
  return folder / f'{name}.array_record', folder / f'{name}.json', folder / f'.{name}.journal'


def is_finished(folder, name) -> bool:
  shard, report, _ = paths(folder, name)
  return shard.is_file() and report.is_file()


def read_report(folder, name) -> dict:
  """Report of a finished shard. Raises UserError where it is damaged."""
  path = paths(folder, name)[1]
  try:
    report = json.loads(path.read_text())
    return {**report, 'records': int(report['records']), 'bytes': int(report['bytes'])}
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise UserError(f'{path}: a damaged report ({error}): remove it, and the same command makes '
                    'its shard again') from None


class Journal:
  """Finished clips of one shard, in the order in which they were prepared.

  Attributes:
    done: {clip: its entry}.

  Raises UserError where another process writes the same shard, or the disk is full.
  """

  def __init__(self, folder, name):
    self._folder, self._name = folder, name
    self._path = paths(folder, name)[2]
    self._file = open(self._path, 'a+b')
    try:
      fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise UserError(f'{self._path}: another process is making this shard: give each host its '
                      'own --host') from None
    self._attempts, self.done = {}, {}
    end = 0
    for entry, _, end in self._entries():  # noqa: B007
      if 'begin' in entry:
        self._attempts[entry['begin']] = self._attempts.get(entry['begin'], 0) + 1
      else:
        self.done[entry['clip']] = entry
    self._file.truncate(end)

  def _entries(self):
    """Yields (entry, [record], its end in bytes) of each complete entry."""
    self._file.seek(0)
    end = 0
    while len(header := self._file.read(HEADER)) == HEADER:
      length, check = int.from_bytes(header[:4], 'big'), int.from_bytes(header[4:], 'big')
      content = self._file.read(length)
      if len(content) < length or zlib.crc32(content) != check:
        return
      end += HEADER + length
      head, _, body = content.partition(b'\n')
      entry, blobs = json.loads(head), []
      for size in entry.get('sizes', ()):
        blobs.append(body[:size])
        body = body[size:]
      yield entry, blobs, end

  def _append(self, entry, blobs=()):
    content = json.dumps(entry).encode() + b'\n' + b''.join(blobs)
    head = len(content).to_bytes(4, 'big') + zlib.crc32(content).to_bytes(4, 'big')
    try:
      self._file.write(head + content)
      self._file.flush()
    except OSError as error:
      raise UserError(f'{self._path}: cannot be written ({error.strerror}): make room and run the '
                      'same command again; what is done is kept') from None

  def begin(self, clip) -> bool:
    """Records that a clip is begun; False where it has ended the process ATTEMPTS times."""
    if self._attempts.get(clip, 0) >= ATTEMPTS:
      return False
    self._append({'begin': clip})
    return True

  def put(self, clip, blobs, outcome):
    """Appends a clip's records, and the outcome that convert.Converter gives with them."""
    entry = {'clip': clip, 'sizes': [len(blob) for blob in blobs], **outcome}
    self._append(entry, blobs)
    self.done[clip] = entry

  def finish(self):
    """Turns the journal into the shard; returns its report."""
    shard, report, _ = paths(self._folder, self._name)
    about = {'clips': len(self.done),
             'records': sum(len(clip['sizes']) for clip in self.done.values()),
             'seconds': round(sum(clip['seconds'] for clip in self.done.values()), 3),
             'left': round(sum(clip['left'] for clip in self.done.values()), 3),
             'silent': sum(clip.get('silent', 0) for clip in self.done.values()),
             'skipped': [row for clip in self.done.values() for row in clip['skipped']],
             'ids': [id for clip in self.done.values() for id in clip['ids']],
             'captions': sorted({text for clip in self.done.values() for text in clip['captions']})}
    with replacing(shard) as partial:
      records.write_shard(partial, (blob for _, blobs, _ in self._entries() for blob in blobs))
      os.chmod(partial, 0o644)
      about['bytes'] = partial.stat().st_size
      write_text(report, json.dumps(about))
    self._path.unlink()
    return about

  def close(self):
    """Closes the journal and releases its lock; its entries stay."""
    with contextlib.suppress(OSError):  # a full disk has been reported already
      self._file.close()
