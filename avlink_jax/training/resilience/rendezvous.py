"""Where the processes of a run meet before it begins, and notice afterwards that one is gone.

For who trains on several hosts under a scheduler. jax.distributed watches as well, but ends a
process by abort(): a page of C++, no exception, status 134 whatever happened. It says of the
dead one only its number, after the heartbeat's time, and of one that never came nothing at all.

So process 0 first listens by itself at the coordinator's address. Each of the others says its
number and host there and keeps the connection, on which nothing is sent until its end: a process
that is killed closes it, and a host that vanishes stops answering the kernel's probes (which are
answered whatever a process is busy with, as a thread of it would not). Once all have come the port
is free for JAX.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import time

from avlink_jax.errors import LOST, MISTAKE, PREEMPTED, Lost, UserError

FINE = (0, PREEMPTED)  # statuses with which processes end because all of them do
MESSAGE = 4096  # bytes, at most
GREETING_SECONDS = 5  # in which whoever calls says who it is


class Rendezvous:
  """All of `place.count` processes (cluster.Place), from the moment on that all have come.

  Raises Lost, on those that came, where not all did within `join_seconds`, and UserError where one
  came that does not belong.
  """

  def __init__(self, place, join_seconds, heartbeat_seconds):
    self._place, self._host, self._leaving = place, socket.gethostname(), threading.Event()
    self._heartbeat, self._ending = heartbeat_seconds, threading.Lock()
    deadline = time.monotonic() + join_seconds
    if place.process == 0:
      self._others = self._await_others(deadline, join_seconds)
    else:
      self._others = {0: self._join_first(deadline, join_seconds)}
    for process, peer in self._others.items():
      peer.wait(None)
      threading.Thread(target=self._watch, args=(process,), daemon=True,
                       name=f'rendezvous {process}').start()

  def _await_others(self, deadline, seconds):
    """Process 0's part: {process: Peer} once all have come."""
    place, came = self._place, {}
    try:
      both = socket.has_dualstack_ipv6()
      server = socket.create_server(
          ('', int(place.address.rpartition(':')[2])), backlog=place.count, dualstack_ipv6=both,
          family=socket.AF_INET6 if both else socket.AF_INET)
    except OSError as error:
      raise Lost(f'process 0 cannot listen at {place.address} ({error.strerror})') from None
    with server:
      # One that died while it waited is none of those that came: it may come again.
      while len(came := {n: peer for n, peer in came.items() if peer.alive()}) < place.count - 1:
        server.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
          peer = Peer(server.accept()[0], self._heartbeat)
        except TimeoutError:
          self._call_off(came.values(), Lost(
              f'{self._missing(came)} of {place.count} did not come within {seconds:g} s'))
        self._admit(peer, came)
    for peer in came.values():
      peer.send(go=self._host)
    return came

  def _missing(self, came):
    missing = [self._place.name(n) for n in range(1, self._place.count) if n not in came]
    more = f' and {len(missing) - 8} more' if len(missing) > 8 else ''
    return ', '.join(missing[:8]) + more

  def _admit(self, peer, came):
    """Adds the process that has just called to `came`; strangers are not listened to."""
    peer.wait(GREETING_SECONDS)
    greeting, count = peer.receive(), self._place.count
    if greeting is None or not isinstance(process := greeting.get('process'), int):
      peer.close()
      return
    peer.host = str(greeting.get('host'))[:253]
    if greeting.get('count') != count or not 0 < process < count:
      self._call_off([*came.values(), peer], UserError(
          f'process {process} of {greeting.get("count")} on {peer.host} came to a run of {count}: '
          'start all with the same count'))
    if process in came and came[process].alive():
      self._call_off([*came.values(), peer], UserError(
          f'two processes say that they are number {process}, on {came[process].host} and on '
          f'{peer.host}: give each another number'))
    came[process] = peer

  def _call_off(self, peers, error):
    """Tells those that came why there is no run, and raises it."""
    for peer in peers:
      peer.send(end=str(error), status=MISTAKE if isinstance(error, UserError) else LOST)
    raise error

  def _join_first(self, deadline, seconds):
    """Every other process's part: process 0 as a Peer, once all have come."""
    place = self._place
    host, _, port = place.address.rpartition(':')
    while (left := deadline - time.monotonic()) > 0:
      with contextlib.suppress(OSError):
        peer = Peer(socket.create_connection((host.strip('[]'), int(port)), min(left, 5)),
                    self._heartbeat)
        peer.wait(seconds + 10)  # process 0 speaks at its own deadline, if not before
        peer.send(process=place.process, count=place.count, host=self._host)
        if answer := peer.receive():
          if 'end' in answer:
            raise (UserError if answer.get('status') == MISTAKE else Lost)(str(answer['end']))
          peer.host = str(answer.get('go'))[:253]
          return peer
      time.sleep(min(0.2, left))
    raise Lost(f'{place.name(0)} of {place.count} did not answer at {place.address} within '
               f'{seconds:g} s')

  def _watch(self, process):
    """Waits for another process's end, and ends this one where it was not to be."""
    peer = self._others[process]
    last = peer.receive()
    if self._leaving.is_set():
      return
    if last is None:
      self._end(LOST, f'process {process} on {peer.host} is gone: this run ends')
    elif 'lost' in last:
      self._end(int(last['status']), str(last['lost']))
    elif last.get('status') not in FINE:
      self._end(int(last['status']), f'process {process} on {peer.host} has ended with exit status '
                                     f'{last["status"]}: this run ends')

  def _end(self, status, why):
    """Ends this process; the first, who alone knows all, tells the others first."""
    with self._ending:  # held for good
      if self._place.process == 0:
        for peer in self._others.values():
          peer.send(lost=why, status=status)
      with contextlib.suppress(OSError):  # the terminal may be gone as well
        print(f'avlink_jax: {why}', file=sys.stderr, flush=True)
      os._exit(status)  # the main thread may wait, outside of Python, for who is gone

  def wait_for_cause(self, seconds=10):
    """Before an error is printed: where it comes of another's end, this process ends in here with
    a line on that, rather than with what a collective made of it."""
    time.sleep(seconds)

  def leave(self, status):
    """Tells the others with what status this process ends. Where that is no common end it ends
    here: the way out through JAX waits for all of them."""
    self._leaving.set()
    for peer in self._others.values():
      peer.send(status=status)
    if status not in FINE:
      with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
      os._exit(status)


