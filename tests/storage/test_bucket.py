"""A workdir that is a bucket: the same run, on a store that cannot append, rename or lock.

TensorStore's own driver for gs:// and the run's other files both go to a Cloud Storage of this
machine (fake_bucket.py), so that Orbax's checkpoints go the way they go in a real one.
"""

import json
import os
import pathlib
import socket
import subprocess
import sys

import cli
import fake_bucket
import jax
import numpy as np
import pytest
import runs
import safetensors.numpy

from avlink_jax.errors import UserError
from avlink_jax.storage import bucket as storage
from avlink_jax.training.checkpoint import Checkpoints
from avlink_jax.training.resilience import manifest
from avlink_jax.training.resilience.lock import Lock

RUN = 'gs://bucket/run'


@pytest.fixture(scope='module')
def server():
  """The store, in gcsfs's and TensorStore's place in this process too."""
  with fake_bucket.served() as (server, environment), pytest.MonkeyPatch.context() as patch:
    for name, value in environment.items():
      patch.setenv(name, value)
    server.environment = environment
    with fake_bucket.stood_in(environment['FAKE_GCS']):
      yield server


@pytest.fixture
def objects(server):
  server.objects.clear()
  server.refuse = None
  return server.objects


def state(step):
  return {'params': {'kernel': step + np.arange(400, dtype=np.float32)}, 'step': np.int32(step)}


def saved(steps, **kept):
  checkpoints = Checkpoints(RUN, **kept)
  for step in steps:
    checkpoints.save(step, jax.tree.map(jax.numpy.asarray, state(step)), {'config': {'seed': step}})
  checkpoints.close()


def under(objects, prefix):
  return [name for name in objects if name.startswith(f'bucket/run/{prefix}')]


def test_what_was_saved_in_a_bucket_comes_back_and_old_ones_go(objects):
  saved([2, 4, 6], keep=2)
  checkpoints = Checkpoints(RUN)
  assert checkpoints.steps() == [4, 6] and not under(objects, 'checkpoints/2/')
  assert checkpoints.newest_intact() == 6 and checkpoints.about(6) == {'config': {'seed': 6}}
  made = checkpoints.restore(jax.eval_shape(lambda: state(0)))
  np.testing.assert_array_equal(made['params']['kernel'], state(6)['params']['kernel'])
  checkpoints.close()


def test_a_damaged_checkpoint_in_a_bucket_is_set_aside_and_an_unfinished_one_removed(
    objects, capfd):
  saved([2, 4, 6])
  name = max(under(objects, 'checkpoints/4/'), key=lambda name: len(objects[name]))
  objects[name] = bytes([objects[name][0] ^ 1]) + objects[name][1:]
  del objects[f'bucket/run/checkpoints/6/{manifest.NAME}']  # as a kill before the end leaves it
  checkpoints = Checkpoints(RUN)
  assert checkpoints.newest_intact() == 2
  checkpoints.tidy(2)
  assert checkpoints.steps() == [2] and not under(objects, 'checkpoints/6/')
  assert under(objects, 'checkpoints/4.damaged/') and not under(objects, 'checkpoints/4/')
  said = capfd.readouterr().err
  assert 'DAMAGED CHECKPOINT' in said and 'not finished' in said
  checkpoints.close()


def test_a_bucket_that_is_away_is_no_damage(objects, server):
  saved([2])
  server.refuse = 403
  checkpoints = Checkpoints(RUN)
  with pytest.raises(UserError, match='gs://bucket/run/checkpoints: cannot be reached'):
    checkpoints.newest_intact()
  server.refuse = None
  assert checkpoints.newest_intact() == 2
  checkpoints.close()


@pytest.mark.parametrize('bucket', [True, False])
def test_a_mirror_sends_what_changed_and_brings_it_back(objects, tmp_path, bucket):
  """On a disk by the same calls."""
  there = RUN if bucket else tmp_path
  with storage.Mirror(there) as mirror:
    (mirror.here / 'a').write_text('1')
    (mirror.here / 'samples').mkdir()
    (mirror.here / 'samples' / 'b').write_text('2')
    mirror.push()
    with (mirror.here / 'a').open('a') as file:
      file.write('more')
    (mirror.here / 'samples' / 'b').unlink()
  assert storage.files(there) == ['a']
  with storage.Mirror(there) as mirror:
    mirror.pull('a', 'none')
    assert (mirror.here / 'a').read_text() == '1more'
  assert (storage.absolute(there) / 'a').read_text() == '1more'


