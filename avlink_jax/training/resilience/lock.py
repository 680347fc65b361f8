"""One run a workdir: the second is refused, what a dead one left is taken over.

The kernel holds the lock (flock) and drops it with the process that has it, however that dies. A
file system that does not carry locks from host to host would let two hosts in; therefore the
holder touches the file now and then, and whoever finds another host's name there watches it for
a while first.

A bucket knows no locks at all: there the lock is an object that its holder writes anew now and
then, with the time in it, and whoever finds one of another run watches it for a while first. Two
runs that begin within the same second are not told apart.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import socket
import sys
import threading
import time

from avlink_jax.errors import UserError
from avlink_jax.storage import bucket as storage

HEARTBEAT = 5.0  # seconds
BUCKET_HEARTBEAT = 20.0  # seconds: an object may be written once a second, and each time is paid


class Lock:
  """Holds `workdir/lock` from its making until `release`.

  Raises UserError, with host and process id, where another run holds it.
  """

  def __init__(self, workdir, heartbeat=HEARTBEAT):
    self._path = pathlib.Path(workdir) / 'lock'
    self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
      fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise self._refusal() from None
    self._host = socket.gethostname()
    if self._holder().get('host', self._host) != self._host and self._beats(3 * heartbeat):
      raise self._refusal()
    os.ftruncate(self._file, 0)
    os.pwrite(self._file, json.dumps({'host': self._host, 'process': os.getpid()}).encode(), 0)
    self._done = threading.Event()
    self._thread = threading.Thread(target=self._touch, args=(heartbeat,), daemon=True)
    self._thread.start()

  def _holder(self):
    """{'host', 'process'} as the file names them; {} where it is empty or half written."""
    try:
      return json.loads(os.pread(self._file, 4096, 0) or b'{}')
    except ValueError:
      return {}

  def _beats(self, seconds):
    """Whether the file is touched within `seconds`: by whom it names, since nobody else would."""
    touched = lambda: os.stat(self._path).st_mtime_ns  # noqa: E731
    before = touched()
    threading.Event().wait(seconds)
    return touched() != before

  def _refusal(self):
    holder = self._holder()
    os.close(self._file)
    return refusal(self._path.parent, holder)

  def _touch(self, heartbeat):
    while not self._done.wait(heartbeat):
      os.utime(self._file)

  def release(self):
    """Lets the next one in. The file stays: removing it would race with whoever opens it."""
    self._done.set()
    self._thread.join()
    os.ftruncate(self._file, 0)
    os.close(self._file)


class BucketLock:
  """Holds the object `workdir/lock` of a bucket from its making until `release`.

  A run that was killed leaves its lock behind: the next one takes it over at once if it is of the
  same host and that process is gone, otherwise after it has not beaten for four times `heartbeat`.
  Raises UserError, with host and process id, where another run holds it.
  """

  def __init__(self, workdir, heartbeat=BUCKET_HEARTBEAT):
    self._path, self._done = storage.absolute(workdir) / 'lock', threading.Event()
    self._me = {'host': socket.gethostname(), 'process': os.getpid()}
    with storage.reached(workdir):
      holder = self._holder()
      if holder and not self._gone(holder) and self._beats(holder, 4 * heartbeat):
        raise refusal(workdir, holder)
      self._write()
    self._thread = threading.Thread(target=self._beat, args=(heartbeat,), daemon=True)
    self._thread.start()

  def _holder(self):
    """What the object says; {} where there is none, or nothing that can be read."""
    try:
      return json.loads(self._path.read_text())
    except (FileNotFoundError, ValueError):
      return {}

  def _gone(self, holder):
    """Whether the holder was a process of this host that is no more."""
    if holder.get('host') != self._me['host']:
      return False
    try:
      os.kill(int(holder['process']), 0)
    except (ProcessLookupError, KeyError, ValueError):
      return True
    except PermissionError:
      pass  # there it is, somebody else's
    return False

  def _beats(self, holder, seconds):
    print(f'{self._path} is there: watching for {seconds:g} s whether its run is alive',
          file=sys.stderr, flush=True)
    threading.Event().wait(seconds)
    return self._holder() not in (holder, {})

  def _write(self):
    self._path.write_text(json.dumps({**self._me, 'time': time.time()}))

  def _beat(self, heartbeat):
    while not self._done.wait(heartbeat):
      # A bucket that is away for once: the run finds out by itself if it stays away.
      with contextlib.suppress(UserError), storage.reached(self._path):
        self._write()

  def release(self):
    """Lets the next one in."""
    self._done.set()
    self._thread.join()
    with contextlib.suppress(UserError), storage.reached(self._path):
      self._path.unlink(missing_ok=True)


def refusal(workdir, holder):
  """The UserError that says who holds it, by {'host', 'process'}."""
  return UserError(
      f'{workdir}: another run is at work here, process {holder.get("process", "?")} '
      f'on {holder.get("host", "an unknown host")}: stop it, or choose another --workdir')


@contextlib.contextmanager
def only_run(workdir):
  """Holds the workdir's lock inside."""
  lock = (BucketLock if storage.is_bucket(workdir) else Lock)(workdir)
  try:
    yield
  finally:
    lock.release()
