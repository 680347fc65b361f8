"""Queue of jobs with dependencies, each a process; finished ones are not run again."""

import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

from avlink_jax.errors import UserError
from avlink_jax.storage.atomic import write_text
from avlink_jax.storage.console import hms, say

ROOT = pathlib.Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, '-m', 'avlink_jax.main')
PROGRESS_EVERY = 15.0  # seconds
PROGRESS = {kind: re.compile(rf'{verb} (\d+)/') for kind, verb in (  # as the modes report it
    ('train', 'step'), ('sample', 'sampled'), ('evaluate', 'evaluate:'))}
RESUMED = re.compile(r'resumed at step (\d+)')
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclasses.dataclass(frozen=True)
class Job:
  """Call of avlink_jax.main.

  Attributes:
    key: 'NAME-seed_S.KIND', also the name of its note and its log.
    after: key of the job to be done before, or None.
    size: its steps or clips, to estimate the time that is left.
    arguments: flags.
    metrics: that it computes; a note of an earlier job with fewer of them does not count.
  """
  key: str
  after: str | None
  size: int
  arguments: list
  metrics: tuple = ()

  @property
  def kind(self):
    return self.key.rpartition('.')[2]


class Queue:
  """Runs jobs, some at a time.

  Attributes:
    done: {key: its note, {'seconds', 'size', 'metrics'}} of jobs that ended well, now or earlier.
    failed: {key: reason}.
  """

  def __init__(self, jobs, output):
    self.jobs, self._output = jobs, pathlib.Path(output)
    self.done, self.failed = {}, {}
    for job in jobs:
      if self._note(job).exists():
        note = json.loads(self._note(job).read_text())
        if set(job.metrics) <= set(note.get('metrics', ())):
          self.done[job.key] = note
    self._waiting = [job for job in jobs if job.key not in self.done]
    self._running = {}  # key: (process, when it began, where it began, how far it is)
    self._changed, self._stopping, self._said = threading.Condition(), False, 0.0

  def _note(self, job):
    return self._output / 'done' / f'{job.key}.json'

  def run(self, workers):
    """Runs all jobs; returns whether it was interrupted. To be called from the main thread."""
    before = {name: signal.signal(name, self._stop) for name in SIGNALS}
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else []
    threads = [threading.Thread(target=self._work, args=(
        {cores[i % len(cores)]} if workers > 1 and cores else None,)) for i in range(workers)]
    try:
      for thread in threads:
        thread.start()
      for thread in threads:
        while thread.is_alive():
          thread.join(0.2)  # a signal's handler runs in between
    finally:
      for name, handler in before.items():
        signal.signal(name, handler)
    return self._stopping

  def _stop(self, *_):
    """Terminates the running jobs: a training saves itself first. Takes no lock, being a signal
    handler."""
    self._stopping = True
    for running in list(self._running.values()):
      if running:
        running[0].terminate()

  def _work(self, cores):
    if cores:
      os.sched_setaffinity(0, cores)  # of this thread, and so of the processes that it starts
    while job := self._next():
      try:
        self._run(job)
      except (OSError, UserError) as error:  # its log or its note cannot be written
        self.failed[job.key] = str(error)
      with self._changed:
        self._running.pop(job.key, None)
        self._changed.notify_all()

  def _next(self):
    """First job whose dependency is done; waits for one, None when none is left."""
    with self._changed:
      while not self._stopping:
        for job in self._waiting:
          if job.after is None or job.after in self.done:
            self._waiting.remove(job)
            self._running[job.key] = None
            return job
        if not self._running:
          return None
        self._changed.wait(0.5)
    return None

  def _run(self, job):
    log = self._output / 'logs' / f'{job.key}.log'
    log.parent.mkdir(exist_ok=True)
    started, last_line, first, step = time.monotonic(), '', 0, 0
    with log.open('a') as file:
      process = subprocess.Popen(
          [*COMMAND, *job.arguments], cwd=ROOT,
          stdout=file, stderr=subprocess.PIPE, encoding='utf-8', errors='replace',
          start_new_session=True)  # a terminal's Ctrl-C reaches it through `_stop` alone
      self._running[job.key] = (process, started, 0, 0)
      if self._stopping:
        process.terminate()
      for line in process.stderr:
        file.write(line)
        file.flush()
        last_line = line.strip() or last_line
        if match := RESUMED.search(line):
          first = step = int(match[1])
        if match := PROGRESS[job.kind].search(line):
          step = int(match[1])
          self._running[job.key] = (process, started, first, step)
          self._say(f'{job.key} {step}/{job.size}')
      status = process.wait()
    with self._changed:
      if status == 0:
        note = {'seconds': time.monotonic() - started, 'size': job.size - first,
                'metrics': list(job.metrics)}
        write_text(self._note(job), json.dumps(note) + '\n')
        self.done[job.key] = note
      elif not self._stopping:
        self.failed[job.key] = f'{last_line.removeprefix("avlink_jax: ")} (status {status}; {log})'
    self._say(f'{job.key} {"done" if status == 0 else "ended with status " + str(status)}', True)

  def _say(self, text, always=False):
    with self._changed:
      if not always and time.monotonic() - self._said < PROGRESS_EVERY:
        return
      self._said = time.monotonic()
      left = self.seconds_left()
      say(f'[{len(self.done)}/{len(self.jobs)}] {text}  '
          f'{"?" if left is None else hms(left)} left of all')

  def seconds_left(self):
    """Estimate for the remaining jobs, from the time that a step or clip of each kind took so far;
    None until each kind has run."""
    spent, sizes, left = {}, {}, {}
    for job in self.jobs:
      if job.key in self.failed or job.after in self.failed:
        continue
      if note := self.done.get(job.key):
        taken, size = note['seconds'], note['size']
      else:
        running = self._running.get(job.key)
        _, started, first, step = running or (None, None, 0, 0)
        taken, size = (time.monotonic() - started if running else 0.0), step - first
        left[job.kind] = left.get(job.kind, 0) + job.size - step
      if size > 0:
        spent[job.kind] = spent.get(job.kind, 0.0) + taken
        sizes[job.kind] = sizes.get(job.kind, 0) + size
    if set(left) - set(sizes):
      return None
    at_a_time = max(len(self._running), 1)
    return sum(count * spent[kind] / sizes[kind] for kind, count in left.items()) / at_a_time
