"""Examples of a source: cropped, kept, and of another clip where their own cannot be used."""

import collections
import threading

import numpy as np

from avlink_jax.data import batch as batches
from avlink_jax.data.clip import samples_of
from avlink_jax.data.media import silence
from avlink_jax.errors import MediaError, UserError

ENOUGH = 20  # clips that are tried before their broken ones are a share of anything
LONG = 4  # lengths of an example: longer clips are read in parts where memory cannot keep them
ROUNDS = 20  # tries with all clips, where those that can be used are silent where they are cropped
IN_PART = 'silence, or little sound, in a part of it'


class Silent(MediaError):
  """Clip that lacks sound and is left out. It is not broken."""


class SilentPart(Silent):
  """Part of a clip that lacks sound and is left out. Others need not."""


class Cache:
  """The most recently used values, up to a number of bytes; safe among threads."""

  def __init__(self, max_bytes):
    self.max_bytes, self._bytes = max_bytes, 0
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
      while self._bytes > self.max_bytes and self._entries:
        self._bytes -= self._entries.popitem(last=False)[1][1]


class MixedExamples:
  """The examples of a mixture; a broken clip is replaced by one of its own source."""

  def __init__(self, source, parts):
    self.source, self._parts = source, parts

  def __call__(self, index, seed=None):
    part, local = self.source.locate(index)
    made, id, events, *lists = self._parts[part](local, seed)
    label = self.source.labels[part]
    return (made, id, events, *([(f'{label}/{name}', reason) for name, reason in rows]
                                for rows in lists))


