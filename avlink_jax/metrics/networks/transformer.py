"""A transformer's blocks under torch's names: pre-norm, torch's MultiheadAttention, an MLP."""

import jax
import jax.numpy as jnp
from einops import rearrange, repeat

from avlink_jax.metrics.networks.layers import linear

EPS = 1e-6  # of the normalisation in a block


def layer_norm(weights, name, x, eps=EPS):
  """Normalises x (..., C) over C."""
  x = x - x.mean(-1, keepdims=True)
  x = x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + eps)
  return x * weights[f'{name}.weight'] + weights[f'{name}.bias']


def attend(q, k, v, heads, bias=0.0):
  """Attention of queries (..., Q, C) over keys and values (..., K, C), in heads: (..., Q, C).
  `bias` is added to the scores (..., heads, Q, K)."""
  q, k, v = (rearrange(part, '... l (h d) -> ... h l d', h=heads) for part in (q, k, v))
  score = jnp.einsum('...qd,...kd->...qk', q, k) * q.shape[-1] ** -0.5
  weight = jax.nn.softmax(score + bias, -1)
  return rearrange(jnp.einsum('...qk,...kd->...qd', weight, v), '... h l d -> ... l (h d)')


def attention(weights, name, x, heads):
  """Self-attention (B, L, C) -> (B, L, C). `NAME.bias_k`, where there is one, is a further key that
  all queries attend to, `NAME.bias_v` its value."""
  x = x @ weights[f'{name}.in_proj_weight'].T + weights[f'{name}.in_proj_bias']
  q, k, v = jnp.split(x, 3, -1)
  if f'{name}.bias_k' in weights:
    k, v = (jnp.concatenate([values, repeat(weights[f'{name}.bias_{which}'], '1 1 c -> b 1 c',
                                           b=len(x))], 1) for which, values in (('k', k), ('v', v)))
  return linear(weights, f'{name}.out_proj', attend(q, k, v, heads))


def mlp(weights, first, second, x):
  """Two affine maps with an exact GELU between them."""
  return linear(weights, second, jax.nn.gelu(linear(weights, first, x), approximate=False))


def numbered(weights, name, leaf):
  """Names `NAME.0`, `NAME.1`, ..., for which there are weights `NAME.0.LEAF`, ...

  Raises:
    KeyError: there are none.
  """
  number = 0
  while f'{name}.{number}.{leaf}' in weights:
    yield f'{name}.{number}'
    number += 1
  if not number:
    raise KeyError(f'{name}.0')


def blocks(weights, name, x, heads):
  """Applies the blocks `NAME.0`, `NAME.1`, ..., to x (B, L, C). Raises KeyError: there are none."""
  for block in numbered(weights, name, 'norm_1.weight'):
    x = x + attention(weights, f'{block}.attn', layer_norm(weights, f'{block}.norm_1', x), heads)
    x = x + mlp(weights, f'{block}.mlp.fc1', f'{block}.mlp.fc2',
                layer_norm(weights, f'{block}.norm_2', x))
  return x
