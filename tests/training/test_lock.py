"""Two runs, one workdir: the second is refused, and a dead one stands in nobody's way."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest
import runs

from avlink_jax.errors import UserError
from avlink_jax.training.resilience.lock import Lock, only_run

HOLDER = '''
import sys, time
from avlink_jax.training.resilience.lock import Lock
lock = Lock(sys.argv[1])
print('held', flush=True)
time.sleep(600)
'''


@pytest.fixture
def holder(tmp_path):
  """A process of its own that holds the lock of tmp_path."""
  process = subprocess.Popen([sys.executable, '-c', HOLDER, tmp_path], cwd=runs.ROOT,
                             stdout=subprocess.PIPE, text=True)
  assert process.stdout.readline() == 'held\n'
  yield process
  process.kill()
  process.wait()


def test_the_second_run_is_refused_with_the_firsts_host_and_process(tmp_path, holder):
  with pytest.raises(UserError, match=f'{tmp_path}: another run is at work here, process '
                                      f'{holder.pid} on {socket.gethostname()}'):
    Lock(tmp_path)


def test_a_lock_left_by_a_dead_run_is_taken_over(tmp_path, holder):
  os.kill(holder.pid, signal.SIGKILL)
  holder.wait()
  assert json.loads((tmp_path / 'lock').read_text())['process'] == holder.pid
  with only_run(tmp_path):
    assert json.loads((tmp_path / 'lock').read_text())['process'] == os.getpid()


def test_a_run_that_ended_leaves_the_workdir_free(tmp_path):
  for _ in range(2):
    with only_run(tmp_path), pytest.raises(UserError, match=str(os.getpid())):
      Lock(tmp_path)


@pytest.mark.parametrize('alive', [True, False])
def test_another_hosts_lock_counts_while_that_host_keeps_touching_it(tmp_path, alive):
  """Where the file system carries no locks from host to host."""
  path, over = tmp_path / 'lock', threading.Event()
  path.write_text(json.dumps({'host': 'elsewhere', 'process': 7}))

  def touch():
    while alive and not over.wait(0.05):
      os.utime(path)

  thread = threading.Thread(target=touch)
  thread.start()
  try:
    if alive:
      with pytest.raises(UserError, match='process 7 on elsewhere'):
        Lock(tmp_path, heartbeat=1)
    else:
      Lock(tmp_path, heartbeat=0.2).release()
  finally:
    over.set()
    thread.join()


def test_a_lock_file_that_is_half_written_is_no_obstacle(tmp_path):
  (tmp_path / 'lock').write_text('{"host": "els')
  lock = Lock(tmp_path)
  assert json.loads((tmp_path / 'lock').read_text())['host'] == socket.gethostname()
  lock.release()
