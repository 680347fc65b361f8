"""Lookup-free quantisation (MAGVIT-v2, Sec. 3.1): a latent's channels are bits, its token a number.

The codebook is {−1, 1}^C, so that the nearest code is the sign of each channel by itself and
nothing has to be looked up.
"""

import jax
import jax.numpy as jnp
import numpy as np

MOST_BITS = 31  # of a token, which is an int32


def quantise(z):
  """The code nearest to z, any shape: 1 where z > 0, −1 elsewhere (Eq. 4). Its gradient is that of
  z itself (straight through)."""
  code = jnp.where(z > 0, 1.0, -1.0).astype(z.dtype)
  return z + jax.lax.stop_gradient(code - z)


def tokens(codes):
  """Codes (…, C) -> int32 (…): Σ 2^i over the channels i that are 1 (Eq. 5)."""
  bits = (codes > 0).astype(jnp.int32)
  return jnp.sum(bits << np.arange(codes.shape[-1], dtype=np.int32), axis=-1)


def codes(numbers, channels):
  """Tokens (…) -> their codes, float32 (…, channels)."""
  bits = (jnp.asarray(numbers)[..., None] >> np.arange(channels, dtype=np.int32)) & 1
  return 2.0 * bits - 1.0


def entropies(z, temperature=1.0):
  """(E[H(q(z))], H(E[q(z)])) in nats a channel, of z (…, C) (Eq. 6).

  q(z) chooses a code by a softmax over −|z − code|² / temperature. Channels are then independent,
  each a coin that shows 1 with σ(4z / temperature), and the mean of the entropies is the sum over
  channels exactly. The entropy of the mean is so where the channels are independent over the data
  too, and else an upper bound: the sum over groups of one channel each, as MAGVIT-v2 takes larger
  groups, since the whole has 2^C terms.
  """
  logits = 4 * z / temperature
  sure = jnp.mean(_entropy(jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)))
  often = jnp.mean(jax.nn.sigmoid(logits), axis=range(z.ndim - 1))
  often = jnp.clip(often, 1e-6, 1 - 1e-6)
  return sure, jnp.mean(_entropy(jnp.log(often), jnp.log1p(-often)))


def commitment(z):
  """Mean (z − code)²: z is drawn to its code, the code stays where it is."""
  return jnp.mean((z - jnp.where(z > 0, 1.0, -1.0)) ** 2)


def _entropy(log_p, log_q):
  """Of a coin, nats, by the logarithms of its two chances."""
  return -jnp.exp(log_p) * log_p - jnp.exp(log_q) * log_q
