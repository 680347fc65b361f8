"""Flash attention of accelerators: cuDNN's on NVIDIA GPUs, the splash kernel on TPUs.

Both take what `attention.reference` takes and give the same numbers; lengths that they cannot cut
into blocks are filled up here, and what is filled up is masked.
"""

import jax
import jax.numpy as jnp
from einops import rearrange

from avlink_jax.errors import UserError
from avlink_jax.model import remat

LANES = 128  # blocks of the TPU's kernel are multiples of it
QUERY_BLOCKS = (512, 640)  # tokens; between them, whatever fills up least
KEY_BLOCKS = (512, 640, 768, 896, 1024)
COPIED_KEYS = 2048  # of so many at most the backward kernel makes one copy of the queries' gradient


def check_cudnn(head_dim, dtype):
  """Raises UserError for heads that cuDNN's flash attention does not take."""
  if dtype not in (jnp.bfloat16, jnp.float16):
    raise UserError(f'attention=cudnn computes in half precision and this model in '
                    f'{jnp.dtype(dtype).name}: set --config.attention=tiled')
  if head_dim % 8 or head_dim > 128:
    raise UserError(f'attention=cudnn takes heads of a multiple of 8 channels, up to 128, and '
                    f'width/heads is {head_dim}: change it, or set --config.attention=tiled')


@jax.custom_vjp
def permute(x, order, inverse):
  """x (B, H, S, D) with its tokens in the given order (B, S); `inverse` undoes it."""
  del inverse
  return jnp.take_along_axis(x, order[:, None, :, None], axis=2)


def _permute_back(residuals, g):
  order, inverse = residuals
  return permute(g, inverse, order), None, None


permute.defvjp(lambda x, order, inverse: (permute(x, order, inverse), (order, inverse)),
               _permute_back)


def cudnn(q, k, v, key_mask=None):
  """Flash attention through cuDNN, in half precision.

  A mask given as such would be added to all T·S logits, in memory. But cuDNN can stop at a number
  of keys, so keys that may be looked at are moved to the front: order is nothing to attention.
  """
  lengths = {}
  if key_mask is not None:
    order = jnp.argsort(~key_mask, axis=1, stable=True)
    inverse = jnp.argsort(order, axis=1)
    k, v = (permute(x, order, inverse) for x in (k, v))
    lengths['key_value_seq_lengths'] = key_mask.sum(1, dtype=jnp.int32)
  q, k, v = (rearrange(x, 'b h t d -> b t h d') for x in (q, k, v))
  out = jax.nn.dot_product_attention(q, k, v, implementation='cudnn', **lengths)
  return rearrange(out, 'b t h d -> b h t d')


def block(length, candidates):
  """(tokens of a block, length filled up to whole blocks): of `candidates` the one that fills up
  least, the larger of two; a short length is one block."""
  if length <= min(candidates):
    whole = -(-length // LANES) * LANES
    return whole, whole
  return min(((size, -(-length // size) * size) for size in candidates),
             key=lambda made: (made[1], -made[0]))


def splash(q, k, v, key_mask=None, interpret=False):
  """The TPU's splash kernel, forward and backward. `interpret`: on a CPU, slowly, for tests.

  What fills up the last block is of another segment than the keys that may be looked at. All
  queries are of theirs, so that each has something to look at; those that only fill are cut off.
  """
  from jax.experimental.pallas.ops.tpu import splash_attention as tpu  # half a second: TPUs only
  batch, heads, queries, dim = q.shape
  block_q, filled_q = block(queries, QUERY_BLOCKS)
  block_k, filled_k = block(k.shape[2], KEY_BLOCKS)
  if key_mask is None:
    key_mask = jnp.ones((batch, k.shape[2]), bool)
  key_mask = jnp.pad(key_mask, ((0, 0), (0, filled_k - k.shape[2])))
  q = _fill(q * jnp.asarray(dim ** -0.5, q.dtype), filled_q)
  k, v = _fill(k, filled_k), _fill(v, filled_k)
  # One backward kernel for the gradients of queries, keys and values: five matrix products for the
  # seven of two kernels. It makes a copy of the queries' gradient for each run of blocks of keys.
  blocks = filled_k // block_k
  run = max(n for n in range(1, blocks + 1) if blocks % n == 0 and (
      n == 1 or n * block_k <= COPIED_KEYS))
  sizes = tpu.BlockSizes(
      block_q=block_q, block_kv=block_k, block_q_dkv=block_q, block_kv_dkv=run * block_k,
      block_kv_dkv_compute=block_k, use_fused_bwd_kernel=True)
  attend = tpu.make_splash_mha(
      tpu.MultiHeadMask([tpu.FullMask((filled_q, filled_k))] * heads), block_sizes=sizes,
      head_shards=1, q_seq_shards=1, interpret=interpret,
      residual_checkpoint_name=remat.NAME if remat.is_dear(k.shape[2], heads * dim) else None)
  segments = tpu.SegmentIds(jnp.ones((batch, filled_q), jnp.int32), key_mask.astype(jnp.int32))
  # An example at a time, so that there are the copies of one.
  out = jax.lax.map(lambda one: attend(*one), (q, k, v, segments))
  return out[:, :, :queries]


def _fill(x, length):
  """x (B, H, T, D) with zeros behind its tokens, up to `length`."""
  return jnp.pad(x, ((0, 0), (0, 0), (0, length - x.shape[2]), (0, 0)))
