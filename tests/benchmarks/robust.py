"""What a run survives, at length: prints what was tried, survived and lost.

    python -m tests.benchmarks.robust [--kills=20] [--damages=200] [--task=t2v] [PART ...]

PART, of which all are the default:

    kills      SIGKILL at random moments, half of them within a save; the end bit for bit
    damages    bits flipped, files cut or lost, in the newest checkpoint
    disk       a disk that fills up while a checkpoint is saved (as root: a small tmpfs)
    processes  two processes, one of which gets SIGTERM; the run goes on in one
    cost       what saving costs the steps
"""

import argparse
import contextlib
import io
import json
import pathlib
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS.parent), str(TESTS)]

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import runs  # noqa: E402
from killed import rows  # noqa: E402

from avlink_jax.errors import PREEMPTED, UserError  # noqa: E402
from avlink_jax.training.checkpoint import Checkpoints  # noqa: E402
from avlink_jax.training.resilience import manifest  # noqa: E402


def config(args, **changes):
  frozen = runs.parts(args.folder) if args.task not in ('t2a', 't2v') else {}
  return runs.config_of(args.task, frozen, **{'sample.count': 1} | changes)


def kills(args):
  """A run of 24 steps killed again and again, beside one left alone."""
  flags = runs.flags(config(args, **{'train.steps': 24, 'train.sample_every': 8,
                                     'checkpoint.every': 3}))
  (args.folder / 'kills').mkdir()
  done = subprocess.run(
      [sys.executable, 'tests/killed.py', args.folder / 'kills', '24', str(args.kills), '0',
       *flags],
      cwd=runs.ROOT, env=runs.environment(args.folder / 'cache'), stdout=subprocess.PIPE, text=True)
  told = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {}
  whole = bool(told) and told['metrics_equal'] and told['weights_equal'] and not (
      told['arrays_that_differ'] or told['steps_logged_twice'])
  tried = told.get('kills', args.kills)
  return {'tried': tried, 'survived': tried * whole, 'lost': tried * (not whole), **told}


def state(step, size):
  noise = jax.random.normal(jax.random.key(step), (size,))
  return {'params': {'kernel': noise, 'bias': noise[:64]}, 'step': jnp.int32(step)}


def damages(args):
  """Each damage to a fresh copy of the newest of two checkpoints: is the older one used?"""
  folder, rng = args.folder / 'damages', np.random.default_rng(0)
  checkpoints = Checkpoints(folder)
  for step in (1, 2):
    checkpoints.save(step, state(step, 100_000), {'config': {}})
  checkpoints.wait()
  newest = folder / 'checkpoints' / '2'
  shutil.copytree(newest, folder / 'sound')
  files = [path.relative_to(newest) for path in newest.rglob('*') if path.is_file()]
  survived, kinds = 0, ('flip', 'cut', 'lose', 'empty')
  for i in range(args.damages):
    path = newest / files[rng.integers(len(files))]
    content = bytearray(path.read_bytes())
    kind = kinds[i % 4] if content else 'lose'
    if kind == 'flip':
      content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    path.write_bytes({'cut': content[:int(rng.integers(len(content) or 1))],
                      'empty': b''}.get(kind, content))
    if kind == 'lose':
      path.unlink()
    with contextlib.redirect_stderr(io.StringIO()):
      survived += checkpoints.newest_intact() == 1
    shutil.rmtree(newest)
    shutil.copytree(folder / 'sound', newest)
  assert checkpoints.newest_intact() == 2
  checkpoints.close()
  return {'tried': args.damages, 'survived': survived, 'lost': args.damages - survived}


def disk(args):
  """A tmpfs that holds one checkpoint and not two; then it is made larger."""
  folder = args.folder / 'disk'
  folder.mkdir()
  mount = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=6m', 'none', folder])
  if mount.returncode:
    return {'tried': 0, 'survived': 0, 'lost': 0, 'why': 'a tmpfs cannot be mounted'}
  try:
    checkpoints = Checkpoints(folder, keep=2)
    checkpoints.save(1, state(1, 1_000_000), {})
    checkpoints.wait()
    told = ''
    try:
      checkpoints.save(2, state(2, 1_000_000), {})
      checkpoints.wait()
    except UserError as error:
      told = str(error)
    sound = checkpoints.newest_intact() == 1
    subprocess.run(['mount', '-o', 'remount,size=60m', folder], check=True)
    checkpoints.save(3, state(3, 1_000_000), {})
    checkpoints.close()
    survived = sound and 'No space left' in told and not manifest.damage(
        folder / 'checkpoints' / '3')
    return {'tried': 1, 'survived': int(survived), 'lost': int(not survived), 'told': told}
  finally:
    subprocess.run(['umount', folder])


