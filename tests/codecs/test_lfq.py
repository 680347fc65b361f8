"""Lookup-free quantisation: signs, numbers, and its losses against the whole codebook."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avlink_jax.codecs import lfq


def latents(shape=(3, 2, 4), seed=0):
  return np.random.default_rng(seed).normal(0, 0.7, shape).astype(np.float32)


def softmax_over_codebook(z, temperature):
  """q(code | z) for every code: (…, 2^C), and the codes (2^C, C)."""
  book = np.array(list(itertools.product((-1.0, 1.0), repeat=z.shape[-1])))
  distance = np.sum((z[..., None, :] - book) ** 2, axis=-1)
  q = np.exp(-(distance - distance.min(-1, keepdims=True)) / temperature)
  return q / q.sum(-1, keepdims=True), book


def test_a_code_is_the_nearest_of_the_codebook():
  z = latents()
  q, book = softmax_over_codebook(z, 1.0)
  np.testing.assert_array_equal(lfq.quantise(z), book[q.argmax(-1)])
  np.testing.assert_array_equal(lfq.quantise(np.zeros(2, np.float32)), [-1, -1])


def test_gradients_pass_straight_through():
  z, weight = latents(), latents(seed=1)
  slope = jax.grad(lambda z: jnp.sum(weight * lfq.quantise(z)))(z)
  np.testing.assert_array_equal(slope, weight)


@given(st.integers(1, lfq.MOST_BITS), st.data())
def test_tokens_are_numbers_of_codes(channels, data):
  number = data.draw(st.integers(0, 2**channels - 1))
  code = np.asarray(lfq.codes(np.array([number]), channels))
  assert code.shape == (1, channels) and set(np.unique(code)) <= {-1, 1}
  assert [int(c > 0) for c in code[0]] == [number >> i & 1 for i in range(channels)]
  assert lfq.tokens(code)[0] == number


@pytest.mark.parametrize('temperature', [0.5, 1.0, 4.0])
def test_the_entropy_of_a_choice_is_that_over_the_whole_codebook(temperature):
  """Channels are independent, so that 2^C terms are the sum of C."""
  z = latents()
  q, _ = softmax_over_codebook(z, temperature)
  wanted = np.mean(-np.sum(q * np.log(q), axis=-1)) / z.shape[-1]
  assert lfq.entropies(z, temperature)[0] == pytest.approx(wanted, rel=1e-4)


def test_the_entropy_of_the_mean_bounds_that_over_the_codebook():
  """Exact of one channel, and where channels say nothing of one another; else above."""
  z = latents((400, 3))
  q, _ = softmax_over_codebook(z, 1.0)
  whole = -np.sum(q.mean(0) * np.log(q.mean(0))) / 3
  assert lfq.entropies(z)[1] == pytest.approx(whole, rel=1e-2) and lfq.entropies(z)[1] >= whole
  alike = np.repeat(5 * z[:, :1], 3, axis=1)
  q, _ = softmax_over_codebook(alike, 1.0)
  whole = -np.sum(q.mean(0) * np.log(q.mean(0) + 1e-30)) / 3
  assert lfq.entropies(alike)[1] > 1.5 * whole
  one = softmax_over_codebook(z[:, :1], 1.0)[0].mean(0)
  assert lfq.entropies(z[:, :1])[1] == pytest.approx(-np.sum(one * np.log(one)), rel=1e-4)


@pytest.mark.parametrize('z, sure, varied', [
    ([[0.0], [0.0]], np.log(2), np.log(2)),  # no choice is made
    ([[20.0], [-20.0]], 0, np.log(2)),  # both codes, each for certain
    ([[20.0], [20.0]], 0, 0)])  # the same one always
def test_entropies_of_known_codes(z, sure, varied):
  found = lfq.entropies(np.array(z, np.float32))
  np.testing.assert_allclose(found, [sure, varied], atol=1e-4)
  slopes = jax.grad(lambda z: sum(lfq.entropies(z)))(np.array(z, np.float32))
  assert np.isfinite(slopes).all()


def test_commitment_draws_latents_to_their_codes():
  z = np.array([[0.5, -3.0]], np.float32)
  assert lfq.commitment(z) == pytest.approx((0.25 + 4) / 2)
  np.testing.assert_allclose(jax.grad(lfq.commitment)(z), [[-0.5, -2.0]], rtol=1e-6)
