"""Fusion Blocks with two aids that small scales need and the paper has not: contrast, nearness."""

import dataclasses

import jax
import jax.numpy as jnp

from avlink_jax.model.fusion import Fusion, Kept

# Which of an attention's biases, all of those first, belong to queries and keys (Attention).
QUERY_KEY_SHARES = {'qkv': 2 / 3, 'q': 1, 'kv': 1 / 2}


def raise_changes(x, mask, moments, contrast):
  """Tokens with what changes at their place during the clip (1 + contrast) times as large.

  x (B, N, C) with mask (B, N), time first: N = moments · places.
  """
  y = x.reshape(x.shape[0], moments, -1, x.shape[-1])
  weight = mask.reshape(*y.shape[:3], 1).astype(x.dtype)
  rest = jnp.sum(y * weight, 1, keepdims=True) / jnp.maximum(jnp.sum(weight, 1, keepdims=True), 1)
  return (rest + (1 + contrast) * (y - rest)).reshape(x.shape)


def prefer_near(params, nearness):
  """Fresh Fusion Blocks whose biases of queries and keys begin at `nearness`: RoPE turns that
  common part into a preference for tokens nearby, from the first step on."""
  def begin(path, leaf):
    *_, layer, name = (part.key for part in path)
    if name != 'bias' or layer not in QUERY_KEY_SHARES:
      return leaf
    return leaf.at[..., :round(QUERY_KEY_SHARES[layer] * leaf.shape[-1])].set(nearness)

  return jax.tree_util.tree_map_with_path(begin, params)


@dataclasses.dataclass(frozen=True)
class AidedFusion:
  """`fusion` with aids.

  Attributes:
    contrast: how much louder the blocks hear what changes in a token than what rests there. 97 % of
      the nano video tower's tokens is the scene, which rests: with 0, V2A was still on its plateau
      after 1,000 steps, with 6 it left it at 650.
    nearness: how much tokens prefer those of their own time before anything is learned. At nano
      scale, 0 with rope_base 100 had not left its plateau after 960 steps; 1.5 with rope_base 10
      had by 500.
  """
  fusion: Fusion
  contrast: float = 0.0
  nearness: float = 0.0

  @property
  def blocks(self):
    return self.fusion.blocks

  def init(self, key, tower_widths):
    return prefer_near(self.fusion.init(key, tower_widths), self.nearness)

  def angles(self, seconds):
    return self.fusion.angles(seconds)

  def normal(self, params, m, stream):
    """As fusion.Fusion.normal."""
    return self.fusion.normal(params, m, stream, self._view(stream))

  def apply(self, params, streams, angles, wanted=None):
    """As fusion.Fusion.apply."""
    views = [None if isinstance(s, Kept) else self._view(s) for s in streams]
    return self.fusion.apply(params, streams, angles, views if self.contrast else None, wanted)

  def _view(self, stream):
    """What a block projects of a Stream; None: its tokens."""
    return raise_changes(
        stream.tokens, stream.mask, stream.moments, self.contrast) if self.contrast else None
