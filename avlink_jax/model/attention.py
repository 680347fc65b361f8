"""Scaled dot-product attention, heads first, by the implementation the hardware wants.

`reference` is the formula in float32. `tiled` computes the same in tiles that stay in the
cache and are recomputed for the gradient, so that memory does not grow with T·S; on a CPU it is,
with its gradient, the fastest of these and about twice as fast as JAX's own
(tests/benchmarks/attention.py). `cudnn` and `splash` are the flash attention of NVIDIA GPUs and of
TPUs (flash.py), asked for by name since JAX never picks them by itself. What they cannot take is a
UserError when the model is built: there is no slower way that is gone quietly.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from avlink_jax.errors import UserError
from avlink_jax.model import axes as spread
from avlink_jax.model import flash, rope

TILE_LOGITS = 1 << 19  # 2 MiB of float32: what a core's own cache holds


def choose(name='auto', platform=None):
  """The implementation that `name` stands for on `platform` (default: this process's): 'auto' is
  'cudnn' on NVIDIA GPUs, 'splash' on TPUs, 'tiled' on CPUs.

  Raises UserError for a name that is none, or is another platform's.
  """
  platform = platform or jax.default_backend()
  if name == 'auto':
    return {'gpu': 'cudnn', 'tpu': 'splash'}.get(platform, 'tiled')
  if name not in IMPLEMENTATIONS:
    raise UserError(f'attention={name!r}: use auto or one of {", ".join(IMPLEMENTATIONS)}')
  if HOME.get(name, platform) != platform:
    raise UserError(f'attention={name} runs on {HOME[name]} and this is {platform}: use auto')
  return name


def check(name, head_dim, dtype):
  """Raises UserError where the implementation cannot take heads of `head_dim` in `dtype`."""
  if name == 'cudnn':
    flash.check_cudnn(head_dim, dtype)


def reference(q, k, v, key_mask=None):
  """softmax(q·kᵀ/√D)·v in float32. q (B, H, T, D), k and v (B, H, S, D), key_mask (B, S) bool,
  True where a key may be looked at (at least one each row) -> (B, H, T, D) of q's dtype."""
  scale = jnp.asarray(q.shape[-1] ** -0.5, q.dtype)
  logits = jnp.einsum('bhtd,bhsd->bhts', q * scale, k, preferred_element_type=jnp.float32)
  if key_mask is not None:
    logits = jnp.where(key_mask[:, None, None, :], logits, -1e30)
  weights = jnp.exp(logits - jax.lax.stop_gradient(logits.max(-1, keepdims=True)))
  out = jnp.einsum('bhts,bhsd->bhtd', weights.astype(v.dtype), v,
                   preferred_element_type=jnp.float32)
  # Dividing after the product touches T·D numbers instead of T·S.
  return (out / weights.sum(-1, keepdims=True)).astype(q.dtype)


def _divisor(n, at_most):
  """The largest divisor of n that is ≤ at_most (1 where at_most < 1)."""
  return next(d for d in range(max(1, min(n, int(at_most))), 0, -1) if n % d == 0)


def tiled(q, k, v, key_mask=None):
  """`reference`, a group of examples and a run of queries at a time."""
  batch, heads, queries, _ = q.shape
  if key_mask is None:
    key_mask = jnp.ones((batch, k.shape[2]), bool)
  tile_queries = max(1, min(queries, TILE_LOGITS // (heads * k.shape[2])))
  group = _divisor(batch, TILE_LOGITS / (heads * tile_queries * k.shape[2]))
  by_group = functools.partial(rearrange, pattern='(g b) ... -> g b ...', b=group)
  body = jax.checkpoint(reference)

  def one_group(args):
    q, k, v, key_mask = args
    if tile_queries == queries:
      return body(q, k, v, key_mask)
    tiles = -(-queries // tile_queries)
    q = jnp.pad(q, ((0, 0), (0, 0), (0, tiles * tile_queries - queries), (0, 0)))
    q = rearrange(q, 'b h (n t) d -> n b h t d', n=tiles)
    out = jax.lax.map(lambda q: body(q, k, v, key_mask), q)
    return rearrange(out, 'n b h t d -> b h (n t) d')[:, :, :queries]

  if group == batch:
    return one_group((q, k, v, key_mask))
  out = jax.lax.map(one_group, tuple(by_group(x) for x in (q, k, v, key_mask)))
  return rearrange(out, 'g b h t d -> (g b) h t d')


IMPLEMENTATIONS = {'reference': reference, 'tiled': tiled, 'cudnn': flash.cudnn,
                   'splash': flash.splash}
HOME = {'cudnn': 'gpu', 'splash': 'tpu'}


def attend(q, k, v, key_mask=None, implementation='auto', split=False, source_split=False):
  """Attention by name; see `reference` for shapes, `choose` for names. On a mesh, `split` and
  `source_split` say whether tokens of queries and of keys are (spread.py)."""
  kernel = IMPLEMENTATIONS.get(implementation) or IMPLEMENTATIONS[choose(implementation)]
  return spread.attention(kernel, q, k, v, key_mask, split, source_split)


def _nearness_bias(share, nearness):
  """Initialiser of biases: the first `share` of them, queries and keys, at `nearness`; values 0."""
  def init(key, shape, dtype=jnp.float32):
    del key
    return jnp.where(jnp.arange(shape[0]) < share * shape[0], nearness, 0.0).astype(dtype)

  return init


class Attention(nn.Module):
  """Multi-head attention with QK normalisation (App. B) and, where angles are given, RoPE.

  Keys and values come from `source` (cross-attention), or from x itself. `nearness` is where
  the biases of queries and keys begin: above 0, RoPE turns that common part into a preference
  for tokens nearby, from the first step on. `split`, `source_split`: whether on a mesh the tokens
  of x and of `source` are (spread.py).
  """
  width: int
  heads: int
  implementation: str = 'auto'
  dtype: jnp.dtype = jnp.float32
  nearness: float = 0.0
  split: bool = False
  source_split: bool = False

  @nn.compact
  def __call__(self, x, source=None, key_mask=None, angles=None, source_angles=None):
    """x (B, T, C), source (B, S, C'), key_mask (B, S), angles (T, C/heads/2) and, of a source,
    source_angles (S, C/heads/2) -> (B, T, width)."""
    dense = functools.partial(nn.Dense, dtype=self.dtype)
    norm = functools.partial(nn.RMSNorm, epsilon=1e-6, dtype=self.dtype)
    heads_first = functools.partial(
        rearrange, pattern='b t (n h d) -> n b h t d', h=self.heads)
    bias = functools.partial(_nearness_bias, nearness=self.nearness)
    if source is None:
      source_angles = angles
      q, k, v = heads_first(dense(3 * self.width, bias_init=bias(2 / 3), name='qkv')(x), n=3)
    else:
      q, = heads_first(dense(self.width, bias_init=bias(1), name='q')(x), n=1)
      k, v = heads_first(dense(2 * self.width, bias_init=bias(1 / 2), name='kv')(source), n=2)
    q, k = norm(name='q_norm')(q), norm(name='k_norm')(k)
    if angles is not None:
      q, k = rope.rotate(q, angles), rope.rotate(k, source_angles)
    out = attend(q, k, v, key_mask, self.implementation, self.split,
                 self.split if source is None else self.source_split)
    return dense(self.width, name='out')(rearrange(out, 'b h t d -> b t (h d)'))
