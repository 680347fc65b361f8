"""LAION-CLAP of a checkpoint in its own layout: audio and text in one space of 512 dimensions.

The one that av-benchmark takes: HTS-AT base and RoBERTa base, trained on music, speech and
AudioSet. Each side is projected by two affine maps with a ReLU between them. Audio longer than ten
seconds is heard in pieces, where the public code takes ten at random.

Source: Wu et al. 2023, `LAION-AI/CLAP` (clap_module/model.py, hook.py).
"""

import jax
import jax.numpy as jnp
import numpy as np

from avlink_jax.codecs import text_files
from avlink_jax.metrics.networks import htsat, roberta
from avlink_jax.metrics.networks.embedding import Embedder, exact
from avlink_jax.metrics.networks.layers import linear, relu

PARTS = ('audio_branch.', 'text_branch.', 'audio_projection.', 'text_projection.')
TOKENIZER = 'roberta-base'  # folder beside the checkpoint
LENGTH = 77  # tokens
BATCH = 16  # prompts at a time


def rename(arrays):
  """Removes the prefixes that training gave. Raises KeyError: there is no text encoder."""
  weights = {name.removeprefix('state_dict.').removeprefix('module.'): array
             for name, array in arrays.items()}
  weights['text_branch.pooler.dense.weight'], weights['text_projection.2.weight']
  return weights


def forward_audio(weights, x):
  """Embeds log-mels (B, 1001, 64): {'embedding': (B, 512)}, rows of length 1."""
  return {'embedding': _projected(weights, 'audio', htsat.forward(weights, x))}


def forward_text(weights, tokens):
  """Embeds tokens int (B, L): (B, 512), rows of length 1."""
  return _projected(weights, 'text', roberta.forward(weights, tokens))


def _projected(weights, kind, x):
  x = relu(linear(weights, f'{kind}_projection.0', x))
  x = linear(weights, f'{kind}_projection.2', x)
  return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


class LaionClap(Embedder):
  """Embedder of audio that embeds texts too. Raises UserError where weights or the tokenizer are
  missing."""

  def __init__(self, network, folder=None):
    super().__init__(network, folder)
    self._tokenize, _ = text_files.read_tokenizer(
        self.path.parent / TOKENIZER,
        len(self.weights['text_branch.embeddings.word_embeddings.weight']),
        "put RoBERTa base's tokenizer.json there", ('tokenizer.json',))
    self._text = jax.jit(exact(forward_text))

  def texts(self, prompts) -> np.ndarray:
    """Embeds prompts: float32 (P, 512), rows of length 1."""
    tokens = np.full((-(-len(prompts) // BATCH) * BATCH, LENGTH), roberta.PADDING, np.int32)
    tokens[:, 0] = roberta.START
    for row, prompt in zip(tokens, prompts, strict=False):
      found = self._tokenize(prompt)
      found = found if len(found) <= LENGTH else [*found[:LENGTH - 1], roberta.END]
      row[:len(found)] = found
    rows = [np.asarray(self._text(self.weights, tokens[first:first + BATCH]))
            for first in range(0, len(tokens), BATCH)]
    return np.concatenate(rows)[:len(prompts)]
