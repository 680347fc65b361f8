"""Kills a run again and again, starts it again, and compares its end with that of one left alone.

    python tests/killed.py FOLDER STEPS KILLS SEED FLAG...

FLAG are those of avlink_jax.main but --workdir, STEPS what they say of train.steps.

The attempts are forks of one process that has imported everything and not yet started JAX: what
each of them costs is the run, not the imports. Prints a JSON object.
"""

import contextlib
import json
import os
import pathlib
import random
import signal
import sys
import time

import jax
import orbax.checkpoint as ocp
from safetensors.numpy import load_file

import avlink_jax.train  # noqa: F401  before anything is forked
from avlink_jax.main import main


def start(argv, log):
  """Forks `main(argv)`, what it says going to `log`; gives the process id."""
  if pid := os.fork():
    return pid
  status = 1
  with contextlib.suppress(SystemExit):
    sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    status = main(argv)
  os._exit(status)


def rows(workdir):
  """Rows of metrics.jsonl, but for the times, which are no two runs' alike."""
  path = workdir / 'metrics.jsonl'
  lines = path.read_text().splitlines(keepends=True) if path.exists() else []
  made = [json.loads(line) for line in lines if line.endswith('\n')]
  return [{k: v for k, v in row.items() if k not in ('steps_per_second', 'mfu')}
          for row in made]


def ended(pid):
  return os.waitpid(pid, os.WNOHANG) != (0, 0)


def kill(pid, workdir, steps, draw):
  """SIGKILL at one of the next steps and a random moment after it, half the times in a save.
  False where the run had ended before."""
  seen = [row['step'] for row in rows(workdir)]
  done = max(seen, default=0)
  wanted = draw.randint(done, min(done + 3, steps))
  in_save = draw.random() < 0.5
  count = len(seen)
  while not ended(pid):
    fresh = rows(workdir)
    if len(fresh) < count:
      count = len(fresh)  # it was rewound: the run is going
    reached = fresh and fresh[-1]['step'] >= wanted and (len(fresh) > count or wanted == 0)
    saving = list((workdir / 'checkpoints').glob('*.unfinished'))
    if (in_save and saving and wanted <= int(saving[0].stem)) or (not in_save and reached):
      time.sleep(draw.uniform(0, 0.1 if in_save else 0.5))
      if ended(pid):
        return False
      os.kill(pid, signal.SIGKILL)
      os.waitpid(pid, 0)
      return True
    time.sleep(0.002)
  return False


def final(workdir):
  """The newest checkpoint's arrays, as {path: bytes}."""
  step = max(int(path.name) for path in (workdir / 'checkpoints').iterdir() if path.name.isdigit())
  tree = ocp.StandardCheckpointer().restore(workdir / 'checkpoints' / str(step) / 'state')
  return {jax.tree_util.keystr(path): (leaf.shape, leaf.tobytes()) for path, leaf
          in jax.tree_util.tree_leaves_with_path(jax.tree.map(jax.device_get, tree))}


def weights(workdir):
  """What the run exported, as {name: bytes}; the file itself has its header in no fixed order."""
  made = load_file(workdir / 'weights.safetensors')
  return {name: array.tobytes() for name, array in made.items()}


def compare(argv_of, folder, steps, kills, seed, launch=start):
  """Runs one to its end and kills the other `kills` times; {what: figure}."""
  draw, alone, runs = random.Random(seed), folder / 'alone', []
  begun = time.monotonic()
  _, status = os.waitpid(launch(argv_of(alone), folder / 'alone.log'), 0)
  assert status == 0, (folder / 'alone.log').read_text()
  told = {'seconds_alone': time.monotonic() - begun, 'kills': 0, 'kills_in_a_save': 0,
          'kills_after_steps': [], 'arrays': 0, 'rows': 0, 'arrays_that_differ': 0,
          'steps_logged_twice': 0, 'metrics_equal': True, 'weights_equal': True}
  while told['kills'] < kills:
    killed, over = folder / f'killed{len(runs)}', False
    runs.append(killed)
    while not over and told['kills'] < kills:
      pid = launch(argv_of(killed), folder / 'killed.log')
      over = not kill(pid, killed, steps, draw)
      if not over:
        told['kills'] += 1
        told['kills_in_a_save'] += any((killed / 'checkpoints').glob('*.unfinished'))
        told['kills_after_steps'].append(max((row['step'] for row in rows(killed)), default=0))
    _, status = os.waitpid(launch(argv_of(killed), folder / 'killed.log'), 0)
    assert status == 0, (folder / 'killed.log').read_text()
  for killed in runs:  # only now: nothing can be forked after JAX has started
    account(told, alone, killed)
  return told | {'runs': len(runs)}


def account(told, alone, killed):
  """Adds to `told` what differs between two runs' ends."""
  one, other = final(alone), final(killed)
  logged = [row['step'] for row in rows(killed) if 'loss' in row]
  told['arrays'], told['rows'] = len(one), len(rows(alone))
  told['arrays_that_differ'] += sum(one[name] != other.get(name) for name in one)
  told['steps_logged_twice'] += len(logged) - len(set(logged))
  told['metrics_equal'] &= rows(alone) == rows(killed)
  told['weights_equal'] &= weights(alone) == weights(killed)


if __name__ == '__main__':
  where, steps, kills, seed, *flags = sys.argv[1:]
  print(json.dumps(compare(lambda workdir: ['avlink_jax', *flags, f'--workdir={workdir}'],
                           pathlib.Path(where), int(steps), int(kills), int(seed))))
