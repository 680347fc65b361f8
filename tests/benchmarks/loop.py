"""Costs of a run besides the device's work, at nano: a step, a sample that repeats, a restart.

    python -m tests.benchmarks.loop [--beside=FOLDER] [--rounds=3] [--config=v2a] [PART ...]

PART, of which all are the default:

    step     a step of the real loop whose update computes nothing: batches from memory, transfers,
             logging. Hidden behind the device's work where that takes longer
    sample   the second of two samples of a run: all of it, and what of that is compilation
    restart  from the start of the command to the end of the first step of a run that goes on; and
             once more with what was compiled kept in a folder (JAX_COMPILATION_CACHE_DIR)

Clock and processor seconds, medians of rounds. With --beside another revision takes turns, a folder
with its files: git archive REVISION | tar x -C FOLDER.
"""

import argparse
import collections
import importlib
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
PARTS = ('step', 'sample', 'restart')
STEPS, WARM = 600, 100  # of the loop that computes nothing; the first are left out
LITTLE = {'data.impacts_clips': 64, 'sample.count': 8, 'sample.steps': 8, 'train.sample_every': 0,
          'train.log_every': 20, 'checkpoint.every': 10_000}
COMPILED = '/jax/core/compile/backend_compile_duration'
TICKS = os.sysconf('SC_CLK_TCK')


# In a process whose avlink_jax is that of one revision or the other

def config_of(task, **changes):
  config = importlib.import_module(f'configs.{task}').get_config('nano')
  config.update_from_flattened_dict(LITTLE | changes)
  return config


def replace_export(function):
  """Puts function(real export) in the place of what makes a run's samples, in either revision."""
  module = importlib.import_module('avlink_jax.train')
  owner, name = ((module.TrainingSamples, 'export') if hasattr(module, 'TrainingSamples')
                 else (module, 'export_samples'))
  setattr(owner, name, function(getattr(owner, name)))


def step(task, folder):
  """Seconds of a step whose update gives the state back."""
  import jax.numpy as jnp

  from avlink_jax.train import train
  from avlink_jax.training import step as training

  def nothing(task, optimizer, config, state, frozen, batch):
    zero = jnp.zeros(())
    return state.replace(step=state.step + 1), {
        'loss': zero, 'grad_norm': zero, 'learning_rate': zero, **state.counts}

  training.train_step = nothing
  replace_export(lambda real: lambda *args, **kwargs: {})
  times = []
  real = importlib.import_module('avlink_jax.training.log').Log.step

  def noted(self, *args):
    times.append((time.perf_counter(), time.process_time()))
    return real(self, *args)

  importlib.import_module('avlink_jax.training.log').Log.step = noted
  train(config_of(task, **{'train.steps': STEPS}), folder / 'run')
  first, last = times[WARM // LITTLE['train.log_every']], times[-1]
  count = STEPS - WARM - LITTLE['train.log_every']
  return {'clock': (last[0] - first[0]) / count, 'processor': (last[1] - first[1]) / count}


def sample(task, folder):
  """Seconds of the second sample of a run, and of compilation in it."""
  import jax

  from avlink_jax.train import train
  spent, rows = collections.Counter(), []
  jax.monitoring.register_event_duration_secs_listener(
      lambda event, seconds, **_: spent.update({event: seconds}))

  def timed(real):
    def export(*args, **kwargs):
      before = time.perf_counter(), time.process_time(), spent[COMPILED]
      scores = real(*args, **kwargs)
      rows.append({'clock': time.perf_counter() - before[0],
                   'processor': time.process_time() - before[1],
                   'compiling': spent[COMPILED] - before[2]})
      return scores

    return export

  replace_export(timed)
  train(config_of(task, **{'train.steps': 2, 'train.sample_every': 1}), folder / 'run')
  return rows[1]


def restart(task, folder):
  """Seconds up to the end of the first step of a run that goes on, without and with what was
  compiled before."""
  flags = [f'--config.{key}={value}' for key, value in (
      LITTLE | {'sample.count': 1, 'sample.steps': 1, 'checkpoint.every': 1}).items()]
  workdir = folder / 'run'

  def run(last, **more):
    return subprocess.Popen(
        [sys.executable, '-m', 'avlink_jax.main', f'--config=configs/{task}.py:nano',
         f'--workdir={workdir}', f'--config.train.steps={last}', *flags],
        env=os.environ | more, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

  def second_step(**more):
    shutil.rmtree(workdir)
    shutil.copytree(folder / 'of one step', workdir)
    began, process = time.perf_counter(), run(2, **more)
    log = workdir / 'metrics.jsonl'
    while process.poll() is None and '"step": 2, ' not in log.read_text():
      time.sleep(0.01)
    clock = time.perf_counter() - began
    fields = pathlib.Path(f'/proc/{process.pid}/stat').read_text().rpartition(')')[2].split()
    process.kill()  # what comes after is not looked at
    process.wait()
    return {'clock': clock, 'processor': (int(fields[11]) + int(fields[12])) / TICKS}

  run(1).wait()
  shutil.copytree(workdir, folder / 'of one step')
  kept = {'JAX_COMPILATION_CACHE_DIR': str(folder / 'compiled'),
          'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.3'}
  plain = second_step()
  second_step(**kept)
  return plain | {f'{name}, programs kept': value for name, value in second_step(**kept).items()}


# In turns

def measured(part, task, tree):
  """A part's figures, by the revision in the folder `tree`."""
  done = subprocess.run(
      [sys.executable, __file__, '--child', f'--config={task}', part], cwd=tree, text=True,
      capture_output=True, env=os.environ | {'PYTHONPATH': str(tree)})
  if done.returncode:
    sys.exit(f'{done.stderr}\n{part} failed in {tree}')
  return json.loads(done.stdout.splitlines()[-1])


def main():
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('parts', nargs='*', default=PARTS, metavar='PART')
  parser.add_argument('--config', default='v2a')
  parser.add_argument('--beside', type=pathlib.Path)
  parser.add_argument('--rounds', type=int, default=3)
  parser.add_argument('--child', action='store_true', help=argparse.SUPPRESS)
  given = parser.parse_intermixed_args()
  if given.child:
    with tempfile.TemporaryDirectory() as folder:
      print(json.dumps(globals()[given.parts[0]](given.config, pathlib.Path(folder))))
    return
  trees = {'this revision': ROOT} | ({'beside it': given.beside.resolve()} if given.beside else {})
  for part in given.parts:
    rows = collections.defaultdict(list)
    for _ in range(given.rounds):
      for name, tree in trees.items():
        rows[name].append(measured(part, given.config, tree))
    for name, found in rows.items():
      figures = {key: statistics.median(row[key] for row in found) for key in found[0]}
      print(f'{part}, {name}: ' + ', '.join(
          f'{key} {seconds:.3g} s [{min(row[key] for row in found):.3g}, '
          f'{max(row[key] for row in found):.3g}]' for key, seconds in figures.items()), flush=True)


if __name__ == '__main__':
  main()
