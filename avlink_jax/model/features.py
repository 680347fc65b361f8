"""Features from outside (CLIP, CAVP, ...) in a tower's place: a tower without blocks (Sec. 4.4)."""

import dataclasses
from collections.abc import Callable

import numpy as np

from avlink_jax.model.tower import Stream, Tower


def build(config, context):
  """The registry's kind 'features': (config.towers.NAME, tower.Context) -> Features."""
  return Features(config.features, context.seconds)


@dataclasses.dataclass(frozen=True)
class Features(Tower):
  """A vector a frame, given to the Fusion Blocks as it is; no parameters, no velocity.

  Attributes:
    width: of a vector.
    seconds: count -> float64 (count,): when each is.
  """
  width: int
  seconds: Callable[[int], np.ndarray]
  depth = 0
  axis = 'features'  # few tokens: every device has all of them

  @property
  def channels(self):
    return self.width

  def init(self, key):
    del key
    return {}

  def embed(self, params, input):
    """Input with x (B, T, width) -> Stream; there is neither flow time nor text in it."""
    del params
    return Stream(input.x, input.mask, input, None, None, None, moments=input.x.shape[1])

  def segment(self, params, first, count, stream):
    """No blocks: the stream as it came, fused or not."""
    del params, first, count
    return stream

  def head(self, params, stream):
    raise TypeError('features condition; nothing generates them')

  def token_seconds(self, shape):
    return self.seconds(shape[0])
