"""The launch scripts: sound shell, and dry runs that show the commands clusters take."""

import os
import pathlib
import shlex
import shutil
import subprocess
import sys

import pytest
import yaml

from avlink_jax.errors import HANG, MISTAKE, PREEMPTED

LAUNCH = pathlib.Path(__file__).resolve().parents[2] / 'launch'
SCRIPTS = sorted(LAUNCH.glob('*.sh'))
FLAGS = ['--config=configs/v2a.py:small', "--config.seed=1", '--prompt=a dog; "barks"']


def said(script, *arguments, **environ):
  """What a script prints, without anything of a cluster there."""
  done = subprocess.run(
      ['bash', LAUNCH / script, *arguments], capture_output=True, text=True, cwd='/',
      env={'PATH': os.environ['PATH'], **environ})
  assert done.returncode == 0, done.stderr
  return done.stdout


def commands(*args, **environ):
  return [shlex.split(line) for line in said(*args, **environ).splitlines()]


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_has_nothing_to_say(script):
  found = shutil.which('shellcheck') or shutil.which('shellcheck', path=pathlib.Path(
      sys.executable).parent)
  if not found:
    pytest.skip('shellcheck is not here: pip install -r tests/requirements.txt')
  done = subprocess.run([found, '-x', '-P', 'SCRIPTDIR', script], capture_output=True, text=True)
  assert done.returncode == 0, done.stdout


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.name)
def test_bash_can_read_it(script):
  subprocess.run(['bash', '-n', script], check=True)


def option(command, name):
  [value] = [part.partition('=')[2] for part in command if part.startswith(f'--{name}=')]
  return value


def test_a_tpu_pod_is_made_filled_and_run_with_one_command():
  create, pack, copy, install, run = commands(
      'tpu_pod.sh', '--dry-run', 'run', *FLAGS, BUCKET='mine', NAME='big', TYPE='v5p-32')
  assert create[:6] == ['gcloud', 'compute', 'tpus', 'queued-resources', 'create', 'big']
  assert option(create, 'node-id') == 'big' and option(create, 'accelerator-type') == 'v5p-32'
  assert option(create, 'runtime-version') and '--spot' in create
  assert pack[:2] == ['git', 'archive'] and copy[3:5] == ['tpu-vm', 'scp']
  for everywhere in (install, run):
    assert everywhere[3:6] == ['tpu-vm', 'ssh', 'big'] and option(everywhere, 'worker') == 'all'
  assert 'requirements.txt' in option(install, 'command')
  assert "'jax[tpu]'" in option(install, 'command') and 'gcsfuse' in option(install, 'command')
  main = option(run, 'command').split('; ')
  flags = shlex.split(option(run, 'command').partition('avlink_jax.main ')[2].partition(
      '; echo $?')[0])
  assert flags == [*FLAGS, '--workdir=../bucket/big'] and main[-1] == 'echo $? > status'
  subprocess.run(['bash', '-n', '-c', option(install, 'command')], check=True)
  subprocess.run(['bash', '-n', '-c', option(run, 'command')], check=True)


def test_a_tpu_pod_is_fetched_from_and_deleted():
  made, samples, metrics = commands('tpu_pod.sh', '--dry-run', 'fetch', 'out', BUCKET='b')
  assert made == ['mkdir', '-p', 'out/avlink']
  assert samples[-2:] == ['gs://b/avlink/samples', 'out/avlink/samples']
  assert metrics[-2:] == ['gs://b/avlink/metrics.jsonl', 'out/avlink/']
  [delete] = commands('tpu_pod.sh', 'delete', '--dry-run')
  assert delete[3:6] == ['queued-resources', 'delete', 'avlink'] and '--force' in delete


# A gcloud whose slice is taken away in the first attempt and asked to leave in the second.
GCLOUD = '''#!/usr/bin/env bash
cd "$(dirname "$0")"; echo "$*" >> calls
case "$*" in
  *describe*) cat state 2>/dev/null ;;
  *'queued-resources create'*) echo ACTIVE > state ;;
  *'queued-resources delete'*) rm state ;;
  *status*--worker=0* | *--worker=0*status*)
    n=$(grep -c 'cat avlink/status' calls)
    case $n in 1) echo SUSPENDED > state; exit 1 ;; 2) echo 75 ;; *) echo "$LAST" ;; esac ;;
esac
'''


@pytest.mark.parametrize('last', [0, MISTAKE])
def test_preempted_capacity_is_made_anew_and_the_run_goes_on(tmp_path, last):
  """And a mistake is not tried again."""
  (tmp_path / 'gcloud').write_text(GCLOUD)
  (tmp_path / 'gcloud').chmod(0o755)
  done = subprocess.run(
      ['bash', LAUNCH / 'tpu_pod.sh', 'run', *FLAGS], capture_output=True, text=True, timeout=100,
      env={'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'BUCKET': 'b', 'PAUSE': '0',
           'LAST': str(last)})
  assert done.returncode == last, done.stderr
  calls = (tmp_path / 'calls').read_text()
  assert calls.count('queued-resources create') == 2  # it was gone once
  assert calls.count('queued-resources delete') == 1
  assert calls.count('avlink_jax.main') == 3


