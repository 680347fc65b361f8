"""Mel to sound, whoever does it: what samples are made with, and vocoders that do not fit."""

import json

import numpy as np
import pytest
import runs
import safetensors.numpy
import soundfile
from micro import build, random_params
from ml_collections import ConfigDict
from runs import config_of, finished, manifest, parts
from test_hifigan import ship, torch_tensors

from avlink_jax.codecs import hifigan, vocoder
from avlink_jax.codecs.mel import MelSpec, log_mel
from avlink_jax.data.media import decode as media
from avlink_jax.errors import UserError
from avlink_jax.sample import sample
from avlink_jax.storage import weights
from avlink_jax.train import train

RATE, SECONDS, SPEC = 16_000, 2, MelSpec()


@pytest.fixture(scope='module', autouse=True)
def quickly_compiled():
  with runs.quickly_compiled():
    yield


@pytest.fixture(scope='module')
def frozen(tmp_path_factory):
  return parts(tmp_path_factory.mktemp('parts'))


def micro_vocoder():
  config = config_of('vocoder', {})
  config.vocoder.update(
      rates=(10, 16), kernels=(20, 32), channels=16, residual_kernels=(3,), dilations=((1,),),
      periods=(3,), period_widths=(2, 4), scales=1, scale_layers=((4, 15, 4, 1),),
      segment=1600, adversarial_after=0, augment=False)
  return config


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """(config, workdir) of a vocoder after two steps."""
  config, workdir = micro_vocoder(), tmp_path_factory.mktemp('vocoder') / 'run'
  train(config, workdir)
  return config, workdir


@pytest.fixture(scope='module')
def mel_vae(tmp_path_factory):
  config = config_of('mel_vae', {})
  return config, finished(config, tmp_path_factory.mktemp('mel_vae') / 'run')


def using(config, given, **changes):
  config = ConfigDict(config.to_dict())
  config.sample.update(vocoder=str(given), **changes)
  return config


def told(call, *args, **kwargs):
  with pytest.raises(UserError) as error:
    call(*args, **kwargs)
  assert '\n' not in str(error.value)
  return str(error.value)


def assert_reconstructed(folder, task):
  """Returns the sounds; the pictures, the clips' own, are beside them."""
  waves = []
  for name, row in manifest(folder).items():
    assert (row['task'], row['made']) == (task, ['audio'])
    wave, rate = soundfile.read(folder / f'{name}.wav', dtype='float32')
    assert rate == RATE and len(wave) == SECONDS * RATE and np.abs(wave).max() > 0
    ours, theirs = (media.decode(where / f'{name}.mp4') for where in (folder, folder / 'reference'))
    np.testing.assert_allclose(ours.frames.astype(int), theirs.frames.astype(int), atol=12)
    assert abs(len(ours.audio) - len(theirs.audio)) <= RATE / 6
    waves.append(wave)
  assert len(waves) == 2
  return waves


# Codecs put clips back together

@pytest.mark.slow
def test_a_vocoder_is_trained_and_heard_in_its_samples(trained, tmp_path):
  config, workdir = trained
  rows = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  losses = [row for row in rows if 'loss' in row]
  assert len(losses) == 2 and {'mel_l1', 'discriminator_loss'} <= losses[0].keys()
  assert 'event_f1' in rows[-1]
  tree, about = weights.read(workdir / 'weights.safetensors')
  assert 'conv_pre' in tree['params'] and about['task'] == 'vocoder'  # the generator alone
  assert_reconstructed(workdir / 'samples' / 'step_2', 'vocoder')
  sample(config, workdir, output=tmp_path / 'out')
  assert_reconstructed(tmp_path / 'out', 'vocoder')


@pytest.mark.slow
def test_the_codecs_mels_are_heard_through_the_vocoder_that_is_set(trained, mel_vae, tmp_path):
  config, workdir = mel_vae
  waves = {}
  for name, given in (('without', 'griffin_lim'), ('with', trained[1])):
    sample(using(config, given, vocoder_rounds=0), workdir, output=tmp_path / name)
    waves[name] = assert_reconstructed(tmp_path / name, 'mel_vae')
  assert not np.allclose(waves['with'][0], waves['without'][0], atol=1e-3)


