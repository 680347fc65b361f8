"""The 1D-VAE: a quarter of the rate, 64 channels, the KL of the book, latents of deviation one."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from micro import plain_jit, random_params

from avlink_jax import build as model_builder
from avlink_jax.codecs.mel_vae import MelVAE, Norm, decode_mel, kl_divergence
from configs import mel_vae

VAE = MelVAE(width=8, multipliers=(1, 2, 4), blocks=1, latent_channels=3, n_mels=6)


@functools.cache
def params():
  return random_params(VAE)


def mel(frames=16, seed=0):
  rng = np.random.default_rng(seed)
  return rng.normal(-5, 2, (2, frames, VAE.n_mels)).astype(np.float32)


moments, encode, decode = (plain_jit(f) for f in (VAE.moments, VAE.encode, VAE.decode))


def test_at_paper_size_a_clip_is_129_latents_of_64_channels():
  codec = model_builder.build(mel_vae.get_config('paper')).modalities['audio'].codec.vae
  shapes = jax.eval_shape(codec.init, jax.random.key(0))
  clip = jax.ShapeDtypeStruct((1, 516, 64), jnp.float32)
  latents = jax.eval_shape(codec.encode, shapes, 1.0, clip)
  assert codec.stride == 4 and latents.shape == (1, 129, 64)
  assert jax.eval_shape(codec.decode, shapes, 1.0, latents).shape == clip.shape
  # Widths 512·(1, 2, 4) at the three rates: the first and last convolutions of the encoder.
  assert shapes['encoder']['Conv_0']['kernel'].shape == (3, 64, 512)
  assert shapes['encoder']['Conv_3']['kernel'].shape == (3, 2048, 128)


@pytest.mark.parametrize('multipliers, stride', [((1,), 1), ((1, 2), 2), ((1, 2, 4), 4)])
def test_every_level_but_the_last_halves_the_rate(multipliers, stride):
  vae = MelVAE(width=8, multipliers=multipliers, blocks=1, latent_channels=3, n_mels=6)
  shapes = jax.eval_shape(vae.init, jax.random.key(0))
  for latents in (1, 2, 7):
    z = jax.eval_shape(vae.encode, shapes, 1.0, jnp.zeros((2, latents * stride, 6)))
    assert vae.stride == stride and z.shape == (2, latents, 3)
    assert jax.eval_shape(vae.decode, shapes, 1.0, z).shape == (2, latents * stride, 6)


def kl_by_integration(mean, log_variance):
  p, q = scipy.stats.norm(mean, np.exp(log_variance / 2)), scipy.stats.norm()
  ends = mean + np.array([-12, 12]) * np.exp(log_variance / 2)
  return scipy.integrate.quad(lambda x: p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), *ends)[0]


@given(st.lists(st.tuples(st.floats(-3, 3), st.floats(-4, 2)), min_size=1, max_size=4))
@settings(max_examples=25)
def test_the_kl_is_the_integral_averaged_over_elements(elements):
  mean, log_variance = np.array(elements).T
  wanted = np.mean([kl_by_integration(*element) for element in elements])
  assert kl_divergence(mean, log_variance) == pytest.approx(wanted, rel=1e-3, abs=1e-5)


def test_the_kl_of_the_prior_is_nothing():
  assert kl_divergence(np.zeros((2, 3)), np.zeros((2, 3))) == 0


def test_latents_are_the_posteriors_mean_divided_by_the_deviation():
  mean, _ = moments(params(), mel())
  assert np.std(mean) > 0.05
  np.testing.assert_allclose(encode(params(), 2.5, mel()), mean / 2.5, rtol=1e-5, atol=1e-6)
  scaled = encode(params(), np.std(mean), mel())
  assert np.std(scaled) == pytest.approx(1, rel=1e-4)


def test_decoding_takes_the_scale_out_again():
  z = np.random.default_rng(0).standard_normal((2, 4, 3)).astype(np.float32)
  at_once = decode(params(), 2.5, z)
  assert at_once.shape == (2, 16, 6)
  np.testing.assert_allclose(at_once, decode(params(), 1.0, 2.5 * z), atol=1e-5)
  np.testing.assert_allclose(decode_mel(VAE, params(), 2.5, z), at_once, atol=1e-5)


def test_variances_stay_finite_however_far_the_network_goes():
  far = jax.tree.map(lambda p: 1e3 * p, params())
  _, log_variance = moments(far, mel())
  assert log_variance.min() == -30 and log_variance.max() == 20


def test_an_example_is_coded_alone():
  together = encode(params(), 1.0, mel())
  changed = mel()
  changed[1] = -3
  np.testing.assert_array_equal(encode(params(), 1.0, changed)[0], together[0])
  assert not np.allclose(encode(params(), 1.0, changed)[1], together[1], atol=1e-2)


@pytest.mark.parametrize('linear', [False, True])
def test_inside_mels_count_from_the_centre_in_units_of_the_scale(linear):
  plain = dataclasses.replace(VAE, centre=0.0, linear=linear)
  moved = dataclasses.replace(VAE, centre=-8.0, scale=2.0, linear=linear)
  params = random_params(plain)
  z = plain_jit(plain.encode)(params, 1.0, mel())
  np.testing.assert_allclose(plain_jit(moved.encode)(params, 1.0, 2 * mel() - 8), z, atol=1e-5)
  np.testing.assert_allclose(plain_jit(moved.decode)(params, 1.0, z),
                             2 * plain_jit(plain.decode)(params, 1.0, z) - 8, atol=1e-5)


@pytest.mark.parametrize('scale', ['paper', 'small'])
def test_at_the_larger_scales_zero_padding_means_silence(scale):
  codec = model_builder.build(mel_vae.get_config(scale)).modalities['audio'].codec.vae
  assert codec.centre == codec.silence and codec.scale == 1 and not codec.linear


def test_the_linear_path_begins_as_a_projection():
  """With convolutions that say nothing a code is x·Q and comes back as x·Q·Qᵀ, of 4 frames each."""
  vae = dataclasses.replace(VAE, linear=True)
  params = plain_jit(vae.init)(jax.random.key(0, impl='unsafe_rbg'))
  params = {**jax.tree.map(jnp.zeros_like, params), 'linear': params['linear']}
  q = np.asarray(params['linear']['encode'])
  np.testing.assert_allclose(q.T @ q, np.eye(3), atol=1e-6)
  z = plain_jit(vae.encode)(params, 1.0, mel())
  inside = (mel() - vae.centre).reshape(2, 4, 24)
  np.testing.assert_allclose(z, inside @ q, atol=1e-4)
  back = plain_jit(vae.decode)(params, 1.0, z)
  np.testing.assert_allclose(back - vae.centre, (inside @ q @ q.T).reshape(2, 16, 6), atol=1e-4)


@pytest.mark.parametrize('channels, groups', [(8, 1), (32, 2), (64, 4), (512, 32), (2048, 32)])
def test_no_group_is_narrower_than_16_channels(channels, groups):
  x = np.random.default_rng(0).normal(3, 2, (1, 5, channels)).astype(np.float32)
  params = {'norm': {'scale': jnp.ones(channels), 'bias': jnp.zeros(channels)}}
  got = np.asarray(Norm().apply({'params': params}, x)).reshape(5, groups, -1)
  parts = x.reshape(5, groups, -1)
  wanted = (parts - parts.mean((0, 2), keepdims=True)) / parts.std((0, 2), keepdims=True)
  np.testing.assert_allclose(got, wanted, atol=1e-4)


def test_every_parameter_of_both_halves_is_learnt_from_a_reconstruction():
  def loss(p):
    return jnp.mean((VAE.decode(p, 1.0, VAE.encode(p, 1.0, mel())) - mel()) ** 2)

  for path, g in jax.tree_util.tree_leaves_with_path(plain_jit(jax.grad(loss))(params())):
    assert np.isfinite(g).all() and np.any(g), jax.tree_util.keystr(path)
