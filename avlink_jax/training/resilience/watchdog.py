"""A run that hangs ends, so that whoever watches over it can start it again.

Two guards. A thread counts ticks since the last step ended and, when they are too many, writes
what every thread is doing and ends the process. And each tick re-arms faulthandler's timer,
which lives outside the interpreter: it fires where even that thread cannot run, because
something holds the interpreter's lock.
"""

import contextlib
import faulthandler
import os
import pathlib
import sys
import threading

from avlink_jax.errors import HANG


class Watchdog:
  """Exits with status HANG (1, where the interpreter itself is stuck) when no step ends for
  `seconds`; 0 switches it off.

  It sleeps until the first step has ended, as that step waits for the compiler, and within
  `paused`. Stacks go to stderr and `workdir/hang.txt` (`hang.P.txt` of process P > 0; where the
  workdir is in a bucket, to stderr and this machine's temporary folder, as what hangs may be the
  network). Ticks are
  counted rather than time, so that a stopped process or a suspended machine is no hang.
  """

  def __init__(self, workdir, seconds, process=0):
    self._seconds, self._tick = seconds, seconds / 20
    self._path = pathlib.Path(workdir) / ('hang.txt' if process == 0 else f'hang.{process}.txt')
    self._step, self._ticks, self._paused, self._done = None, 0, 0, threading.Event()
    if seconds:
      self._path.unlink(missing_ok=True)
      self._file = self._path.open('w')
      self._thread = threading.Thread(target=self._watch, daemon=True, name='watchdog')
      self._thread.start()

  def step_ended(self, step):
    """To be called once a step's results are there, not when it was merely sent off."""
    self._step, self._ticks = step, 0

  @contextlib.contextmanager
  def paused(self):
    """Sampling, exporting: work that is no step and may take its time."""
    self._paused += 1
    try:
      yield
    finally:
      self._ticks = 0
      self._paused -= 1

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.close()

  def _watch(self):
    while not self._done.wait(self._tick):
      faulthandler.dump_traceback_later(self._seconds + self._tick, exit=True, file=self._file)
      if self._step is None or self._paused:
        continue
      self._ticks += 1
      if self._ticks > 20:
        self._bark()

  def _bark(self):
    said = (f'no step was seen to end for {self._seconds:g} s; the last was step {self._step}. '
            'What every thread was doing:\n')
    for file in (self._file, sys.__stderr__):
      file.write(said if file is self._file else f'avlink_jax: {said}')
      file.flush()
      faulthandler.dump_traceback(file, all_threads=True)
    os._exit(HANG)  # a hung thread would not let the interpreter end

  def close(self):
    """Ends the watch; leaves no file where there was no hang."""
    if not self._seconds:
      return
    self._done.set()
    self._thread.join()
    faulthandler.cancel_dump_traceback_later()
    self._file.close()
    self._path.unlink()