def test_generated_mels_are_heard_through_it_too(frozen, tmp_path):
  """A HiFi-GAN that says nothing is silent; Griffin-Lim never is."""
  config = config_of('t2a', frozen)
  workdir = finished(config, tmp_path / 'run')
  made_with = micro_vocoder()
  model = hifigan.build(made_with.vocoder, SPEC)
  params = random_params(model)
  params['conv_post'] = {'kernel': 0 * params['conv_post']['kernel'],
                         'bias': np.full(1, np.arctanh(0.25), np.float32)}
  weights.save(tmp_path / 'dull.safetensors', {'params': params},
               {'task': 'vocoder', 'config': json.dumps(made_with.to_dict())})
  config = using(config, tmp_path / 'dull.safetensors', vocoder_rounds=0)
  name, = sample(config, workdir, prompt='a ball', output=tmp_path / 'out')
  wave, _ = soundfile.read(tmp_path / 'out' / f'{name}.wav')
  assert len(wave) == SECONDS * RATE
  np.testing.assert_allclose(wave, 0.25, atol=1e-3)


# Rounds of fitting

@pytest.mark.parametrize('size, hop, count', [(8, 4, 3), (10, 4, 5), (4, 4, 2), (7, 3, 1)])
def test_windows_are_added_up_a_hop_apart(size, hop, count):
  frames = np.random.default_rng(0).standard_normal((2, count, size)).astype(np.float32)
  wanted = np.zeros((2, size + (count - 1) * hop), np.float32)
  for n in range(count):
    wanted[:, n * hop:n * hop + size] += frames[:, n]
  np.testing.assert_allclose(vocoder.overlap_add(frames, hop), wanted, atol=1e-6)


def test_rounds_bring_a_sound_to_the_mel_that_was_asked_for():
  rng, t = np.random.default_rng(0), np.arange(8000) / RATE
  sound = (0.3 * np.sin(2 * np.pi * 440 * t) * np.exp(-8 * (t % 0.25))
           + 0.01 * rng.standard_normal(8000)).astype(np.float32)
  mel = log_mel(sound, SPEC)
  away = lambda wave: np.abs(log_mel(np.asarray(wave), SPEC) - mel).mean()  # noqa: E731
  start = (0.1 * rng.standard_normal((1, 8000))).astype(np.float32)
  some, more = (vocoder.fit_to_mel(SPEC, n, start, mel[None])[0] for n in (2, 16))
  assert away(more) < away(some) < 0.5 * away(start[0]) and away(more) < 0.2
  same = vocoder.fit_to_mel(SPEC, 2, sound[None], mel[None])[0]
  assert away(same) < 0.02
  np.testing.assert_allclose(same, sound, atol=0.02)  # what fits already is left alone


def test_silence_stays_finite_and_silent():
  mel = np.full((1, 50, 64), SPEC.silence, np.float32)
  for start in (np.zeros((1, 8000), np.float32), np.full((1, 8000), 1e-4, np.float32)):
    made = np.asarray(vocoder.fit_to_mel(SPEC, 3, start, mel))
    assert np.isfinite(made).all() and np.abs(made).max() < 1e-3


# What can be set

@pytest.mark.slow
@pytest.mark.parametrize('frames', [1, 100, 128, 129])
def test_any_length_is_made_whole_and_as_the_network_makes_it(trained, frames):
  made = vocoder.load(using(trained[0], trained[1], vocoder_rounds=0), SPEC)
  mel = np.random.default_rng(0).normal(-5, 2, (frames, 64)).astype(np.float32)
  wave = made(mel)
  assert wave.shape == (frames * SPEC.hop,) and wave.dtype == np.float32
  # What it is filled up with is silence, which is as good as nothing to a convolution.
  params = weights.read(trained[1] / 'weights.safetensors')[0]['params']
  alone = hifigan.synthesise(made.model, params, mel[None])[0]
  np.testing.assert_allclose(wave[:max(0, frames - 8) * SPEC.hop],
                             alone[:max(0, frames - 8) * SPEC.hop], atol=1e-4)


