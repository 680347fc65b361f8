"""Command lines of the cluster scripts: dry wherever they say so, and nothing else than they say.
Every tool that the scripts call is a stub that writes its call down."""

import importlib.util
import os
import pathlib
import pty
import random
import subprocess
import sys

import pytest
from absl import flags

from avlink_jax import main
from avlink_jax.errors import MISTAKE

LAUNCH = pathlib.Path(__file__).resolve().parents[2] / 'launch'
TOOLS = ('gcloud', 'git', 'kubectl', 'sbatch', 'srun', 'scontrol', 'python', 'mkdir')
FLAGS = ['--config=configs/v2a.py:small', '--prompt', 'delete it']
COMMANDS = [  # every path of the scripts that does something
    ('tpu_pod.sh', ['create']), ('tpu_pod.sh', ['install']), ('tpu_pod.sh', ['run', *FLAGS]),
    ('tpu_pod.sh', ['fetch', 'out']), ('tpu_pod.sh', ['delete', '--yes']),
    ('gke_jobset.sh', FLAGS), ('slurm.sh', FLAGS), ('quickstart.sh', ['out'])]
IN_A_JOB = {'SLURM_JOB_ID': '7', 'SLURM_JOB_NAME': 'avlink'}


class Cluster:
  """Stubs of every tool in a folder, and calls of scripts that find nothing else."""

  def __init__(self, folder):
    self.folder, self.log = folder, folder / 'calls'
    for tool in TOOLS:
      (folder / tool).write_text(
          f'#!/bin/sh\n[ "$1" = -c ] && exit 0\necho {tool} "$@" >> {self.log}\n'
          'case "$*" in *describe*) echo ACTIVE ;; *"cat avlink/status"*) echo 0 ;; '
          '*"-f -") cat > /dev/null ;; esac\n')
      (folder / tool).chmod(0o755)

  def run(self, script, *words, stdin=subprocess.DEVNULL, **environ):
    self.log.unlink(missing_ok=True)
    return subprocess.run(
        ['bash', LAUNCH / script, *words], stdin=stdin, capture_output=True, text=True, cwd='/',
        env={'PATH': f'{self.folder}:{os.environ["PATH"]}', 'BUCKET': 'b', 'IMAGE': 'i',
             'PAUSE': '0', 'VENV': str(self.folder / 'venv')} | environ)

  @property
  def calls(self):
    return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture(scope='module')
def cluster(tmp_path_factory):
  return Cluster(tmp_path_factory.mktemp('tools'))


def named(command):
  script, words = command
  return ' '.join([script, *words[:1]])


@pytest.mark.parametrize('command', COMMANDS, ids=named)
def test_dry_run_is_dry_wherever_it_stands(cluster, command):
  script, words = command
  shown = set()
  for place in range(len(words) + 1):
    if words[place - 1:place] == ['--prompt']:
      continue  # between a flag and its value
    done = cluster.run(script, *words[:place], '--dry-run', *words[place:])
    assert done.returncode == 0, done.stderr
    assert not cluster.calls, cluster.calls
    shown.add(done.stdout)
  assert len(shown) == 1 and shown != {''}


def test_dry_run_in_a_job_of_slurm_is_dry(cluster):
  assert cluster.run('slurm.sh', *FLAGS, '--dry-run', **IN_A_JOB).stdout.startswith('sbatch')
  assert not cluster.calls


@pytest.mark.parametrize('command', COMMANDS, ids=named)
def test_help_helps_wherever_it_stands_and_needs_nothing(cluster, command):
  script, words = command
  for line in (['--help'], [*words, '-h']):
    done = cluster.run(script, *line, BUCKET='', IMAGE='')
    assert done.returncode == 0 and f'launch/{script}' in done.stdout and not done.stderr
    assert not cluster.calls


@pytest.mark.parametrize('command', COMMANDS, ids=named)
@pytest.mark.parametrize('word', ['--dry_run', '-n', '--dry-run=1', '--', 'now', ''])
def test_a_word_that_nobody_knows_is_refused_in_one_line(cluster, command, word):
  script, words = command
  done = cluster.run(script, *words, word)
  assert done.returncode == MISTAKE and not cluster.calls
  assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith(f'launch/{script}: ')


