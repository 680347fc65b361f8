"""Lookup-free quantisation (MAGVIT-v2, Sec. 3.1): a latent's channels are the bits of its token.

The codebook is {−1, 1}^C, so the nearest code is the sign of each channel.
"""

import jax
import jax.numpy as jnp
import numpy as np

MOST_BITS = 31  # a token is an int32


def quantise(z):
  """Code nearest to z, of any shape: 1 where z > 0, −1 elsewhere (Eq. 4), with the straight-through
  gradient."""
  code = jnp.where(z > 0, 1.0, -1.0).astype(z.dtype)
  return z + jax.lax.stop_gradient(code - z)


def tokens(codes):
  """Tokens of codes (…, C): Σ 2^i over the channels i that are 1, int32 (…) (Eq. 5)."""
  bits = (codes > 0).astype(jnp.int32)
  return jnp.sum(bits << np.arange(codes.shape[-1], dtype=np.int32), axis=-1)


def codes(numbers, channels):
  """Codes of tokens (…): float32 (…, channels)."""
  bits = (jnp.asarray(numbers)[..., None] >> np.arange(channels, dtype=np.int32)) & 1
  return 2.0 * bits - 1.0


def entropies(z, temperature=1.0):
  """Entropies (E[H(q(z))], H(E[q(z)])) in nats per channel, of z (…, C) (Eq. 6).

  q(z) chooses a code by a softmax over −|z − code|² / temperature. Given z the channels are
  independent, each 1 with probability σ(4z / temperature), so the mean entropy is exactly the sum
  over channels. For the entropy of the mean that sum is exact only if the channels are independent
  over the data, and otherwise an upper bound: the exact one has 2^C terms. (MAGVIT-v2 sums over
  larger groups of channels.)
  """
  logits = 4 * z / temperature
  conditional = jnp.mean(_entropy(jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)))
  p = jnp.mean(jax.nn.sigmoid(logits), axis=range(z.ndim - 1))
  p = jnp.clip(p, 1e-6, 1 - 1e-6)
  return conditional, jnp.mean(_entropy(jnp.log(p), jnp.log1p(-p)))


def commitment(z):
  """Mean (z − code)²; the code gets no gradient."""
  return jnp.mean((z - jnp.where(z > 0, 1.0, -1.0)) ** 2)


def _entropy(log_p, log_q):
  """Entropy in nats of a binary variable, from the logarithms of its two probabilities."""
  return -jnp.exp(log_p) * log_p - jnp.exp(log_q) * log_q
