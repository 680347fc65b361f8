"""Scaled dot-product attention, heads first, by the implementation the hardware wants.

`reference` is the formula in float32. `tiled` computes the same in tiles that stay in the
cache and are recomputed for the gradient, so that memory does not grow with T·S; on a CPU it is,
with its gradient, the fastest of these and about twice as fast as JAX's own
(tests/benchmarks/attention.py). `cudnn` and `splash` are the flash attention of NVIDIA GPUs and of
TPUs (flash.py), asked for by name since JAX never picks them by itself. What they cannot take is a
UserError when the model is built: there is no slower way that is gone quietly.
"""

import dataclasses
import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from avlink_jax.errors import UserError
from avlink_jax.model import axes, flash, remat, rope

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


def attend(q, k, v, key_mask=None, implementation='auto'):
  """Attention of one stream by name; see `reference` for shapes, `choose` for names."""
  out, = Kernel(implementation)([q], [k], [v], None if key_mask is None else [key_mask])
  return out


@dataclasses.dataclass(frozen=True)
class Kernel:
  """One attention over the tokens of several streams, by an implementation bound when the model is
  built, wherever on a mesh the tokens lie.

  Attributes:
    implementation: name, see `choose`.
    queries, keys: logical axis of each stream's tokens (axes.py).
  """
  implementation: str = 'auto'
  queries: tuple[str, ...] = ('tokens',)
  keys: tuple[str, ...] = ('tokens',)

  def between(self, queries, keys):
    """The same, for streams with these logical axes."""
    return dataclasses.replace(self, queries=tuple(queries), keys=tuple(keys))

  def __call__(self, q, k, v, key_mask=None):
    """Lists, one entry a stream: q of (B, H, T_m, D), k and v of (B, H, S_m, D), key_mask of
    (B, S_m) bool (None: all) -> list of (B, H, T_m, D). Each query attends to all streams' keys."""
    if axes.sharded():
      return self._on_mesh(q, k, v, key_mask)
    return self._joint(q, k, v, key_mask)

  def _joint(self, q, k, v, key_mask):
    name = self.implementation if self.implementation in IMPLEMENTATIONS else choose(
        self.implementation)
    mask = None if key_mask is None else _concatenate(key_mask, 1)
    together = [_concatenate(x, 2) for x in (q, k, v)]
    out = IMPLEMENTATIONS[name](*together, mask)
    _, heads, keys, dim = together[1].shape
    if name not in HOME and remat.is_dear(keys, heads * dim):
      out = remat.kept(out)  # the kernels of accelerators keep what their gradients need
    return jnp.split(out, np.cumsum([x.shape[2] for x in q])[:-1], axis=2)

  def _on_mesh(self, q, k, v, key_mask):
    """Each device's own queries attend to all keys: sharded ones are gathered, their gradients
    scattered back. Where keys are gathered, queries that every device has are shared out, so that
    none is computed twice, and their outputs gathered."""
    if key_mask is None:
      key_mask = [jnp.ones((x.shape[0], x.shape[2]), bool) for x in k]
    own = [axes.mesh_axes(name, x.shape[2]) for name, x in zip(self.queries, q, strict=True)]
    across = [axes.mesh_axes(name, x.shape[2]) for name, x in zip(self.keys, k, strict=True)]
    shared = next(filter(None, across), None)
    lengths = [x.shape[2] for x in q]

    def on_one_device(q, k, v, key_mask):
      k, v = ([_gather(x, axis, 2) for x, axis in zip(xs, across, strict=True)] for xs in (k, v))
      key_mask = [_gather(x, axis, 1) for x, axis in zip(key_mask, across, strict=True)]
      q = [_share(x, None if axis else shared) for x, axis in zip(q, own, strict=True)]
      out = self._joint(q, k, v, key_mask)
      return [_gather(x, None if axis else shared, 2)[:, :, :length]
              for x, axis, length in zip(out, own, lengths, strict=True)]

    by_head = lambda names, xs: [  # noqa: E731
        axes.spec(x.shape, 'batch', None, name, None) for name, x in zip(names, xs, strict=True)]
    queries, keys = by_head(self.queries, q), by_head(self.keys, k)
    masks = [axes.spec(x.shape, 'batch', name)
             for name, x in zip(self.keys, key_mask, strict=True)]
    return jax.shard_map(on_one_device, in_specs=(queries, keys, keys, masks), out_specs=queries,
                         check_vma=False)(q, k, v, key_mask)


