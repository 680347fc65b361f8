"""The DiT tower of AV-Link's base models (Sec. 3.2, App. B): embed → segments → head.

That is all anybody outside knows of a tower: `embed` makes tokens, `segment` runs any slice of
the stacked blocks, `head` turns tokens into velocity. Fusion Blocks sit between segments
(avlink.py). The audio tower has one axis (time), the video tower three (time, height, width);
nothing below asks which one it is.
"""

import dataclasses
import functools
import math

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from avlink_jax import flow
from avlink_jax.model import axes as spread
from avlink_jax.model import local, rope
from avlink_jax.model.attention import Attention

zeros = nn.initializers.zeros
# Up to so many blocks a tower's loops are written out. A loop keeps what its gradient needs in
# arrays over all its turns, filled and copied: of two nano blocks with their gradient it took a
# sixth on a CPU (tests/benchmarks/blocks.py). Deep towers keep their loops: they compile once.
UNROLLED = 4


def time_features(t, dim=256, scale=1000.0, max_period=10_000.0):
  """Sinusoidal features of flow time t (B,) in [0, 1] -> float32 (B, dim), as in DiT."""
  frequencies = jnp.exp(-math.log(max_period) * jnp.arange(dim // 2) / (dim // 2))
  angle = scale * t.astype(jnp.float32)[:, None] * frequencies
  return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


def layer_norm(x):
  """LayerNorm over the last axis without weights, in float32 whatever x is; x's dtype back."""
  y = x.astype(jnp.float32)
  y = y - y.mean(-1, keepdims=True)
  return (y * jax.lax.rsqrt(jnp.mean(y * y, -1, keepdims=True) + 1e-6)).astype(x.dtype)


def modulate(x, shift, scale):
  """adaLN: LN(x)·(1 + scale) + shift, with x (B, T, C) and shift, scale (B, C)."""
  return layer_norm(x) * (1 + scale[:, None]) + shift[:, None]


class MLP(nn.Module):
  """Dense → GELU → Dense; with `silent`, one that says 0 at initialisation."""
  hidden: int
  out: int
  dtype: jnp.dtype = jnp.float32
  silent: bool = False

  @nn.compact
  def __call__(self, x):
    x = nn.gelu(nn.Dense(self.hidden, dtype=self.dtype)(x))
    last = dict(kernel_init=zeros) if self.silent else {}
    return nn.Dense(self.out, dtype=self.dtype, **last)(x)


class Block(nn.Module):
  """Self-attention → text cross-attention → MLP, adaLN-Zero on t (App. B).

  Seven modulation vectors a block: shift, scale and gate around self-attention and around the
  MLP, and a gate on cross-attention, so that at initialisation every block is the identity.
  """
  width: int
  heads: int
  mlp: int
  attention: str = 'auto'
  dtype: jnp.dtype = jnp.float32
  split: bool = False

  @nn.compact
  def __call__(self, x, time, text, text_mask, angles, mask):
    """x (B, T, C), time (B, C), text (B, L, C), text_mask (B, L), angles (T, ·), mask (B, T)."""
    attention = dict(width=self.width, heads=self.heads, implementation=self.attention,
                     dtype=self.dtype, split=self.split)
    modulation = nn.Dense(7 * self.width, kernel_init=zeros, dtype=self.dtype, name='modulation')
    (shift1, scale1, gate1, gate2, shift3, scale3, gate3) = jnp.split(
        modulation(nn.silu(time)), 7, axis=-1)
    y = Attention(**attention, name='self_attention')(
        modulate(x, shift1, scale1), key_mask=mask, angles=angles)
    x = x + gate1[:, None] * y
    y = Attention(**attention, name='text_attention')(layer_norm(x), text, text_mask)
    x = x + gate2[:, None] * y
    y = MLP(self.mlp, self.width, self.dtype, name='mlp')(modulate(x, shift3, scale3))
    return x + gate3[:, None] * y


class Embed(nn.Module):
  """Patches, flow time and text brought to the tower's width.

  `hidden` above 0: an MLP of that width beside the linear map of patches (DiT.hidden). With a
  `guide_t` the time that the tower knows is that, and the data's own has a silent MLP beside it
  (DiT.guide).
  """
  width: int
  hidden: int = 0
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, patches, t, text, guide_t=None):
    tokens = nn.Dense(self.width, dtype=self.dtype, name='patch')(patches)
    if self.hidden:
      tokens += MLP(self.hidden, self.width, self.dtype, silent=True, name='wide')(patches)
    seen = t if guide_t is None else guide_t
    time = MLP(self.width, self.width, self.dtype, name='time')(time_features(seen))
    if guide_t is not None:
      time += MLP(self.width, self.width, self.dtype, silent=True, name='latent_time')(
          time_features(t))
    return tokens, time, MLP(self.width, self.width, self.dtype, name='text')(text)


class Head(nn.Module):
  """Last adaLN and the way back to patches; zero at initialisation (DiT).

  `hidden` above 0: a layer of that width beside it, which looks at token and noisy patch together
  (DiT.hidden), the patch more or less by flow time. `local` above 0: nothing of these, but layers
  of that width from what each place of the grid shows, `places` (B, T, H, W, ·), as the token of
  its `patch` says (local.py).
  """
  width: int
  out: int
  hidden: int = 0
  local: int = 0
  patch: tuple[int, ...] = ()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, tokens, time, patches, places=None):
    dense = functools.partial(nn.Dense, dtype=self.dtype)
    silent = functools.partial(dense, kernel_init=zeros)
    time = nn.silu(time)
    shift, scale = jnp.split(silent(2 * self.width, name='modulation')(time), 2, axis=-1)
    x = modulate(tokens, shift, scale)
    if self.local:
      out = local.Local(self.local, self.out // math.prod(self.patch), self.patch, self.dtype,
                        name='local')
      return out(places, x, time).astype(jnp.float32)
    out = silent(self.out, name='out')(x)
    if self.hidden:
      seen = dense(self.hidden, name='seen')(patches)
      seen *= 1 + silent(self.hidden, name='gate')(time)[:, None]
      wide = nn.gelu(dense(self.hidden, name='wide')(x) + seen)
      out += silent(self.out, name='wide_out')(wide)
    return out.astype(jnp.float32)


