"""Time of each attention implementation, forward and with its gradient, at a tower's sizes.

    python -m tests.benchmarks.attention [batch heads tokens head_dim]
"""

import statistics
import sys
import time

import jax
import jax.numpy as jnp

from avlink_jax.model import attention


def jax_nn(q, k, v, key_mask):
  """JAX's own, which wants heads third."""
  q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
  return jax.nn.dot_product_attention(q, k, v, mask=key_mask[:, None, None, :]).swapaxes(1, 2)


def milliseconds(function, *arguments, repeats=15):
  jax.block_until_ready(function(*arguments))
  times = []
  for _ in range(repeats):
    start = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    times.append(time.perf_counter() - start)
  return 1e3 * statistics.median(times)


def main():
  batch, heads, tokens, dim = map(int, sys.argv[1:] or (32, 2, 248, 32))
  x = jax.random.normal(jax.random.key(0), (batch, heads, tokens, dim))
  mask = jnp.ones((batch, tokens), bool)
  here = jax.default_backend()
  chosen = {'jax.nn': jax_nn} | {name: f for name, f in attention.IMPLEMENTATIONS.items()
                                 if attention.HOME.get(name, here) == here}
  for name, f in chosen.items():
    forward = jax.jit(lambda q, k, v, f=f: f(q, k, v, mask))
    gradient = jax.jit(jax.grad(lambda q, k, v, f=f: jnp.sum(f(q, k, v, mask) ** 2), (0, 1, 2)))
    print(f'{name:10} forward {milliseconds(forward, x, x, x):6.1f} ms, '
          f'with gradient {milliseconds(gradient, x, x, x):6.1f} ms', flush=True)


if __name__ == '__main__':
  main()