@pytest.mark.parametrize('command, told', [
    (('tpu_pod.sh', []), 'say what'), (('tpu_pod.sh', ['destroy']), 'destroy'),
    (('tpu_pod.sh', ['run']), 'give --config'), (('tpu_pod.sh', ['create', *FLAGS]), '--config'),
    (('tpu_pod.sh', ['run', *FLAGS, '--workdir=x']), 'set WORKDIR'),
    (('tpu_pod.sh', ['run', *FLAGS, '--yes']), '--yes'),
    (('gke_jobset.sh', [*FLAGS, '--workdir', 'x']), 'set WORKDIR'),
    (('gke_jobset.sh', []), 'give --config'), (('slurm.sh', ['--seed=1']), 'give --config'),
    (('quickstart.sh', ['out', 'out2']), 'out2'), (('quickstart.sh', FLAGS), '--config')])
def test_a_command_that_cannot_be_meant_is_refused_in_one_line(cluster, command, told):
  done = cluster.run(command[0], *command[1])
  assert done.returncode == MISTAKE and told in done.stderr and not cluster.calls
  assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize('script, name, value', [
    ('tpu_pod.sh', 'BUCKET', ''), ('tpu_pod.sh', 'MAX_STARTS', 'many'),
    ('gke_jobset.sh', 'IMAGE', ''), ('gke_jobset.sh', 'BUCKET', ''),
    ('gke_jobset.sh', 'HOSTS', '0'), ('slurm.sh', 'GPUS', '0'), ('slurm.sh', 'CPUS', '4'),
    ('slurm.sh', 'PER', 'host'), ('slurm.sh', 'NODES', '-1')])
def test_a_bad_setting_is_named_in_one_line(cluster, script, name, value):
  words = ['run', *FLAGS] if script == 'tpu_pod.sh' else FLAGS
  done = cluster.run(script, *words, **{name: value})
  assert done.returncode == MISTAKE and name in done.stderr and not cluster.calls
  assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize('command', COMMANDS[:-1], ids=named)
def test_without_dry_run_the_tools_are_called(cluster, command):
  done = cluster.run(command[0], *command[1], **(
      {'BUCKET': ''} if command[1][0] in ('create', 'delete') else {}))
  assert done.returncode == 0, done.stderr
  assert cluster.calls


def test_flags_reach_the_run_with_their_spaces(cluster):
  cluster.run('slurm.sh', *FLAGS, '--config.data.source=my clips', **IN_A_JOB)
  assert cluster.calls[0].endswith(
      'avlink_jax.main --config=configs/v2a.py:small --prompt delete it '
      '--config.data.source=my clips')


def test_a_slice_is_deleted_only_on_a_yes(cluster):
  done = cluster.run('tpu_pod.sh', 'delete')
  assert done.returncode == MISTAKE and '--yes' in done.stderr and not cluster.calls
  for answer, deleted in ((b'n\n', False), (b'\n', False), (b'y\n', True)):
    ours, theirs = pty.openpty()
    os.write(ours, answer)
    done = cluster.run('tpu_pod.sh', 'delete', stdin=theirs)
    assert (done.returncode == 0) == deleted == bool(cluster.calls)
    os.close(ours)
    os.close(theirs)


def test_a_slice_that_is_there_is_installed_on_before_the_first_run(cluster):
  cluster.run('tpu_pod.sh', 'run', *FLAGS)
  kinds = [('scp' if 'scp' in call else 'main' if 'avlink_jax.main' in call else '')
           for call in cluster.calls]
  assert [kind for kind in kinds if kind] == ['scp', 'main']


def test_the_flags_that_the_scripts_know_are_those_of_the_program():
  done = subprocess.run(['bash', '-c', f'source {LAUNCH}/words.sh; main_flags'],
                        capture_output=True, text=True, check=True)
  own = flags.FLAGS.flags_by_module_dict()[main.__name__]
  assert set(done.stdout.split()) == {flag.name for flag in own}


