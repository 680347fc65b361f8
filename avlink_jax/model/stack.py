"""Stacked blocks: a tower's blocks as one tree, depth first, any stretch of which is run."""

import jax
import jax.numpy as jnp

from avlink_jax.model import remat

# Up to so many blocks a tower's loops are written out. A loop keeps what its gradient needs in
# arrays over all its turns, filled and copied: of two nano blocks with their gradient it took a
# sixth on a CPU (tests/benchmarks/blocks.py). Deep towers keep their loops: they compile once.
UNROLLED = 4


def run(block, blocks, first, count, tokens, depth, policy='none'):
  """Tokens after blocks first … first + count − 1 of `depth`.

  Args:
    block: (one block's parameters, tokens) -> tokens.
    blocks: stacked parameters of all blocks.
    first: int or traced int32; `count` is static.
    tokens: (B, N, C).
    policy: what the gradient keeps of a block (remat.py): none, attention or block.
  """
  if isinstance(first, int):
    turns, own = jax.tree.map(lambda p: p[first:first + count], blocks), lambda block: block
  else:  # taken inside `one`, so that its gradient keeps an index and no copy of the parameters
    turns, own = first + jnp.arange(count), lambda i: jax.tree.map(
        lambda p: jax.lax.dynamic_index_in_dim(p, i, keepdims=False), blocks)

  def one(tokens, turn):
    return block(own(turn), tokens), None

  return jax.lax.scan(remat.checkpointed(one, policy), tokens, turns, unroll=depth <= UNROLLED)[0]
