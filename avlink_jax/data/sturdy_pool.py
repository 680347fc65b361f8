"""Work on many files in other processes, which a decoder may crash."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

MOST = 4096  # processes
CRASHES = 'a decoder crashes on it'  # what is said of a file that ends its process


class SturdyPool:
  """Applies `function` to many items, in `processes` other processes (0: in this one), in order.

  An item on which a decoder crashes ends its process, and with it the pool; the items of that pool
  are then worked on one by one, so that the culprit is known: its result is `crashed(item)`.
  """

  def __init__(self, processes: int, function: Callable, crashed: Callable):
    self._function, self._crashed = function, crashed
    self._processes = min(processes, MOST)  # they are started as they are needed
    self._pool = self._single = None

  def __call__(self, items: Iterable) -> Iterator:
    """Yields the result of each item."""
    items = list(items)
    if not self._processes:
      yield from map(self._function, items)
      return
    futures = [self._submit(item) for item in items]
    for item, future in zip(items, futures, strict=True):
      try:
        yield future.result()
      except BrokenProcessPool:
        self._pool = None  # a new one for the next jobs
        yield self._alone(item)

  def close(self):
    """Ends the other processes."""
    for pool in filter(None, (self._pool, self._single)):
      pool.shutdown(cancel_futures=True)
    self._pool = self._single = None

  def _submit(self, item):
    self._pool = self._pool or _spawned(self._processes)
    return self._pool.submit(self._function, item)

  def _alone(self, item):
    self._single = self._single or _spawned(1)
    try:
      return self._single.submit(self._function, item).result()
    except BrokenProcessPool:
      self._single = None
      return self._crashed(item)


def _spawned(processes):
  # Not forked: JAX may have started threads in this process. What they call must not stand in
  # `__main__`, which they do not import.
  return ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context('spawn'),
                             initializer=_begin)


def _begin():
  """Begins a process: Ctrl-C, which a terminal sends to all, is its parent's to tell; and however
  that one ends, this one ends too."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  if parent := multiprocessing.parent_process():
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