def test_random_words_never_do_more_than_they_say(cluster):
  """A dry run calls nothing, whatever else is there; a mistake neither, and is one line."""
  rng = random.Random(0)
  known = ['run', 'create', 'fetch', 'delete', '--yes', '--config=x', '--seed=1', '--dry-run',
           '--nothing', 'out', '--config.train.steps=2', '--help', '-x', '']
  for _ in range(40):
    script = rng.choice(['tpu_pod.sh', 'gke_jobset.sh', 'slurm.sh'])
    words = rng.choices(known, k=rng.randint(0, 5))
    done = cluster.run(script, *words)
    assert done.returncode in (0, MISTAKE), (words, done.stderr)
    if done.returncode or {'--dry-run', '--help'} & set(words):
      assert not cluster.calls, words
    if done.returncode:
      assert len(done.stderr.splitlines()) == 1, words


GIVEN = '--xla_gpu_enable_triton_gemm=true --xla_mine=1'


def test_the_compilers_flags_are_set_and_said_and_the_users_own_win(cluster):
  done = cluster.run('slurm.sh', *FLAGS, XLA_FLAGS=GIVEN, **IN_A_JOB)
  assert f'XLA_FLAGS={GIVEN} --xla_gpu_enable_latency_hiding_scheduler=true' in cluster.calls[0]
  assert 'triton_gemm=false' not in cluster.calls[0]
  assert 'XLA_PYTHON_CLIENT_MEM_FRACTION=0.9' in cluster.calls[0]
  assert 'triton_gemm: yours' in done.stderr and 'not measured here' in done.stderr
  cluster.run('slurm.sh', *FLAGS, XLA_PYTHON_CLIENT_MEM_FRACTION='0.5', **IN_A_JOB)
  assert 'MEM_FRACTION=0.5' in cluster.calls[0] and 'MEM_FRACTION=0.9' not in cluster.calls[0]
  cluster.run('slurm.sh', *FLAGS, COMPILER_FLAGS='0', XLA_FLAGS=GIVEN, **IN_A_JOB)
  assert f'XLA_FLAGS={GIVEN} .venv' in cluster.calls[0]
  for script, words in (('tpu_pod.sh', ['run', *FLAGS]), ('gke_jobset.sh', FLAGS)):
    done = cluster.run(
        script, *words, '--dry-run', LIBTPU_INIT_ARGS='--xla_enable_async_all_gather')
    assert '--xla_tpu_enable_async_collective_fusion=true' in done.stdout
    assert 'async_all_gather=true' not in done.stdout and 'async_all_gather' in done.stdout
    assert 'xla_enable_async_all_gather: yours' in done.stderr


def test_every_flag_of_the_gpu_compiler_is_one_that_this_release_knows():
  """XLA ends a program that has a flag which it does not know."""
  done = subprocess.run(
      ['bash', '-c', f'source {LAUNCH}/xla.sh; gpu_flags 2> /dev/null; exec python -c '
       '"import jax; jax.devices()"'], capture_output=True, text=True,
      env=os.environ | {'JAX_PLATFORMS': 'cpu'})
  assert done.returncode == 0, done.stderr


AHEAD = '''
import jax
from avlink_jax.hardware import topology
device = topology.devices('v5p:2x2x1')[0]
where = jax.sharding.SingleDeviceSharding(device)
jax.jit(lambda x: x + 1).lower(jax.ShapeDtypeStruct((8, 128), 'float32', sharding=where)).compile()
'''


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec('libtpu') is None, reason='libtpu is not installed')
@pytest.mark.parametrize('more', ['', '--xla_tpu_no_such_flag=true'])
def test_every_flag_of_the_tpu_compiler_is_one_that_this_libtpu_knows(more):
  """It reads them when it compiles, ahead of time too, and ends the program as XLA does."""
  done = subprocess.run(
      ['bash', '-c', f'source {LAUNCH}/xla.sh; tpu_flags 2> /dev/null; exec {sys.executable} -c '
       f'"{AHEAD}"'], capture_output=True, text=True, cwd=LAUNCH.parent,
      env=os.environ | {'JAX_PLATFORMS': 'cpu', 'LIBTPU_INIT_ARGS': more})
  assert (done.returncode == 0) == (not more), done.stderr
