"""What only a GPU shows, part by part: `bash tests/benchmarks/gpu.sh OUT`.

    python -m tests.benchmarks.gpu OUT [--minutes=9] [--dry] [PART ...]

Each part (gpu_parts.py) runs in a process of its own with a time limit, and writes OUT/PART.json;
OUT/PART.log has what it printed. A part that failed or ran out of time loses the others nothing; it
is tried again when this is started again, and parts that are done are not. OUT/results.json has all
of them, with the chip, versions and the command, and each time's share of the matrix rate that was
measured on this chip. PART: only these parts, of

    machine                      versions, chip, the rate of matrix products in bf16
    attention                    cuDNN forward and backward against the reference; their time
    paper-sample, -sample-fast   V2A at paper scale: 64 steps, and few with the stream kept
    paper-train                  its training step
    small-t2a, -t2v, -v2a        300 steps of training in bf16 by the real loop: the loss
    …-torch, …-torch-compiled    the same step and 64 steps in PyTorch
    public-train, public-sample  public towers' sizes, random weights
    parity                       JAX and PyTorch in float32 on this chip: the same numbers?

Exit status: 0 all done, 1 a part failed, 75 time is over and parts are left.
"""

import argparse
import datetime
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

from avlink_jax.storage.atomic import write_text

LIMITS = {  # seconds; in the order of what is most wanted to be known
    'machine': 60, 'attention': 100, 'paper-sample': 150, 'paper-train': 150, 'small-t2v': 120,
    'paper-sample-torch': 100, 'paper-train-torch': 100, 'public-train': 150,
    'public-sample': 150, 'paper-sample-fast': 150, 'small-t2a': 100, 'small-v2a': 120,
    'parity': 120, 'paper-train-torch-compiled': 180, 'paper-sample-torch-compiled': 180}
PARTS = ('-m', 'tests.benchmarks.gpu_parts')  # the program that has them
AT_LEAST = 0.4  # of its limit: with less time left a part is not begun
GRACE = 5  # seconds between SIGTERM and SIGKILL
TAIL = 15  # lines of a failed part's log that are kept
UNFINISHED = 75


def read(path):
  """A part's JSON; {} where there is none."""
  try:
    return json.loads(path.read_text())
  except (OSError, ValueError):
    return {}


def run(part, out, seconds, flags):
  """Runs a part for so many seconds at most; returns what its JSON is to be."""
  path, log = out / f'{part}.json', out / f'{part}.log'
  path.unlink(missing_ok=True)
  began, late = time.monotonic(), False
  with log.open('w') as file:
    process = subprocess.Popen([sys.executable, *PARTS, part, str(out), *flags], stdout=file,
                               stderr=subprocess.STDOUT, start_new_session=True)
    try:
      process.wait(seconds)
    except subprocess.TimeoutExpired:
      late = True
    finally:  # its own processes too, also where this one is interrupted
      end(process)
  done = process.returncode == 0 and not late
  status = 'done' if done else 'out of time' if late else 'failed'
  lines = [] if done else log.read_text(errors='replace').splitlines()[-TAIL:]
  return {'part': part, 'status': status, 'seconds': round(time.monotonic() - began, 1),
          'results': read(path).get('results', {})} | ({'log': lines} if lines else {})


def end(process):
  """Ends a process and what it started, politely first."""
  for kind in (signal.SIGTERM, signal.SIGKILL):
    try:
      os.killpg(process.pid, kind)
    except ProcessLookupError:
      break
    try:
      process.wait(GRACE)
    except subprocess.TimeoutExpired:
      continue
  process.wait()


def shares(results):
  """Adds to each part with `flops` and `seconds` its TFLOP/s and the share of the matrix rate."""
  rate = max(results.get('machine', {}).get('results', {}).get('matrix_rate', {}).values(),
             default=None)
  for name, row in results.items():
    found = row['results']
    if 'seconds' not in found:
      continue
    base = results.get(name.partition('-torch')[0], {}).get('results', {})
    seconds, flops = min(found['seconds']), found.get('flops', base.get('flops'))
    if flops:
      found['tflops'] = flops / seconds / 1e12
      found['share'] = flops / seconds / rate if rate else None
    if found is not base and 'seconds' in base:
      found['against_jax'] = seconds / min(base['seconds'])


def line(name, row):
  """A part's line of the table."""
  found, cells = row['results'], []
  if 'seconds' in found:
    cells.append(f'{min(found["seconds"]):.3f} s')
  if found.get('share'):
    cells.append(f'{found["tflops"]:.0f} TFLOP/s, {found["share"]:.0%} of the matrix rate')
  if found.get('peak_bytes'):
    cells.append(f'{found["peak_bytes"] / 2**30:.1f} GiB')
  if 'against_jax' in found:
    cells.append(f'{found["against_jax"]:.2f} times JAX\'s time')
  if 'losses' in found:
    cells.append(f'loss {found["first_loss"]:.3f} to {found["last_loss"]:.3f}')
  if 'worst' in found:
    cells.append(f'off by {found["worst"]:.1e}')
  return f'{name:28} {row["status"]:12} {row["seconds"]:6.1f} s  ' + ', '.join(cells)


def collect(out, flags):
  """Writes OUT/results.json of all parts that OUT has; returns them, {name: row}."""
  results = {name: row for name in LIMITS if (row := read(out / f'{name}.json'))}
  shares(results)
  machine = results.get('machine', {}).get('results', {})
  write_text(out / 'results.json', json.dumps({
      'command': os.environ.get('GPU_COMMAND') or ' '.join(sys.argv), 'dry': '--dry' in flags,
      'written': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
      'chip': machine.get('chip'), 'versions': machine.get('versions'), 'parts': results},
      indent=2) + '\n')
  return results


def main():
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('out', type=pathlib.Path)
  parser.add_argument('parts', nargs='*', metavar='PART', help=', '.join(LIMITS))
  parser.add_argument('--minutes', type=float, default=9.0)
  parser.add_argument('--dry', action='store_true', help='tiny sizes, on a CPU too')
  given = parser.parse_intermixed_args()
  if unknown := [part for part in given.parts if part not in LIMITS]:
    parser.error(f'{unknown[0]}: no such part: use {", ".join(LIMITS)}')
  until, flags = time.monotonic() + 60 * given.minutes, ['--dry'] if given.dry else []
  given.out.mkdir(parents=True, exist_ok=True)
  wanted = given.parts or list(LIMITS)
  for part in wanted:
    path, left = given.out / f'{part}.json', until - time.monotonic() - GRACE
    if read(path).get('status') != 'done':
      if left < AT_LEAST * LIMITS[part]:
        continue
      write_text(path, json.dumps(run(part, given.out, min(left, LIMITS[part]), flags), indent=2))
    row = collect(given.out, flags)[part]
    print(line(part, row), *row.get('log', [])[-1:], sep='\n  ', flush=True)
    if part == 'machine' and row['status'] == 'failed':
      break  # there is no GPU, or none that works
  results = collect(given.out, flags)
  missing = [part for part in wanted if results.get(part, {}).get('status') != 'done']
  if missing:
    print(f'not done: {", ".join(missing)}: start the same command again')
  failed = any(results.get(part, {}).get('status') == 'failed' for part in missing)
  sys.exit(1 if failed else UNFINISHED if missing else 0)


if __name__ == '__main__':
  main()
