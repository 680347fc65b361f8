"""Lines on stderr for the person who watches a command."""

import sys
import time


def say(text, write=True):
  """Prints a line on stderr at once. `write` is False on all but the first process of a run."""
  if write:
    print(text, file=sys.stderr, flush=True)


def hms(seconds):
  """Seconds as h:mm:ss or m:ss."""
  minutes, seconds = divmod(int(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f'{hours}:{minutes:02}:{seconds:02}' if hours else f'{minutes}:{seconds:02}'


class Progress:
  """Says how many pieces of work are done, how fast they go and how long the others will take.

  A line begins with `verb DONE/COUNT unit`, which scripts may read.

  Attributes:
    done: pieces so far.
  """

  def __init__(self, verb, count, unit='clips', every=5.0, write=True):
    """`every`: seconds between two lines, at least; the last piece has its line in any case."""
    self._verb, self._count, self._unit = verb, count, unit
    self._every, self._write = every, write
    self.done, self._started = 0, time.monotonic()
    self._shown = self._started

  def add(self, count=1, note=''):
    """`count` more pieces are done; `note` goes into the line."""
    self.at(self.done + count, note)

  def at(self, done, note='', last=False):
    """`done` pieces are done in all. `last`: no more will be, whatever the count was."""
    before, self.done, now = self.done, done, time.monotonic()
    due = now - self._shown >= self._every or last or done == self._count
    if not self._count or not due or before == done == self._count:
      return
    self._shown, rate = now, done / max(now - self._started, 1e-9)
    left = hms((self._count - done) / rate) if rate else 'unknown time'
    say(f'{self._verb} {done}/{self._count} {self._unit}, {note + ", " if note else ""}'
        f'{rate:.2f} a second, {left} left', self._write)
