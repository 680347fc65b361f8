"""The adversary: pix2pix's sizes, judged alone, and the closed forms of the game."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from micro import plain_jit, random_params

from avlink_jax.codecs import patchgan
from avlink_jax.codecs.patchgan import PatchGAN

SMALL = PatchGAN(width=2, layers=2)


@functools.cache
def params():
  return random_params(SMALL)


def images(count=2, frames=40, seed=0):
  return np.random.default_rng(seed).uniform(0, 1, (count, frames, 16, 1)).astype(np.float32)


judge = plain_jit(lambda p, image: SMALL(p, image))


def test_at_paper_size_it_is_pix2pixs():
  """Widths 64, 128, 256, 512, 1; 2.76 M weights; 62 × 6 logits of a clip."""
  shapes = jax.eval_shape(PatchGAN().init, jax.random.key(0))
  assert [shapes[f'Conv_{n}']['kernel'].shape for n in range(5)] == [
      (4, 4, 1, 64), (4, 4, 64, 128), (4, 4, 128, 256), (4, 4, 256, 512), (4, 4, 512, 1)]
  assert [name for name in sorted(shapes) if 'bias' in shapes[name] and 'Conv' in name] == [
      'Conv_0', 'Conv_4']  # where a norm follows a bias would be taken out again
  clip = jax.ShapeDtypeStruct((2, 516, 64, 1), jnp.float32)
  assert jax.eval_shape(PatchGAN(), shapes, clip).shape == (2, 62, 6, 1)


@pytest.mark.parametrize('layers, seen', [(1, 16), (2, 34), (3, 70)])
def test_a_logit_sees_the_patch_of_the_book(layers, seen):
  """Receptive fields of pix2pix: 16, 34 and 70 pixels; no norm here, which sees everything."""
  size = 1
  for stride in [1, 1] + [2] * layers:
    size = (size - 1) * stride + 4
  assert size == seen
  model = PatchGAN(width=1, layers=layers)
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  strides = jax.eval_shape(model, shapes, jax.ShapeDtypeStruct((1, 256, 256, 1), jnp.float32))
  assert strides.shape[1] == 256 // 2**layers - 2


def test_an_example_is_judged_alone():
  both, changed = images(), images()
  changed[1] = 0.3
  together, other = judge(params(), both), judge(params(), changed)
  np.testing.assert_array_equal(together[0], other[0])
  assert not np.allclose(together[1], other[1], atol=1e-2)
  np.testing.assert_allclose(judge(params(), both[:1])[0], together[0], atol=1e-5)


def test_loudness_is_seen_in_spite_of_the_norm():
  assert not np.allclose(judge(params(), images()), judge(params(), images() + 0.5), atol=1e-2)


def test_every_parameter_is_learnt():
  def loss(p):
    return patchgan.discriminator_hinge(SMALL(p, images()), SMALL(p, images(seed=1) ** 2))

  for path, g in jax.tree_util.tree_leaves_with_path(plain_jit(jax.grad(loss))(params())):
    assert np.isfinite(g).all() and np.any(g), jax.tree_util.keystr(path)


def test_the_start_is_a_small_one():
  """N(0, 0.02) kernels: neither side of the game begins with an opinion."""
  start = plain_jit(PatchGAN(width=8, layers=2).init)(jax.random.key(0))
  assert np.std(start['Conv_2']['kernel']) == pytest.approx(0.02, rel=0.05)
  assert np.std(start['Conv_0']['kernel']) == pytest.approx(0.02, rel=0.3)


logits = st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=6)


@given(logits, logits)
def test_the_hinges_are_those_of_the_book(real, fake):
  wanted = (np.mean([max(0, 1 - x) for x in real]) + np.mean([max(0, 1 + x) for x in fake])) / 2
  real, fake = np.array(real, np.float32), np.array(fake, np.float32)
  assert patchgan.discriminator_hinge(real, fake) == pytest.approx(wanted, rel=1e-5, abs=1e-6)
  assert patchgan.generator_hinge(fake) == pytest.approx(-fake.mean(), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize('real, fake, loss', [(1, -1, 0), (5, -5, 0), (0, 0, 1), (-1, 1, 2)])
def test_a_discriminator_that_is_sure_enough_has_nothing_left_to_learn(real, fake, loss):
  assert patchgan.discriminator_hinge(jnp.full(3, real), jnp.full(2, fake)) == loss


@pytest.mark.parametrize('reconstruction, adversarial, weight', [
    ([3.0, 4.0], [0.0, 2.0], 5 / 2.0001), ([0.0, 0.0], [1.0, 1.0], 0),
    ([3.0, 4.0], [0.0, 0.0], 1e4), ([1e-3, 0.0], [0.0, 0.0], 10)])
def test_the_adaptive_weight_is_a_ratio_of_norms_within_bounds(
    reconstruction, adversarial, weight):
  made = patchgan.adaptive_weight(jnp.array(reconstruction), jnp.array(adversarial))
  assert made == pytest.approx(weight, rel=1e-5)