def processes(args):
  """Two processes share a run; the second is asked to leave, and both do, with all saved. Then
  one process goes on alone. Losses are compared with those of a run left alone in one process."""
  made = config(args, **{'train.steps': 60, 'checkpoint.every': 100})
  environment = lambda **more: runs.environment(args.folder / 'cache', **more)  # noqa: E731
  alone, shared = args.folder / 'alone', args.folder / 'shared'
  subprocess.run(runs.command(made, alone), cwd=runs.ROOT, env=environment(), check=True,
                 stderr=subprocess.DEVNULL)
  with socket.socket() as free:
    free.bind(('localhost', 0))
    address = f'localhost:{free.getsockname()[1]}'
  pair = [subprocess.Popen(
      runs.command(made, shared, '--distributed'), cwd=runs.ROOT,
      stderr=(args.folder / f'process{i}.log').open('w'),
      env=environment(JAX_COORDINATOR_ADDRESS=address, JAX_NUM_PROCESSES='2',
                      JAX_PROCESS_ID=str(i))) for i in range(2)]
  while len(rows(shared)) < 3 and pair[0].poll() is None:
    time.sleep(0.05)
  pair[1].send_signal(signal.SIGTERM)
  statuses = [process.wait(600) for process in pair]
  left_at = max((row['step'] for row in rows(shared)), default=0)
  on = subprocess.run(runs.command(made, shared), cwd=runs.ROOT, env=environment(),
                      capture_output=True, text=True)
  losses = [[row['loss'] for row in rows(workdir) if 'loss' in row] for workdir in (alone, shared)]
  survived = (statuses == [PREEMPTED] * 2 and f'resumed at step {left_at}' in on.stderr
              and len(losses[1]) == 60)
  apart = float(np.abs(np.subtract(*losses)).max()) if survived else None
  return {'tried': 1, 'survived': int(survived), 'lost': int(not survived),
          'statuses': statuses, 'left_at_step': left_at, 'losses_apart_at_most': apart}


def cost(args):
  """Milliseconds of a step of some arithmetic, alone and while 64 MB are saved at every tenth."""
  size, folder = 4_000_000, args.folder / 'cost'
  one = state(0, size)
  work = jnp.ones((768, 768))
  step = jax.jit(lambda state, work: jax.tree.map(
      lambda x: x + (work @ work @ work @ work).mean().astype(x.dtype), state), donate_argnums=0)
  now = {'a': one, 'b': jax.tree.map(jnp.copy, one), 'c': jax.tree.map(jnp.copy, one),
         'd': jax.tree.map(jnp.copy, one)}
  times = {'alone': [], 'while_saving': [], 'call_of_save': []}
  checkpoints = Checkpoints(folder)
  for i in range(1, 121):
    began = time.perf_counter()
    now = jax.block_until_ready(step(now, work))
    if i > 60 and i % 10 == 0:
      called = time.perf_counter()
      checkpoints.save(i, now, {})
      times['call_of_save'].append(time.perf_counter() - called)
    times['alone' if i <= 60 else 'while_saving'].append(time.perf_counter() - began)
  began = time.perf_counter()
  checkpoints.close()
  mean = {name: 1e3 * statistics.mean(values[1:]) for name, values in times.items()}
  return {f'{name}_ms': round(value, 1) for name, value in mean.items()} | {
      'last_wait_ms': round(1e3 * (time.perf_counter() - began), 1), 'megabytes': 64}


def main():
  parts = {part.__name__: part for part in (kills, damages, disk, processes, cost)}
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('parts', nargs='*', default=list(parts))
  parser.add_argument('--kills', type=int, default=20)
  parser.add_argument('--damages', type=int, default=200)
  parser.add_argument('--task', default='t2v')
  parser.add_argument('--folder', type=pathlib.Path)
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as temporary:
    args.folder = args.folder or pathlib.Path(temporary)
    args.folder.mkdir(parents=True, exist_ok=True)
    for name in args.parts:
      print(name, json.dumps(parts[name](args)), flush=True)


if __name__ == '__main__':
  main()
