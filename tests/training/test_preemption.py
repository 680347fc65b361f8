"""A notice to leave: the first is heeded at a step boundary, the second ends all at once."""

import subprocess
import sys

import pytest
import runs

PROGRAM = '''
import hashlib, os, signal, sys, time
from avlink_jax.training.resilience.preemption import Preemption
with Preemption() as preemption:
  assert not preemption.reached(1)
  print('ready', flush=True)
  while not preemption.reached(2):
    time.sleep(0.01)
  print('leaving', flush=True)
  if sys.argv[1] == 'saves':
    time.sleep(600)
  if sys.argv[1] == 'in C':  # as a compiler would be: Python's own handlers do not run
    hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)
print('left', flush=True)
os.kill(os.getpid(), signal.SIGTERM)  # outside, a signal is what it was before
time.sleep(600)
'''


def start(how):
  process = subprocess.Popen([sys.executable, '-c', PROGRAM, how], cwd=runs.ROOT, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
  assert process.stdout.readline() == 'ready\n'
  process.terminate()
  assert process.stdout.readline() == 'leaving\n'
  return process


@pytest.mark.parametrize('how', ['saves', 'in C'])
def test_a_second_sigterm_exits_at_once(how):
  process = start(how)
  process.terminate()
  assert process.wait(60) == 128 + 15  # long before what it is at would end
  assert process.stderr.read().count('saving at the next step boundary') == 1


def test_afterwards_signals_are_what_they_were():
  process = start('leaves')
  assert process.wait(60) == -15 and process.stdout.read() == 'left\n'