def test_a_mirror_leaves_nothing_on_this_machine(objects):
  with storage.Mirror(RUN) as mirror:
    here = mirror.here
    (here / 'lock').write_text('of this machine alone')
  assert not here.exists() and not objects


def test_a_bucket_s_lock_refuses_while_it_beats_and_is_taken_over_when_it_does_not(objects):
  lock = Lock(RUN, heartbeat=0.1)
  with pytest.raises(UserError, match=f'process {os.getpid()} on {socket.gethostname()}'):
    Lock(RUN, heartbeat=0.5)
  lock.release()
  assert not objects
  objects['bucket/run/lock'] = json.dumps({'host': 'elsewhere', 'process': 7, 'time': 0}).encode()
  Lock(RUN, heartbeat=0.05).release()
  assert not objects


def test_a_lock_of_a_dead_process_of_this_host_is_taken_over_at_once(objects, monkeypatch):
  gone = subprocess.Popen([sys.executable, '-c', ''])
  gone.wait()
  objects['bucket/run/lock'] = json.dumps(
      {'host': socket.gethostname(), 'process': gone.pid}).encode()
  monkeypatch.setattr(Lock, '_beats', lambda *_: pytest.fail('it was watched'))
  Lock(RUN).release()


def run(config, server, cache, *flags, workdir=RUN):
  command = [sys.executable, pathlib.Path(fake_bucket.__file__), *runs.flags(config),
             f'--workdir={workdir}', *flags]
  return subprocess.run(command, env=runs.environment(cache, **server.environment), text=True,
                        capture_output=True, cwd=runs.ROOT, timeout=600)


@pytest.mark.slow
def test_a_run_in_a_bucket_trains_is_resumed_and_samples_as_one_on_a_disk(
    server, objects, tmp_path, compiled_once):
  config = runs.config_of('t2a', runs.parts(tmp_path), **{'checkpoint.every': 1})
  for steps in (1, 2):
    config.train.steps = steps
    done = run(config, server, compiled_once)
    assert done.returncode == 0, done.stderr
  assert 'resumed at step 1' in done.stderr
  disk = tmp_path / 'disk'
  whole = run(config, server, compiled_once, workdir=disk)
  assert whole.returncode == 0, whole.stderr
  here = {name for name in storage.files(disk)
          if name != 'lock' and not name.startswith(('events', 'checkpoints', 'samples'))}
  there = {name.removeprefix('bucket/run/') for name in objects}
  assert here <= there and 'lock' not in there
  assert any(name.startswith('events') for name in there)
  assert {f'samples/step_2/{name}' for name in ('index.html', 'manifest.jsonl')} <= there
  rows = [json.loads(row) for row in objects['bucket/run/metrics.jsonl'].splitlines()]
  assert [row['step'] for row in rows if 'loss' in row] == [1, 2]
  one, other = (safetensors.numpy.load(content) for content in (
      objects['bucket/run/weights.safetensors'], (disk / 'weights.safetensors').read_bytes()))
  assert one.keys() == other.keys()
  for name, array in one.items():
    np.testing.assert_array_equal(array, other[name])

  sampled = run(config, server, compiled_once, '--mode=sample', '--prompt=a drum',
                '--output=gs://bucket/made')
  assert sampled.returncode == 0, sampled.stderr
  assert 'weights: gs://bucket/run, step 2' in sampled.stderr
  assert 'bucket/made/manifest.jsonl' in objects


@pytest.mark.slow
def test_a_bucket_that_says_no_ends_in_one_line(server, objects, tmp_path):
  server.refuse = 403
  line = cli.complaint(run(runs.config_of('t2a', runs.parts(tmp_path)), server, tmp_path))
  assert RUN in line and 'credentials' in line
