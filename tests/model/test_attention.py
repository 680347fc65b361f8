"""Attention: every way of computing it gives the formula's numbers, forward and back."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avlink_jax.errors import UserError
from avlink_jax.model import attention

# batch, heads, queries, keys; 129 latents, 516 mel frames, and what divides by nothing
SIZES = [(1, 2, 129, 129), (3, 4, 37, 129), (2, 1, 516, 516), (2, 3, 1, 7)]
# logits a tile: some examples together; some queries of one example; one query
TILES = [1 << 15, 1 << 11, 1]
DIM = 8


def arrays(batch, heads, queries, keys, masked, dim=DIM):
  rng = np.random.default_rng(queries * keys)
  q, k, v, g = (rng.standard_normal((batch, heads, n, dim)).astype(np.float32)
                for n in (queries, keys, keys, queries))
  mask = rng.random((batch, keys)) < 0.6
  mask[:, rng.integers(keys)] = True
  return q, k, v, g, mask if masked else None


def formula(q, k, v, g, mask):
  """softmax(q·kᵀ/√D)·v and the gradients of its product with g, in float64."""
  q, k, v, g = (x.astype(np.float64) for x in (q, k, v, g))
  scale = q.shape[-1] ** -0.5
  logits = q @ k.swapaxes(-1, -2) * scale
  if mask is not None:
    logits = np.where(mask[:, None, None, :], logits, -np.inf)
  weights = np.exp(logits - logits.max(-1, keepdims=True))
  weights /= weights.sum(-1, keepdims=True)
  d_weights = g @ v.swapaxes(-1, -2)
  d_logits = weights * (d_weights - (weights * d_weights).sum(-1, keepdims=True)) * scale
  return weights @ v, (d_logits @ k, d_logits.swapaxes(-1, -2) @ q, weights.swapaxes(-1, -2) @ g)


def forward_and_back(attend, q, k, v, g, mask):
  out, pull = jax.vjp(lambda q, k, v: attend(q, k, v, mask), q, k, v)
  return out, pull(g)


def test_the_formula_itself_agrees_with_jax():
  """Second oracle: who wrote `formula` wrote `reference` too."""
  *arguments, mask = arrays(3, 4, 37, 129, masked=True)

  def attend(q, k, v, mask):
    q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
    return jax.nn.dot_product_attention(q, k, v, mask=mask[:, None, None, :]).swapaxes(1, 2)

  out, gradients = jax.jit(lambda *x: forward_and_back(attend, *x))(*arguments, mask)
  wanted, wanted_gradients = formula(*arguments, mask)
  np.testing.assert_allclose(out, wanted, atol=1e-5)
  for got, want in zip(gradients, wanted_gradients, strict=True):
    np.testing.assert_allclose(got, want, atol=3e-5)


@pytest.mark.parametrize('size, masked', [*((s, True) for s in SIZES), (SIZES[0], False)])
def test_reference_is_the_formula(size, masked):
  out, gradients = jax.jit(lambda *x: forward_and_back(attention.reference, *x))(
      *arrays(*size, masked))
  wanted, wanted_gradients = formula(*arrays(*size, masked))
  np.testing.assert_allclose(out, wanted, atol=1e-5)
  for got, want in zip(gradients, wanted_gradients, strict=True):
    np.testing.assert_allclose(got, want, atol=3e-5)


@pytest.mark.parametrize('tile', TILES)
@pytest.mark.parametrize('size, masked', [*((s, True) for s in SIZES), (SIZES[0], False)])
def test_tiled_is_the_formula_however_it_is_cut(monkeypatch, size, tile, masked):
  monkeypatch.setattr(attention, 'TILE_LOGITS', tile)
  out, gradients = jax.jit(lambda *x: forward_and_back(attention.tiled, *x))(*arrays(*size, masked))
  wanted, wanted_gradients = formula(*arrays(*size, masked))
  np.testing.assert_allclose(out, wanted, atol=1e-5)
  for got, want in zip(gradients, wanted_gradients, strict=True):
    np.testing.assert_allclose(got, want, atol=3e-5)


@pytest.mark.slow
def test_tiled_is_the_formula_at_the_papers_length():
  """Joint attention over 17,856 picture tokens and 129 of sound. The output's slope is 0 but at
  some queries, so that these alone say what the gradients are."""
  q, k, v, g, mask = arrays(1, 1, 17_856 + 129, 17_856 + 129, True)
  some = np.arange(7, 17_985, 281)
  g[:, :, np.setdiff1d(np.arange(17_985), some)] = 0
  out, (dq, dk, dv) = jax.jit(lambda *x: forward_and_back(attention.tiled, *x))(q, k, v, g, mask)
  wanted, wanted_gradients = formula(q[:, :, some], k, v, g[:, :, some], mask)
  np.testing.assert_allclose(out[:, :, some], wanted, atol=1e-5)
  for got, want in zip((dq[:, :, some], dk, dv), wanted_gradients, strict=True):
    np.testing.assert_allclose(got, want, atol=3e-5)


def largest(jaxpr):
  """Elements of the largest array that a computation makes on its way."""
  sizes = [0]
  for equation in jaxpr.eqns:
    sizes += [v.aval.size for v in equation.outvars]
    for inner in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, 'eqns')):
      inner = getattr(inner, 'jaxpr', inner)
      if hasattr(inner, 'eqns'):
        sizes.append(largest(inner))
  return max(sizes)


@pytest.mark.parametrize('batch, length', [(1, 516), (6, 129)])
def test_tiled_never_holds_all_logits_not_even_for_the_gradient(monkeypatch, batch, length):
  monkeypatch.setattr(attention, 'TILE_LOGITS', 1 << 12)
  q = jnp.zeros((batch, 1, length, DIM))

  def needs(attend):
    return largest(jax.make_jaxpr(lambda *x: forward_and_back(attend, *x, None))(q, q, q, q).jaxpr)

  assert needs(attention.reference) == batch * length**2
  # The widest array is then an operand, with its last tile filled up.
  assert needs(attention.tiled) < 1.5 * q.size < batch * length**2 / 4


@pytest.mark.parametrize('name', ['reference', 'tiled'])
def test_masked_keys_have_no_influence(name):
  q, k, v, _, mask = arrays(3, 2, 5, 129, masked=True)
  hidden = ~mask[:, None, :, None]
  before = attention.attend(q, k, v, mask, name)
  after = attention.attend(q, np.where(hidden, 1e4, k), np.where(hidden, -1e4, v), mask, name)
  np.testing.assert_array_equal(before, after)
  assert not np.allclose(before, attention.attend(q, k, v, None, name), atol=1e-3)


@pytest.mark.parametrize('name', ['reference', 'tiled'])
def test_huge_logits_do_not_overflow(name):
  q, k, v, g, mask = arrays(1, 2, 9, 33, masked=True)
  out = attention.attend(1e3 * q, k, v, mask, name)
  np.testing.assert_allclose(out, formula(1e3 * q, k, v, g, mask)[0], atol=1e-2)


@pytest.mark.parametrize('name', ['reference', 'tiled'])
def test_half_precision_comes_back_as_half_and_near(name):
  q, k, v, g, mask = arrays(2, 2, 33, 65, masked=True)
  half = (jnp.asarray(x, jnp.bfloat16) for x in (q, k, v))
  out = attention.attend(*half, mask, name)
  assert out.dtype == jnp.bfloat16
  np.testing.assert_allclose(out.astype(np.float32), formula(q, k, v, g, mask)[0], atol=0.05)


@given(st.integers(1, 300), st.floats(0, 400))
def test_groups_are_the_largest_that_divide_the_batch(n, at_most):
  divisors = [d for d in range(1, n + 1) if n % d == 0 and d <= at_most]
  assert attention._divisor(n, at_most) == max(divisors, default=1)


@pytest.mark.parametrize('platform, name', [('cpu', 'tiled'), ('gpu', 'cudnn'), ('tpu', 'splash')])
def test_auto_is_what_the_hardware_wants(monkeypatch, platform, name):
  assert attention.choose('auto', platform) == name
  monkeypatch.setattr(jax, 'default_backend', lambda: platform)
  assert attention.choose('auto') == attention.choose(name) == name
  assert attention.choose('reference') == 'reference'


def test_an_unknown_implementation_is_told_with_the_known_ones():
  with pytest.raises(UserError, match=r"'flash'.*auto.*reference, tiled, cudnn"):
    attention.attend(*np.zeros((3, 1, 1, 1, DIM)), implementation='flash')


# The module around it

def module(**kwargs):
  return attention.Attention(width=16, heads=2, kernel=attention.Kernel('reference'), **kwargs)


def apply(params, x, source=None, key_mask=None):
  """The module on one stream."""
  given = [None if each is None else [each] for each in (source, key_mask)]
  out, = module().apply(params, [x], *given)
  return out


def test_query_and_key_normalisation_makes_logits_blind_to_scale():
  x = np.random.default_rng(0).standard_normal((2, 9, 12)).astype(np.float32)
  params = module().init(jax.random.key(0), [x])
  kernel = params['params']['qkv']['kernel']
  louder = jax.tree.map(lambda p: p, params)
  louder['params']['qkv']['kernel'] = kernel.at[:, :32].multiply(50.0)  # queries and keys
  np.testing.assert_allclose(*(apply(p, x) for p in (params, louder)), atol=1e-4)
  louder['params']['qkv']['kernel'] = kernel.at[:, 32:].multiply(50.0)  # values
  assert not np.allclose(*(apply(p, x) for p in (params, louder)), atol=1e-1)


def test_cross_attention_looks_at_the_source_in_any_order():
  rng = np.random.default_rng(0)
  x, source = rng.standard_normal((2, 9, 16)), rng.standard_normal((2, 7, 24))
  mask = rng.random((2, 7)) < 0.7
  mask[:, 0] = True
  params = module().init(jax.random.key(0), [x], [source], [mask])
  order = rng.permutation(7)
  out = apply(params, x, source, mask)
  assert out.shape == (2, 9, 16)
  np.testing.assert_allclose(
      apply(params, x, source[:, order], mask[:, order]), out, atol=1e-5)
  assert not np.allclose(apply(params, x, 1 - source, mask), out, atol=1e-2)


# Several streams

def test_streams_attend_as_one_sequence_would():
  """Joint attention over streams of 5 and 4 tokens: the numbers of their concatenation."""
  rng = np.random.default_rng(0)
  streams = [rng.standard_normal((2, n, 16)).astype(np.float32) for n in (5, 4)]
  masks = [rng.random((2, n)) < 0.7 for n in (5, 4)]
  masks[0][:, 0] = True
  angles = [rng.standard_normal((n, 4)).astype(np.float32) for n in (5, 4)]
  two = ('one', 'other')
  joint = dataclasses.replace(module(), kernel=module().kernel.between(two, two))
  params = joint.init(jax.random.key(0), streams)
  made = joint.apply(params, streams, key_mask=masks, angles=angles)
  whole, = module().apply(params, [np.concatenate(streams, 1)], key_mask=[np.concatenate(masks, 1)],
                          angles=[np.concatenate(angles)])
  np.testing.assert_allclose(np.concatenate(made, 1), whole, atol=1e-5)
