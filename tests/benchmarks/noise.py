"""Time to draw the noise of one batch of nano video: noise.gaussian beside jax.random.normal.

    python -m tests.benchmarks.noise
"""

import jax

from avlink_jax.model.noise import gaussian
from tests.benchmarks.attention import milliseconds

SHAPE = (32, 31, 36, 64, 3)

if __name__ == '__main__':
  key = jax.random.key(0)
  for name, draw in (('jax.random.normal', jax.random.normal), ('noise.gaussian', gaussian)):
    print(f'{name:18} {milliseconds(jax.jit(lambda k, f=draw: f(k, SHAPE)), key):6.1f} ms')
