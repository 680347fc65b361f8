"""Mode compile says what a program would need and do on chips that are not there."""

import importlib
import importlib.util
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cli import ROOT, called, complaint
from micro import micro_config
from runs import flags

from avlink_jax import compile
from avlink_jax.errors import UserError
from avlink_jax.hardware import chips, topology
from avlink_jax.model import attention
from avlink_jax.training import sharding
from configs import t2v

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec('libtpu') is None,
    reason='libtpu is not installed: VENV=.venv-compile bash launch/test.sh has it')


def compiled(config, *more):
  """The process of `--mode=compile` for a micro config."""
  return subprocess.run(
      [sys.executable, '-m', 'avlink_jax.main', *flags(config), '--mode=compile', *more],
      capture_output=True, text=True, cwd=ROOT, timeout=600, env=os.environ | {
          'JAX_PLATFORMS': 'cpu', 'JAX_DISABLE_MOST_OPTIMIZATIONS': '1'})


@pytest.fixture(scope='module')
def report():
  """Of V2A on 8 simulated devices, fsdp 2 and sequence 2, as the last line of stdout."""
  result = compiled(micro_config('v2a', **{
      'train.batch_size': 8, 'mesh.fsdp': 2, 'mesh.sequence': 2, 'sample.batch_size': 6,
      'sample.steps': 5, 'remat': 'segment'}), '--topology=cpu:8')
  assert result.returncode == 0, result.stderr
  return json.loads(result.stdout.splitlines()[-1])


CONTRACT = {'topology', 'chips', 'fits', 'peak_bytes_per_chip', 'hbm_bytes_per_chip',
            'flops_per_step', 'collective_bytes', 'compile_seconds'}


@pytest.mark.slow
def test_a_config_is_compiled_whole_for_simulated_devices(report):
  assert CONTRACT <= report.keys()
  assert (report['topology'], report['chips']) == ('cpu:8', 8)
  assert report['mesh'] == {'data': 2, 'fsdp': 2, 'sequence': 2}
  assert report['fits'] is None and report['hbm_bytes_per_chip'] is None  # who knows of a CPU
  assert report['compile_seconds'] > 0


@pytest.mark.slow
def test_the_peak_is_what_is_held_at_once(report):
  for told in (report, report['sampler']):
    assert told['peak_bytes_per_chip'] == sum(
        told[f'{part}_bytes_per_chip'] for part in ('argument', 'output', 'temporary', 'code')
    ) - told['alias_bytes_per_chip']
  assert report['alias_bytes_per_chip'] > 0  # the state is donated
  assert report['sampler']['alias_bytes_per_chip'] == 0


@pytest.mark.slow
def test_rematerialised_work_is_executed_and_not_the_models(report):
  assert report['flops_per_step'] > report['model_flops_per_step'] > 0


@pytest.mark.slow
def test_sharded_parameters_are_gathered_and_gradients_summed(report):
  moved = report['collective_bytes']
  assert moved['all-gather'] > 0 and moved['all-reduce'] > 0


@pytest.mark.slow
def test_the_sampler_is_told_with_its_clips_and_steps(report):
  """Six clips are filled up to what four parts of a batch take."""
  sampler = report['sampler']
  assert (sampler['clips'], sampler['steps']) == (8, 5)
  assert 8 * sampler['flops_per_clip'] == pytest.approx(5 * sampler['flops_per_step'], rel=1e-6)


@pytest.mark.parametrize('task', ['t2a', 't2v', 'a2v', 'joint', 'av', 'mel_vae', 'vocoder',
                                  'video_vae'])
def test_every_task_has_a_train_step_and_flow_tasks_a_sampler(task):
  """Traced, which is all that differs among them before XLA."""
  config, mesh = micro_config(task), sharding.make_mesh()
  config.attention = 'tiled'
  step = compile.train_step(config, mesh)
  assert step.model_flops > 0
  sampling = compile.sampling(config, mesh)
  assert (sampling is None) == (task in ('mel_vae', 'vocoder'))


def test_no_t5_need_be_at_hand():
  """Its embeddings are shapes, the null prompt's too."""
  config = t2v.get_config('paper')
  config.text.t5, config.attention = '/no/such/t5', 'tiled'
  config.train.batch_size = 1
  config.towers.video.depth = 2
  assert compile.train_step(config, sharding.make_mesh()).model_flops > 0


