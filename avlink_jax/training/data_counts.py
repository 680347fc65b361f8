"""Counts of what is odd about a run's data, over all of its processes."""

import collections

from avlink_jax.training import hosts


class DataCounts:
  """Unusable clips, examples of other clips in their place, and examples without sound.

  Each process reads examples of its own, some several of them. What it counts becomes part of the
  counts when all of them meet; a process that is alone may meet itself at any time.

  Args: saved: `as_saved()` of the checkpoint that the run goes on from; {} at its beginning.

  Attributes:
    skipped: Counter of unusable clips (name, reason): how often each was come upon.
    replaced: examples of another clip than their own.
    silent: names of clips of which an example lacked sound.
    silent_examples: such examples, trained on or replaced.
  """

  def __init__(self, saved):
    self.skipped = collections.Counter({(name, reason): count
                                        for name, reason, count in saved.get('skipped', ())})
    self.replaced = saved.get('replaced', self.skipped.total())
    self.silent = set(saved.get('silent', ()))
    self.silent_examples = saved.get('silent_examples', 0)
    self._own: list = []  # of this process, not shared yet: (step, row of the batch, what)

  def add(self, step, rows, meta):
    """Adds what this process knows of the `rows` of a step's batch (data/batch.Meta)."""
    self._own += [(step, int(rows[place]), *lists) for place, *lists in meta.odd]

  def meet(self):
    """Shares what is new with all processes, which call this at the same moment. Returns of all
    the unusable clips (name, reason) that are new to the run, and the silent ones (name, lack)."""
    examples = {(step, row): lists for of_process in hosts.exchange(self._own)
                for step, row, *lists in of_process}
    self._own = []
    new_skipped: dict = {}
    new_silent: dict = {}
    for _, (skipped, silent) in sorted(examples.items()):
      rows = [tuple(row) for row in skipped]
      new_skipped |= {row: None for row in rows if row not in self.skipped}
      self.skipped.update(rows)
      self.replaced += bool(skipped)
      new_silent |= {name: lack for name, lack in silent if name not in self.silent}
      self.silent |= {name for name, _ in silent}
      self.silent_examples += bool(silent)
    return list(new_skipped), list(new_silent.items())

  def figures(self):
    """Figures for metrics.jsonl."""
    return {'skipped_clips': len(self.skipped), 'replaced_examples': self.replaced,
            'silent_clips': len(self.silent), 'silent_examples': self.silent_examples}

  def as_saved(self):
    """JSON-like counts for a checkpoint, as of the last meeting."""
    return {'skipped': [[*clip, count] for clip, count in self.skipped.items()],
            'replaced': self.replaced, 'silent': sorted(self.silent),
            'silent_examples': self.silent_examples}
