"""The Fusion Block: joint self-attention over audio and video tokens on one clock (Sec. 3.3).

Parameters at the paper's size (D = 1024 = both towers' widths), which says what fits into
23.25 M: two projections to the common width 2·D², attention 4·D², two MLPs 2·8·D², so
22·D² = 23.07 M; a full adaLN matrix for each modality would be 2·5·D² more, so the modulation
goes through a bottleneck of 16.
"""

import dataclasses

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from avlink_jax.model import remat, rope
from avlink_jax.model.attention import Attention, Kernel
from avlink_jax.model.axes import constrain
from avlink_jax.model.dit import MLP, layer_norm, modulate, modulate_normal, time_features

zeros = nn.initializers.zeros


@flax.struct.dataclass
class Kept:
  """A conditioning stream that stands as it was, as Fusion Blocks see it.

  normal (B, N, width): its tokens at the cut in the common width, normalised: what depends on the
  tokens alone. The modulation does not, which sees the generated stream's flow time too; nor do
  keys and values, which come after it. Of several Fusion Blocks, these come first: (blocks, B, N,
  width). mask (B, N). t (B,): its flow time. channels: of its tokens.
  """
  normal: jax.Array
  mask: jax.Array
  t: jax.Array
  channels: int = flax.struct.field(pytree_node=False)


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
  def __call__(self, tokens, times, masks, angles, views=None, wanted=None):
    """One step of fusion.

    Args:
      tokens: list of (B, N_m, C_m), one a modality; or Kept, of which nothing is wanted back.
      times: list of flow times (B,).
      masks: list of (B, N_m) bool.
      angles: list of (N_m, width/heads/2), the temporal RoPE of tokens on the shared clock.
      views: list of (B, N_m, C_m), what is projected to the common width; default: the tokens.
      wanted: list of bool: whose activations are wanted; default: all. The other streams are only
        attended to: no queries, MLP and way back are computed for them.
    Returns:
      list of (B, N_m, C_m), the activations that replace `tokens`, or None where not wanted; and
      list of (B, N_m, width), each stream's `Kept.normal`.
    """
    times = jnp.concatenate([time_features(t) for t in times], axis=-1)
    common, normal, modulations = [], [], []
    for m, (x, view) in enumerate(zip(tokens, views or tokens, strict=True)):
      kept = isinstance(x, Kept)
      low = nn.silu(nn.Dense(self.rank, dtype=self.dtype, name=f'modulation_in_{m}')(times))
      vectors = nn.Dense(4 * self.width + (x.channels if kept else x.shape[-1]), kernel_init=zeros,
                         dtype=self.dtype, name=f'modulation_out_{m}')(low)
      modulations.append(jnp.split(vectors, [i * self.width for i in range(1, 5)], axis=-1))
      common.append(None if kept else nn.Dense(
          self.width, dtype=self.dtype, name=f'in_{m}')(view))
      normal.append(x.normal if kept else layer_norm(common[m]))
    modulated = [modulate_normal(y, shift, scale)
                 for y, (shift, scale, *_) in zip(normal, modulations, strict=True)]
    attended = (self._cross if self.cross else self._joint)(
        modulated, masks, angles, None if wanted is None or all(wanted) else wanted)
    out, attended = [], iter(attended)
    for m, (x, h) in enumerate(zip(tokens, common, strict=True)):
      if wanted is not None and not wanted[m]:
        out.append(None)
        continue
      _, _, shift, scale, gate = modulations[m]
      y = MLP(self.mlp, x.shape[-1], self.dtype, name=f'out_{m}')(
          modulate(h + next(attended), shift, scale))
      out.append(x + gate[:, None] * y)
    return out, normal

  def _joint(self, tokens, masks, angles, wanted):
    """One self-attention over the tokens of all streams; a result for each wanted one."""
    attention = Attention(self.width, self.heads, self.attention, self.dtype, name='attention')
    return attention(tokens, key_mask=masks, angles=angles, asking=wanted)

  def _cross(self, tokens, masks, angles, wanted):
    """Each wanted stream attends to the others only, through weights of its own ("symmetric cross
    attention" of Sec. 4.4)."""
    out = []
    for m, x in enumerate(tokens):
      if wanted is not None and not wanted[m]:
        continue
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
    remat: what the gradient keeps of a block (remat.py): none, attention or block.
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
  remat: str = 'none'

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

  def normal(self, params, m, stream, view=None):
    """`Kept.normal` of a Stream, which is number m, by one block's parameters. `view`: what is
    projected; default: its tokens."""
    project = nn.Dense(self.width, dtype=self.dtype)
    return layer_norm(project.apply(
        {'params': params[f'in_{m}']}, stream.tokens if view is None else view))

  def apply(self, params, streams, angles, views=None, wanted=None):
    """One block's parameters on a list of Streams, or Kept of one block.

    views: what is projected of each; default: its tokens. wanted: as FusionBlock's.
    Returns the Streams with new tokens, None where not wanted, and each one's `Kept.normal`.
    """
    def fuse(params, tokens, times, masks, views):
      return self.block.apply({'params': params}, tokens, times, masks, angles, views, wanted)

    kept = [isinstance(s, Kept) for s in streams]
    tokens, normal = remat.checkpointed(fuse, self.remat)(
        params, [s if k else s.tokens for s, k in zip(streams, kept, strict=True)],
        [s.t if k else s.input.t for s, k in zip(streams, kept, strict=True)],
        [s.mask for s in streams], views)
    place = lambda x, axis: constrain(x, 'batch', axis, None)  # noqa: E731
    return [None if x is None else s.replace(tokens=place(x, axis)) for s, x, axis in zip(
        streams, tokens, self.attention.queries, strict=True)], list(
            map(place, normal, self.attention.queries))