def _concatenate(xs, axis):
  return xs[0] if len(xs) == 1 else jnp.concatenate(xs, axis)


def _gather(x, mesh_axis, dimension):
  """All of what is sharded over `mesh_axis`; x itself where that is None."""
  return x if mesh_axis is None else jax.lax.all_gather(x, mesh_axis, axis=dimension, tiled=True)


def _share(q, mesh_axis):
  """This device's share of queries that every device has, the last one's filled up with zeros."""
  if mesh_axis is None:
    return q
  length = -(-q.shape[2] // jax.lax.axis_size(mesh_axis))
  q = jnp.pad(q, ((0, 0), (0, 0), (0, length * jax.lax.axis_size(mesh_axis) - q.shape[2]), (0, 0)))
  return jax.lax.dynamic_slice_in_dim(q, length * jax.lax.axis_index(mesh_axis), length, axis=2)


class Dense(nn.Module):
  """nn.Dense with the same parameters, of which a call may compute some columns alone."""
  features: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, columns=slice(None)):
    kernel = self.param('kernel', nn.initializers.lecun_normal(), (x.shape[-1], self.features))
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    x, kernel, bias = nn.dtypes.promote_dtype(
        x, kernel[:, columns], bias[columns], dtype=self.dtype)
    y = jax.lax.dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())))
    return y + jnp.reshape(bias, (1,) * (y.ndim - 1) + (-1,))


class Attention(nn.Module):
  """Multi-head attention with QK normalisation (App. B) and, where angles are given, RoPE, over the
  tokens of one stream or of several, which share its weights.

  Keys and values come from `source` (cross-attention), or from x itself.
  """
  width: int
  heads: int
  kernel: Kernel = Kernel()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, source=None, key_mask=None, angles=None, source_angles=None, asking=None):
    """Lists, one entry a stream: x of (B, T_m, C), source of (B, S_m, C'), key_mask of (B, S_m),
    angles of (T_m, C/heads/2) and, of sources, source_angles of (S_m, C/heads/2) -> list of
    (B, T_m, width).

    asking: without `source`, which streams have queries, a bool each; default: all. Only of those
    is there a result; of the others there are keys and values alone."""
    dense = functools.partial(Dense, dtype=self.dtype)
    norm = functools.partial(nn.RMSNorm, epsilon=1e-6, dtype=self.dtype)
    heads_first = functools.partial(
        rearrange, pattern='b t (n h d) -> n b h t d', h=self.heads)
    kernel = self.kernel
    if source is None and asking is None:
      source_angles, qkv = angles, dense(3 * self.width, name='qkv')
      q, k, v = zip(*(heads_first(y, n=3) for y in _shared(qkv, x, kernel.queries)), strict=True)
    else:
      if source is None:
        qkv = dense(3 * self.width, name='qkv')
        ask = lambda values: list(itertools.compress(values, asking))  # noqa: E731
        to_q = functools.partial(qkv, columns=slice(self.width))
        to_kv = functools.partial(qkv, columns=slice(self.width, None))
        source, source_angles, x, angles = x, angles, ask(x), ask(angles)
        kernel = kernel.between(ask(kernel.queries), kernel.keys)
      else:
        to_q, to_kv = dense(self.width, name='q'), dense(2 * self.width, name='kv')
      q = [heads_first(y, n=1)[0] for y in _shared(to_q, x, kernel.queries)]
      k, v = zip(*(heads_first(y, n=2) for y in _shared(to_kv, source, kernel.keys)), strict=True)
    q, k = map(norm(name='q_norm'), q), map(norm(name='k_norm'), k)
    if angles is not None:
      q, k = map(rope.rotate, q, angles), map(rope.rotate, k, source_angles)
    out, to_out = kernel(list(q), list(k), list(v), key_mask), dense(self.width, name='out')
    return _shared(to_out, [rearrange(y, 'b h t d -> b t (h d)') for y in out], kernel.queries)


def _shared(layer, streams, axis_names):
  """`layer` of each stream (B, T_m, C), as a list. Of all their tokens at once where every device
  has all of them: then its gradient is summed over devices once, not stream by stream."""
  if any(axes.mesh_axes(name, x.shape[1]) for name, x in zip(axis_names, streams, strict=True)):
    return [layer(x) for x in streams]
  return jnp.split(layer(_concatenate(streams, 1)), np.cumsum([x.shape[1] for x in streams])[:-1],
                   axis=1)
