"""The continuous DAC: the numbers of a torch one, whole and in parts, at its own rate."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from micro import plain_jit, random_params
from runs import quickly_compiled

torch = pytest.importorskip('torch')
import public_vaes  # noqa: E402

from avlink_jax.codecs import dac as dac_module  # noqa: E402
from avlink_jax.codecs import dac_codec, published_vae  # noqa: E402
from avlink_jax.codecs.dac import DAC  # noqa: E402
from avlink_jax.data.batch import Layout  # noqa: E402
from avlink_jax.errors import UserError  # noqa: E402
from avlink_jax.storage import foreign  # noqa: E402

HOP = 960


@pytest.fixture(autouse=True, scope='module')
def quick():
  """Of the codec's own programs too."""
  with quickly_compiled():
    yield


def loaded(folder):
  codec = dac_codec.of_folder('audio', folder)
  return codec, codec.load(published_vae.weights_file(folder, 'dac'))


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  """(torch module, codec, weights) of a random folder."""
  folder = tmp_path_factory.mktemp('moss')
  return public_vaes.save_dac(folder), *loaded(folder / 'vae')


def wave_of(samples, seed=0):
  return 0.3 * np.random.default_rng(seed).standard_normal((1, samples)).astype(np.float32)


def assert_same(ours, theirs):
  assert ours.shape == theirs.shape
  np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.parametrize('samples', [3 * HOP, 2 * HOP + 17])
def test_it_encodes_and_decodes_as_torch_does(saved, samples):
  theirs, codec, weights = saved
  wave = wave_of(samples)
  with torch.no_grad():
    z = theirs.encode(torch.from_numpy(wave)[:, None])
    back = theirs.decode(z)[:, 0].numpy()
  z = z.transpose(1, 2).numpy()
  assert_same(plain_jit(codec.dac.encode)(weights['params'], wave), z)
  assert z.shape == (1, 3, 128) and z.std() > 0.01
  decoded = plain_jit(codec.dac.decode)(weights['params'], z)
  assert_same(decoded, back)
  assert decoded.shape == (1, 3 * HOP) and decoded.std() > 1e-3


def test_parts_are_the_whole(saved, monkeypatch):
  dac = DAC(48_000, 2, (3, 2), 4, 8, (2, 3))
  # Twice as large, they drive the decoder's tanh to its ends, where rounding is a hundred times
  # that of the numbers before it.
  params, wave = jax.tree.map(lambda x: 0.5 * x, random_params(dac)), wave_of(100 * 6 + 1)

  def encode():
    return plain_jit(lambda *args: dac.encode(*args))(params, wave)

  def decode():
    return plain_jit(lambda *args: dac.decode(*args))(params, z)

  z = encode()
  whole = decode()
  assert z.shape == (1, 101, 4) and 9 + 2 * max(dac.halo) < 101
  assert saved[1].dac.halo == (10, 12)  # a quarter of a second
  monkeypatch.setattr(dac_module, 'PART', 9)
  np.testing.assert_allclose(encode(), z, atol=1e-5 * np.abs(z).max())
  np.testing.assert_allclose(decode(), whole, atol=1e-5 * np.abs(whole).max())


def test_published_sizes_make_a_file_of_the_published_size():
  """1.49 GB of float32."""
  dac = DAC(48_000, 128, (2, 3, 4, 5, 8), 128, 2048, (8, 5, 4, 3, 2))
  shapes = jax.tree.leaves(jax.eval_shape(dac.init, jax.random.key(0)))
  assert round(4 * sum(x.size for x in shapes) / 1e9, 2) == 1.49 and dac.hop == HOP


@pytest.mark.parametrize('count, length, halo', [(20, 4, 2), (21, 4, 2), (9, 4, 2), (8, 4, 2)])
def test_each_part_has_what_it_depends_on(count, length, halo):
  """Of a sum over so many neighbours, with frames before and after that are as many to a latent."""
  seen = []

  def neighbours(x):
    seen.append(x.shape[1] // 3)
    x = jnp.pad(x.reshape(1, -1, 3).sum(-1), ((0, 0), (halo, halo)))
    sums = sum(x[:, i:i + x.shape[1] - 2 * halo] for i in range(2 * halo + 1))
    return jnp.repeat(sums, 2, axis=1)

  x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 3 * count, 1)), jnp.float32)
  whole = neighbours(x)
  parts = dac_module.in_parts(neighbours, x, length, halo, 3, 2)
  np.testing.assert_allclose(parts, whole, atol=1e-6)
  assert seen[1] == min(count, length + 2 * halo)


def test_a_clip_keeps_its_rate_level_and_length(saved):
  """48 kHz in and out, as loud as it was; the mask is of latents."""
  _, codec, weights = saved
  layout = Layout(0.1, 16.0, 8, 16, codec.sample_rate)
  assert (codec.sample_rate, codec.rate, codec.channels) == (48_000, 50.0, 128)
  assert layout.samples == 4800 and codec.shape(layout) == (5, 128)
  wave = wave_of(4800)[0]
  arrays = codec.read(wave, np.arange(4800) < 2000, layout)
  np.testing.assert_array_equal(arrays['audio_wave'], wave)
  np.testing.assert_array_equal(arrays['audio_mask'], [True] * 3 + [False] * 2)
  np.testing.assert_array_equal(codec.blank(2000 / 48_000, layout)['audio_mask'],
                                arrays['audio_mask'])
  assert {name: (x.dtype, x.shape) for name, x in arrays.items()} == codec.arrays(layout)
  np.testing.assert_array_equal(codec.normalise(wave), wave)
  z = codec.encode_window(weights, arrays)
  np.testing.assert_allclose(codec.seconds(3), [0, 0.02, 0.04])
  for seconds in 0.1, 0.0501:
    assert codec.finish(weights, z, seconds, layout).shape == (round(seconds * 48_000),)


