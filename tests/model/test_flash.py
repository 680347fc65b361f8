"""Accelerators' attention: the formula's numbers where it can be run here, and what it refuses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from micro import micro_config, quick_jit
from test_attention import arrays, formula, forward_and_back

from avlink_jax import build as models
from avlink_jax.errors import UserError
from avlink_jax.model import attention, flash


def agrees(attend, size, masked=True, dim=8):
  out, gradients = quick_jit(lambda *x: forward_and_back(attend, *x))(
      *arrays(*size, masked, dim))
  wanted, wanted_gradients = formula(*arrays(*size, masked, dim))
  np.testing.assert_allclose(out, wanted, atol=1e-5)
  for got, want in zip(gradients, wanted_gradients, strict=True):
    np.testing.assert_allclose(got, want, atol=3e-5)


# TPU

@pytest.mark.slow
@pytest.mark.parametrize('size, masked, dim', [
    ((2, 2, 37, 129), True, 64), ((1, 1, 516, 516), True, 8), ((1, 2, 129, 516), False, 8)])
def test_splash_is_the_formula_forward_and_back(monkeypatch, size, masked, dim):
  """The very kernel, run by Pallas's interpreter: several blocks, the last ones filled up."""
  monkeypatch.setattr(flash, 'QUERY_BLOCKS', (128,))
  monkeypatch.setattr(flash, 'KEY_BLOCKS', (128, 256))
  agrees(functools.partial(flash.splash, interpret=True), size, masked, dim)


@given(st.integers(1, 40_000))
def test_blocks_hold_everything_and_little_more(length):
  for candidates in (flash.QUERY_BLOCKS, flash.KEY_BLOCKS):
    size, filled = flash.block(length, candidates)
    assert filled % size == size % flash.LANES == 0 and size <= max(candidates)
    assert 0 <= filled - length < min(candidates)


@pytest.mark.parametrize('length, filled', [(129, 256), (516, 640), (17_856, 17_920),
                                            (17_985, 18_432)])
def test_the_papers_lengths_are_filled_up_by_so_much(length, filled):
  assert flash.block(length, flash.KEY_BLOCKS)[1] == filled


# NVIDIA GPUs

@pytest.mark.parametrize('size', [(1, 2, 129, 129), (3, 4, 37, 129), (2, 1, 516, 516)])
def test_keys_moved_to_the_front_are_the_masked_formula_forward_and_back(monkeypatch, size):
  """All of the cuDNN path but cuDNN: JAX's own attention stops at the same number of keys."""
  own = jax.nn.dot_product_attention

  def without_cudnn(*args, implementation, **kwargs):
    assert implementation == 'cudnn' and 'mask' not in kwargs
    return own(*args, **kwargs)

  monkeypatch.setattr(jax.nn, 'dot_product_attention', without_cudnn)
  agrees(flash.cudnn, size)


@pytest.mark.parametrize('head_dim, dtype, said', [
    (64, jnp.float32, r'in float32: set --config\.attention=tiled'),
    (60, jnp.bfloat16, 'multiple of 8 channels, up to 128, and width/heads is 60'),
    (136, jnp.bfloat16, 'width/heads is 136')])
def test_what_cudnn_does_not_take_is_told_with_what_to_set(head_dim, dtype, said):
  flash.check_cudnn(64, jnp.bfloat16)
  with pytest.raises(UserError, match=said):
    attention.check('cudnn', head_dim, dtype)


# The choice

@pytest.mark.parametrize('platform, name', [('cpu', 'tiled'), ('gpu', 'cudnn'), ('tpu', 'splash')])
def test_a_model_is_built_with_the_attention_of_its_platform(platform, name):
  built = models.build(micro_config('v2a'), jnp.bfloat16, platform)
  assert built.towers['audio'].attention.implementation == name
  assert built.link.fusion.fusion.attention.implementation == name


@pytest.mark.parametrize('name', ['cudnn', 'splash'])
def test_another_platforms_attention_is_refused_not_replaced(name):
  with pytest.raises(UserError, match=f'attention={name} runs on .* and this is cpu: use auto'):
    models.build(micro_config('v2a', attention=name), jnp.bfloat16)


def test_a_model_in_float32_on_a_gpu_is_told_what_to_set():
  with pytest.raises(UserError, match=r'set --config\.attention=tiled'):
    models.build(micro_config('v2a'), jnp.float32, 'gpu')
  assert models.build(micro_config('v2a', attention='tiled'), jnp.float32, 'gpu')
