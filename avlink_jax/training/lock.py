"""One run a workdir: the second is refused, what a dead one left is taken over.

The kernel holds the lock (flock) and drops it with the process that has it, however that dies. A
file system that does not carry locks from host to host would let two hosts in; therefore the
holder touches the file now and then, and whoever finds another host's name there watches it for
a while first.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import socket
import threading

from avlink_jax.errors import UserError

HEARTBEAT = 5.0  # seconds


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
    return UserError(
        f'{self._path.parent}: another run is at work here, process {holder.get("process", "?")} '
        f'on {holder.get("host", "an unknown host")}: stop it, or choose another --workdir')

  def _touch(self, heartbeat):
    while not self._done.wait(heartbeat):
      os.utime(self._file)

  def release(self):
    """Lets the next one in. The file stays: removing it would race with whoever opens it."""
    self._done.set()
    self._thread.join()
    os.ftruncate(self._file, 0)
    os.close(self._file)


@contextlib.contextmanager
def only_run(workdir):
  """Holds the workdir's lock inside."""
  lock = Lock(workdir)
  try:
    yield
  finally:
    lock.release()