def test_what_does_not_fit_says_by_how_much():
  """As libtpu complains: what is handed in is in its number."""
  given = [jax.ShapeDtypeStruct((2**30,), jnp.float32, sharding=sharding.replicated(
      sharding.make_mesh()))]
  told = compile.too_large(
      'RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries '
      '(19.50G) exceeds available HBM (15.75G).', given)
  assert told['peak_bytes_per_chip'] == 19.5 * 2**30
  assert told['argument_bytes_per_chip'] == 4 * 2**30
  assert told['temporary_bytes_per_chip'] == 15.5 * 2**30
  assert compile.too_large('INTERNAL: a bug', given) is None


@pytest.mark.parametrize('peak, fits', [(15, True), (16, False)])
def test_what_does_not_fit_is_no_mistake_but_a_result_with_what_to_set(capsys, peak, fits):
  mesh = SimpleNamespace(devices=np.array([SimpleNamespace(device_kind='TPU v5 lite')]))
  program = compile.CompileJob(None, (), 0, ['train.accumulate=2', 'mesh.fsdp=4'], {})
  told = compile.headroom('train step', program, dict(peak_bytes_per_chip=peak * 2**30), mesh)
  assert told['fits'] == fits
  assert told['headroom_bytes_per_chip'] == told['hbm_bytes_per_chip'] - peak * 2**30
  line = '0.25 too much; try --config.train.accumulate=2 or --config.mesh.fsdp=4'
  assert (line in capsys.readouterr().err) != fits


def test_chips_that_can_be_compiled_for_have_a_known_speed():
  assert chips.MEMORY.keys() <= chips.PEAK.keys()


@pytest.mark.parametrize('more, words', [
    (['--topology=cpu:8', '--config.mesh.fsdp=3'], 'mesh.fsdp=2 or 4'),
    (['--topology=cpu:8', '--config.train.batch_size=12'], '8 or 16')])
def test_what_cannot_be_compiled_is_told(more, words):
  assert words in complaint(compiled(micro_config('v2a'), *more))


@pytest.mark.parametrize('more, words', [
    ([], '--topology'), (['--topology=cpu:lots'], 'cpu:8'),
    (['--topology=cpu:8', '--part=half'], 'half')])
def test_what_no_chips_have_to_be_made_up_for_is_told(more, words):
  assert words in complaint(called(*flags(micro_config('v2a')), '--mode=compile', *more))


def test_no_config_is_told():
  assert '--config' in complaint(called('--mode=compile', '--topology=cpu:8'))


def test_a_missing_libtpu_names_the_script_that_brings_it(monkeypatch):
  monkeypatch.setattr(topology.importlib.util, 'find_spec', lambda name: None)
  monkeypatch.delenv('TPU_LIBRARY_PATH', raising=False)
  with pytest.raises(UserError, match='launch/compile.sh'):
    topology.devices('v5e:2x4')


@needs_libtpu
@pytest.mark.parametrize('name', ['v9:2x2', 'nonsense', 'v5e:3x5', 'v5e-8'])
def test_a_topology_that_does_not_exist_names_some_that_do(name):
  with pytest.raises(UserError, match='v5p:2x2x4'):
    topology.devices(name)


@needs_libtpu
@pytest.mark.parametrize('name, count', [('v4:2x2x2', 8), ('v5e:2x4', 8), ('v5p:2x2x1', 4),
                                         ('v6e:2x2', 4)])
def test_a_device_is_a_chip_whose_memory_is_known(name, count):
  devices = topology.devices(name)
  assert len(devices) == count and devices[0].device_kind in chips.MEMORY


@needs_libtpu
@pytest.mark.slow
@pytest.mark.parametrize('queries, keys', [(129, 129), (516, 129), (645, 645)])
def test_the_tpu_kernel_compiles_at_awkward_lengths_forward_and_backward(queries, keys):
  mesh = sharding.make_mesh(devices=topology.devices('v5e:2x2'))
  of = lambda length, *shape: jax.ShapeDtypeStruct(  # noqa: E731
      (4, 2, length, 64), jnp.bfloat16, sharding=sharding.batch_sharding(mesh))
  mask = jax.ShapeDtypeStruct((4, keys), bool, sharding=sharding.batch_sharding(mesh))

  def loss(q, k, v, mask):
    return jnp.sum(attention.attend(q, k, v, mask, 'splash').astype(jnp.float32) ** 2)

  gradients = jax.jit(sharding.on_mesh(mesh, jax.grad(loss, argnums=(0, 1, 2))))
  made = gradients.lower(of(queries), of(keys), of(keys), mask).compile()
  assert made.as_text().count('custom_call_target="tpu_custom_call"') >= 3
