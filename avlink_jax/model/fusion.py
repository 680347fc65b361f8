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

from avlink_jax.model import rope
from avlink_jax.model.attention import Attention, Kernel
from avlink_jax.model.axes import constrain
from avlink_jax.model.dit import MLP, modulate, time_features

zeros = nn.initializers.zeros


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
  attention: Kernel = Kernel()
  dtype: jnp.dtype = jnp.float32
  cross: bool = False

  @nn.compact
  def __call__(self, tokens, times, masks, angles, views=None):
    """One step of fusion.

    Args:
      tokens: list of (B, N_m, C_m), one a modality.
      times: list of flow times (B,).
      masks: list of (B, N_m) bool.
      angles: list of (N_m, width/heads/2), the temporal RoPE of tokens on the shared clock.
      views: list of (B, N_m, C_m), what is projected to the common width; default: the tokens.
    Returns:
      list of (B, N_m, C_m): the activations that replace `tokens`.
    """
    times = jnp.concatenate([time_features(t) for t in times], axis=-1)
    common, modulations = [], []
    for m, (x, view) in enumerate(zip(tokens, views or tokens, strict=True)):
      low = nn.silu(nn.Dense(self.rank, dtype=self.dtype, name=f'modulation_in_{m}')(times))
      vectors = nn.Dense(4 * self.width + x.shape[-1], kernel_init=zeros, dtype=self.dtype,
                         name=f'modulation_out_{m}')(low)
      modulations.append(jnp.split(vectors, [i * self.width for i in range(1, 5)], axis=-1))
      common.append(nn.Dense(self.width, dtype=self.dtype, name=f'in_{m}')(view))
    modulated = [modulate(h, shift, scale)
                 for h, (shift, scale, *_) in zip(common, modulations, strict=True)]
    attended = (self._cross if self.cross else self._joint)(modulated, masks, angles)
    out = []
    for m, (x, h, y) in enumerate(zip(tokens, common, attended, strict=True)):
      _, _, shift, scale, gate = modulations[m]
      y = MLP(self.mlp, x.shape[-1], self.dtype, name=f'out_{m}')(modulate(h + y, shift, scale))
      out.append(x + gate[:, None] * y)
    return out

  def _joint(self, tokens, masks, angles):
    """One self-attention over the tokens of all streams."""
    attention = Attention(self.width, self.heads, self.attention, self.dtype, name='attention')
    return attention(tokens, key_mask=masks, angles=angles)

  def _cross(self, tokens, masks, angles):
    """Each stream attends to the others only, through weights of its own ("symmetric cross
    attention" of Sec. 4.4)."""
    out = []
    for m, x in enumerate(tokens):
      others = lambda values, m=m: [*values[:m], *values[m + 1:]]  # noqa: E731
      kernel = self.attention.between(
          self.attention.queries[m:m + 1], others(self.attention.keys))
      attention = Attention(self.width, self.heads, kernel, self.dtype, name=f'attention_{m}')
      out += attention([x], others(tokens), others(masks), angles[m:m + 1], others(angles))
    return out


@dataclasses.dataclass(frozen=True)
class Fusion:
  """All Fusion Blocks: one module, parameters stacked (blocks first), and their clock.

  Attributes:
    blocks: how many.
    clock_rate: positions a second of the temporal RoPE; the paper's η_v, one a video frame.
    attention: kernel of the joint attention, whose queries and keys are all streams' tokens.
    cross: each stream attends to the other's tokens only (an ablation).
    remat: recompute each block for the gradient instead of keeping its activations.
  """
  blocks: int = 8
  width: int = 1024
  heads: int = 16
  mlp: int = 4096
  rank: int = 16
  clock_rate: float = 6.0
  rope_base: float = 10_000.0
  attention: Kernel = Kernel()
  dtype: jnp.dtype = jnp.float32
  cross: bool = False
  remat: bool = False

  @property
  def block(self):
    return FusionBlock(self.width, self.heads, self.mlp, self.rank, self.attention, self.dtype,
                       self.cross)

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

  def apply(self, params, streams, angles, views=None):
    """One block's parameters on a list of Streams -> the Streams with new tokens. `views`: what is
    projected of each; default: its tokens."""
    def fuse(params, tokens, times, masks, views):
      return self.block.apply({'params': params}, tokens, times, masks, angles, views)

    tokens = (jax.checkpoint(fuse) if self.remat else fuse)(
        params, [s.tokens for s in streams], [s.input.t for s in streams],
        [s.mask for s in streams], views)
    return [s.replace(tokens=constrain(x, 'batch', axis, None))
            for s, x, axis in zip(streams, tokens, self.attention.queries, strict=True)]
