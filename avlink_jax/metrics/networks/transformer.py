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


def attention(weights, name, x, heads):
  """Self-attention (B, L, C) -> (B, L, C). `NAME.bias_k`, where there is one, is a further key that
  all queries attend to, `NAME.bias_v` its value."""
  x = x @ weights[f'{name}.in_proj_weight'].T + weights[f'{name}.in_proj_bias']
  q, k, v = jnp.split(x, 3, -1)
  if f'{name}.bias_k' in weights:
    k, v = (jnp.concatenate([values, repeat(weights[f'{name}.bias_{which}'], '1 1 c -> b 1 c',
                                           b=len(x))], 1) for which, values in (('k', k), ('v', v)))
  q, k, v = (rearrange(part, 'b l (h d) -> b h l d', h=heads) for part in (q, k, v))
  weight = jax.nn.softmax(jnp.einsum('bhqd,bhkd->bhqk', q, k) * q.shape[-1] ** -0.5, -1)
  x = rearrange(jnp.einsum('bhqk,bhkd->bhqd', weight, v), 'b h l d -> b l (h d)')
  return linear(weights, f'{name}.out_proj', x)


def blocks(weights, name, x, heads):
  """Applies the blocks `NAME.0`, `NAME.1`, ..., for which there are weights, to x (B, L, C).

  Raises:
    KeyError: there are none.
  """
  number = 0
  while f'{name}.{number}.norm_1.weight' in weights:
    block = f'{name}.{number}'
    x = x + attention(weights, f'{block}.attn', layer_norm(weights, f'{block}.norm_1', x), heads)
    hidden = linear(weights, f'{block}.mlp.fc1', layer_norm(weights, f'{block}.norm_2', x))
    x = x + linear(weights, f'{block}.mlp.fc2', jax.nn.gelu(hidden, approximate=False))
    number += 1
  if not number:
    raise KeyError(f'{name}.0')
  return x
