"""Fuzz of the command lines: whatever stands on one, there is no traceback, and what cannot be
meant is refused in one line with the exit status of errors.py.

    python -m tests.benchmarks.fuzz [--count=500] [--seed=0] [--again=25] [--only=GROUP,...]

Random flags get random values: numbers that are none, negative or huge, words, lists, signs of
other scripts, paths of nothing and of the wrong thing. Groups: train, sample, evaluate and compile
are the modes of avlink_jax.main with all tasks and scales; tools the other commands of the package;
launch the scripts in launch/, with --dry-run.

The first five run in this process, where a command line is a call of `main`; `--again` of those
that were refused run once more as processes of their own, and must end alike. What is dear is left
out: training stops where its programs would be compiled, and a sampler gives noise. So what only
goes wrong in a compiled program is not found. Prints what it came to as a line of JSON, by group,
and every command line that did not end as it should. Everything is written to a temporary folder.
"""

import argparse
import collections
import contextlib
import dataclasses
import importlib
import io
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from unittest import mock

import numpy as np
from absl.testing import flagsaver

from avlink_jax import main as command_line
from avlink_jax.cli import config_files
from avlink_jax.data.media import mux
from avlink_jax.errors import INTERRUPTED, MISTAKE, UserError
from avlink_jax.storage.config_bounds import leaves

ROOT = pathlib.Path(__file__).parents[2]
ENOUGH = 'enough: a run would begin now'
SECONDS = 30  # of a command line; one that takes longer is at work
GROUPS = {'train': 5, 'sample': 6, 'evaluate': 2, 'compile': 1, 'tools': 3, 'launch': 3}  # shares
NUMBERS = ('nan', 'inf', '-inf', '-1', '0', '-0.0', '1', '2', '1.5', '-7', '1e30', '1e-30',
           '999999', '1000000000000', '123456789012345678901234567890', '0x10', '1_000', '١')
WORDS = ('', ' ', 'none', 'None', 'True', 'false', 'auto', 'bundled', 'bundled:nothing', 'all',
         'é中', '‮abc', '😀', '%s', '{}', '{0}', "'", '"', '\\', '\\n', '$HOME', '`id`', '--', '-',
         '=', 'a=b', '*', 'a' * 3000, 'audio', 'video', 'audio,video', 'impacts*0', '1:2', '3:1')
LISTS = ('()', '(1,2)', '[1]', '(1,)', '1,2,3', '(0,0,0)', "('a',)", '{"a": 1}', '((1,2),(3,4))')
PATHS = ('nowhere', '../nothing/here', '/proc/nothing', '/dev/null', 'file.txt', 'empty', 'clips',
         'clip.mp4', 'bad.mp4', 'bad.safetensors', 'a/file.txt/b', '~nobody/x', '~no_such_user/x',
         's3://b/x', 'gs://b', 'http://a/b', 'owner/model', 'file.txt\n')
VALUES = NUMBERS + WORDS + LISTS + PATHS
LIKELY = {  # by the type of a key's value: what somebody might try, alone or with something else
    bool: ('true', 'false'), int: ('0', '1', '2', '3', '5', '7', '16', '100', '4096'),
    float: ('0', '0.5', '1', '2.5', '-2.5', '1e-3', '100'),
    tuple: ('(1,)', '(2,)', '(2,2)', '(1,2,2)', '(3,3,3)', '(1,3,5)', '(4,4,8)', "('audio',)",
            "('video',)", "('audio','video')", "('audio+video',)"),
    str: ('audio', 'video', 'wan', 'dit', 'mel_vae', 'dac', 'pixels', 'video_vae', 'wan_vae', 't5',
          'words', 'umt5', 'qwen3', 'euler', 'heun', 'midpoint', 'fast', 'paper', 'peak', '-16LUFS',
          'mix', 'second_track', 'bundled', 'bundled:t2a', 'clips', 'block', 'segment', 'reference',
          'tiled', 'splash', 'fusion', 'cross', 'text', 'add', 'after:1', 'after:9', 'interleaved',
          'griffin_lim', 'lfq', 'residual', 'data', 'preconditioned', 'velocity', 'uniform',
          'impacts*1,clips*2', 'tfds:x', '2:4')}
MODE_FLAGS = {
    'train': ('workdir', 'allow_drift', 'seed', 'input'),
    'sample': ('workdir', 'input', 'prompt', 'condition_prompt', 'negative_prompt', 'takes', 'seed',
               'output'),
    'evaluate': ('generated', 'reference', 'output', 'metrics', 'networks', 'seconds'),
    'compile': ('topology', 'part', 'workdir')}
