"""The Fusion Block: joint self-attention over audio and video tokens on one clock (Sec. 3.3).

Parameters at the paper's size (D = 1024 = both towers' widths), which says what fits into
23.25 M: two projections to the common width 2·D², attention 4·D², two MLPs 2·8·D², so
22·D² = 23.07 M; a full adaLN matrix for each modality would be 2·5·D² more, so the modulation
goes through a bottleneck of 16.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from avlink_jax.model import axes as spread
from avlink_jax.model import rope
from avlink_jax.model.attention import Attention
from avlink_jax.model.dit import MLP, modulate, time_features

zeros = nn.initializers.zeros


def raise_changes(x, mask, angles, contrast):
  """Tokens with what changes at their place during the clip (1 + contrast) times as large.

  x (B, N, C) with mask (B, N), time first; tokens with the angles (N, ·) of the first are the
  places of one time, and it takes those angles at tracing time, as numpy.
  """
  places = int(np.all(np.asarray(angles) == np.asarray(angles)[0], axis=1).sum())
  y = x.reshape(x.shape[0], -1, places, x.shape[-1])
  weight = mask.reshape(*y.shape[:3], 1).astype(x.dtype)
  rest = jnp.sum(y * weight, 1, keepdims=True) / jnp.maximum(jnp.sum(weight, 1, keepdims=True), 1)
  return (rest + (1 + contrast) * (y - rest)).reshape(x.shape)


class FusionBlock(nn.Module):
  """x̂_a, x̂_v = FusionBlock(x_a, x_v, t_a, t_v) (Eq. 3), for any number of streams.

  Each stream's modulation sees all flow times ("audio and video parameter sets receiving
  information on both timesteps"). Only the gate of the way back is zero at initialisation:
  that alone makes the block the identity, and a second zero gate inside would stop the
  gradient of the first. `cross` takes the place of joint self-attention in an ablation.
  """
  width: int
  heads: int
  mlp: int
  rank: int = 16
  attention: str = 'auto'
  dtype: jnp.dtype = jnp.float32
  nearness: float = 0.0
  cross: bool = False
  contrast: float = 0.0

  @nn.compact
  def __call__(self, tokens, times, masks, angles, split=None):
    """One step of fusion.

    Args:
      tokens: list of (B, N_m, C_m), one a modality.
      times: list of flow times (B,).
      masks: list of (B, N_m) bool.
      angles: list of (N_m, width/heads/2), the temporal RoPE of tokens on the shared clock.
      split: list of bool, whether on a mesh a stream's tokens are (spread.py).
    Returns:
      list of (B, N_m, C_m): the activations that replace `tokens`.
    """
    times = jnp.concatenate([time_features(t) for t in times], axis=-1)
    common, modulations = [], []
    for m, x in enumerate(tokens):
      low = nn.silu(nn.Dense(self.rank, dtype=self.dtype, name=f'modulation_in_{m}')(times))
      vectors = nn.Dense(4 * self.width + x.shape[-1], kernel_init=zeros, dtype=self.dtype,
                         name=f'modulation_out_{m}')(low)
      modulations.append(jnp.split(vectors, [i * self.width for i in range(1, 5)], axis=-1))
      seen = raise_changes(x, masks[m], angles[m], self.contrast) if self.contrast else x
      common.append(nn.Dense(self.width, dtype=self.dtype, name=f'in_{m}')(seen))
    modulated = [modulate(h, shift, scale)
                 for h, (shift, scale, *_) in zip(common, modulations, strict=True)]
    attended = (self._cross if self.cross else self._joint)(
        modulated, masks, angles, split or [False] * len(tokens))
    out = []
    for m, (x, h, y) in enumerate(zip(tokens, common, attended, strict=True)):
      _, _, shift, scale, gate = modulations[m]
      y = MLP(self.mlp, x.shape[-1], self.dtype, name=f'out_{m}')(modulate(h + y, shift, scale))
      out.append(x + gate[:, None] * y)
    return out

  def _joint(self, tokens, masks, angles, split):
    """One self-attention over the tokens of all streams."""
    attention = Attention(self.width, self.heads, self.attention, self.dtype, self.nearness,
                          split=any(split), name='attention')
    tokens, mask, turned = self._together(tokens, masks, angles, split)
    return spread.part(attention(tokens, key_mask=mask, angles=turned),
                       [len(x) for x in angles], any(split))

  def _cross(self, tokens, masks, angles, split):
    """Each stream looks at the others only, through weights of its own ("symmetric cross
    attention" of Sec. 4.4)."""
    out = []
    for m, x in enumerate(tokens):
      others = [values[:m] + values[m + 1:] for values in (tokens, masks, angles, split)]
      attention = Attention(self.width, self.heads, self.attention, self.dtype, self.nearness,
                            split=split[m], source_split=any(others[-1]), name=f'attention_{m}')
      source, mask, turned = self._together(*others)
      out.append(attention(x, source, mask, angles[m], turned))
    return out

  def _together(self, tokens, masks, angles, split):
    """Tokens, masks and angles of several streams as of one."""
    turned = spread.join([jnp.asarray(x)[None] for x in angles], any(split))[0]
    return spread.join(tokens, any(split)), spread.join(masks, any(split)), turned


@dataclasses.dataclass(frozen=True)
class Fusion:
  """All Fusion Blocks: one module, parameters stacked (blocks first), and their clock.

  Attributes:
    blocks: how many.
    clock_rate: positions a second of the temporal RoPE; the paper's η_v, one a video frame.
    nearness: how much tokens prefer those of their own time before anything is learned
      (attention.Attention). The paper says nothing of it. At nano scale, 0 with
      rope_base 100 had not left its plateau after 960 steps; 1.5 with rope_base 10 had by 500.
    cross: each stream attends to the other's tokens only (an ablation).
    contrast: how much louder the blocks hear what changes in a token than what rests there. The
      paper has none. 97 % of the nano video tower's tokens is the scene, which rests: with 0, V2A
      was still on its plateau after 1,000 steps, with 6 it left it at 650.
    remat: recompute each block for the gradient instead of keeping its activations.
  """
  blocks: int = 8
  width: int = 1024
  heads: int = 16
  mlp: int = 4096
  rank: int = 16
  clock_rate: float = 6.0
  rope_base: float = 10_000.0
  attention: str = 'auto'
  dtype: jnp.dtype = jnp.float32
  nearness: float = 0.0
  cross: bool = False
  contrast: float = 0.0
  remat: bool = False

  @property
  def block(self):
    return FusionBlock(self.width, self.heads, self.mlp, self.rank, self.attention, self.dtype,
                       self.nearness, self.cross, self.contrast)

  def init(self, key, tower_widths):
    tokens = [jnp.zeros((1, 1, width)) for width in tower_widths]
    times = [jnp.zeros(1) for _ in tower_widths]
    masks = [jnp.ones((1, 1), bool) for _ in tower_widths]
    angles = [np.zeros((1, self.width // self.heads // 2)) for _ in tower_widths]
    one = lambda key: self.block.init(key, tokens, times, masks, angles)['params']  # noqa: E731
    return {'blocks': jax.vmap(one)(jax.random.split(key, self.blocks))}

  def angles(self, seconds):
    """Rotation of tokens at `seconds` (N,): τ = seconds · clock_rate (Eq. 4)."""
    return rope.angles(np.asarray(seconds)[:, None] * self.clock_rate,
                       self.width // self.heads, self.rope_base)

  def apply(self, params, streams, angles):
    """One block's parameters on a list of Streams -> the Streams with new tokens."""
    def fuse(params, tokens, times, masks):
      return self.block.apply({'params': params}, tokens, times, masks, angles,
                              [s.split for s in streams])

    tokens = (jax.checkpoint(fuse) if self.remat else fuse)(
        params, [s.tokens for s in streams], [s.input.t for s in streams],
        [s.mask for s in streams])
    return [s.replace(tokens=spread.tokens(x, s.split))
            for s, x in zip(streams, tokens, strict=True)]
