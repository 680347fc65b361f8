"""Several processes that are one run, through launch/local_multiprocess.py and the real CLI."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
import runs

from avlink_jax.errors import LOST
from launch import local_multiprocess

# Notes each file that a process opens for writing: Python imports it by itself at its start.
WATCH = '''
import os, sys
def note(event, args):
  if event == 'open' and isinstance(args[0], (str, bytes)):
    mode, flags = args[1] or '', args[2] or 0
    if any(c in mode for c in 'wax+') or flags & (os.O_WRONLY | os.O_RDWR):
      fd = os.open(os.environ['WATCHED'] + os.environ.get('JAX_PROCESS_ID', '0'),
                   os.O_WRONLY | os.O_CREAT | os.O_APPEND)
      os.write(fd, os.fsencode(args[0]) + b'\\n')
      os.close(fd)
noting = []
def once(event, args):  # the hook opens a file itself
  if not noting:
    noting.append(1)
    try:
      note(event, args)
    finally:
      noting.clear()
sys.addaudithook(once)
'''


def environment(folder, **more):
  return runs.environment(folder / 'cache', XLA_FLAGS=runs.xla_flags(), **more)


def flags(**changes):
  return runs.flags(runs.config_of('t2v', {}, **{
      'train.batch_size': 8, 'train.steps': 4, 'checkpoint.every': 2, 'sample.count': 1} | changes))


def launch(count, devices, folder, workdir, *more, **env):
  """local_multiprocess.py, its output piped."""
  return subprocess.Popen(
      [sys.executable, 'launch/local_multiprocess.py', str(count), f'--devices={devices}', '--',
       *flags(), f'--workdir={workdir}', *more], cwd=runs.ROOT, text=True,
      stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment(folder, **env))


def rows(workdir):
  return list(map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines()))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('hosts')


@pytest.fixture(scope='module')
def two(folder):
  """A run of two processes with four devices each: (workdir, what it said, {process: files})."""
  (folder / 'watch').mkdir()
  (folder / 'watch' / 'sitecustomize.py').write_text(WATCH)
  path = os.pathsep.join([str(folder / 'watch'), str(runs.ROOT / 'tests')])
  process = launch(2, 4, folder, folder / 'two', '--config.profile.steps=3:4',
                   PYTHONPATH=path, WATCHED=str(folder / 'written.'))
  said, _ = process.communicate(timeout=400)
  assert process.returncode == 0, said
  written = {p: {pathlib.Path(line) for line in (folder / f'written.{p}').read_text().splitlines()}
             for p in (0, 1)}
  return folder / 'two', said, written


@pytest.mark.slow
def test_two_processes_of_four_devices_have_the_losses_of_one(two, folder):
  subprocess.run([sys.executable, '-m', 'avlink_jax.main', *flags(), f'--workdir={folder / "one"}'],
                 cwd=runs.ROOT, env=environment(folder), check=True, capture_output=True)
  one, other = rows(folder / 'one'), rows(two[0])
  assert [row['step'] for row in other] == [1, 2, 3, 4]
  for name in ('loss', 'grad_norm'):
    np.testing.assert_allclose([row[name] for row in other], [row[name] for row in one], rtol=1e-5)


@pytest.mark.slow
def test_only_the_first_process_writes_logs_and_samples_and_all_write_checkpoints(two):
  workdir, said, written = two
  inside = {process: {file.relative_to(workdir).parts[0] for file in files
                      if workdir in file.parents} for process, files in written.items()}
  assert inside[1] <= {'checkpoints', 'hang.1.txt'}
  assert {'metrics.jsonl', 'samples', 'lock'} <= inside[0]
  arrays = workdir / 'checkpoints' / '4' / 'state'
  assert {path.name for path in arrays.glob('ocdbt.process_*')} == {
      'ocdbt.process_0', 'ocdbt.process_1'}
  assert '[0] step 4/4' in said and '[1] step' not in said


@pytest.mark.slow
def test_a_profile_shows_the_steps_that_were_asked_for(two):
  [trace] = two[0].glob('profile/plugins/profile/*/*.xplane.pb')
  whole = trace.read_bytes()
  assert b'train' in whole and b'step_num' in whole


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_run_with_a_line(two, folder):
  """The lost one's host is named by the other, which does not wait for it."""
  process = launch(2, 4, folder, folder / 'killed', '--config.train.steps=100000')
  said = []
  for line in process.stdout:
    said.append(line)
    if line.startswith('[0] step 2/'):
      os.kill(child(process.pid, 1), signal.SIGKILL)
  assert process.wait(60) == 128 + signal.SIGKILL, ''.join(said)
  gone = f'[0] avlink_jax: process 1 on {socket.gethostname()} is gone: this run ends\n'
  assert gone in said and not any('Traceback' in line for line in said)