TOOLS = {  # module -> what stands there by itself, and flags
    'avlink_jax.export': (['nowhere'], ('step', 'raw', 'output')),
    'avlink_jax.data.prepare.command': (
        ['--source=bad', '--output=records'],
        ('source', 'splits', 'reads', 'limit', 'captions', 'template', 'seconds', 'fps', 'height',
         'width', 'sample_rate', 'codec', 'video_codec', 't5', 'audio_text', 'max_tokens', 'shots',
         'shortest', 'processes', 'host', 'hosts', 'shard_clips')),
    'avlink_jax.data.doctor.__main__': (['bad', '--jobs=1'], ('output', 'jobs')),
    'avlink_jax.data.inspect': (
        ['bad'], ('output', 'count', 'split', 'seed', 'config', 'reads', 'codec', 'video_codec')),
    'avlink_jax.data.build': (
        ['vggsound', '--manual_dir=bad', '--data_dir=built'],
        ('manual_dir', 'data_dir', 'config', 'caption', 'min_seconds', 'processes')),
    'avlink_jax.data.impacts.benchmark': (
        ['benchmark', '--clips=1'], ('clips', 'seconds', 'jobs')),
    'avlink_jax.demo.__main__': (['--config=configs/none.py'], ('config', 'workdir', 'port'))}
SCRIPTS = {  # script -> words that it knows
    'tpu_pod.sh': ('run', 'create', 'install', 'fetch', 'delete', '--yes', '--config=x'),
    'gke_jobset.sh': ('--config=x', '--seed=1'), 'slurm.sh': ('--config=x', '--workdir=w'),
    'quickstart.sh': ('out',), 'bundled.sh': ('--only=v2a', '--only=t2a,av'),
    'finetune.sh': ('clips', '--task=v2a', '--task=joint', '--towers=public', '--workdir=w',
                    '--config.train.steps=2')}
SETTINGS = ('BUCKET', 'IMAGE', 'MAX_STARTS', 'HOSTS', 'NODES', 'GPUS', 'PER', 'TIME', 'WORKDIR')


@dataclasses.dataclass(frozen=True)
class Case:
  """A command line of a group: `argv` of a module's main, or of a script with `settings` of its
  environment."""
  group: str
  program: str
  argv: tuple
  settings: tuple = ()


class Late(BaseException):
  """Notice that a command line is still at work."""


def cases(count, seed, only=()):
  """Yields so many Case, those of one seed always the same."""
  rng = random.Random(seed)
  groups = [name for name in GROUPS if not only or name in only]
  keys: dict = {}
  for _ in range(count):
    group, = rng.choices(groups, [GROUPS[name] for name in groups])
    yield {'tools': _tool, 'launch': _script}.get(group, _mode)(rng, group, keys)


def _mode(rng, group, keys):
  """A command line of avlink_jax.main."""
  argv = [f'--mode={group}']
  if group == 'evaluate':
    argv += ['--generated=clips', '--reference=clips', '--output=scores.json']
  else:
    task = rng.choice(config_files.TASKS)
    scale = rng.choices(['nano', 'small', 'paper', 'public'], [12, 2, 1, 1])[0]
    argv.append(f'--config=configs/{task}.py:{scale}')
  if group == 'sample':
    argv += ['--config.sample.count=1', '--config.sample.steps=1']
    argv += rng.choice([[], [], ['--input=clip.mp4'], ['--prompt=a ball'], ['--output=out']])
  if group == 'compile':
    argv.append('--topology=cpu:2')
  for _ in range(rng.choice([1, 1, 1, 2, 3, 4])):
    roll = rng.random()
    if group != 'evaluate' and roll < 0.65:
      if (task, scale) not in keys:
        with contextlib.suppress(UserError):
          keys[task, scale] = list(leaves(config_files.load(
              f'configs/{task}.py:{scale}').to_dict()))
      key, value = rng.choice(keys.get((task, scale), [('train.steps', 1)]))
      if rng.random() < 0.5:
        argv.append(f'--config.{key}={rng.choice(LIKELY.get(type(value), LIKELY[str]))}')
        continue
      name = f'config.{key}'
    elif roll < 0.95:
      name = rng.choice(MODE_FLAGS[group])
    else:
      name = rng.choice(['mode', 'config', 'config.no.such.key', 'nothing', 'hosts', 'Seed', ''])
    argv.append(_flag(rng, name))
  return Case(group, 'avlink_jax.main', tuple(argv))


