"""Runs of the first edition go on, and what they and the other tasks read is all of the configs."""

import json

import jax
import pytest
import runs
from micro import build, micro_config
from recorded import Recorded

from avlink_jax import build as model_builder
from avlink_jax import compile, main
from avlink_jax.cli import presets
from avlink_jax.cli.config_files import TASKS
from avlink_jax.data import pipeline
from avlink_jax.data.batch import Layout
from avlink_jax.errors import UserError
from avlink_jax.sampling import upsampling
from avlink_jax.storage.config_versions import complete
from avlink_jax.tasks import frozen as frozen_parts
from avlink_jax.train import train
from avlink_jax.training import hosts, sharding
from avlink_jax.training.resilience.config_drift import flat

TRACED = (('mel_vae', {}), ('vocoder', {}), ('video_vae', {}),
          ('video_vae', {'video_codec.quantise': 'lfq'}), ('joint', {}))

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def resumed(tmp_path_factory):
  """({task: workdir} of first edition's runs that went on here, paths of what was read of their
  configs)."""
  root, reads = tmp_path_factory.mktemp('first'), set()
  workdirs = {task: runs.of_first_edition(task, root) for task in ('v2a', 'upsampler')}
  with runs.quickly_compiled():
    for workdir in workdirs.values():
      saved = json.loads((workdir / 'config.json').read_text())
      train(Recorded(complete(saved), reads), workdir)
  return workdirs, reads


@pytest.mark.parametrize('task', ['v2a', 'upsampler'])
def test_a_run_of_the_first_edition_goes_on_as_it_would_have_there(task, resumed):
  workdir = resumed[0][task]
  known = json.loads((workdir / 'losses.json').read_text())
  rows = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  found = {str(row['step']): row for row in rows if 'loss' in row}
  assert found.keys() == known.keys() == {'1', '2', '3', '4'}
  for step, then in known.items():
    assert found[step]['loss'] == pytest.approx(then['loss'], rel=1e-5)
    assert found[step]['grad_norm'] == pytest.approx(then['grad_norm'], rel=1e-3)
  assert (workdir / 'weights.safetensors').exists()


def traced(config):
  """Builds a task, and traces a training step and the sampler, without compiling them."""
  mesh = sharding.make_mesh(**config.mesh)
  for program in (compile.train_step(config, mesh), compile.sampling(config, mesh)):
    if program is not None:
      program.function.trace(*program.arguments)


def begun(reads, folder):
  """Begins runs anew, which read the weights that they are built on; the last are not there."""
  parts = runs.parts(folder)
  config = runs.config_of('v2a', parts, **{'train.init_from': str(folder / 'none.safetensors')})
  with pytest.raises(UserError, match='none.safetensors'), runs.quickly_compiled():
    train(Recorded(config, reads), folder / 'run')
  config = Recorded(runs.config_of('upsampler', parts), reads)
  models, task = build(config)
  frozen_parts.load(config, models, task.frozen_parts)


def opened(reads, folder):
  """Opens what is not read from impacts: files, tfds, T5; that nothing is there changes nothing."""
  config = Recorded(micro_config('t2a'), reads)
  for source in (str(folder), 'tfds:none'):
    config.data.source = source
    with pytest.raises(UserError):
      pipeline.open_source(config, Layout.of(config.data), 'train')
  config.text.encoder = 't5'
  model_builder.build_texts(config)


def met(reads):
  """Joins a run of several processes, without them."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax.distributed, 'initialize', lambda **_: None)
    patch.delenv('JAX_PLATFORMS', raising=False)  # gloo is not for this process
    hosts.connect(Recorded(micro_config('t2v'), reads).hosts)


def sampled(reads):
  """Reads what only sampling asks for."""
  config = Recorded(micro_config('av', **{'frozen.upsampler': ''}), reads)
  presets.apply(Recorded(micro_config('v2a', **{'sample.preset': 'fast'}), reads))
  models, task = build(config)
  task.check()
  assert upsampling.load(task) is None
  main.workdir_of(config)


@pytest.fixture(scope='module')
def reads(resumed, tmp_path_factory):
  """Paths of all that is read of a config in all that the program does with one."""
  found = set(resumed[1])
  for task, changes in TRACED:
    traced(Recorded(micro_config(task, **changes), found))
  begun(found, tmp_path_factory.mktemp('begun'))
  opened(found, tmp_path_factory.mktemp('empty'))
  met(found)
  sampled(found)
  return found


def unread(configs, reads):
  """Paths of values of `configs` that are not among `reads`."""
  return {path for config in configs for path in flat(config.to_dict())} - reads


def test_every_config_key_is_read_by_something(reads):
  """But `version`, which is compared where a saved config is opened (config_versions.complete)."""
  assert unread(map(runs.shipped, TASKS), reads | {'version'}) == set()


def test_a_key_that_nothing_reads_is_found(reads):
  config = runs.shipped('v2a')
  config.train.made_up = 1
  assert 'train.made_up' in unread([config], reads)
