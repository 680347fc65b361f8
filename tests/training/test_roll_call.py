"""Who does not come is named, and whoever is gone takes the others along: a line, no hang."""

import json
import socket
import subprocess
import sys
import time

import pytest
import runs

from avlink_jax.errors import LOST, MISTAKE, PREEMPTED

MEMBER = '''
import json, os, signal, sys, time
from avlink_jax.errors import LOST, MISTAKE, Lost, UserError
from avlink_jax.training.resilience import cluster, rendezvous as roll_call
roll_call.socket.gethostname = lambda: 'host' + sys.argv[1]
place = cluster.Place('by hand', sys.argv[2], int(sys.argv[3]), int(sys.argv[1]),
                      tuple(json.loads(sys.argv[5])))
try:
  call = roll_call.RollCall(place, float(sys.argv[4]), 100)
except (Lost, UserError) as error:
  sys.exit(print('refused:', error) or (LOST if isinstance(error, Lost) else MISTAKE))
print('all here', flush=True)
for line in sys.stdin:
  if line == 'die\\n':
    os.kill(os.getpid(), signal.SIGKILL)
  call.leave(int(line))
  sys.exit()
time.sleep(600)
'''


def free():
  with socket.socket() as found:
    found.bind(('localhost', 0))
    return f'localhost:{found.getsockname()[1]}'


def member(process, address, count, seconds=60, names=()):
  return subprocess.Popen(
      [sys.executable, '-c', MEMBER, *map(str, (process, address, count, seconds)),
       json.dumps(names)], cwd=runs.ROOT,
      stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def crew(count=3):
  """Processes that have met."""
  address = free()
  members = [member(process, address, count) for process in range(count)]
  assert [one.stdout.readline() for one in members] == ['all here\n'] * count
  return members


def tell(one, line):
  one.stdin.write(f'{line}\n')
  one.stdin.flush()


def ends(members):
  """[(exit status, all that it said)]."""
  told = [one.communicate(timeout=60) for one in members]
  return [(one.returncode, ''.join(said)) for one, said in zip(members, told, strict=True)]


def test_who_does_not_come_is_named_by_all_that_did():
  address = free()
  names = ['a', 'b', 'c', 'd']
  said = ends([member(process, address, 4, 2, names) for process in (0, 2)])
  wanted = 'refused: process 1 (b), process 3 (d) of 4 did not come within 2 s\n'
  assert said == [(LOST, wanted)] * 2


def test_a_first_process_that_does_not_come_is_named():
  address = free()
  [(status, said)] = ends([member(1, address, 2, 1, ['a', 'b'])])
  assert status == LOST
  assert said == f'refused: process 0 (a) of 2 did not answer at {address} within 1 s\n'


@pytest.mark.parametrize('dead', [0, 1, 2])
def test_a_process_that_is_killed_ends_the_others_with_its_name(dead):
  members = crew()
  tell(members[dead], 'die')
  said = ends(members)
  assert said.pop(dead)[0] == -9
  assert said == [(LOST, f'avlink_jax: process {dead} on host{dead} is gone: this run ends\n')] * 2


@pytest.mark.parametrize('first', [0, 1])
def test_an_end_with_an_error_is_everybodys(first):
  members = crew()
  tell(members[first], MISTAKE)
  said = ends(members)
  assert said.pop(first) == (MISTAKE, '')
  assert all(status == MISTAKE and f'process {first} on' in text and 'exit status 2' in text
             for status, text in said)


@pytest.mark.parametrize('status', [0, PREEMPTED])
@pytest.mark.parametrize('order', [(0, 1, 2), (2, 1, 0)])
def test_common_ends_end_nobody_else(status, order):
  members = crew()
  for process in order:
    tell(members[process], status)
    assert members[process].wait(60) == 0
  assert [text for _, text in ends(members)] == [''] * 3


def test_two_processes_of_one_number_are_told():
  address = free()
  said = ends([member(process, address, 3) for process in (0, 1, 1)])
  assert all(status == MISTAKE and 'that they are number 1, on host1 and on host1' in text
             for status, text in said)


def test_different_counts_are_told():
  address = free()
  said = ends([member(0, address, 3), member(1, address, 2)])
  assert all(status == MISTAKE and 'process 1 of 2 on host1 came to a run of 3' in text
             for status, text in said)


def test_strangers_at_the_port_are_not_listened_to():
  address = free()
  first = member(0, address, 2)
  for noise in (b'GET / HTTP/1.1\r\n\r\n', b'{"process": "1"}\n', b'[]\n', b'\xff\n', b'x' * 5000):
    while True:
      try:
        with socket.create_connection(address.split(':'), 5) as stranger:
          stranger.sendall(noise)
        break
      except ConnectionRefusedError:  # it has not begun to listen
        pass
  second = member(1, address, 2)
  assert [one.stdout.readline() for one in (first, second)] == ['all here\n'] * 2
  tell(second, 'die')
  assert [status for status, _ in ends([first, second])] == [LOST, -9]


def test_whoever_died_while_waiting_may_come_again():
  address = free()
  first, impatient = member(0, address, 3), member(1, address, 3)
  time.sleep(2)
  impatient.kill()
  members = [first, member(1, address, 3), member(2, address, 3)]
  assert [one.stdout.readline() for one in members] == ['all here\n'] * 3
  for one in members:
    one.kill()
  ends([impatient, *members])
