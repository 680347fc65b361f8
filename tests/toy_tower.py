"""A tower that is unlike ours in everything."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from avlink_jax.model import tower


@dataclasses.dataclass(frozen=True)
class Toy(tower.Tower):
  """A token a frame, and one before them that no one else sees, in which all frames meet; it runs
  time backwards and predicts noise − data."""
  channels: int
  width: int
  depth: int
  seconds: Callable
  axis: str

  def init(self, key):
    w = self.width
    shapes = {'in': {'kernel': (self.channels, w)}, 'first': {'kernel': (1, w)},
              'blocks': {'kernel': (self.depth, w, w)}, 'out': {'kernel': (w, self.channels)}}
    return jax.tree.map(lambda s: jax.random.normal(key, s), shapes,
                        is_leaf=lambda s: isinstance(s, tuple))

  def embed(self, params, input):
    tokens = input.x @ params['in']['kernel'] + (1 - input.t)[:, None, None]
    first = jnp.broadcast_to(params['first']['kernel'], (len(tokens), 1, self.width))
    return tower.Stream(tokens, input.mask, input, None, None, None, moments=tokens.shape[1],
                        extra=first)

  def segment(self, params, first, count, stream):
    whole = jnp.concatenate([stream.extra, stream.tokens], axis=1)
    for n in range(count):
      kernel = jax.lax.dynamic_index_in_dim(params['blocks']['kernel'], first + n, keepdims=False)
      meeting = whole.at[:, :1].add(whole[:, 1:].mean(1, keepdims=True))
      whole = whole + jnp.tanh((meeting + meeting[:, :1]) @ kernel)
    return stream.replace(tokens=whole[:, 1:], extra=whole[:, :1])

  def head(self, params, stream):
    return -(stream.tokens @ params['out']['kernel']).astype(jnp.float32)

  def token_seconds(self, shape):
    return self.seconds(shape[0])


def build_toy(config, context):
  return Toy(context.channels, config.width, config.depth, context.seconds, context.axis)
