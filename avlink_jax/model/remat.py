"""What the gradient keeps of a block's forward pass, and what it computes again.

Keeping nothing but a block's input is the least memory. Of what is then computed again, attention
over many keys is the dearest and its result small: the policy `attention` keeps that result (and
the logarithms of its sums, which flash attention's gradient needs), a copy of the tokens a block.
"""

import jax
from jax.ad_checkpoint import checkpoint_name

POLICIES = ('none', 'attention', 'block', 'segment')
NAME = 'attention'  # of values that this policy keeps, by checkpoint_name
CUDNN_FORWARD = 'dot_product_attention_fwd'  # cuDNN's have no names: known by their primitive


def checkpointed(function, policy):
  """`function`, whose gradient keeps what `policy` says: 'none' everything; 'attention' its inputs
  and the results of attention; 'block' its inputs alone."""
  if policy == 'none':
    return function
  return jax.checkpoint(function, policy=_is_kept if policy == 'attention' else None)


def is_dear(keys, channels):
  """Tells whether attention of so many keys is worth keeping: per query it costs 4·keys·channels
  FLOPs, and the projections around it, which are computed again, 8·channels²."""
  return keys >= channels


def kept(x):
  """`x` as a value that the policy 'attention' keeps."""
  return checkpoint_name(x, NAME)


def _is_kept(primitive, *inputs, **params):
  if primitive.name.startswith(CUDNN_FORWARD):
    _, keys, heads, dim = inputs[1].shape
    return is_dear(keys, heads * dim)
  return jax.checkpoint_policies.save_only_these_names(NAME)(primitive, *inputs, **params)