def test_public_weights_are_taken_where_their_mels_are_ours(tmp_path):
  model = hifigan.HiFiGAN(rates=(10, 16), kernels=(20, 32), channels=8, residual_kernels=(3,),
                          dilations=((1,),))
  params = random_params(model)
  ship(tmp_path, model, torch_tensors(params), sampling_rate=RATE)
  config = using(config_of('vocoder', {}), tmp_path, vocoder_rounds=0)
  mel = np.random.default_rng(0).normal(-5, 2, (7, 64)).astype(np.float32)
  padded = np.pad(mel, ((0, 121), (0, 0)), constant_values=SPEC.silence)
  wanted = hifigan.synthesise(model, params, padded[None])[0, :7 * SPEC.hop]
  np.testing.assert_allclose(vocoder.load(config, SPEC)(mel), wanted, atol=1e-5)
  ship(tmp_path, model, torch_tensors(params), sampling_rate=22_050)
  line = told(vocoder.load, config, SPEC)
  assert '22050 Hz' in line and '16000 Hz' in line
  other = hifigan.HiFiGAN(rates=(16, 16), kernels=(32, 32), channels=8, residual_kernels=(3,),
                          dilations=((1,),), n_mels=80)
  ship(tmp_path, other, torch_tensors(random_params(other)))
  line = told(vocoder.load, config, SPEC)
  assert '80 mel bins, hop 256' in line and '64 bins, hop 160' in line


# Mistakes

def test_a_vocoder_that_is_not_there_is_told(mel_vae, tmp_path):
  config, workdir = mel_vae
  assert f'{tmp_path}/nowhere: no such vocoder' in told(
      sample, using(config, tmp_path / 'nowhere'), workdir, output=tmp_path / 'out')
  # A run that has not come to its end.
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run' / 'config.json').write_text(json.dumps(micro_vocoder().to_dict()))
  assert str(tmp_path / 'run') in told(vocoder.load, using(config, tmp_path / 'run'), SPEC)
  assert '--config.sample.vocoder' in told(vocoder.require, '')
  small = using(config, 'bundled')
  small.scale = 'small'
  assert '--config.sample.vocoder' in told(vocoder.load, small, SPEC)


def test_weights_of_something_else_are_told(frozen, tmp_path):
  config = micro_vocoder()
  weights.save(tmp_path / 'w.safetensors', {'params': {'dit': np.zeros(3)}}, {
      'task': 't2a', 'config': json.dumps(config_of('t2a', frozen).to_dict())})
  line = told(vocoder.load, using(config, tmp_path / 'w.safetensors'), SPEC)
  assert 'weights of t2a, not of a vocoder' in line and 'configs/vocoder.py' in line
  (tmp_path / 'text.safetensors').write_text('not weights')
  assert str(tmp_path) in told(vocoder.load, using(config, tmp_path / 'text.safetensors'), SPEC)
  safetensors.numpy.save_file({'a': np.zeros(3)}, tmp_path / 'bare.safetensors')
  assert str(tmp_path) in told(vocoder.load, using(config, tmp_path / 'bare.safetensors'), SPEC)


@pytest.mark.parametrize('changes, spec, words', [
    ({'rates': (10, 8), 'kernels': (20, 16)}, SPEC, ['80 samples a frame, not 160']),
    ({}, MelSpec(n_mels=32), ['weights are of another model', 'conv_pre/kernel'])])
def test_a_vocoder_of_other_mels_is_told(tmp_path, changes, spec, words):
  """Of another hop, or of another number of bins."""
  config = micro_vocoder()
  config.vocoder.update(changes)
  made = hifigan.HiFiGAN(
      **{name: config.vocoder[name] for name in ('rates', 'kernels', 'channels', 'dilations',
                                                 'residual_kernels', 'block')},
      n_mels=spec.n_mels)
  path = tmp_path / 'weights.safetensors'
  weights.save(path, {'params': random_params(made)},
               {'task': 'vocoder', 'config': json.dumps(config.to_dict())})
  line = told(vocoder.load, using(config, tmp_path), SPEC)
  assert line.startswith(f'{path}: ') and all(word in line for word in words)


def test_without_a_wave_there_is_no_vocoder_to_complain_about(frozen, tmp_path):
  """Tasks that make no sound do not ask for one."""
  config = config_of('t2v', frozen)
  workdir = finished(config, tmp_path / 'run')
  assert sample(using(config, '/no/such/vocoder'), workdir, prompt='a ball',
                output=tmp_path / 'out') == ['000_a_ball']
  assert build(config)[1].generate == ('video',)
