"""Who is there, before the processes of a run begin, and who is gone, while it goes on.

jax.distributed watches as well, but ends a process by abort(), with a page of C++, and does not say
who never came. So process 0 first listens by itself at the coordinator's address. Each of the
others says its number and host there and keeps the connection, on which nothing is sent until its
end: a process that is killed closes it, and a host that vanishes stops answering the kernel's
probes (which are answered whatever a process is busy with, as a thread of it would not). Once all
have come the port is free for JAX.
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
LINE = 4096  # bytes, at most


class RollCall:
  """All of `place.count` processes (cluster.Place), from the moment on that all have come.

  Raises Lost, on those that came, where not all did within `join_seconds`, and UserError where one
  came that does not belong.
  """

  def __init__(self, place, join_seconds, heartbeat_seconds):
    self._place, self._host, self._leaving = place, socket.gethostname(), threading.Event()
    self._alive, self._telling = heartbeat_seconds, threading.Lock()
    deadline = time.monotonic() + join_seconds
    if place.process == 0:
      self._others = self._call(deadline, join_seconds)
    else:
      self._others = {0: self._answer(deadline, join_seconds)}
    for process, (line, _) in self._others.items():
      line.settimeout(None)
      threading.Thread(target=self._listen, args=(process,), daemon=True,
                       name=f'roll call {process}').start()

  def _call(self, deadline, seconds):
    """Process 0's part: {process: (connection, host)} once all have come."""
    place, came = self._place, {}
    port = int(place.address.rpartition(':')[2])
    try:
      both = socket.has_dualstack_ipv6()
      server = socket.create_server(('', port), backlog=place.count, dualstack_ipv6=both,
                                    family=socket.AF_INET6 if both else socket.AF_INET)
    except OSError as error:
      raise Lost(f'process 0 cannot listen at {place.address} ({error.strerror})') from None
    with server:
      # One that died while it waited is none of those that came: it may come again.
      while len(came := {n: (line, host) for n, (line, host) in came.items()
                         if not closed(line)}) < place.count - 1:
        server.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
          line, _ = server.accept()
        except TimeoutError:
          missing = sorted(set(range(1, place.count)) - set(came))
          said = ', '.join(place.name(process) for process in missing[:8])
          more = f' and {len(missing) - 8} more' if len(missing) > 8 else ''
          self._end(came, Lost(f'{said}{more} of {place.count} did not come within '
                               f'{seconds:g} s'))
        came = self._admit(line, came)
    for line, _ in came.values():
      send(line, {'go': self._host})
    return came

  def _admit(self, line, came):
    """`came`, with the process that has just called; strangers are not listened to."""
    self._keep(line, 5)
    said = receive(line)
    if said is None or not isinstance(said.get('process'), int):
      line.close()
      return came
    process, host = said['process'], str(said.get('host'))[:253]
    if said.get('count') != self._place.count or not 0 < process < self._place.count:
      self._end({**came, process: (line, host)}, UserError(
          f'process {process} of {said.get("count")} on {host} came to a run of '
          f'{self._place.count}: start all with the same count'))
    if process in came and not closed(came[process][0]):
      self._end({**came, -1: (line, host)}, UserError(
          f'two processes say that they are number {process}, on {came[process][1]} and on {host}: '
          'give each another number'))
    return {**came, process: (line, host)}

  def _end(self, came, error):
    """Tells those that came why there is no run, and raises it."""
    status = MISTAKE if isinstance(error, UserError) else LOST
    for line, _ in came.values():
      send(line, {'end': str(error), 'status': status})
    raise error

  def _answer(self, deadline, seconds):
    """Every other process's part: (connection, host) of process 0, once all have come."""
    host, _, port = self._place.address.rpartition(':')
    said = None
    while said is None:
      left = deadline - time.monotonic()
      if left <= 0:
        raise Lost(f'{self._place.name(0)} of {self._place.count} did not answer at '
                   f'{self._place.address} within {seconds:g} s')
      try:
        line = socket.create_connection((host.strip('[]'), int(port)), timeout=min(left, 5))
        self._keep(line, seconds + 10)  # process 0 speaks at its own deadline, if not before
        send(line, {'process': self._place.process, 'count': self._place.count,
                    'host': self._host})
        said = receive(line)
      except OSError:
        pass
      if said is None:
        time.sleep(min(0.2, left))
    if 'end' in said:
      raise (UserError if said.get('status') == MISTAKE else Lost)(str(said['end']))
    return line, str(said.get('go'))[:253]

  def _keep(self, line, seconds):
    """Time-outs of a connection: `seconds` for what is said, `heartbeat_seconds` for a sign of
    life of the other host."""
    line.settimeout(seconds)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    every = max(int(self._alive) // 4, 1)
    for name, value in (('TCP_KEEPIDLE', every), ('TCP_KEEPINTVL', every), ('TCP_KEEPCNT', 3)):
      if hasattr(socket, name):
        line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

  def _listen(self, process):
    """Waits for the other side's end, and ends this process where it was not to be."""
    line, host = self._others[process]
    said = receive(line)
    if self._leaving.is_set():
      return
    if said is None:
      self._fail(LOST, f'process {process} on {host} is gone: this run ends')
    elif 'lost' in said:
      self._fail(int(said['status']), str(said['lost']))
    elif said.get('status') not in FINE:
      self._fail(int(said['status']), f'process {process} on {host} has ended with exit status '
                                      f'{said["status"]}: this run ends')

  def _fail(self, status, why):
    """Ends this process; the first, who alone knows all, tells the others first."""
    with self._telling:  # held for good
      if self._place.process == 0:
        for line, _ in self._others.values():
          send(line, {'lost': why, 'status': status})
      with contextlib.suppress(OSError):  # the terminal may be gone as well
        print(f'avlink_jax: {why}', file=sys.stderr, flush=True)
      os._exit(status)  # the main thread may wait, outside of Python, for who is gone

  def listen(self, seconds=10):
    """Before an error is told: where it comes of another's end, this process ends here, with a
    line on that, rather than with what a collective made of it."""
    time.sleep(seconds)

  def leave(self, status):
    """Tells the others with what status this process ends. Where that is no common end it ends
    here: the way out through JAX waits for all of them."""
    self._leaving.set()
    for line, _ in self._others.values():
      send(line, {'status': status})
    if status not in FINE:
      with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
      os._exit(status)


def send(line, said):
  """A JSON object as a line; who does not hear it is gone already."""
  with contextlib.suppress(OSError):
    line.sendall(json.dumps(said).encode() + b'\n')


def closed(line):
  """Whether the other side of a connection, on which it has nothing more to say, is gone."""
  patience = line.gettimeout()
  line.setblocking(False)
  try:
    return not line.recv(1, socket.MSG_PEEK)
  except BlockingIOError:
    return False
  except OSError:
    return True
  finally:
    line.settimeout(patience)


def receive(line):
  """The next JSON object; None where the connection ends, or what comes is none."""
  heard = b''
  try:
    while not heard.endswith(b'\n') and len(heard) < LINE:
      if not (more := line.recv(1)):  # not what comes after the line
        return None
      heard += more
    said = json.loads(heard)
  except (OSError, ValueError):
    return None
  return said if isinstance(said, dict) else None