def test_a_length_that_is_no_multiple_of_the_hop_is_padded_with_silence(saved):
  _, codec, _ = saved
  layout = Layout(0.03, 16.0, 8, 16, codec.sample_rate)
  arrays = codec.read(wave_of(1440)[0], np.ones(1440, bool), layout)
  assert arrays['audio_wave'].shape == (2 * HOP,) and not arrays['audio_wave'][1440:].any()
  assert arrays['audio_mask'].all()


# -- files

def test_both_published_files_and_a_converted_one_give_the_same(saved, tmp_path):
  _, codec, weights = saved
  public_vaes.save_dac(tmp_path, pickled=False)
  other, plain = loaded(tmp_path / 'vae')
  assert other.dac == codec.dac
  pickled = codec.folder / public_vaes.PICKLED
  folder = tmp_path / 'converted' / 'vae'
  folder.mkdir(parents=True)
  foreign.convert([pickled], folder / f'{public_vaes.PICKLED}.safetensors')
  third, converted = loaded(folder)
  assert third.dac == codec.dac
  for tree in plain, converted:
    jax.tree.map(np.testing.assert_array_equal, tree, weights)
  assert codec.fingerprint(plain) == other.fingerprint(weights)


def test_newer_names_of_weight_norm_are_read(saved, tmp_path):
  theirs, codec, weights = saved
  names = {'weight_g': 'parametrizations.weight.original0',
           'weight_v': 'parametrizations.weight.original1'}
  renamed = {'.'.join([*name.split('.')[:-1], names.get(name.split('.')[-1], name.split('.')[-1])]):
             value for name, value in theirs.state_dict().items()}
  torch.save({'state_dict': renamed, 'metadata': {'kwargs': public_vaes.DAC_SIZES}},
             tmp_path / public_vaes.PICKLED)
  jax.tree.map(np.testing.assert_array_equal, loaded(tmp_path)[1], weights)


def refused(folder, said):
  with pytest.raises(UserError, match=said) as caught:
    loaded(folder)
  assert '\n' not in str(caught.value) and str(caught.value).startswith(str(folder))


def rewritten(saved, folder, change=lambda tensors: None, **sizes):
  """A pickled DAC in `folder`, whose tensors `change` alters; its sizes with changes."""
  tensors = dict(saved[0].state_dict())
  change(tensors)
  torch.save({'state_dict': tensors, 'metadata': {
      'kwargs': {**public_vaes.DAC_SIZES, **sizes}}}, folder / public_vaes.PICKLED)
  return folder


@pytest.mark.parametrize('change, said', [
    (lambda t: t.pop('quant_conv.bias'), 'of another model: quant_conv.bias is missing$'),
    (lambda t: t.update(more=torch.ones(1)), 'more is not of this model$'),
    (lambda t: t.pop('encoder.block.0.weight_g'),
     'encoder.block.0.weight is missing; encoder.block.0.weight_v is not of this model$'),
    (lambda t: t.update({'post_quant_conv.weight': torch.ones(128, 127, 1)}),
     r'post_quant_conv.weight is \(128, 127, 1\), not \(128, 128, 1\)$')])
def test_a_tensor_too_few_too_many_or_of_another_shape_is_told(saved, tmp_path, change, said):
  refused(rewritten(saved, tmp_path, change), said)


@pytest.mark.parametrize('sizes, said', [
    ({'continuous': False}, 'a DAC with codebooks'),
    ({'decoder_rates': [8, 5, 4, 3]}, 'sizes that do not fit together'),
    ({'decoder_dim': 20}, 'sizes that do not fit together'),
    ({'encoder_rates': 'fast'}, 'invalid literal'),
    ({'latent_dim': None}, 'int'),
    ({'latent_dim': 64}, r'is \(64, 128, 7\), not \(64, 64, 7\); .*; and 4 more$')])
def test_sizes_of_another_codec_are_told(saved, tmp_path, sizes, said):
  refused(rewritten(saved, tmp_path, **sizes), said)


def test_files_that_are_not_there_are_told(saved, tmp_path):
  refused(tmp_path, 'no weights: diffusion_pytorch_model.safetensors or .*pth is expected there')
  torch.save({'state_dict': saved[0].state_dict()}, tmp_path / public_vaes.PICKLED)
  refused(tmp_path, 'does not say its sizes: put a config.json with sample_rate')
  (tmp_path / 'config.json').write_text('{')
  refused(tmp_path, 'not JSON')
  (tmp_path / 'config.json').write_text(json.dumps({'continuous': True}))
  refused(tmp_path, "lacks 'sample_rate'")
