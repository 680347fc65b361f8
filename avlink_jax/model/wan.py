"""The Wan tower: the transformer of Wan2.1 (arXiv 2503.20314), and of MOSS-SoundEffect for audio.

It differs from our DiT (dit.py) in how flow time enters, one projection that all blocks share and a
table of each block's own, in q and k, which are normalised over all heads together, and in the
text, whose empty places are zeros that are attended to. Wan has three axes (time, height, width)
and MOSS one; nothing below asks which. Published weights are read by wan_import.py.

What the network says is noise − data at time 1000·(1 − t): the opposite of our velocity.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from avlink_jax.errors import UserError
from avlink_jax.model import attention, rope, stack
from avlink_jax.model.attention import Kernel
from avlink_jax.model.axes import constrain
from avlink_jax.model.dit import MLP, modulate, time_features
from avlink_jax.model.patches import (
  grid,
  patchify,
  positions,
  token_mask,
  token_seconds,
  unpatchify,
)
from avlink_jax.model.prediction import DataPrediction
from avlink_jax.model.tower import Stream, Tower

zeros = nn.initializers.zeros
SHARE = 3  # of a head's rotating pairs, height and width have a third each


class Attention(nn.Module):
  """Multi-head attention whose q and k are normalised over all channels, before the heads part.

  Keys and values come from `source` (cross-attention), or from x itself.
  """
  width: int
  heads: int
  kernel: Kernel = Kernel()
  dtype: jnp.dtype = jnp.float32
  out_init: Callable = nn.initializers.lecun_normal()

  @nn.compact
  def __call__(self, x, source=None, key_mask=None, angles=None):
    """x (B, T, C), source (B, S, C), key_mask (B, S), angles (T, C/heads/2) -> (B, T, C)."""
    source = x if source is None else source
    dense = functools.partial(nn.Dense, self.width, dtype=self.dtype)
    norm = functools.partial(nn.RMSNorm, epsilon=1e-6, dtype=jnp.float32)
    heads_first = functools.partial(rearrange, pattern='b t (h d) -> b h t d', h=self.heads)
    q = heads_first(norm(name='q_norm')(dense(name='q')(x)))
    k = heads_first(norm(name='k_norm')(dense(name='k')(source)))
    v = heads_first(dense(name='v')(source))
    if angles is not None:
      q, k = rope.rotate(q, angles), rope.rotate(k, angles)
    out, = self.kernel([q.astype(self.dtype)], [k.astype(self.dtype)], [v], [key_mask])
    return dense(name='out', kernel_init=self.out_init)(rearrange(out, 'b h t d -> b t (h d)'))


class Block(nn.Module):
  """Self-attention → text cross-attention → MLP; flow time modulates and gates the first and last.

  All that flow time decides is in float32. At initialisation the block is the identity.
  """
  width: int
  heads: int
  mlp: int
  attention: Kernel = Kernel()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, time, text, text_mask, angles, mask):
    """x (B, T, C), time float32 (B, 6, C), text (B, L, C), text_mask (B, L), angles (T, ·),
    mask (B, T) -> (B, T, C)."""
    to_text = self.attention.between(self.attention.queries, ('text_tokens',))
    modulated = lambda x, *by: modulate(  # noqa: E731
        x.astype(jnp.float32), *by).astype(self.dtype)
    gated = lambda x, gate, y: (x + gate[:, None] * y).astype(x.dtype)  # noqa: E731
    table = self.param('table', zeros, (6, self.width)).astype(jnp.float32)
    shift1, scale1, gate1, shift2, scale2, gate2 = jnp.unstack(time + table, axis=1)
    y = Attention(self.width, self.heads, self.attention, self.dtype, name='self_attention')(
        modulated(x, shift1, scale1), key_mask=mask, angles=angles)
    x = gated(x, gate1, y)
    y = nn.LayerNorm(1e-6, jnp.float32, use_fast_variance=False, name='text_norm')(x)
    x = x + Attention(self.width, self.heads, to_text, self.dtype, zeros, name='text_attention')(
        y.astype(self.dtype), text, text_mask)
    y = MLP(self.mlp, self.width, self.dtype, name='mlp')(modulated(x, shift2, scale2))
    return gated(x, gate2, y)


class Embed(nn.Module):
  """Patches, flow time and text brought to the tower's width."""
  width: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, patches, t, text):
    """Tokens (B, N, C), float32 time (B, C) for the head and (B, 6, C) for the blocks, and text
    (B, L, C)."""
    tokens = nn.Dense(self.width, dtype=self.dtype, name='patch')(patches)
    dense = functools.partial(nn.Dense, dtype=jnp.float32)
    time = dense(self.width, name='time_in')(time_features(1 - t))
    time = dense(self.width, name='time_out')(nn.silu(time))
    six = dense(6 * self.width, kernel_init=zeros, name='modulation')(nn.silu(time))
    text = MLP(self.width, self.width, self.dtype, name='text')(text)
    return tokens, time, rearrange(six, 'b (n c) -> b n c', n=6), text


