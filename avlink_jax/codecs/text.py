"""Text encoders: their interface and kinds, and the one of hashed words, trained with its tower.

A modality has a text encoder with its own width, places, mask and habits. To add a kind, write a
function `build(kind, config, context)` and add a line to KINDS. The interface:

    width                      size of an embedding
    init(key)                  -> parameters that are trained with the tower, or {}
    prepare(list of str)       -> pytree of arrays (B, ...), on the host; '' is the null prompt
    shapes(B)                  shapes of `prepare`'s result for B prompts, without computing it
    encode(params, prepared)   -> embeddings (B, N, width), mask (B, N)
    check(prompt)              raises UserError if a prompt is too long
    shapes_only                the encoder for shapes only: no weights are read
"""

import dataclasses
import importlib
import re
import unicodedata
import zlib
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from avlink_jax.errors import UserError
from avlink_jax.model.attention import Attention, Kernel
from avlink_jax.model.dit import MLP

KINDS = {  # text.encoder, texts.NAME.encoder -> module:function of its build(kind, config, context)
    'words': 'avlink_jax.codecs.text:build',
    't5': 'avlink_jax.codecs.pretrained_text:build',
    'umt5': 'avlink_jax.codecs.pretrained_text:build',
    'qwen3': 'avlink_jax.codecs.pretrained_text:build',
}
SHARED, OWN = ('words', 't5'), ('t5', 'umt5', 'qwen3')  # kinds of config.text, config.texts.NAME

PAD, START, FIRST_WORD = 0, 1, 2


@dataclasses.dataclass(frozen=True)
class Context:
  """What a text encoder is told besides its section of the config.

  Attributes:
    section: its section's name, 'text' or 'texts.NAME'.
    folder: where its tower's frozen weights are from, which may be a published model.
    seconds: length of a window.
    prepared: function (kind, width, max_tokens, seconds) -> embeddings that were prepared for such
      an encoder (data/prepare/embeddings.py), or None.
    dtype: activations' type.
  """
  section: str = 'text'
  folder: str = ''
  seconds: float = 0.0
  prepared: Callable = lambda *_: None
  dtype: object = jnp.float32


def make(config, context):
  """Text encoder of a section of the config, `config.text` or `config.texts.NAME`.

  Raises UserError: unknown kind, or no size is known.
  """
  kinds = SHARED if context.section == 'text' else OWN
  if config.encoder not in kinds:
    raise UserError(f'{context.section}.encoder={config.encoder!r}: use '
                    f'{", ".join(kinds[:-1])} or {kinds[-1]}')
  module, _, function = KINDS[config.encoder].partition(':')
  return getattr(importlib.import_module(module), function)(config.encoder, config, context)


def build(kind, config, context):
  """Builder of kind `words` (KINDS)."""
  del kind, context
  return WordEncoder(config.width, config.depth, config.heads, config.buckets, config.max_tokens)


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
