"""Runs several processes on this machine's CPU as one run, to simulate several hosts.

    python launch/local_multiprocess.py N [--devices=D] [--] FLAG...

FLAG are those of avlink_jax.main. Each process has D (default: 1) simulated devices, and its output
is prefixed with its number. SIGINT and SIGTERM are forwarded to all; where one fails, the others
are terminated. Exit status: the first failure's (128 + N of one by signal N), else the highest.
"""

import argparse
import os
import pathlib
import selectors
import signal
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
SUCCESS = (0, 75)  # done; asked to leave, saved (avlink_jax/errors.py)
LOST = 70  # another process is gone (the same): a consequence of a failure, not the failure
GRACE = 30  # seconds for the others to end by themselves, then again before they are killed


def start(count, devices, flags):
  """Starts the processes, with piped output."""
  with socket.socket() as free:
    free.bind(('localhost', 0))
    address = f'localhost:{free.getsockname()[1]}'
  flag = '--xla_force_host_platform_device_count'
  others = [one for one in os.environ.get('XLA_FLAGS', '').split() if not one.startswith(flag)]
  environment = os.environ | {
      'JAX_PLATFORMS': 'cpu', 'JAX_COORDINATOR_ADDRESS': address, 'JAX_NUM_PROCESSES': str(count),
      'XLA_FLAGS': ' '.join([*others, f'{flag}={devices}']), 'PYTHONUNBUFFERED': '1',
      'PYTHONPATH': os.pathsep.join(filter(None, (str(ROOT), os.environ.get('PYTHONPATH'))))}
  return [subprocess.Popen(
      [sys.executable, '-m', 'avlink_jax.main', *flags], stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT, env=environment | {'JAX_PROCESS_ID': str(process)},
      start_new_session=True)  # so that Ctrl-C comes once, from here
      for process in range(count)]


def follow(processes):
  """Prints their output until all have ended; returns the exit status."""
  selector, failed, deadline, ending = selectors.DefaultSelector(), 0, None, False
  for number, process in enumerate(processes):
    selector.register(process.stdout, selectors.EVENT_READ, (number, bytearray()))
  while selector.get_map():
    for key, _ in selector.select(timeout=0.2):
      number, buffer = key.data
      chunk = os.read(key.fd, 65536)
      buffer += chunk
      *lines, rest = bytes(buffer).split(b'\n')
      if not chunk:
        selector.unregister(key.fileobj)
        lines, rest = [*lines, *filter(None, [rest])], b''
      buffer[:] = rest
      for line in lines:
        print(f'[{number}] {line.decode(errors="replace")}', flush=True)
    if not ending:
      failed = exit_status(failed, processes)
    if failed and (deadline is None or time.monotonic() > deadline):
      if deadline is not None:  # they did not notice by themselves
        forward(processes, signal.SIGKILL if ending else signal.SIGTERM)
        ending = True
      deadline = time.monotonic() + GRACE
  worst = max(process.wait() for process in processes)
  if not ending:  # a pipe closes before its process has an exit status
    failed = exit_status(failed, processes)
  return 128 - failed if failed < 0 else failed or worst


def exit_status(known, processes):
  """Exit status of the first failure: `known`, unless that is 0 or LOST and another one failed.

  A killed process closes its sockets before it can be waited for, so the one that notices may have
  ended earlier.
  """
  if known not in (0, LOST):
    return known
  bad = [p.returncode for p in processes if p.poll() is not None and p.returncode not in SUCCESS]
  return min(bad, key=lambda code: code == LOST, default=known)


def forward(processes, number):
  for process in processes:
    if process.poll() is None:
      process.send_signal(number)


def main():
  parser = argparse.ArgumentParser(usage=__doc__, allow_abbrev=False)
  parser.add_argument('count', type=int)
  parser.add_argument('--devices', type=int, default=1)
  arguments, flags = parser.parse_known_args()
  if arguments.count < 1 or arguments.devices < 1:
    parser.error('N and --devices are at least 1')
  processes = start(arguments.count, arguments.devices, [flag for flag in flags if flag != '--'])
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, frame: forward(processes, number))
  return follow(processes)


if __name__ == '__main__':
  sys.exit(main())
