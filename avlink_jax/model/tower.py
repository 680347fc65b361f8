"""The tower seam: a generative model of one modality, as everything outside it knows it.

A tower turns noisy data into tokens (`embed`), runs any stretch of its blocks over them (`segment`)
and turns tokens into velocity (`head`). Fusion Blocks sit between segments and see tokens, their
mask and their seconds, nothing else (avlink.py). The velocity is always data − noise, t = 1 data
(flow.py): another sign, schedule or scaling is the tower's own business, as are extra tokens.

A kind of tower is a function in a file of its own and a line in KINDS.
"""

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any, Protocol

import flax
import jax
import jax.numpy as jnp
import numpy as np

from avlink_jax.errors import UserError
from avlink_jax.model.attention import Kernel

# name -> function (config.towers.NAME, Context) -> Tower; 'module:function' is imported when used.
KINDS = {
    'dit': 'avlink_jax.model.dit_kind:build',
    'features': 'avlink_jax.model.features:build',
    'wan': 'avlink_jax.model.wan:build',
}


@flax.struct.dataclass
class Input:
  """What a tower is given.

  x (B, T, [H, W,] channels): noisy data at flow time t (B,). text (B, L, ·), text_mask (B, L): the
  prompt's embeddings; None of a tower that hears none. mask (B, T): True where the clip is real,
  not padding.
  """
  x: jax.Array
  t: jax.Array
  text: jax.Array | None
  text_mask: jax.Array | None
  mask: jax.Array


@flax.struct.dataclass
class Stream:
  """A tower's activations on their way.

  tokens (B, N, C), mask (B, N): all that Fusion Blocks see, time first, N = moments · places.
  input: what was embedded. time, text, text_mask: what the tower's blocks look at beside the
  tokens, as that tower has it. moments: how many moments in time the tokens have. extra: the kind's
  own, such as tokens that stay inside the tower.
  """
  tokens: jax.Array
  mask: jax.Array
  input: Input
  time: jax.Array | None
  text: jax.Array | None
  text_mask: jax.Array | None
  moments: int = flax.struct.field(pytree_node=False)
  extra: Any = None


class Tower(Protocol):
  """A description without weights; parameters are a tree that its methods are given.

  Attributes:
    width: channels of a token.
    depth: blocks.
    channels: of the data, last axis.
    axis: logical axis of its tokens (axes.py).
  """
  width: int
  depth: int
  channels: int
  axis: str

  def init(self, key):
    """Fresh parameters, float32. Those of blocks are stacked in 'blocks', depth first."""

  def embed(self, params, input) -> Stream:
    """Input -> Stream before the first block."""

  def segment(self, params, first, count, stream) -> Stream:
    """Runs blocks first … first + count − 1. `params` is the whole tower's; `count` is static,
    `first` an int or a traced int32."""

  def head(self, params, stream) -> jax.Array:
    """Stream after the last block -> velocity (data − noise), shaped as the data, float32."""

  def token_seconds(self, shape) -> np.ndarray:
    """When each token is, for data of `shape` (T, [H, W]): seconds from the clip's start, float64
    (N,), computed on the host."""

  def velocity(self, params, input):
    """The tower alone: Input -> velocity."""
    stream = self.segment(params, 0, self.depth, self.embed(params, input))
    return self.head(params, stream)


@dataclasses.dataclass(frozen=True)
class Wrapper(Tower):
  """`tower` as it is. What wraps embed and head of a tower overrides those."""
  tower: Tower

  @property
  def width(self):
    return self.tower.width

  @property
  def depth(self):
    return self.tower.depth

  @property
  def channels(self):
    return self.tower.channels

  @property
  def axis(self):
    return self.tower.axis

  def init(self, key):
    return self.tower.init(key)

  def embed(self, params, input):
    return self.tower.embed(params, input)

  def segment(self, params, first, count, stream):
    return self.tower.segment(params, first, count, stream)

  def head(self, params, stream):
    return self.tower.head(params, stream)

  def token_seconds(self, shape):
    return self.tower.token_seconds(shape)


@dataclasses.dataclass(frozen=True)
class EvenSeconds:
  """Seconds of data frames that come `rate` a second: count -> float64 (count,)."""
  rate: float

  def __call__(self, count):
    return np.arange(count) / self.rate


@dataclasses.dataclass(frozen=True)
class Context:
  """What a tower is told besides its own part of the config.

  Attributes:
    channels: of the data.
    rate: data frames a second, on average where they are not even.
    seconds: count -> float64 (count,): when each of the codec's data frames is.
    text_width: of the prompt's embeddings.
    axis: logical axis of its tokens.
    attention: kernel of the implementation to use; a tower says which tokens it is for.
    dtype: what is computed in.
    remat: what the gradient keeps of a block (remat.py): none, attention or block.
    name: the modality's, for messages.
  """
  channels: int
  rate: float
  seconds: Callable[[int], np.ndarray]
  text_width: int
  axis: str
  attention: Kernel
  dtype: Any = jnp.float32
  remat: str = 'none'
  name: str = 'NAME'


def make(config, context) -> Tower:
  """The tower that `config` (config.towers.NAME) describes; UserError for a kind that is none."""
  kind = 'features' if config.features else config.kind
  if kind not in KINDS:
    raise UserError(
        f'towers.{context.name}.kind={kind!r}: use {" or ".join(sorted(KINDS))}')
  build = KINDS[kind]
  if isinstance(build, str):
    module, _, function = build.partition(':')
    build = getattr(importlib.import_module(module), function)
  return build(config, context)
