"""Features from outside (CLIP, CAVP, ...) in a tower's place: a tower without blocks (Sec. 4.4)."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from avlink_jax.model.dit import Stream


@dataclasses.dataclass(frozen=True)
class Features:
  """A vector a frame, given to the Fusion Blocks as it is; the seam of dit.DiT, no parameters.

  Attributes:
    width: of a vector.
    rate: vectors a second.
  """
  width: int
  rate: float
  depth = 0
  patch = (1,)

  @property
  def token_rate(self):
    return self.rate

  def grid(self, shape):
    return (shape[0],)

  def seconds(self, shape):
    """When each vector is, in seconds from the clip's start: float64 (T,)."""
    return np.arange(shape[0]) / self.rate

  def embed(self, params, inputs):
    """Input with x (B, T, width) -> Stream; there is neither flow time nor text in it."""
    del params
    x = inputs.x
    nothing = jnp.zeros((x.shape[0], 0, self.width), x.dtype)
    return Stream(x, nothing[:, :0].sum(1), nothing, inputs.mask, inputs)

  def segment(self, blocks, stream):
    """No blocks: the stream as it came, fused or not."""
    del blocks
    return stream