def _flag(rng, name):
  """A flag with a value, or none, or what is nearly one."""
  kind = rng.choice([NUMBERS, NUMBERS, WORDS, LISTS, PATHS])
  roll = rng.random()
  return (f'--{name}' if roll < 0.03 else f'--no{name}' if roll < 0.05 else
          f'--{name}={rng.choice(kind)}')


def _tool(rng, group, keys):
  """A command line of another command of the package."""
  del keys
  program = rng.choice(list(TOOLS))
  first, flags = TOOLS[program]
  argv = [*first, *(_flag(rng, rng.choice(flags)) for _ in range(rng.choice([1, 1, 2])))]
  if rng.random() < 0.2:
    argv[0] = rng.choice(VALUES)
  return Case(group, program, tuple(argv))


def _script(rng, group, keys):
  """A command line of a script, dry."""
  del keys
  program = rng.choice(list(SCRIPTS))
  known = SCRIPTS[program]
  argv = [rng.choice(known) if rng.random() < 0.6 else
          rng.choice([_flag(rng, rng.choice(['task', 'only', 'config', 'workdir', 'seed', 'x'])),
                      rng.choice(VALUES)]) for _ in range(rng.randint(0, 4))]
  argv.insert(rng.randint(0, len(argv)), '--dry-run')
  settings = {'BUCKET': 'b', 'IMAGE': 'i'}
  if rng.random() < 0.3:
    settings[rng.choice(SETTINGS)] = rng.choice(NUMBERS + WORDS)
  return Case(group, f'launch/{program}', tuple(argv), tuple(settings.items()))


def furnish(folder):
  """Writes what the values name into the current folder: clips, and files that are none."""
  noise = np.random.default_rng(0)
  for name in ('clips/one.mp4', 'clips/two.mp4', 'clip.mp4'):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    mux.write_mp4(path, frames=noise.integers(0, 256, (6, 36, 64, 3), np.uint8), fps=6,
                  audio=noise.standard_normal(16000).astype(np.float32) / 9, sample_rate=16000)
  for name in ('bad/bad.mp4', 'bad.mp4', 'bad.safetensors', 'file.txt'):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text('no such thing\n' * 40)
  for name in ('empty', 'a'):
    (folder / name).mkdir()
  (folder / 'a/file.txt').write_text('')


def noise_of(self, trained, clips, prompts, seed, report=lambda windows: None, stepped=None):
  """Stands in for sampler.Sampler: noise of each clip's length."""
  del trained, prompts, stepped
  report(sum(len(self.plan(clip)) for clip in clips))
  return [{name: media(name, clip, self.task.models.layout, np.random.default_rng(seed))
           for name in self.task.generate} for clip in clips]


def media(name, clip, layout, rng):
  """Noise of a clip's length as a medium of that name."""
  if name == 'audio':
    return rng.uniform(-0.1, 0.1, round(clip.duration * layout.sample_rate)).astype(np.float32)
  frames = max(1, round(clip.duration * layout.fps))
  return np.zeros((frames, layout.height, layout.width, 3), np.uint8)


@contextlib.contextmanager
def cheap():
  """Leaves out whatever would be compiled."""
  from avlink_jax import train
  from avlink_jax.sampling.reconstruction import Reconstruction
  from avlink_jax.sampling.sampler import Sampler

  def enough(*_, **__):
    raise UserError(ENOUGH)

  with mock.patch.object(train.programs, 'build', enough), \
       mock.patch.object(Sampler, '__call__', noise_of), \
       mock.patch.object(Reconstruction, '__call__', enough):
    yield


def called(case):
  """(exit status, stderr) of a command line that is called here; status None: still at work.
  Raises what it raises."""
  error, argv = io.StringIO(), [case.program, *case.argv]

  def late(*_):
    raise Late

  before = signal.signal(signal.SIGALRM, late)
  signal.setitimer(signal.ITIMER_REAL, SECONDS)
  try:
    with contextlib.redirect_stderr(error), contextlib.redirect_stdout(io.StringIO()), \
         flagsaver.flagsaver(), mock.patch('sys.argv', argv):
      module = importlib.import_module(case.program)
      status = (command_line.main(argv) if module is command_line else module.main(argv[1:]))
  except SystemExit as end:
    status = end.code or 0
  except Late:
    status = None
  finally:
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
  return status, error.getvalue()


