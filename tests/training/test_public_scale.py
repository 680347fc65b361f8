"""The scale `public` as shipped, but with tiny models in the published layouts and small clips."""

import json
import math

import micro
import numpy as np
import public_folders
import public_texts
import pytest
import runs
import soundfile
from runs import shipped_public

import avlink_jax
from avlink_jax.codecs import published_vae, wan_parts
from avlink_jax.data.media.decode import decode
from avlink_jax.sample import sample
from avlink_jax.tasks import frozen as frozen_parts
from avlink_jax.train import train


@pytest.fixture(scope='module', autouse=True)
def quickly_compiled():
  with runs.quickly_compiled(), public_texts.quickly_compiled():
    yield


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
  """{'video': folder, 'audio': folder} of two published models."""
  pytest.importorskip('diffusers')
  made = public_folders.write(tmp_path_factory.mktemp('published'))
  return {'video': str(made['wan']), 'audio': str(made['moss'])}


@pytest.mark.slow
def test_fusion_blocks_between_two_published_models_train_and_sample(
    folders, tmp_path, shared_clips):
  config, workdir = shipped_public('v2a', folders), tmp_path / 'run'
  train(config, workdir)
  rows = map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines())
  losses = [row['loss'] for row in rows if 'loss' in row]
  assert len(losses) == 2 and np.isfinite(losses).all()

  clip = min(shared_clips.glob('*.mp4'), key=lambda path: path.stat().st_size)  # a short one
  id, = sample(config, workdir, input_path=str(clip), output=tmp_path / 'out', explicit=True)
  wave, rate = soundfile.read(tmp_path / 'out' / f'{id}.wav')
  given = decode(clip, sample_rate=rate, need_audio=False)
  assert rate == 48_000 and len(wave) == pytest.approx(given.duration * rate, abs=rate / 30)
  assert decode(tmp_path / 'out' / f'{id}.mp4', sample_rate=rate).duration == pytest.approx(
      given.duration, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize('task', ['t2a', 't2v'])
def test_the_published_models_themselves_are_sampled(folders, tmp_path, task):
  id, = sample(shipped_public(task, folders), tmp_path / 'none', prompt='a ball hits wood',
               output=tmp_path / 'out')
  if task == 't2a':
    wave, rate = soundfile.read(tmp_path / 'out' / f'{id}.wav')
    assert (rate, len(wave)) == (48_000, 33 * 3_000)
  else:
    clip = decode(tmp_path / 'out' / f'{id}.mp4', sample_rate=48_000, need_audio=False)
    assert len(clip.frames) == 33 and clip.duration == pytest.approx(33 / 16, abs=0.01)


@pytest.mark.slow
def test_a_prompt_becomes_the_frames_of_the_public_pipeline(folders):
  """Text encoder, tower, four guided shifted steps and decoder, from the same noise."""
  config, prompt = shipped_public('t2v', folders), 'a ball hits wood'
  config.sample.shift.video = -math.log(3.0)
  models, task = micro.build(config)
  frozen = frozen_parts.load(config, models, task.frozen_parts)
  codec, layout = task.codec('video'), models.layout
  batch = {'video_text': models.modalities['video'].text.prepare([prompt]),
           'video_mask': np.ones((1, layout.frames), bool)}
  latents = micro.sampling(task, 4)(
      frozen_parts.published_tower(config, models, 'video'), frozen, batch, guidance=5.0)['video']
  weights = codec.load(published_vae.of_part(config, codec.part)[1])
  ours = np.asarray(wan_parts.decode(codec.vae, weights['params'], latents)[0]).clip(-1, 1)

  torch = pytest.importorskip('torch')
  noise = torch.from_numpy(micro.noise_of(task, 1)['video']).movedim(-1, 1)
  theirs = public_folders.pipeline(folders['video'], shift=3.0, steps=4)(
      prompt=prompt, negative_prompt='', height=layout.height, width=layout.width,
      num_frames=layout.frames, num_inference_steps=4, guidance_scale=5.0, output_type='np',
      latents=noise).frames[0]
  assert np.abs((ours + 1) / 2 - theirs).max() <= 1e-3


@pytest.mark.slow
def test_a_public_pair_is_a_model_in_python_and_says_that_it_is_not_trained(folders, capsys):
  changes = {f'frozen.{name}': folder for name, folder in folders.items()} | {
      'data.height': 32, 'data.width': 48, 'data.seconds': 33 / 16, 'sample.steps': 1,
      'sample.batch_size': 1}
  model = avlink_jax.load('v2a:public', config=changes)
  frames = np.random.default_rng(0).integers(0, 256, (16, 32, 48, 3), np.uint8)
  made, = model(video=frames, fps=8.0, prompt='a ball hits wood')
  assert (made.sample_rate, len(made.audio)) == (48_000, 96_000) and np.isfinite(made.audio).all()
  assert 'has no trained Fusion Blocks yet' in capsys.readouterr().err


@pytest.mark.parametrize('task', ['mel_vae', 'upsampler'])
def test_a_task_that_trains_codecs_says_that_it_has_no_such_scale(task):
  with pytest.raises(ValueError, match=f'{task} has no scale public'):
    runs.shipped(task, 'public')