class Examples:
  """Source index -> example, through the cache, with broken clips replaced and reported.

  What an example shows is a function of (source, index, seed), whatever was read before, so that
  hosts and resumed runs agree: also which clip serves for a broken one. That is drawn anew for each
  example; the broken clip's neighbour would be seen as often as both together.

  Where more than `max_broken` of the clips tried so far are broken (of ENOUGH, or all there are),
  something else is wrong, and going on with the rest would hide it: that is a UserError.

  A clip shorter than the model's length has one example, which is kept ready; a longer one
  is kept decoded, and each visit crops it anew. Where an example shows a part of a large picture
  (layout.crop), its place in time and in the picture is drawn first, from the clip's length, and
  that part alone is loaded; the lengths are kept, and no pictures. So it is with clips of more than
  LONG examples' length where, all clips being as long, they would not fit into the cache: of those
  a crop in time alone. It shows the same as of the whole clip, up to the rounding of resampling.

  Clips of which the sound is read, and the parts that examples show, are looked at for silence
  (media/silence.py); with `drop_silent` what lacks sound is left out, which is no share of the
  broken ones.
  """

  def __init__(self, source, layout, readers, cache_bytes, min_seconds, max_broken,
               drop_silent=False):
    self.source, self.layout, self.readers = source, layout, readers
    self.min_seconds, self.max_broken, self.drop_silent = min_seconds, max_broken, drop_silent
    self._hears = 'audio' in {reader.medium for reader in readers}
    self._cache, self._seconds, self._lacks = Cache(cache_bytes), {}, {}
    self._broken, self._damaged, self._lock = {}, 0, threading.Lock()
    self._seen, self._tried = bytearray(len(source)), 0  # which clips, and how many of them

  def _clip(self, index):
    clip = self.source.load(index)
    self._long_enough(index, clip.duration)
    if self._hears and len(clip.audio) and (
        lack := silence.lacking(clip.audio, clip.sample_rate)):
      self._lacks[index] = lack
      if self.drop_silent:
        raise Silent(self.source.name(index), lack)
    return clip

  def _long_enough(self, index, seconds):
    """The length; MediaError where it is too little."""
    if seconds < self.min_seconds:
      raise MediaError(self.source.name(index),
                       f'shorter than {self.min_seconds:g} s ({seconds:.2f} s)')
    return seconds

  def _read(self, index, seed):
    """(example, id, events, lack) of one clip, `lack` being what the sound of the example lacks;
    MediaError where it cannot be used."""
    if self._shows_part(index, seed):
      return self._read_part(index, np.random.default_rng(seed))
    if index in self._broken:
      raise self._broken[index]
    kept = self._cache.get(index)
    if isinstance(kept, tuple):
      return kept
    clip = kept or self._clip(index)
    slack = clip.duration - self.layout.seconds
    if slack <= 1 / self.layout.fps:
      made = self._example(index, clip, 0.0)
      self._cache.put(index, made, sum(
          a.nbytes for a in made[0].values() if isinstance(a, np.ndarray)))
      return made
    if kept is None:
      self._cache.put(index, clip, clip.frames.nbytes + clip.audio.nbytes)
    return self._example(
        index, clip, 0.0 if seed is None else np.random.default_rng(seed).uniform(0.0, slack))

  def _shows_part(self, index, seed):
    """Whether no more than what an example shows is read: then other parts may still be whole."""
    if seed is None or self.layout.crop:
      return seed is not None
    rate = getattr(self.source, 'bytes_per_second', 0)  # only of sources that decode files
    if not rate:
      return False
    seconds = self._length(index)
    return (seconds > LONG * self.layout.seconds
            and seconds * rate * len(self.source) > self._cache.max_bytes)

  def _length(self, index):
    """Seconds of a clip, asked for once. Raises MediaError."""
    if index not in self._seconds:
      self._seconds[index] = self.source.seconds(index)
    return self._seconds[index]

  def _read_part(self, index, rng):
    """The same of a crop in time, and in space where there is one."""
    layout, seconds = self.layout, self._long_enough(index, self._length(index))
    slack = seconds - layout.seconds
    start = rng.uniform(0.0, slack) if slack > 1 / layout.fps else 0.0
    window = None
    if layout.crop:
      height, width = layout.crop
      window = (int(rng.integers(layout.height - height + 1)),
                int(rng.integers(layout.width - width + 1)), height, width)
    return self._example(
        index, self.source.load_part(index, start, layout.seconds, window), 0.0)

  def _example(self, index, clip, start):
    lack = self._lack(index, clip, start)
    if lack and self.drop_silent:
      raise SilentPart(self.source.name(index), lack)
    events = None if clip.events is None else clip.events - start
    return (batches.example(clip, start, self.layout, self.readers), clip.id, events, lack)

  def _lack(self, index, clip, start):
    """What the sound of an example from `start` seconds of a clip on lacks; '' where nothing."""
    part = clip.audio[samples_of(clip.sample_rate, start, self.layout.seconds)]
    if not self._hears or not len(part) or not silence.lacking(part, clip.sample_rate):
      return ''
    return self._lacks.get(index, IN_PART)

  def __call__(self, index, seed=None):
    """The example at `index`, or where that is unusable at another: (example, id, events, skipped,
    silent).

    `seed` (one number or several) places the crop and draws replacements; None takes the clip's
    beginning, and all of the picture. `skipped` lists (name, reason), `silent` (name, what it
    lacks) of examples without sound, skipped or not. Raises UserError where too many clips of the
    source are unusable.
    """
    skipped, silent = [], []
    for crop in crops(seed):
      in_part = False  # only: another crop may be used
      for i in attempts(index, len(self.source), seed):
        try:
          *made, lack = self._read(i, crop)
          self._note(i)
          return (*made, skipped, silent + ([(self.source.name(i), lack)] if lack else []))
        except MediaError as error:
          part = isinstance(error, SilentPart)
          self._note(i, None if part else error)
          in_part |= part
          skipped.append((self.source.name(i), error.reason))
          if isinstance(error, Silent):
            silent.append(skipped[-1])
      if not in_part:
        break
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
        self._damaged += not isinstance(error, Silent)
      tried, broken, first = self._tried, self._damaged, None
      if broken > self.max_broken * tried:
        first = [row for row in self._broken.items() if not isinstance(row[1], Silent)][:3]
    if first and tried >= min(ENOUGH, len(self._seen)):
      told = '; '.join(f'{self.source.name(i)}: {e.reason}' for i, e in first)
      raise UserError(f'{broken} of the first {tried} clips cannot be used, more than '
                      f'data.max_broken={self.max_broken:g} allows: {told}'
                      + ('; …' if broken > len(first) else ''))


def crops(seed):
  """Yields seeds of an example's crop: first the example's own; without one no other."""
  yield seed
  for n in range(1, ROUNDS if seed is not None else 0):
    yield (*np.atleast_1d(seed).tolist(), n)


def attempts(index, size, seed=None):
  """Yields `index`, then the other indices below `size` in an order drawn from the seed, or without
  one from `index`."""
  yield index
  rng = np.random.default_rng(
      np.random.SeedSequence(index if seed is None else seed, spawn_key=(0,)))
  tried = {index}
  while len(tried) < size:
    if (other := int(rng.integers(size))) not in tried:
      tried.add(other)
      yield other