class Peer:
  """A connection to another process, on `host`; a message is a JSON object in a line."""

  def __init__(self, connection, heartbeat_seconds):
    self.host, self._connection = '', connection
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    every = max(int(heartbeat_seconds) // 4, 1)
    for name, value in (('TCP_KEEPIDLE', every), ('TCP_KEEPINTVL', every), ('TCP_KEEPCNT', 3)):
      if hasattr(socket, name):
        connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    self._lines = connection.makefile('rb')

  def wait(self, seconds):
    """Sets for how long a message is waited for; None: until it comes."""
    self._connection.settimeout(seconds)

  def send(self, **message):
    """Sends a message; who does not hear it is gone already."""
    with contextlib.suppress(OSError):
      self._connection.sendall(json.dumps(message).encode() + b'\n')

  def receive(self):
    """The next message; None where the connection ends, or what comes is none."""
    try:
      message = json.loads(self._lines.readline(MESSAGE))
    except (OSError, ValueError):
      return None
    return message if isinstance(message, dict) else None

  def alive(self):
    """Whether the other side, which has nothing to say now, is still there."""
    patience = self._connection.gettimeout()
    self._connection.setblocking(False)
    try:
      return bool(self._connection.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
      return True
    except OSError:
      return False
    finally:
      self._connection.settimeout(patience)

  def close(self):
    self._lines.close()
    self._connection.close()
