"""Time of two tower blocks with the gradient of their input, looped over and written out.

    python -m tests.benchmarks.blocks [batch tokens width heads]

Processor seconds, the least of 15 calls in turns: they hold on a busy machine too.
"""

import sys
import time

import jax
import jax.numpy as jnp

from avlink_jax.hardware import huge_pages
from avlink_jax.model.attention import Kernel
from avlink_jax.model.dit import Block


def main():
  batch, tokens, width, heads = map(int, sys.argv[1:] or (16, 248, 64, 2))
  key = jax.random.key(0)
  x, text = (jax.random.normal(key, (batch, n, width)) for n in (tokens, 32))
  time_vector, angles = x[:, 0], jnp.zeros((tokens, width // heads // 2))
  masks = [jnp.ones(y.shape[:2], bool) for y in (text, x)]
  block = Block(width, heads, 4 * width, Kernel('tiled'))
  given = (time_vector, text, masks[0], angles, masks[1])
  one = jax.jit(block.init)(key, x, *given)
  two = jax.tree.map(lambda p: jnp.stack([p + 0.02 * jax.random.normal(key, p.shape)] * 2), one)

  def blocks(x, params, unroll):
    step = lambda x, p: (block.apply(p, x, *given), None)  # noqa: E731
    return jax.lax.scan(step, x, params, unroll=unroll)[0]

  def gradient(unroll):
    def of(x, params):
      y, back = jax.vjp(lambda x: blocks(x, params, unroll), x)
      return back(y)
    return jax.jit(of)

  ways = {'looped over': gradient(False), 'written out': gradient(True)}
  best = dict.fromkeys(ways, float('inf'))
  for _ in range(16):
    for name, f in ways.items():
      start = time.process_time()
      jax.block_until_ready(f(x, two))
      best[name] = min(best[name], time.process_time() - start)
  print(', '.join(f'{name} {1e3 * seconds:.1f} ms' for name, seconds in best.items()))


if __name__ == '__main__':
  huge_pages.ask()
  main()
