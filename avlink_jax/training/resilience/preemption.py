"""A notice to leave: SIGTERM, or what a cloud sends before it takes a machine away.

The first asks for a save at the next step boundary; a second ends the process at once.
"""

import ctypes
import os
import signal
import socket
import sys
import threading

import jax
from jax.experimental import multihost_utils


class Preemption:
  """Listens from `with` on; `reached(step)` tells at a step boundary whether to save and leave.

  With several processes (`jax.distributed`) one that is asked is enough: JAX's preemption service
  finds a step that none of them has passed and answers True there, on all of them. It takes
  SIGTERM as well as the notice of Cloud TPU.

  Python runs handlers between two lines of the main thread, which may be inside XLA for minutes.
  The interpreter's wake-up file is written by the signal itself, and a thread reads it.
  """

  def __init__(self):
    self._asked = threading.Event()
    self._distributed = jax.distributed.is_initialized()

  def reached(self, step):
    """Whether this is the boundary (`step` steps taken) at which to save and leave."""
    if self._distributed:
      return multihost_utils.reached_preemption_sync_point(step)
    return self._asked.is_set()

  def __enter__(self):
    self._listens = threading.current_thread() is threading.main_thread()
    if self._listens:  # elsewhere Python does not let us
      self._read, self._write = socket.socketpair()
      self._write.setblocking(False)
      # JAX's service has a handler in C, which ours replaces and must therefore call.
      self._service = service_handler() if self._distributed else None
      self._before = signal.signal(signal.SIGTERM, lambda number, frame: None)
      self._before_file = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
      threading.Thread(target=self._listen, daemon=True, name='preemption').start()
    return self

  def _listen(self):
    while number := self._read.recv(1):
      if number[0] != signal.SIGTERM:
        continue
      if self._asked.is_set():
        os._exit(128 + signal.SIGTERM)
      self._asked.set()
      if self._service:
        self._service(signal.SIGTERM)
      print('SIGTERM: saving at the next step boundary (a second one exits at once)',
            file=sys.stderr, flush=True)

  def __exit__(self, *_):
    if self._listens:
      signal.set_wakeup_fd(self._before_file)
      signal.signal(signal.SIGTERM, self._before)
      self._write.close()  # which ends the thread


def service_handler():
  """The handler of SIGTERM that is installed now, as a function, or None. Only C can tell."""
  get = ctypes.CDLL(None).signal
  get.restype, get.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p)
  address = get(signal.SIGTERM, None)  # gives the old one, and sets the default for a moment
  ignored = (None, 0, 1, ctypes.c_void_p(-1).value)  # SIG_DFL, SIG_IGN, SIG_ERR
  return None if address in ignored else ctypes.CFUNCTYPE(None, ctypes.c_int)(address)
