"""The DiT tower of AV-Link's base models (Sec. 3.2, App. B): embed → blocks → head.

The audio tower has one axis (time), the video tower three (time, height, width); nothing below asks
which one it is.
"""

import dataclasses
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from avlink_jax.model import rope, stack
from avlink_jax.model.attention import Attention, Kernel
from avlink_jax.model.axes import constrain
from avlink_jax.model.patches import (
  grid,
  patchify,
  positions,
  token_mask,
  token_seconds,
  unpatchify,
)
from avlink_jax.model.tower import Stream, Tower

zeros = nn.initializers.zeros


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
  return modulate_normal(layer_norm(x), shift, scale)


def modulate_normal(y, shift, scale):
  """`modulate` of what is normalised already: y·(1 + scale) + shift."""
  return y * (1 + scale[:, None]) + shift[:, None]


class MLP(nn.Module):
  """Dense → GELU → Dense; with `zero_init`, one whose output is 0 at initialisation."""
  hidden: int
  out: int
  dtype: jnp.dtype = jnp.float32
  zero_init: bool = False

  @nn.compact
  def __call__(self, x):
    x = nn.gelu(nn.Dense(self.hidden, dtype=self.dtype)(x))
    last = dict(kernel_init=zeros) if self.zero_init else {}
    return nn.Dense(self.out, dtype=self.dtype, **last)(x)


class Block(nn.Module):
  """Self-attention → text cross-attention → MLP, adaLN-Zero on t (App. B).

  Seven modulation vectors a block: shift, scale and gate around self-attention and around the
  MLP, and a gate on cross-attention, so that at initialisation every block is the identity.
  """
  width: int
  heads: int
  mlp: int
  attention: Kernel = Kernel()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, time, text, text_mask, angles, mask):
    """x (B, T, C), time (B, C), text (B, L, C), text_mask (B, L), angles (T, ·), mask (B, T)."""
    to_text = self.attention.between(self.attention.queries, ('text_tokens',))
    modulation = nn.Dense(7 * self.width, kernel_init=zeros, dtype=self.dtype, name='modulation')
    (shift1, scale1, gate1, gate2, shift3, scale3, gate3) = jnp.split(
        modulation(nn.silu(time)), 7, axis=-1)
    y, = Attention(self.width, self.heads, self.attention, self.dtype, name='self_attention')(
        [modulate(x, shift1, scale1)], key_mask=[mask], angles=[angles])
    x = x + gate1[:, None] * y
    y, = Attention(self.width, self.heads, to_text, self.dtype, name='text_attention')(
        [layer_norm(x)], [text], [text_mask])
    x = x + gate2[:, None] * y
    y = MLP(self.mlp, self.width, self.dtype, name='mlp')(modulate(x, shift3, scale3))
    return x + gate3[:, None] * y


class Embed(nn.Module):
  """Patches, flow time and text brought to the tower's width."""
  width: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, patches, t, text):
    tokens = nn.Dense(self.width, dtype=self.dtype, name='patch')(patches)
    time = MLP(self.width, self.width, self.dtype, name='time')(time_features(t))
    return tokens, time, MLP(self.width, self.width, self.dtype, name='text')(text)


def last_modulation(tokens, time, dtype):
  """adaLN of a head, its weights there as `modulation`: tokens (B, N, C), silu(time) (B, C)."""
  dense = nn.Dense(2 * tokens.shape[-1], kernel_init=zeros, dtype=dtype, name='modulation')
  return modulate(tokens, *jnp.split(dense(time), 2, axis=-1))


class Head(nn.Module):
  """Last adaLN and the way back to patches; zero at initialisation (DiT)."""
  out: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, tokens, time):
    x = last_modulation(tokens, nn.silu(time), self.dtype)
    return nn.Dense(self.out, kernel_init=zeros, dtype=self.dtype, name='out')(x).astype(
        jnp.float32)


@dataclasses.dataclass(frozen=True)
class DiT(Tower):
  """A tower. Parameters: {'embed', 'blocks' (stacked, depth first), 'head'}.

  Attributes:
    channels: of the data, last axis.
    patch: how much of each axis (time first) makes a token.
    seconds: count -> float64 (count,): when each data frame is.
    input_channels: of what is embedded, where that is not the data alone; 0: the data's.
    attention: kernel of self-attention, over tokens with the logical axis `axis`.
    remat: what the gradient keeps of a block (remat.py): none, attention or block.
  """
  channels: int
  patch: tuple[int, ...]
  seconds: Callable[[int], np.ndarray]
  width: int = 1024
  depth: int = 24
  heads: int = 16
  mlp: int = 4096
  text_width: int = 1024
  rope_base: float = 10_000.0
  input_channels: int = 0
  axis: str = 'tokens'
  attention: Kernel = Kernel()
  remat: str = 'none'
  dtype: jnp.dtype = jnp.float32

  @property
  def block(self):
    kernel = self.attention.between((self.axis,), (self.axis,))
    return Block(self.width, self.heads, self.mlp, kernel, self.dtype)

  @property
  def embedder(self):
    return Embed(self.width, self.dtype)

  @property
  def header(self):
    return Head(math.prod(self.patch) * self.channels, self.dtype)

  def init(self, key):
    """Fresh parameters, float32; blocks are initialised apart and stacked."""
    keys = jax.random.split(key, 3)
    tokens, time, patch = self.example()
    angles, ones = jnp.zeros((2, self.width // self.heads // 2)), jnp.ones((1, 2), bool)
    block = lambda key: self.block.init(key, tokens, time, tokens, ones, angles, ones)['params']  # noqa: E731
    return {
        'embed': self.embedder.init(
            keys[0], patch, jnp.zeros(1), jnp.zeros((1, 2, self.text_width)))['params'],
        'blocks': jax.vmap(block)(jax.random.split(keys[1], self.depth)),
        'head': self.header.init(keys[2], tokens, time)['params'],
    }

  def example(self):
    """Two tokens, their time and their patches, for shapes: (1, 2, C), (1, C), (1, 2, ·)."""
    numbers = math.prod(self.patch) * (self.input_channels or self.channels)
    return (jnp.zeros((1, 2, self.width)), jnp.zeros((1, self.width)), jnp.zeros((1, 2, numbers)))

  def embed(self, params, input):
    shape = input.x.shape[1:-1]
    tokens, time, text = self.embedder.apply(
        {'params': params['embed']}, patchify(input.x, self.patch), input.t, input.text)
    return Stream(constrain(tokens, 'batch', self.axis, None),
                  token_mask(input.mask, self.patch, shape), input, time, text,
                  input.text_mask, moments=grid(shape, self.patch)[0])

  def segment(self, params, first, count, stream):
    angles = rope.angles(positions(stream.input.x.shape[1:-1], self.patch),
                         self.width // self.heads, self.rope_base)

    def block(params, tokens):
      tokens = self.block.apply({'params': params}, tokens, stream.time, stream.text,
                                stream.text_mask, angles, stream.mask)
      return constrain(tokens, 'batch', self.axis, None)

    return stream.replace(tokens=stack.run(
        block, params['blocks'], first, count, stream.tokens, self.depth, self.remat))

  def head(self, params, stream):
    out = self.header.apply({'params': params['head']}, stream.tokens, stream.time)
    return unpatchify(out, self.patch, stream.input.x.shape[1:-1])

  def token_seconds(self, shape):
    return token_seconds(self.seconds, shape, self.patch)
