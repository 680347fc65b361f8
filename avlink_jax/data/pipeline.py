"""From a source of clips to batches: shuffled, cropped, stacked, prefetched by Grain.

Batch k is a pure function of (source, seed, k): a run that starts at step k reads what the run
left alone would have read, and so does each host, which loads only its own rows.
"""

import collections
import sys
import threading

import grain
import numpy as np

from avlink_jax.data import batch as batches
from avlink_jax.data.folder import Folder
from avlink_jax.data.impacts import Impacts
from avlink_jax.errors import MediaError, UserError


def open_source(config, layout, split, reads=('audio', 'video')):
  """The source that `config.data` names: 'impacts' or a folder of clips, of which `reads` is needed
  (names as in data/batch.py).

  Raises UserError for a source that is not there or of which nothing can be read.
  """
  source = config.data.source
  features = config.towers.video.features
  if source == 'impacts':
    if features:
      raise UserError('data.source=impacts has no features from outside: set it to a folder of '
                      'clips with an .npz beside each')
    size = config.data.impacts_clips if split == 'train' else None
    return Impacts(split, seed=config.data.seed, size=size, duration=layout.seconds,
                   height=layout.height, width=layout.width, fps=layout.fps,
                   sample_rate=layout.mel.sample_rate)
  if not source:
    raise UserError('no data given: set --config.data.source to impacts or to a folder of clips')
  if source.startswith('tfds:'):
    raise UserError(f'data.source={source!r}: tfds builders are not read yet; '
                    'use impacts or a folder of clips')
  folder = Folder(source, height=layout.height, width=layout.width,
                  sample_rate=layout.mel.sample_rate, max_fps=config.data.max_fps, split=split,
                  need_video='video' in reads, need_audio=bool({'audio', 'wave'} & set(reads)),
                  features=features, features_rate=layout.fps,
                  decode_seconds=config.data.decode_seconds)
  if split == 'train':
    for note in folder.notes:
      print(note, file=sys.stderr, flush=True)
  return folder


class Cache:
  """The most recently used values, up to a number of bytes; safe among threads."""

  def __init__(self, max_bytes):
    self._max_bytes, self._bytes = max_bytes, 0
    self._lock, self._entries = threading.Lock(), collections.OrderedDict()

  def get(self, key):
    with self._lock:
      if key in self._entries:
        self._entries.move_to_end(key)
        return self._entries[key][0]
    return None

  def put(self, key, value, size):
    with self._lock:
      if key in self._entries:
        return
      self._entries[key] = (value, size)
      self._bytes += size
      while self._bytes > self._max_bytes and self._entries:
        self._bytes -= self._entries.popitem(last=False)[1][1]


ENOUGH = 20  # clips that are tried before their broken ones are a share of anything


class Examples:
  """Source index -> example, through the cache, with broken clips replaced and reported.

  Where more than `max_broken` of the clips tried so far are broken (of ENOUGH, or all there are),
  something else is wrong, and going on with the rest would hide it: that is a UserError.

  A clip shorter than the model's length has one example, which is kept ready; a longer one
  is kept decoded, and each visit crops it anew.
  """

  def __init__(self, source, layout, modalities, cache_bytes, min_seconds, max_broken):
    self.source, self.layout, self.modalities = source, layout, modalities
    self.min_seconds, self.max_broken = min_seconds, max_broken
    self._cache = Cache(cache_bytes)
    self._broken, self._lock = {}, threading.Lock()
    self._seen, self._tried = bytearray(len(source)), 0  # which clips, and how many of them

  def _clip(self, index):
    clip = self.source.load(index)
    if clip.duration < self.min_seconds:
      raise MediaError(self.source.name(index),
                       f'shorter than {self.min_seconds:g} s ({clip.duration:.2f} s)')
    return clip

  def _read(self, index, rng):
    """(example, id, events) of one clip; MediaError where it cannot be used."""
    kept = self._cache.get(index)
    if isinstance(kept, tuple):
      return kept
    clip = kept or self._clip(index)
    slack = clip.duration - self.layout.seconds
    if slack <= 1 / self.layout.fps:
      made = self._example(clip, 0.0)
      self._cache.put(index, made, sum(
          a.nbytes for a in made[0].values() if isinstance(a, np.ndarray)))
      return made
    if kept is None:
      self._cache.put(index, clip, clip.frames.nbytes + clip.audio.nbytes)
    return self._example(clip, rng.uniform(0.0, slack) if rng is not None else 0.0)

  def _example(self, clip, start):
    events = None if clip.events is None else clip.events - start
    return (batches.example(clip, start, self.layout, self.modalities), clip.id, events)

  def __call__(self, index, rng=None):
    """The example at `index`, or the next usable one: (example, id, events, skipped).

    `rng` places the crop; None takes the clip's beginning. `skipped` lists (name, reason).
    Raises UserError where too many clips of the source are unusable.
    """
    skipped = []
    for attempt in range(len(self.source)):
      i = (index + attempt) % len(self.source)
      try:
        if i in self._broken:
          raise self._broken[i]
        made = self._read(i, rng)
        self._note(i)
        return (*made, skipped)
      except MediaError as error:
        self._note(i, error)
        skipped.append((self.source.name(i), error.reason))
    raise UserError(f'none of the {len(self.source)} clips can be used; the first: '
                    f'{skipped[0][0]}: {skipped[0][1]}')

  def _note(self, index, error=None):
    """Remembers how a clip turned out. Raises UserError once too many turned out badly."""
    with self._lock:
      if self._seen[index]:
        return
      self._seen[index] = 1
      self._tried += 1
      if error is not None:
        self._broken[index] = error
      tried, broken = self._tried, len(self._broken)
      first = list(self._broken.items())[:3] if broken > self.max_broken * tried else None
    if first and tried >= min(ENOUGH, len(self._seen)):
      told = '; '.join(f'{self.source.name(i)}: {e.reason}' for i, e in first)
      raise UserError(f'{broken} of the first {tried} clips cannot be used, more than '
                      f'data.max_broken={self.max_broken:g} allows: {told}'
                      + ('; …' if broken > len(first) else ''))


def train_batches(examples, prepare, *, seed, batch_size, first_step, last_step, rows=None,
                  threads=2):
  """Iterates over (batch, Meta) of steps first_step … last_step − 1: of each batch the `rows` that
  this process needs (default: all), and nothing else is decoded.

  Every clip is seen once an epoch, in an order drawn from (seed, epoch).
  """
  rows = np.arange(batch_size) if rows is None else rows
  order = (grain.MapDataset.range(len(examples.source)).seed(seed).shuffle().repeat()
           .random_map(lambda index, rng: (int(index), int(rng.integers(2**62)))))

  def load(step):
    drawn = [order[int(slot)] for slot in step * batch_size + rows]
    return collate([examples(index, np.random.default_rng(crop)) for index, crop in drawn],
                   prepare)

  dataset = grain.MapDataset.range(first_step, last_step).map(load)
  return iter(dataset.to_iter_dataset(
      grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)))


def collate(loaded, prepare):
  """[(example, id, events, skipped)] -> (batch, Meta)."""
  made, ids, events, skipped = zip(*loaded, strict=True)
  return (batches.stack(made, prepare),
          batches.Meta(list(ids), list(events), [s for rows in skipped for s in rows]))


def first_batch(examples, prepare, count):
  """The first `count` clips from their beginnings: what evaluation and export look at."""
  count = min(count, len(examples.source))
  return collate([examples(i) for i in range(count)], prepare)
