"""A checkpoint goes on on other devices, in more or fewer processes: same examples, same losses."""

import json
import socket
import subprocess
import sys

import numpy as np
import pytest
import runs

# The smallest run that has everything a mesh touches: data, sharded State, step, checkpoints.
LEG = '''
import functools, json, pathlib, sys
import jax, jax.numpy as jnp, numpy as np
from micro import micro_config
from avlink_jax.data import pipeline
from avlink_jax.data.batch import Meta
from avlink_jax.training import hosts, sharding, step as training
from avlink_jax.training.checkpoint import Checkpoints
from avlink_jax.training.resilience import cluster

where, last, fsdp, sequence, poisoned = sys.argv[1], *map(int, sys.argv[2:])
if place := cluster.detect():
  hosts.connect(micro_config('t2a').hosts, place)
process, processes = jax.process_index(), jax.process_count()

config = micro_config('t2a')

class Regression:
  """Fits x -> x·kernel to noise: a task as tasks/task.py describes it."""
  config, groups = config, ()
  init = lambda self, key, frozen: {'kernel': jax.random.normal(key, (16, 4))}
  init_stats = lambda self: {}
  exported = lambda self, params: params
  lr_scale = lambda self, group: 1.0
  def loss(self, params, stats, frozen, batch, key, step, group):
    noise = 0.1 * jax.random.normal(key, (8, 4))
    error = batch['x'] @ params['kernel'] + noise - batch['y']
    return jnp.mean(error ** 2), ({}, stats)

class Examples:
  """Example i: noise of its index and of how it is cropped."""
  source = range(40)
  def __call__(self, index, seed):
    noise = np.random.default_rng(seed).standard_normal((2, 16)).astype(np.float32)
    return index, noise + index % 7, [], []

def collate(loaded, prepare):
  x = np.stack([made[1] for made in loaded])
  return {'x': x[:, 0], 'y': x[:, 1, :4]}, Meta([int(made[0]) for made in loaded], [])

pipeline.collate = collate
task = Regression()
optimizer = training.make_optimizer(config)
mesh = sharding.make_mesh(-1, fsdp, sequence)
init = functools.partial(training.init, task, optimizer, 0, None)
placement = sharding.shardings(jax.eval_shape(init), mesh)
state = jax.jit(init, out_shardings=placement)()
checkpoints = Checkpoints(where)
start = checkpoints.newest_intact()
checkpoints.tidy(start)
if start is not None:
  state = checkpoints.restore(state, start)
assert state.params['kernel'].sharding.spec == placement.params['kernel'].spec
update = jax.jit(functools.partial(training.train_step, task, optimizer, config),
                 donate_argnums=0, out_shardings=(placement, None))
batches = pipeline.train_batches(Examples(), None, seed=3, batch_size=8, first_step=start or 0,
                                 last_step=last, rows=sharding.local_rows(mesh, 8), threads=1)
losses, ids, bad = [], [], []
for k, (batch, meta) in enumerate(batches, (start or 0) + 1):
  if k == poisoned and process == processes - 1:
    batch['x'][-1, 0] = np.nan  # in a row of the last process alone
  before = hosts.gather(state.params)['kernel']
  before = np.array(before)
  state, metrics = update(state, None, sharding.shard_batch(batch, mesh, 8))
  if k == poisoned:
    np.testing.assert_array_equal(np.array(hosts.gather(state.params)['kernel']), before)
  losses.append(float(metrics['loss'])), ids.append(meta.ids), bad.append(int(metrics['bad_steps']))
checkpoints.save(last, state, {'config': {}})
checkpoints.close()
with jax.transfer_guard('disallow'):  # as in training
  exchanged = [hosts.exchange(['é' * process * 999] * process), hosts.exchange([])]
pathlib.Path(where, f'{last}.{process}.json').write_text(json.dumps(
    {'devices': len(jax.devices()), 'losses': losses, 'ids': ids, 'bad': bad,
     'exchanged': exchanged}))
'''


def leg(workdir, last, *, devices=1, processes=1, fsdp=1, sequence=1, poisoned=0):
  """Takes the run to step `last`, on `devices` in each of `processes`; {losses, ids, bad}."""
  workdir.mkdir(exist_ok=True)
  with socket.socket() as free:
    free.bind(('localhost', 0))
    address = f'localhost:{free.getsockname()[1]}'
  started = []
  for process in range(processes):
    several = {} if processes == 1 else {
        'JAX_COORDINATOR_ADDRESS': address, 'JAX_NUM_PROCESSES': str(processes),
        'JAX_PROCESS_ID': str(process)}
    started.append(subprocess.Popen(
        [sys.executable, '-c', LEG, *map(str, (workdir, last, fsdp, sequence, poisoned))],
        cwd=runs.ROOT, env=runs.environment(workdir / 'cache', **several,
                             XLA_FLAGS=runs.xla_flags(devices)),
        stderr=subprocess.PIPE, text=True))
  for process in started:
    _, said = process.communicate(timeout=400)
    assert process.returncode == 0, said
  told = [json.loads((workdir / f'{last}.{p}.json').read_text()) for p in range(processes)]
  assert all(t['devices'] == devices * processes for t in told)
  lists = [['é' * p * 999] * p for p in range(processes)]
  assert all(t['exchanged'] == [lists, [[]] * processes] for t in told)
  for other in told[1:]:  # all hosts know the same, each of its own rows
    assert (other['losses'], other['bad']) == (told[0]['losses'], told[0]['bad']) or poisoned
  if sequence > 1:  # over both processes: each has the whole batch
    assert all(t['ids'] == told[0]['ids'] for t in told)
    told = told[:1]
  ids = [sum(rows, []) for rows in zip(*(t['ids'] for t in told), strict=True)]
  return {'losses': told[0]['losses'], 'ids': ids, 'bad': [t['bad'] for t in told]}


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
  """Six steps on one device in one process, in one go."""
  return leg(tmp_path_factory.mktemp('alone') / 'run', 6)


@pytest.mark.slow
def test_a_checkpoint_goes_on_on_other_devices_and_processes(alone, tmp_path):
  """8 devices, then 4 (split over fsdp), 1, two processes with half of the batch each, and two
  that need the same rows: as one device all along."""
  legs = [leg(tmp_path / 'run', 1, devices=8), leg(tmp_path / 'run', 2, devices=4, fsdp=2),
          leg(tmp_path / 'run', 4, devices=1), leg(tmp_path / 'run', 5, processes=2),
          leg(tmp_path / 'run', 6, processes=2, sequence=2)]
  assert sum((each['ids'] for each in legs), []) == alone['ids']
  np.testing.assert_allclose(sum((each['losses'] for each in legs), []), alone['losses'],
                             rtol=1e-5)


@pytest.mark.slow
def test_a_bad_number_on_one_host_voids_the_step_on_all(tmp_path):
  """The example lies on the second of two processes; both keep what they had, and count alike."""
  told = leg(tmp_path / 'run', 3, processes=2, fsdp=2, poisoned=2)
  assert told['bad'] == [[0, 1, 1]] * 2
  assert np.isnan(told['losses'][1]) and np.isfinite(told['losses'][2])