class Head(nn.Module):
  """Last modulation and the way back to patches; zero at initialisation."""
  out: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, tokens, time):
    """tokens (B, N, C), time float32 (B, C) -> float32 (B, N, out)."""
    table = self.param('table', zeros, (2, tokens.shape[-1])).astype(jnp.float32)
    shift, scale = jnp.unstack(time[:, None] + table, axis=1)
    x = modulate(tokens.astype(jnp.float32), shift, scale).astype(self.dtype)
    return nn.Dense(self.out, kernel_init=zeros, dtype=self.dtype, name='out')(x).astype(
        jnp.float32)


@dataclasses.dataclass(frozen=True)
class Wan(Tower):
  """A tower. Parameters: {'embed', 'blocks' (stacked, depth first), 'head'}.

  Attributes:
    channels: of the data, last axis.
    patch: how much of each axis (time first) makes a token.
    seconds: count -> float64 (count,): when each data frame is.
    attention: kernel of self-attention, over tokens with the logical axis `axis`.
    remat: what the gradient keeps of a block (remat.py): none, attention or block.
  """
  channels: int
  patch: tuple[int, ...]
  seconds: Callable[[int], np.ndarray]
  width: int
  depth: int
  heads: int
  mlp: int
  text_width: int
  rope_base: float = 10_000.0
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
    tokens, time = jnp.zeros((1, 2, self.width)), jnp.zeros((1, self.width))
    patches = jnp.zeros((1, 2, math.prod(self.patch) * self.channels))
    angles, ones = jnp.zeros((2, self.width // self.heads // 2)), jnp.ones((1, 2), bool)
    block = lambda key: self.block.init(  # noqa: E731
        key, tokens, jnp.zeros((1, 6, self.width)), tokens, ones, angles, ones)['params']
    return {
        'embed': self.embedder.init(
            keys[0], patches, jnp.zeros(1), jnp.zeros((1, 2, self.text_width)))['params'],
        'blocks': jax.vmap(block)(jax.random.split(keys[1], self.depth)),
        'head': self.header.init(keys[2], tokens, time)['params'],
    }

  def embed(self, params, input):
    """Input -> Stream, with the blocks' time as its `time` and the head's as its `extra`. Places of
    the text that the prompt leaves empty are 0 before they are projected, and attended to."""
    shape = input.x.shape[1:-1]
    tokens, time, six, text = self.embedder.apply(
        {'params': params['embed']}, patchify(input.x, self.patch), input.t,
        jnp.where(input.text_mask[..., None], input.text, 0))
    return Stream(constrain(tokens, 'batch', self.axis, None),
                  token_mask(input.mask, self.patch, shape), input, six, text,
                  jnp.ones_like(input.text_mask), moments=grid(shape, self.patch)[0], extra=time)

  def segment(self, params, first, count, stream):
    angles = rope.angles(positions(stream.input.x.shape[1:-1], self.patch),
                         self.width // self.heads, self.rope_base, SHARE)

    def block(params, tokens):
      tokens = self.block.apply({'params': params}, tokens, stream.time, stream.text,
                                stream.text_mask, angles, stream.mask)
      return constrain(tokens, 'batch', self.axis, None)

    return stream.replace(tokens=stack.run(
        block, params['blocks'], first, count, stream.tokens, self.depth, self.remat))

  def head(self, params, stream):
    out = self.header.apply({'params': params['head']}, stream.tokens, stream.extra)
    return -unpatchify(out, self.patch, stream.input.x.shape[1:-1])

  def token_seconds(self, shape):
    return token_seconds(self.seconds, shape, self.patch)


def build(config, context):
  """The registry's kind 'wan': (config.towers.NAME, tower.Context) -> tower.Tower.

  Raises UserError: a setting that only the kind 'dit' has.
  """
  where = f'towers.{context.name}'
  for key in ('hidden', 'guide', 'local', 'refine'):
    if config[key]:
      raise UserError(f'{where}.{key}={config[key]} is for {where}.kind=dit: set it to 0')
  if config.prediction not in ('velocity', 'data'):
    raise UserError(f'{where}.prediction={config.prediction!r}: use velocity or data')
  if config.detail and config.prediction == 'velocity':
    raise UserError(f'{where}.detail is for towers that predict data, and this one predicts '
                    'velocity: set it to 0')
  attention.check(context.attention.implementation, config.width // config.heads, context.dtype)
  tower = Wan(channels=context.channels, patch=tuple(config.patch), seconds=context.seconds,
              width=config.width, depth=config.depth, heads=config.heads, mlp=config.mlp,
              text_width=context.text_width, rope_base=config.rope_base, axis=context.axis,
              attention=context.attention, remat=context.remat, dtype=context.dtype)
  return DataPrediction(tower, config.detail) if config.prediction == 'data' else tower
