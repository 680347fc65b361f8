"""Messages and progress on stderr."""

import sys
import time


def say(text, write=True):
  """Prints a line on stderr immediately. `write` is False on all but a run's first process."""
  if write:
    print(text, file=sys.stderr, flush=True)


def hms(seconds):
  """Formats seconds as h:mm:ss or m:ss."""
  minutes, seconds = divmod(int(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f'{hours}:{minutes:02}:{seconds:02}' if hours else f'{minutes}:{seconds:02}'


class Progress:
  """Reporter of progress: how much is done, the rate, and the time left.

  A line begins with `verb DONE/COUNT unit`, which scripts may parse.

  Attributes:
    done: number of finished items.
  """

  def __init__(self, verb, count, unit='clips', every=5.0, write=True):
    """Starts the clock. every: minimum seconds between lines, except for the last item's."""
    self._verb, self._count, self._unit = verb, count, unit
    self._every, self._write = every, write
    self.done, self._started = 0, time.monotonic()
    self._shown, self._paced = self._started, None

  def begin(self, note):
    """Reports that nothing is finished yet, and why that takes a while."""
    if self._count:
      say(f'{self._verb} {self.done}/{self._count} {self._unit}, {note}', self._write)

  def add(self, count=1, note=''):
    """Reports `count` more finished items; `note` becomes part of the line."""
    self.at(self.done + count, note)

  def at(self, done, note='', last=False):
    """Reports `done` finished items in all. last: it is the final report, whatever the count."""
    before, self.done, now = self.done, done, time.monotonic()
    if self._paced is None:  # what comes before is mostly compilation
      self._paced = now, done
    due = now - self._shown >= self._every or last or done == self._count
    if not self._count or not due or before == done == self._count:
      return
    since, count = self._paced if done > self._paced[1] else (self._started, 0)
    self._shown, rate = now, (done - count) / max(now - since, 1e-9)
    left = hms((self._count - done) / rate) if rate else 'unknown time'
    say(f'{self._verb} {done}/{self._count} {self._unit}, {note + ", " if note else ""}'
        f'{rate:.2f} a second, {left} left', self._write)