@flax.struct.dataclass
class Input:
  """What one tower is given.

  x: (B, T, [H, W,] channels) noisy data at flow time t (B,). mask (B, T): True where the
  clip is real, not padding. text (B, L, ·) with text_mask (B, L). guide (B, T, H, W, G) and its own
  time guide_t (B,): what a tower with `guide` looks at beside x, on x's grid.
  """
  x: jax.Array
  t: jax.Array
  text: jax.Array
  text_mask: jax.Array
  mask: jax.Array
  guide: jax.Array | None = None
  guide_t: jax.Array | None = None


@flax.struct.dataclass
class Stream:
  """A tower's activations on their way: tokens (B, N, C), and what its blocks look at.

  time (B, C); text (B, L, C); mask (B, N); the input itself, which the head needs.
  """
  tokens: jax.Array
  time: jax.Array
  text: jax.Array
  mask: jax.Array
  input: Input
  split: bool = flax.struct.field(pytree_node=False, default=False)  # DiT.split


@dataclasses.dataclass(frozen=True)
class DiT:
  """A tower. Parameters live outside: {'embed', 'blocks' (stacked, depth first), 'head'}.

  Attributes:
    channels: of the data, last axis.
    patch: how much of each axis (time first) makes a token.
    rate: data frames (latents, pictures) a second.
    prediction: 'velocity' (the paper's), or 'data': the network names X_1 and the velocity
      follows. A patch wider than the tower needs the latter: velocity contains the noise,
      which a narrow tower cannot carry, while the clean picture it can. Or 'residual': it names
      what X_1 is beyond the guide's last channels, a first guess of it, and sees of X_t what that
      shows beyond it (flow.shown_beyond).
    hidden: width of a nonlinear way past the tower, for patches wider than it; 0: none. What
      one linear map to `width` numbers and back cannot carry, where in a patch a small thing is,
      goes through it from the noisy patch to the clean one, as the token says.
    local: width of another head, for a tower that names the residual: at each place of the grid
      stands what the guide shows around it (local.py); 0: none.
    detail: deviation of what such a tower cannot carry of the data, and takes from its input
      instead, as far as that is clean (flow.add_detail).
    guide: channels of a second input on the data's grid, which stand before the data's own; 0:
      none. A tower widened so (weights.overlay) sees its old data in the guide: the new kernels'
      rows and the MLP of the data's time say 0, so that it does at first what it did on that.
    remat: recompute each block for the gradient instead of keeping its activations.
    split: on a mesh, its tokens are split over devices (spread.py): for long streams.
  """
  channels: int
  patch: tuple[int, ...]
  rate: float
  width: int = 1024
  depth: int = 24
  heads: int = 16
  mlp: int = 4096
  text_width: int = 1024
  rope_base: float = 10_000.0
  prediction: str = 'velocity'
  hidden: int = 0
  detail: float = 0.0
  guide: int = 0
  local: int = 0
  attention: str = 'auto'
  remat: bool = False
  dtype: jnp.dtype = jnp.float32
  split: bool = False

  @property
  def token_rate(self):
    """η: tokens a second along time."""
    return self.rate / self.patch[0]

  @property
  def _pictured(self):
    """How many of the guide's channels, the first, are no guess of the data."""
    return self.guide - (self.channels if self.prediction == 'residual' else 0)

  @property
  def block(self):
    return Block(self.width, self.heads, self.mlp, self.attention, self.dtype, self.split)

  @property
  def embedder(self):
    return Embed(self.width, self.hidden, self.dtype)

  @property
  def header(self):
    return Head(self.width, math.prod(self.patch) * self.channels, self.hidden, self.local,
                self.patch, self.dtype)

  def grid(self, shape):
    """Tokens along each axis for data of `shape` (T, [H, W]); a last half patch counts."""
    return tuple(-(-n // p) for n, p in zip(shape, self.patch, strict=True))

  def init(self, key):
    """Fresh parameters, float32; blocks are initialised apart and stacked."""
    keys = jax.random.split(key, 3)
    tokens, time = jnp.zeros((1, 2, self.width)), jnp.zeros((1, self.width))
    patches = jnp.zeros((1, 2, math.prod(self.patch) * (self.guide + self.channels)))
    places = jnp.zeros((1, 2 * self.patch[0], *self.patch[1:],
                        local.neighbours(self._pictured) + self.channels))
    angles = jnp.zeros((2, self.width // self.heads // 2))
    ones = jnp.ones((1, 2), bool)
    block = lambda key: self.block.init(key, tokens, time, tokens, ones, angles, ones)['params']  # noqa: E731
    return {
        'embed': self.embedder.init(
            keys[0], patches, jnp.zeros(1), jnp.zeros((1, 2, self.text_width)),
            jnp.zeros(1) if self.guide else None)['params'],
        'blocks': jax.vmap(block)(jax.random.split(keys[1], self.depth)),
        'head': self.header.init(keys[2], tokens, time, patches, places)['params'],
    }

  def embed(self, params, inputs):
    """Input -> Stream: patches become tokens; data that ends within a patch is padded."""
    grid = self.grid(inputs.x.shape[1:-1])
    mask = jnp.pad(inputs.mask, [(0, 0), (0, grid[0] * self.patch[0] - inputs.mask.shape[1])])
    mask = rearrange(mask, 'b (n p) -> b n p', p=self.patch[0]).any(-1)
    mask = jnp.repeat(mask, math.prod(grid[1:]), axis=1)
    tokens, time, text = self.embedder.apply(
        {'params': params['embed']}, self._patches(self._looked_at(inputs)), inputs.t, inputs.text,
        inputs.guide_t)
    return Stream(spread.tokens(tokens, self.split), time, text, mask, inputs, self.split)

  def segment(self, blocks, stream):
    """Runs a slice of the stacked blocks, one after another (`lax.scan`)."""
    angles = rope.angles(self._positions(stream.input.x.shape[1:-1]),
                         self.width // self.heads, self.rope_base)

    def one(tokens, params):
      tokens = self.block.apply({'params': params}, tokens, stream.time, stream.text,
                                stream.input.text_mask, angles, stream.mask)
      return spread.tokens(tokens, self.split), None

    body = jax.checkpoint(one) if self.remat else one
    return stream.replace(
        tokens=jax.lax.scan(body, stream.tokens, blocks, unroll=self.depth <= UNROLLED)[0])

  def head(self, params, stream):
    """Stream -> velocity, shaped as the data, float32."""
    x, t = stream.input.x, stream.input.t
    patches = self._patches(self._looked_at(stream.input)) if self.hidden else None
    places = self._places(stream.input) if self.local else None
    out = self.header.apply({'params': params['head']}, stream.tokens, stream.time, patches, places)
    out = self._unpatchify(out, x.shape[1:-1])
    if self.prediction == 'velocity':
      return out
    if self.prediction == 'residual':
      out += self._guess(stream.input)
    return flow.velocity_from_data(x, flow.add_detail(x, out, t, self.detail), t)

  def velocity(self, params, inputs):
    """The tower alone, all segments in one: Input -> velocity."""
    stream = self.segment(params['blocks'], self.embed(params, inputs))
    return self.head(params, stream)

  def seconds(self, shape):
    """When each token is, in seconds from the clip's start: float64 (N,)."""
    return self._positions(shape)[:, 0] / self.token_rate

  def _positions(self, shape):
    axes = np.meshgrid(*(np.arange(n, dtype=np.float64) for n in self.grid(shape)), indexing='ij')
    return np.stack([a.ravel() for a in axes], axis=-1)

  def _patches(self, x):
    """(B, T, [H, W,] channels) -> (B, N, ·), one a token; what ends within a patch is padded."""
    pad = [(0, g * p - n) for g, p, n in
           zip(self.grid(x.shape[1:-1]), self.patch, x.shape[1:-1], strict=True)]
    x = jnp.pad(x, [(0, 0), *pad, (0, 0)])
    if len(self.patch) == 1:
      return rearrange(x, 'b (t p) c -> b t (p c)', p=self.patch[0])
    return rearrange(x, 'b (t pt) (h ph) (w pw) c -> b (t h w) (pt ph pw c)',
                     **dict(zip(('pt', 'ph', 'pw'), self.patch, strict=True)))

  def _guess(self, inputs):
    """What the guide says of X_1 itself: its last channels."""
    return inputs.guide[..., -self.channels:]

  def _data(self, inputs):
    """What is seen of X_t."""
    if self.prediction != 'residual':
      return inputs.x
    return flow.shown_beyond(inputs.x, self._guess(inputs), inputs.t, self.detail)

  def _looked_at(self, inputs):
    """Guide and data, channels one after the other: (B, T, [H, W,] G + channels)."""
    if inputs.guide is None:
      return inputs.x
    return jnp.concatenate([inputs.guide, self._data(inputs)], axis=-1)

  def _places(self, inputs):
    """What each place shows, for `local`: (B, T, H, W, ·)."""
    around = local.around(inputs.guide[..., :self._pictured], inputs.mask)
    return jnp.concatenate([around, self._data(inputs)], axis=-1)

  def _unpatchify(self, tokens, shape):
    if len(self.patch) == 1:
      return rearrange(tokens, 'b t (p c) -> b (t p) c', p=self.patch[0])[:, :shape[0]]
    pt, ph, pw = self.patch
    t, h, w = self.grid(shape)
    x = rearrange(tokens, 'b (t h w) (pt ph pw c) -> b (t pt) (h ph) (w pw) c',
                  t=t, h=h, w=w, pt=pt, ph=ph, pw=pw)
    return x[:, :shape[0], :shape[1], :shape[2]]
