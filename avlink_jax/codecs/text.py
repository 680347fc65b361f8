"""Text encoder of hashed words: prompts to embeddings, trained with its tower and then frozen.

Interface of text encoders (this one, and t5_text.py):

    width                      size of an embedding
    init(key)                  -> parameters that are trained with the tower, or {}
    prepare(list of str)       -> pytree of arrays (B, ...), on the host; '' is the null prompt
    shapes(B)                  shapes of `prepare`'s result for B prompts, without computing it
    encode(params, prepared)   -> embeddings (B, N, width), mask (B, N)
    check(prompt)              raises UserError if a prompt is too long
    shapes_only                the encoder for shapes only: no weights are read
"""

import dataclasses
import re
import unicodedata
import zlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from avlink_jax.errors import UserError
from avlink_jax.model.attention import Attention, Kernel
from avlink_jax.model.dit import MLP

PAD, START, FIRST_WORD = 0, 1, 2


class _Words(nn.Module):
  width: int
  depth: int
  heads: int
  buckets: int
  max_words: int

  @nn.compact
  def __call__(self, tokens):
    mask = tokens[..., 0] != PAD
    # Two hashes a word: few words share both, so that small tables distinguish many words.
    x = sum(nn.Embed(FIRST_WORD + self.buckets, self.width, name=f'word_{i}')(tokens[..., i])
            for i in range(2))
    x = x + self.param('position', nn.initializers.normal(0.02), (self.max_words, self.width))
    for _ in range(self.depth):
      # In float32, which cuDNN does not support.
      attention = Attention(self.width, self.heads, Kernel('tiled'))
      y, = attention([nn.LayerNorm()(x)], key_mask=[mask])
      x = x + y
      x = x + MLP(4 * self.width, self.width)(nn.LayerNorm()(x))
    return nn.LayerNorm()(x), mask


@dataclasses.dataclass(frozen=True)
class WordEncoder:
  """Transformer over words hashed to rows of two tables; trained with its tower.

  Without a vocabulary it accepts any caption. The null prompt is the start token alone, whose
  embedding learns to mean 'no prompt'.
  """
  width: int = 64
  depth: int = 1
  heads: int = 4
  buckets: int = 512
  max_words: int = 32

  @property
  def _module(self):
    return _Words(self.width, self.depth, self.heads, self.buckets, self.max_words)

  def init(self, key):
    return self._module.init(key, jnp.zeros((1, self.max_words, 2), jnp.int32))['params']

  @property
  def shapes_only(self):
    return self

  def check(self, prompt):
    """Raises UserError if a prompt would be cut."""
    if len(words := split_words(prompt)) > self.max_words - 1:
      raise UserError(f'a prompt of {len(words):,} words: this model reads at most '
                      f'{self.max_words - 1}')

  def prepare(self, prompts):
    """Prompts -> int32 (B, max_words, 2), cut to fit."""
    tokens = np.full((len(prompts), self.max_words, 2), PAD, np.int32)
    tokens[:, 0] = START
    for row, prompt in zip(tokens, prompts, strict=True):
      for position, word in enumerate(split_words(prompt)[:self.max_words - 1], 1):
        number = zlib.crc32(word.encode(errors='replace'))
        row[position] = [FIRST_WORD + n % self.buckets for n in (number, number // self.buckets)]
    return tokens

  def shapes(self, size):
    return jax.ShapeDtypeStruct((size, self.max_words, 2), jnp.int32)

  def encode(self, params, tokens):
    """Tokens int32 (B, max_words, 2) -> embeddings (B, max_words, width), mask (B, max_words)."""
    return self._module.apply({'params': params}, tokens)


def split_words(prompt):
  """Splits a prompt: 'A ball, red' -> ['a', 'ball', ',', 'red']; scripts without spaces, such as
  Chinese, into characters."""
  return re.findall(r'[\u0e00-\u0eff\u3040-\u9fff\uac00-\ud7af]|[^\W\u3040-\u9fff]+|[^\w\s]',
                    unicodedata.normalize('NFKC', prompt).lower())


def drop(key, prepared, null, rate):
  """Replaces each example's prompt by the null prompt with probability `rate` (a number or (B,)).

  `prepared` is a pytree of (B, ...), `null` the null prompt's, (1, ...).
  """
  size = jax.tree.leaves(prepared)[0].shape[:1]
  dropped = jax.random.bernoulli(key, rate, size)
  return jax.tree.map(
      lambda x, n: jnp.where(dropped.reshape(size + (1,) * (x.ndim - 1)), n, x), prepared, null)
