"""RoBERTa: LAION-CLAP's text encoder; a transformer with normalisation after each part.

Names as in `transformers.RobertaModel`. Source: Liu et al. 2019.
"""

import jax.numpy as jnp

from avlink_jax.metrics.networks import transformer
from avlink_jax.metrics.networks.layers import linear

START, PADDING, END = 0, 1, 2  # tokens
HEAD = 64  # channels
EPS = 1e-5
MASKED = -1e9


def forward(weights, tokens, root='text_branch'):
  """Embeds tokens int (B, L), padded at their end: (B, C), what the pooler makes of the first."""
  embeddings = f'{root}.embeddings'
  mask = tokens != PADDING
  places = jnp.cumsum(mask, 1) * mask + PADDING
  x = (weights[f'{embeddings}.word_embeddings.weight'][tokens]
       + weights[f'{embeddings}.position_embeddings.weight'][places]
       + weights[f'{embeddings}.token_type_embeddings.weight'][0])
  x = transformer.layer_norm(weights, f'{embeddings}.LayerNorm', x, EPS)
  heads = x.shape[-1] // HEAD
  hidden = jnp.where(mask, 0.0, MASKED)[:, None, None]
  for name in transformer.numbered(weights, f'{root}.encoder.layer', 'output.dense.weight'):
    q, k, v = (linear(weights, f'{name}.attention.self.{part}', x)
               for part in ('query', 'key', 'value'))
    found = transformer.attend(q, k, v, heads, hidden)
    x = transformer.layer_norm(weights, f'{name}.attention.output.LayerNorm', x + linear(
        weights, f'{name}.attention.output.dense', found), EPS)
    x = transformer.layer_norm(weights, f'{name}.output.LayerNorm', x + transformer.mlp(
        weights, f'{name}.intermediate.dense', f'{name}.output.dense', x), EPS)
  return jnp.tanh(linear(weights, f'{root}.pooler.dense', x[:, 0]))
