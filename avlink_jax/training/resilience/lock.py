"""One run a workdir: the second is refused, what a dead one left is taken over.

For who has a scheduler start the same command again, perhaps while the one before still lives: two
runs in one workdir would write into each other's checkpoints.

`workdir/lock` names the process that holds it. On a disk the kernel locks that file too (flock),
until its process is gone, however that dies. Not every file system carries this from host to host,
and a bucket knows no locks. Therefore the holder writes the file anew now and then, with the time
in it, and whoever finds another run's name there watches for a while whether it changes. In a
bucket two runs that begin within the same second are not told apart.
"""

import contextlib
import fcntl
import json
import os
import socket
import sys
import threading
import time

from avlink_jax.errors import UserError
from avlink_jax.storage import bucket as storage

HEARTBEAT, BUCKET_HEARTBEAT = 5.0, 20.0  # seconds: each writing of an object is paid for
PATIENCE = 4  # heartbeats that a lock is watched for


class Lock:
  """Holds `workdir/lock` from its making until `release`.

  A lock of this host whose process is gone is taken over at once, another one after it has not
  changed for PATIENCE times `heartbeat` (seconds). Raises UserError, with host and process id,
  where another run holds it.
  """

  def __init__(self, workdir, heartbeat=None):
    self._workdir, self._file = workdir, None
    self._path = storage.absolute(workdir) / 'lock'
    self._me = {'host': socket.gethostname(), 'process': os.getpid()}
    in_bucket = storage.is_bucket(workdir)
    self._heartbeat = heartbeat or (BUCKET_HEARTBEAT if in_bucket else HEARTBEAT)
    try:
      with storage.reached(workdir):
        if not in_bucket:
          self._ask_the_kernel()
        holder = self._holder()
        if holder and not self._gone(holder) and self._beats(holder):
          raise self._refusal(holder)
        self._write()
    except BaseException:
      self._close()
      raise
    self._done = threading.Event()
    self._thread = threading.Thread(target=self._beat, daemon=True)
    self._thread.start()

  def _ask_the_kernel(self):
    self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
      fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise self._refusal(self._holder()) from None

  def _holder(self):
    """What the file says; {} where there is none, or nothing that can be read."""
    try:
      return json.loads(self._path.read_text())
    except (FileNotFoundError, ValueError):
      return {}

  def _gone(self, holder):
    """Whether the holder was a process of this host that is no more."""
    if holder.get('host') != self._me['host']:
      return False
    if self._file is not None:  # the kernel gave us its lock
      return True
    try:
      os.kill(int(holder['process']), 0)
    except (ProcessLookupError, KeyError, ValueError):
      return True
    except PermissionError:
      pass  # there it is, somebody else's
    return False

  def _beats(self, holder):
    seconds = PATIENCE * self._heartbeat
    print(f'{self._path} is there: watching for {seconds:g} s whether its run is alive',
          file=sys.stderr, flush=True)
    for _ in range(2 * PATIENCE):
      time.sleep(self._heartbeat / 2)
      if self._holder() not in (holder, {}):  # {}: just being written
        return True
    return False

  def _refusal(self, holder):
    return UserError(f'{self._workdir}: another run is at work here, process '
                     f'{holder.get("process", "?")} on {holder.get("host", "an unknown host")}: '
                     'stop it, or choose another --workdir')

  def _write(self):
    self._path.write_text(json.dumps({**self._me, 'time': time.time()}))

  def _beat(self):
    while not self._done.wait(self._heartbeat):
      # A store that is away for once: the run finds out by itself if it stays away.
      with contextlib.suppress(UserError, OSError), storage.reached(self._path):
        self._write()

  def _close(self):
    if self._file is not None:
      os.close(self._file)

  def release(self):
    """Lets the next one in. On a disk the file stays, empty: whoever opened it may lock it."""
    self._done.set()
    self._thread.join()
    with contextlib.suppress(UserError, OSError), storage.reached(self._path):
      if self._file is None:
        self._path.unlink(missing_ok=True)
      else:
        os.ftruncate(self._file, 0)
    self._close()


@contextlib.contextmanager
def only_run(workdir):
  """Holds the workdir's lock inside."""
  lock = Lock(workdir)
  try:
    yield
  finally:
    lock.release()
