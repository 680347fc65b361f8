"""X_0: standard normal noise from a counter and a hash, the same on every machine.

A training step draws a value for every pixel of every clip. On a CPU JAX's own generator takes for
that a good part of a small model's whole step, ten times what this takes
(tests/benchmarks/noise.py prints both), and nothing here needs its strength: a counter hashed
twice under two random words is plenty.
Being a function of the counter alone, it is also split over chips without talk between them.
"""

import math

import jax
import jax.numpy as jnp


def _mix(x):
  """A 32-bit finaliser (two multiplications, three shifts: 'lowbias32' of C. Wellons)."""
  x ^= x >> 16
  x *= jnp.uint32(0x7FEB352D)
  x ^= x >> 15
  x *= jnp.uint32(0x846CA68B)
  return x ^ (x >> 16)


def gaussian(key, shape):
  """Independent N(0, 1) values, float32, a pure function of (key, shape); at most 2³² of them."""
  words = jax.random.bits(key, (2,))
  counter = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
  bits = _mix(_mix(counter + words[0]) ^ words[1])
  # The middle of one of 2²³ equal cells of (−1, 1), so never ±1, where the inverse is infinite.
  uniform = (bits >> 9).astype(jnp.float32) * 2.0**-22 - (1 - 2.0**-23)
  return math.sqrt(2) * jax.lax.erf_inv(uniform)
