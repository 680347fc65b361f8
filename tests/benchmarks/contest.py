"""Programs timed against each other: each in a process of its own, in turns, ratios round by round.

Other work on the machine slows neighbours in time alike, so that a ratio of two turns of one round
holds where a time alone does not. On a CPU the processor's own seconds stand beside the clock's.
"""

import contextlib
import multiprocessing
import os
import pathlib
import resource
import statistics
import time
import traceback


class Worker:
  """An object, `make(*args)`, living in a process of its own; calls go to its methods.

  Forked, so that imports are there already: the asker itself must not have computed anything."""

  def __init__(self, make, *args):
    context = multiprocessing.get_context('fork')
    self._pipe, theirs = context.Pipe()
    self._process = context.Process(target=_serve, args=(theirs, make, args), daemon=True)
    self._process.start()
    theirs.close()

  def __call__(self, method, *args):
    """What the method gives. Raises RuntimeError with the worker's traceback where it fails."""
    self._pipe.send((method, args))
    try:
      fine, value = self._pipe.recv()
    except EOFError:
      self._process.join()
      raise RuntimeError(f'{method}: the process ended, exit code '
                         f'{self._process.exitcode}') from None
    if not fine:
      raise RuntimeError(value)
    return value

  def close(self):
    with contextlib.suppress(OSError):  # it may be gone
      self._pipe.send(None)  # workers forked later hold this pipe too: closing it tells nobody
    self._pipe.close()
    self._process.join(30)
    self._process.kill()


def _serve(pipe, make, args):
  made = None
  while True:
    asked = pipe.recv()
    if asked is None:
      return
    method, given = asked
    try:
      made = made or make(*args)
      pipe.send((True, getattr(made, method)(*given)))
    except Exception:  # whatever it is, the asker is told
      pipe.send((False, traceback.format_exc()))


def timed(function, count):
  """Median (clock, processor) seconds of `count` calls; of both alike, the clock's median call."""
  rows = []
  for _ in range(count):
    clock, processor = time.perf_counter(), time.process_time()
    function()
    rows.append((time.perf_counter() - clock, time.process_time() - processor))
  return sorted(rows)[len(rows) // 2]


def rounds(workers, count, calls):
  """{name: [(clock, processor) seconds]}: `count` rounds, each starting with another worker."""
  names, times = list(workers), {name: [] for name in workers}
  for i in range(count):
    for name in names[i % len(names):] + names[:i % len(names)]:
      times[name].append(workers[name]('time', calls))
  return times


def ratio(times, others, which):
  """Of two workers' times by round: (median, lowest, highest) of others/times."""
  ratios = [b[which] / a[which] for a, b in zip(times, others, strict=True)]
  return statistics.median(ratios), min(ratios), max(ratios)


def median(times, which):
  return statistics.median(row[which] for row in times)


def matrix_rate(run, side):
  """FLOP/s of `run()`, a product of two square matrices: the best of ten calls."""
  run()
  return 2 * side**3 / min(timed(run, 1)[0] for _ in range(10))


def cores():
  return len(os.sched_getaffinity(0))


def resident():
  """Resident bytes of this process now."""
  pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1])
  return pages * resource.getpagesize()


def forget_peak():
  """`peak_resident` begins anew."""
  pathlib.Path('/proc/self/clear_refs').write_text('5')


def peak_resident():
  """The most resident bytes since `forget_peak`."""
  status = pathlib.Path('/proc/self/status').read_text()
  return 1024 * int(status.partition('VmHWM:')[2].split()[0])
