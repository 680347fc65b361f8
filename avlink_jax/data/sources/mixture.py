"""Weighted mixtures of sources: which source serves which place of a run.

`data.source=impacts*0.3,/data/clips*0.7` is a mixture; weights are relative. The places of a run
are numbered, batch by batch. Each block of BLOCK places is divided exactly by weight, in an order
drawn from (seed, block): so which source serves a place, and how many places it has served before,
are functions of (seed, place) alone.
"""

import collections
import functools
import os

import numpy as np

from avlink_jax.errors import UserError

BLOCK = 10_000  # places; weights count in steps of 1 / BLOCK


def parse(text: str) -> list:
  """Splits `data.source` into [(source, weight)]; a plain source has weight 1.

  Raises UserError: a weight that is no positive number, or the same source twice.
  """
  if not ('*' in text or ',' in text) or os.path.exists(text):
    return [(text, 1.0)]
  parts = []
  for part in text.split(','):
    source, _, weight = part.strip().rpartition('*') if '*' in part else (part.strip(), '', '1')
    try:
      number = float(weight)
    except ValueError:
      number = 0.0
    if not source or not 0 < number < np.inf:
      raise UserError(f'data.source={text!r}: {part.strip()!r} is no source with a weight: write '
                      'SOURCE*WEIGHT,SOURCE*WEIGHT')
    parts.append((source, number))
  twice = [source for source, count in collections.Counter(s for s, _ in parts).items()
           if count > 1]
  if twice:
    raise UserError(f'data.source={text!r}: {twice[0]} stands there twice: add its weights up')
  return parts


def labels(sources) -> list:
  """Short names of the sources, without repetition: `impacts`, `clips`, `clips_2`."""
  names, used = [], set()
  for source in sources:
    stem = os.path.basename(source.rstrip('/')) or source
    stem = ''.join(c if c.isalnum() or c in '-.' else '_' for c in stem)
    name, number = stem, 1
    while name in used:
      number += 1
      name = f'{stem}_{number}'
    names.append(name)
    used.add(name)
  return names


class Schedule:
  """Assignment of places to sources, and how many places each has served before.

  Raises UserError where a weight is too small, beside the others, for any place.
  """

  def __init__(self, weights, seed):
    self._seed = seed
    share = np.array(weights, float) / sum(weights) * BLOCK
    self.counts = np.floor(share).astype(int)  # places of each source in a block
    most = np.argsort(self.counts - share, kind='stable')[:BLOCK - self.counts.sum()]
    self.counts[most] += 1
    if not self.counts.all():
      raise UserError(f'a weight in data.source is less than 1/{BLOCK} of them all: leave that '
                      'source out, or give it more')
    self._block = functools.lru_cache(maxsize=4)(self._draw)

  def _draw(self, block):
    """Sources of a block's places, and how many places in the block each has served before."""
    served = np.repeat(np.arange(len(self.counts)), self.counts)
    served = np.random.default_rng((self._seed, block)).permutation(served)
    before = np.zeros(BLOCK, int)
    for source, count in enumerate(self.counts):
      before[served == source] = np.arange(count)
    return served, before

  def __call__(self, place: int):
    """Source of a place, and how many places it has served before."""
    block, within = divmod(place, BLOCK)
    served, before = self._block(block)
    source = int(served[within])
    return source, block * int(self.counts[source]) + int(before[within])

  def served_before(self, places: int):
    """Number of the first `places` places that each source serves: int (sources,)."""
    block, within = divmod(places, BLOCK)
    served, _ = self._block(block)
    return block * self.counts + np.bincount(served[:within], minlength=len(self.counts))


class Mixture:
  """Several sources as one data source (data/clip.py), one after another.

  Attributes:
    sources, labels, weights: of each.
  """

  def __init__(self, sources, names, weights):
    self.sources, self.labels, self.weights = list(sources), list(names), list(weights)
    self._offsets = np.cumsum([0] + [len(source) for source in self.sources])

  def __len__(self) -> int:
    return int(self._offsets[-1])

  @property
  def identity(self):
    """What the clips are, wherever they lie (data/identity.py)."""
    return ['mixture', [source.identity for source in self.sources], self.weights]

  def locate(self, i: int):
    """Source of clip i, and its index there."""
    source = int(np.searchsorted(self._offsets, i, side='right')) - 1
    return source, i - int(self._offsets[source])

  def index(self, source: int, i: int) -> int:
    """Index in the mixture of clip i of a source."""
    return int(self._offsets[source]) + i

  def name(self, i: int) -> str:
    source, local = self.locate(i)
    return f'{self.labels[source]}/{self.sources[source].name(local)}'

  def load(self, i: int):
    source, local = self.locate(i)
    return self.sources[source].load(local)


class Interleaved:
  """A Mixture with its sources' clips in turn, so that the first few are from all of them."""

  def __init__(self, mixture):
    self._mixture, self.sources = mixture, mixture.sources
    places = [(i, source) for source, part in enumerate(mixture.sources) for i in range(len(part))]
    self._order = sorted(places)

  def __len__(self) -> int:
    return len(self._order)

  def _at(self, i):
    local, source = self._order[i]
    return self._mixture.index(source, local)

  def name(self, i: int) -> str:
    return self._mixture.name(self._at(i))

  def load(self, i: int):
    return self._mixture.load(self._at(i))

  def seconds(self, i: int) -> float:
    source, local = self._mixture.locate(self._at(i))
    return self._mixture.sources[source].seconds(local)

  def original(self, i: int, clip, layout):
    source, local = self._mixture.locate(self._at(i))
    part = self._mixture.sources[source]
    return part.original(local, clip, layout) if hasattr(part, 'original') else None

  def load_part(self, i: int, *where):
    source, local = self._mixture.locate(self._at(i))
    return self._mixture.sources[source].load_part(local, *where)