@pytest.mark.parametrize('together', [True, False])
def test_of_those_that_failed_the_one_that_only_noticed_is_not_the_cause(together):
  def ended(*commands):
    processes = [subprocess.Popen(['sh', '-c', command], stdout=subprocess.PIPE)
                 for command in commands]
    for process in processes if together else ():
      process.wait(60)
    return local_multiprocess.follow(processes)

  assert local_multiprocess.LOST == LOST
  assert ended(f'exit {LOST}', 'kill -9 $$') == ended('kill -9 $$', f'exit {LOST}') == 137
  assert ended(f'exit {LOST}', 'sleep 0.5; kill -9 $$') == 137  # the cause is seen to end later
  assert ended(f'exit {LOST}', 'exec >&-; sleep 0.5; kill -9 $$') == 137  # its pipe is shut first
  assert ended('exit 0', f'exit {LOST}') == LOST and ended('exit 0', 'exit 75') == 75


def test_how_a_process_ends_that_was_told_to_end_is_not_the_cause(monkeypatch):
  monkeypatch.setattr(local_multiprocess, 'GRACE', 0)
  processes = [subprocess.Popen(['sh', '-c', command], stdout=subprocess.PIPE)
               for command in (f'exit {LOST}', 'exec sleep 60')]
  assert local_multiprocess.follow(processes) == LOST


def child(parent, number):
  """The process that has JAX_PROCESS_ID=`number` under `parent`."""
  for pid in pathlib.Path(f'/proc/{parent}/task/{parent}/children').read_text().split():
    if f'JAX_PROCESS_ID={number}'.encode() in pathlib.Path(
        f'/proc/{pid}/environ').read_bytes().split(b'\0'):
      return int(pid)
  raise AssertionError(f'no child {number}')


def test_a_host_that_does_not_come_ends_the_run_with_a_line(tmp_path):
  with socket.socket() as free:
    free.bind(('localhost', 0))
    address = f'localhost:{free.getsockname()[1]}'
  ended = subprocess.run(
      [sys.executable, '-m', 'avlink_jax.main', *flags(), f'--workdir={tmp_path}',
       '--config.hosts.join_seconds=1'], cwd=runs.ROOT, capture_output=True, text=True,
      env=environment(tmp_path, JAX_COORDINATOR_ADDRESS=address, JAX_NUM_PROCESSES='2',
                      JAX_PROCESS_ID='0'))
  assert ended.returncode == LOST
  assert ended.stderr == 'avlink_jax: process 1 of 2 did not come within 1 s\n'


def test_nodistributed_is_alone_whatever_the_cluster_says(tmp_path):
  """It comes as far as its own mistake, and does not wait for anybody."""
  ended = subprocess.run(
      [sys.executable, '-m', 'avlink_jax.main', *flags(), f'--workdir={tmp_path}',
       '--nodistributed', '--config.profile.steps=5'], cwd=runs.ROOT, capture_output=True,
      text=True, env=environment(tmp_path, JAX_NUM_PROCESSES='2'))
  assert ended.returncode == 2 and 'profile.steps=5: give A:B' in ended.stderr