def started(case):
  """(exit status, stderr) of a process of its own; status None: still at work."""
  script = case.program.endswith('.sh')
  command = ['bash', ROOT / case.program] if script else [
      sys.executable, '-m', case.program.removesuffix('.command')]
  try:
    done = subprocess.run(
        [*command, *case.argv], capture_output=True, text=True, errors='replace',
        stdin=subprocess.DEVNULL, timeout=2 * SECONDS,
        env=os.environ | {'PYTHONPATH': str(ROOT)} | dict(case.settings))
  except subprocess.TimeoutExpired:
    return None, ''
  return done.returncode, done.stderr


def outcome(case, status, error):
  """What a command line came to: done, begun (as it would have), at work, refused; or what is wrong
  with it."""
  if 'Traceback (most recent call last)' in error:
    return 'traceback'
  if status is None:
    return 'at work'
  if ENOUGH in error:
    return 'begun'
  if status == 0 or case.program.endswith('doctor.__main__') and status == 1:
    return 'done'
  if status not in (MISTAKE, INTERRUPTED):
    return f'status {status}'
  said = [line for line in error.splitlines() if re.match(
      r'avlink_jax: |launch/\w+\.sh: |[\w. -]+: error: ', line)]
  if len(said) != 1:
    return f'{len(said)} lines'
  return 'refused'


GOOD = ('done', 'begun', 'at work', 'refused')


def tried(case):
  """(outcome, stderr) of a case, in the current folder."""
  try:
    status, error = started(case) if case.group == 'launch' else called(case)
  except BaseException as raised:
    if isinstance(raised, KeyboardInterrupt):
      raise
    return 'traceback', ''.join(traceback.format_exception(raised)[-3:])
  return outcome(case, status, error), error


@contextlib.contextmanager
def playground():
  """A folder to work in, deep enough that '..' is in it too."""
  before, offline = os.getcwd(), {'HF_HUB_OFFLINE': '1', 'HF_HUB_DISABLE_TELEMETRY': '1'}
  with tempfile.TemporaryDirectory(prefix='avlink_jax-fuzz-') as root, \
       mock.patch.dict(os.environ, offline), cheap():
    folder = pathlib.Path(root, 'one', 'two')
    folder.mkdir(parents=True)
    furnish(folder)
    os.chdir(folder)
    try:
      yield folder
    finally:
      os.chdir(before)


def clean(folder):
  """Removes what a command line wrote, but for what `furnish` did."""
  kept = {'clips', 'clip.mp4', 'bad', 'bad.mp4', 'bad.safetensors', 'file.txt', 'empty', 'a'}
  for path in folder.iterdir():
    if path.name not in kept:
      shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def shortened(word):
  return repr(word if len(word) < 200 else f'{word[:20]}…{word[-20:]}')


def main(argv=None):
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--count', type=int, default=500)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--again', type=int, default=25, help='as processes of their own')
  parser.add_argument('--only', default='', help='groups, with commas')
  flags = parser.parse_args(argv)
  counts, wrong, refused = collections.defaultdict(collections.Counter), [], []
  with playground() as folder:
    for case in cases(flags.count, flags.seed, tuple(filter(None, flags.only.split(',')))):
      begun = time.monotonic()
      result, error = tried(case)
      counts[case.group][result] += 1
      if result not in GOOD or result == 'at work':
        wrong.append((result, case, error))
        print(f'{result}, {time.monotonic() - begun:.1f} s: {case.program} '
              f'{" ".join(map(shortened, case.argv))}\n{error[-1500:]}', flush=True)
      if result == 'refused' and case.group != 'launch':
        refused.append((case, error))
      clean(folder)
    other = []
    for case, error in random.Random(0).sample(refused, min(flags.again, len(refused))):
      status, alone = started(case)
      if outcome(case, status, alone) != 'refused' or alone.splitlines()[-1:] != error.splitlines()[
          -1:]:
        other.append((case, error[-300:], status, alone[-300:]))
      clean(folder)
    for each in other:
      print('another outcome as a process:', *each, sep='\n  ', flush=True)
  print(json.dumps({
      'seed': flags.seed, 'tried': flags.count, 'as it should be': sum(
          of[result] for of in counts.values() for result in GOOD),
      'as processes': min(flags.again, len(refused)), 'alike': min(flags.again, len(refused)) - len(
          other), 'by group': {name: dict(of) for name, of in counts.items()}}))
  return int(any(result not in GOOD for result, *_ in wrong) or bool(other))


if __name__ == '__main__':
  sys.exit(main())