def test_slurm_submits_itself_with_a_process_for_each_gpu_or_node():
  submit, run = commands('slurm.sh', '--dry-run', *FLAGS, GPUS='4', NODES='3', CPUS='32',
                         SBATCH='--partition=gpu --account=me')
  assert submit[0] == 'sbatch' and submit[-len(FLAGS):] == FLAGS
  assert [option(submit, name) for name in ('nodes', 'ntasks-per-node', 'gpus-per-node')] == [
      '3', '4', '4']
  assert option(submit, 'cpus-per-task') == '8' and option(submit, 'signal') == 'TERM@300'
  assert {'--requeue', '--partition=gpu', '--account=me'} <= set(submit)
  assert run[0] == 'srun' and run[-len(FLAGS):] == FLAGS
  submit, _ = commands('slurm.sh', '--dry-run', *FLAGS, GPUS='4', PER='node')
  assert option(submit, 'ntasks-per-node') == '1' and option(submit, 'cpus-per-task') == '64'


@pytest.mark.parametrize('status, restarts, again', [
    (0, 0, False), (MISTAKE, 0, False), (PREEMPTED, 0, True), (HANG, 3, True),
    (PREEMPTED, 100, False)])
def test_slurm_puts_back_what_is_to_be_started_again(tmp_path, status, restarts, again):
  for name in ('srun', 'scontrol'):
    (tmp_path / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/calls\n'
                                 + (f'exit {status}\n' if name == 'srun' else ''))
    (tmp_path / name).chmod(0o755)
  done = subprocess.run(
      ['bash', LAUNCH / 'slurm.sh', *FLAGS], capture_output=True, text=True,
      env={'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'SLURM_JOB_ID': '7',
           'SLURM_JOB_NAME': 'avlink', 'SLURM_RESTART_COUNT': str(restarts)})
  assert done.returncode == status, done.stderr
  assert ('scontrol requeue 7' in (tmp_path / 'calls').read_text()) == again


def jobset(**environ):
  return yaml.safe_load(said('gke_jobset.sh', '--dry-run', *FLAGS, IMAGE='me/avlink:1', BUCKET='b',
                             **environ))


# Fields of jobset.x-k8s.io/v1alpha2 and of batch/v1's Job, as far as the template uses them.
FIELDS = {
    '': {'apiVersion', 'kind', 'metadata', 'spec'},
    'spec': {'failurePolicy', 'replicatedJobs'},
    'spec.failurePolicy': {'maxRestarts', 'rules'},
    'spec.failurePolicy.rules': {'name', 'action', 'onJobFailureReasons'},
    'spec.replicatedJobs': {'name', 'replicas', 'template'},
    'spec.replicatedJobs.template': {'spec'},
    'spec.replicatedJobs.template.spec': {
        'parallelism', 'completions', 'completionMode', 'backoffLimit', 'podFailurePolicy',
        'template'},
    'spec.replicatedJobs.template.spec.podFailurePolicy.rules': {'action', 'onExitCodes'},
    'spec.replicatedJobs.template.spec.podFailurePolicy.rules.onExitCodes': {
        'containerName', 'operator', 'values'},
    'spec.replicatedJobs.template.spec.template.spec': {
        'restartPolicy', 'terminationGracePeriodSeconds', 'serviceAccountName', 'nodeSelector',
        'containers', 'volumes'},
    'spec.replicatedJobs.template.spec.template.spec.containers': {
        'name', 'image', 'command', 'args', 'env', 'ports', 'resources', 'volumeMounts'},
}


def nodes(tree, path=''):
  """(path, keys) of all mappings of a document."""
  if isinstance(tree, list):
    for branch in tree:
      yield from nodes(branch, path)
  elif isinstance(tree, dict):
    yield path, set(tree)
    for key, branch in tree.items():
      yield from nodes(branch, f'{path}.{key}' if path else key)


def test_the_jobset_has_the_fields_of_its_kind():
  for path, keys in nodes(jobset()):
    assert keys == FIELDS.get(path, keys), path
  assert FIELDS.keys() <= {path for path, _ in nodes(jobset())}


def test_the_jobset_fits_its_slice_and_restarts_all_but_mistakes():
  made = jobset(HOSTS='2', SLICES='3', TOPOLOGY='2x2x2', MAX_RESTARTS='9')
  assert (made['apiVersion'], made['kind']) == ('jobset.x-k8s.io/v1alpha2', 'JobSet')
  assert made['spec']['failurePolicy']['maxRestarts'] == 9
  assert made['spec']['failurePolicy']['rules'] == [
      {'name': 'mistake', 'action': 'FailJobSet', 'onJobFailureReasons': ['PodFailurePolicy']}]
  [slices] = made['spec']['replicatedJobs']
  job = slices['template']['spec']
  assert (slices['replicas'], job['parallelism'], job['completions']) == (3, 2, 2)
  assert (job['completionMode'], job['backoffLimit']) == ('Indexed', 0)
  [rule] = job['podFailurePolicy']['rules']
  assert rule['action'] == 'FailJob' and rule['onExitCodes']['values'] == [MISTAKE]
  pod = job['template']['spec']
  [container] = pod['containers']
  assert pod['restartPolicy'] == 'Never'  # without which a failure policy is refused
  assert container['name'] == rule['onExitCodes']['containerName']
  assert container['args'] == [*FLAGS, '--workdir=/bucket/avlink']
  assert container['resources']['limits'] == {'google.com/tpu': 4}
  assert pod['nodeSelector']['cloud.google.com/gke-tpu-topology'] == '2x2x2'


def test_the_quickstart_takes_a_workdir(tmp_path):
  python, page = tmp_path / 'venv/bin/python', tmp_path / 'run/samples/step_1/index.html'
  python.parent.mkdir(parents=True)
  python.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/calls\n'
                    f'mkdir -p {page.parent} && touch {page}\n')
  python.chmod(0o755)
  told = said('quickstart.sh', str(tmp_path / 'run'), VENV=str(tmp_path / 'venv'))
  assert f'--workdir={tmp_path}/run' in (tmp_path / 'calls').read_text()
  assert told.splitlines()[-1].endswith(str(page))
