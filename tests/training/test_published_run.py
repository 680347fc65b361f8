"""Runs on published towers, end to end: sized by their folders, trained, resumed, sampled."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import public_folders
import pytest
import runs
import t5_folders
from micro import build, noise_of, sampling
from runs import config_of, manifest, parts
from t5_folders import told

from avlink_jax.sample import sample
from avlink_jax.sampling import trained
from avlink_jax.tasks import frozen as frozen_parts
from avlink_jax.train import train
from avlink_jax.training import sharding


@pytest.fixture(scope='module', autouse=True)
def quickly_compiled():
  with runs.quickly_compiled(), t5_folders.quickly_compiled():
    yield


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """`config.frozen`'s values: published towers for micro's codecs, and the codecs."""
  pytest.importorskip('diffusers')
  folder = tmp_path_factory.mktemp('made')
  sizes = dict(text=16, depth=2)
  public_folders.write_wan(folder / 'wan', public_folders.transformer(3, (1, 4, 8), **sizes))
  public_folders.write_moss(folder / 'moss', public_folders.transformer(4, (1, 1, 1), **sizes))
  return parts(folder) | {'video': str(folder / 'wan'), 'audio': str(folder / 'moss')}


@pytest.fixture(scope='module')
def text(tmp_path_factory):
  return t5_folders.write(tmp_path_factory.mktemp('t5') / 'model', 'tokenizer.json')


def published(task, made, text, **changes):
  """`task` between published towers, whose sizes the config does not know."""
  config = config_of(task, made, **{'towers.audio.kind': 'wan', 'towers.video.kind': 'wan'})
  config.text.update(encoder='t5', t5=str(text), width=16, max_tokens=12)
  config.update_from_flattened_dict(changes)
  return config


def test_sizes_are_the_folders(made, text):
  models, _ = build(published('v2a', made, text))
  audio, video = models.towers.values()
  assert (audio.width, audio.depth, audio.mlp, audio.patch) == (24, 2, 40, (1,))
  assert (video.width, video.depth, video.mlp, video.patch) == (24, 2, 40, (1, 4, 8))
  assert audio.rope_base == video.rope_base == 10_000


@pytest.mark.parametrize('changes, words', [
    ({'codec.latent_channels': 8}, 'models data of 4 channels, and the codec mel_vae makes 8'),
    ({'text.width': 24}, 'takes embeddings of 16 numbers, and the text encoder makes 24')])
def test_a_codec_or_an_encoder_of_another_model_is_told(made, text, changes, words):
  assert words in told(build, published('v2a', made, text, **changes))


def test_an_encoder_that_is_trained_with_its_tower_is_told(made, text):
  config = published('v2a', made, text, **{'text.encoder': 'words'})
  models, task = build(config)
  assert 'its text encoder here (words) one that is trained' in told(
      frozen_parts.load, config, models, task.frozen_parts)


def test_they_are_read_in_the_precision_of_frozen_towers(made, text):
  config = published('v2a', made, text)
  models, task = build(config)
  mesh = sharding.make_mesh()
  half = frozen_parts.load(config, models, task.frozen_parts, jnp.bfloat16,
                           place=lambda tree: sharding.shardings(tree, mesh))
  shapes = frozen_parts.shapes(models, task.frozen_parts, jnp.bfloat16)
  assert jax.tree.structure(half['towers']) == jax.tree.structure(shapes['towers'])
  for a, b in zip(*map(jax.tree.leaves, (half['towers'], shapes['towers'])), strict=True):
    assert isinstance(a, jax.Array) and (a.shape, a.dtype) == (b.shape, b.dtype)


def test_a_base_model_is_sampled_from_a_published_one(made, text, tmp_path):
  config = published('t2a', made, text)
  _, task = build(config)
  mesh = sharding.make_mesh()
  found = trained.find_weights(task, tmp_path, {}, mesh)
  assert found.origin == f'published {made["audio"]}' and found.params.keys() == {'dit', 'text'}
  assert np.isfinite(found.params['dit']['blocks']['table']).all()
  assert 'has no checkpoint' in told(trained.find_weights, task, tmp_path, {}, mesh, True)


def test_four_guided_shifted_steps_are_those_of_the_public_scheduler(made, text):
  """From the same noise, at Wan's own shift and guidance."""
  torch, diffusers = (pytest.importorskip(name) for name in ('torch', 'diffusers'))
  config = published('t2v', made, text, **{'sample.shift.video': -math.log(3.0)})
  models, task = build(config)
  prompts = models.modalities['video'].text.prepare(['a hammer strikes metal', 'rain', ''])
  batch = {'video_text': jax.tree.map(lambda x: x[:2], prompts),
           'video_mask': np.ones((2, models.layout.frames), bool)}
  params = frozen_parts.published_tower(config, models, 'video')
  ours = sampling(task, 4)(params, {'towers': {}}, batch, guidance=5.0)['video']

  module = public_folders.read(made['video'])
  x = torch.from_numpy(noise_of(task, 2)['video']).movedim(-1, 1)
  given, null = (torch.from_numpy(prompts['embedding'][rows]) for rows in ([0, 1], [2, 2]))
  scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
  scheduler.set_timesteps(sigmas=np.linspace(1, 0, 5)[:-1])
  with torch.no_grad():
    for t in scheduler.timesteps:
      conditional, unconditional = (module(x, t.expand(2), y).sample for y in (given, null))
      x = scheduler.step(unconditional + 5 * (conditional - unconditional), t, x).prev_sample
  theirs = x.movedim(1, -1).numpy()
  assert np.abs(ours - theirs).max() <= 1e-3 * np.abs(theirs).max()


@pytest.mark.slow
def test_a_run_between_published_towers_trains_resumes_and_samples(made, text, tmp_path, capsys):
  config, workdir = published('v2a', made, text), tmp_path / 'run'
  train(config, workdir)
  kept = {path.name for path in (workdir / 'frozen').iterdir()}
  assert kept == {'codec.safetensors', 'audio.json', 'video.json'}  # no copies of gigabytes

  config.train.steps = 3
  capsys.readouterr()
  train(config, workdir)
  assert 'resumed at step 2' in capsys.readouterr().err
  logged = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  losses = [row['loss'] for row in logged if 'loss' in row]
  assert len(losses) == 3 and np.isfinite(losses).all()
  id, *_ = sample(config, workdir, output=tmp_path / 'out')
  assert (tmp_path / 'out' / f'{id}.wav').exists() and id in manifest(tmp_path / 'out')

  other = tmp_path / 'other'
  public_folders.write_moss(other, public_folders.transformer(4, (1, 1, 1), text=16, seed=9))
  config.frozen.audio = str(other)
  assert f'is not the model that {workdir} was begun with ({made["audio"]})' in told(
      sample, config, workdir, output=tmp_path / 'out')
