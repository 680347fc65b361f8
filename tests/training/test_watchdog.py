"""A run in which no step ends in time writes down what it was doing, and ends."""

import subprocess
import sys
import time

import runs

from avlink_jax.errors import HANG
from avlink_jax.training.resilience.watchdog import Watchdog


def watched(workdir, code, seconds=0.6):
  """Runs `code` under a Watchdog `dog` in a process of its own; (status, stderr, hang.txt)."""
  program = ('import ctypes, sys, time\n'
             'from avlink_jax.training.resilience.watchdog import Watchdog\n'
             f'with Watchdog(sys.argv[1], {seconds}) as dog:\n'
             + ''.join(f'  {line}\n' for line in code.splitlines()))
  done = subprocess.run([sys.executable, '-c', program, workdir], cwd=runs.ROOT,
                        capture_output=True, text=True, timeout=60)
  path = workdir / 'hang.txt'
  return done.returncode, done.stderr, path.read_text() if path.exists() else None


def test_a_hang_ends_the_run_with_the_step_and_all_stacks(tmp_path):
  status, said, written = watched(tmp_path, '''\
import threading
def quiet_thread(): time.sleep(60)
threading.Thread(target=quiet_thread, daemon=True).start()
dog.step_ended(41)
dog.step_ended(42)
time.sleep(60)''')
  assert status == HANG
  for text in (said, written):
    assert 'no step was seen to end for 0.6 s; the last was step 42' in text
    assert 'in quiet_thread' in text and text.count('File "<string>"') >= 2


def test_a_hang_that_holds_the_interpreters_lock_ends_the_run_too(tmp_path):
  """Code in C that does not give the lock back: no Python thread can run any more."""
  status, _, written = watched(tmp_path, '''\
dog.step_ended(1)
time.sleep(0.2)
ctypes.PyDLL(None).sleep(60)''')
  assert status == 1
  assert 'Timeout' in written and 'File "<string>", line 6' in written


def test_compiling_and_sampling_do_not_trip_it(tmp_path):
  """Nothing does before the first step has ended, nor within `paused`; slow steps do not."""
  status, said, written = watched(tmp_path, '''\
time.sleep(2.2)
dog.step_ended(1)
with dog.paused():
  time.sleep(2.2)
for step in range(2, 9):
  time.sleep(0.3)
  dog.step_ended(step)''', seconds=2)  # far from a step's 0.3 s: other work may be running
  assert (status, said, written) == (0, '', None)


def test_after_sampling_it_watches_again(tmp_path):
  status, _, written = watched(tmp_path, '''\
dog.step_ended(7)
with dog.paused():
  pass
time.sleep(60)''')
  assert status == HANG and 'step 7' in written


def test_it_can_be_switched_off(tmp_path):
  with Watchdog(tmp_path, 0) as dog:
    dog.step_ended(1)
    time.sleep(0.1)
  assert not list(tmp_path.iterdir())
