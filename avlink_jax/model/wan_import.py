"""Reader of published Wan transformers: sizes from config.json, weights into the tree of wan.py.

Names and shapes of the files are those of diffusers' WanTransformer3DModel, which
MOSS-SoundEffect's files have as well; their two forms of config.json differ. Linear maps are stored
as (out, in). In self-attention, rotary embedding turns neighbouring channels there and channels
half a head apart here (rope.rotate), so rows of q and k are put in another order; the norm between
does not care.
"""

import dataclasses
import functools

import flax
import jax
import numpy as np
from einops import rearrange

from avlink_jax.errors import UserError
from avlink_jax.storage import foreign, published, weights

FLOATS = ('float32', 'bfloat16', 'float16')


@dataclasses.dataclass(frozen=True)
class Form:
  """A form of config.json: `sizes` {ours: its name there}, and `fixed` {name there: the only value
  that wan.py covers}; keys of `fixed` may be absent."""
  name: str
  sizes: dict
  fixed: dict


WAN = Form('Wan', {
    'heads': 'num_attention_heads', 'head_width': 'attention_head_dim', 'depth': 'num_layers',
    'mlp': 'ffn_dim', 'channels': 'in_channels', 'out_channels': 'out_channels',
    'text_width': 'text_dim', 'patch': 'patch_size'}, {
        '_class_name': 'WanTransformer3DModel', 'qk_norm': 'rms_norm_across_heads',
        'cross_attn_norm': True, 'image_dim': None, 'added_kv_proj_dim': None,
        'pos_embed_seq_len': None, 'eps': 1e-6, 'freq_dim': 256})
MOSS = Form('MOSS-SoundEffect', {
    'heads': 'num_heads', 'width': 'dim', 'depth': 'num_layers', 'mlp': 'ffn_dim',
    'channels': 'in_dim', 'out_channels': 'out_dim', 'text_width': 'text_dim',
    'patch': 'patch_size'}, {
        'vae_type': 'dac', 'has_image_input': False, 'has_image_pos_emb': False,
        'has_ref_conv': False, 'add_control_adapter': False, 'seperated_timestep': False,
        'fuse_vae_embedding_in_latents': False, 'eps': 1e-6, 'freq_dim': 256})


@dataclasses.dataclass(frozen=True)
class Sizes:
  """Sizes of a published transformer, named as in wan.Wan."""
  width: int
  depth: int
  heads: int
  mlp: int
  channels: int
  text_width: int
  patch: tuple[int, ...]


def read_sizes(folder):
  """Sizes from a folder's config.json. Raises UserError: of another model, or of a variant that
  wan.py does not cover, which is named."""
  path, raw = folder / 'config.json', published.read_config(folder)
  form = next((form for form in (WAN, MOSS) if form.sizes['heads'] in raw), None)
  if form is None or form is MOSS and 'vae_type' not in raw:
    raise UserError(f'{path}: the config of neither Wan nor MOSS-SoundEffect, but of '
                    f'{raw.get("_class_name", "something else")}: give a folder of one of these')
  for key, wanted in form.fixed.items():
    if raw.get(key, wanted) != wanted:
      raise UserError(f'{path}: {key}={raw[key]!r}: of {form.name} only models with '
                      f'{key}={wanted!r} are covered')
  found = {ours: raw.get(theirs) for ours, theirs in form.sizes.items()}
  found['patch'] = found['patch'] if isinstance(found['patch'], list) else [found['patch']]
  axes = 3 if form is WAN else 1
  for ours, value in found.items():
    numbers = value if ours == 'patch' else [value]
    if len(numbers) != (axes if ours == 'patch' else 1) or not all(
        type(n) is int and n > 0 for n in numbers):
      raise UserError(f'{path}: {form.sizes[ours]}={raw.get(form.sizes[ours], "missing")!r}: '
                      f'no {form.name} is made like that')
  found.setdefault('width', found['heads'] * found.pop('head_width', 0))
  if found['channels'] != found.pop('out_channels'):
    raise UserError(f'{path}: {form.sizes["channels"]}={found["channels"]} and '
                    f'{form.sizes["out_channels"]}={raw[form.sizes["out_channels"]]}: a model that '
                    'is given more than noisy data is not covered')
  if found['width'] % (2 * found['heads']):
    raise UserError(f'{path}: {found["width"]} channels are not {found["heads"]} heads of an even '
                    'number of them')
  return Sizes(**found | {'patch': tuple(found['patch'])})


# Names

MODULES = {
    'embed/patch': 'patch_embedding', 'embed/time_in': 'condition_embedder.time_embedder.linear_1',
    'embed/time_out': 'condition_embedder.time_embedder.linear_2',
    'embed/modulation': 'condition_embedder.time_proj',
    'embed/text/Dense_0': 'condition_embedder.text_embedder.linear_1',
    'embed/text/Dense_1': 'condition_embedder.text_embedder.linear_2', 'head/out': 'proj_out',
    'blocks/text_norm': 'blocks.{}.norm2', 'blocks/mlp/Dense_0': 'blocks.{}.ffn.net.0.proj',
    'blocks/mlp/Dense_1': 'blocks.{}.ffn.net.2'} | {
        f'blocks/{ours}_attention/{layer}': f'blocks.{{}}.{theirs}.{name}'
        for ours, theirs in (('self', 'attn1'), ('text', 'attn2'))
        for layer, name in (('q', 'to_q'), ('k', 'to_k'), ('v', 'to_v'), ('out', 'to_out.0'),
                            ('q_norm', 'norm_q'), ('k_norm', 'norm_k'))}
TABLES = {'blocks/table': 'blocks.{}.scale_shift_table', 'head/table': 'scale_shift_table'}
ROTATED = tuple(f'blocks/self_attention/{layer}/' for layer in ('q', 'k', 'q_norm', 'k_norm'))


def their_name(ours):
  """Name in the files of a parameter of ours, with {} for the block."""
  module, _, leaf = ours.rpartition('/')
  return TABLES.get(ours) or f'{MODULES[module]}.{"bias" if leaf == "bias" else "weight"}'


def their_shape(ours, shape, patch):
  """Shape in the files of a parameter of ours, whose own shape in one block is `shape`."""
  if ours in TABLES:
    return (1, *shape)
  if ours == 'embed/patch/kernel':  # a convolution
    return (shape[1], shape[0] // int(np.prod(patch)), *patch)
  return shape[::-1] if ours.endswith('kernel') else shape


def paired_order(width, heads):
  """Indices that put a head's channels in the order of halves: evens, then odds."""
  return rearrange(np.arange(width), '(h d two) -> (h two d)', h=heads, two=2)


# Numbers

def read(folder, tower, dtype=None, place=None):
  """Reads a folder's weights: the parameters of `tower` (wan.Wan).

  Args:
    dtype: of the arrays; None: float32.
    place: function of a tree of shapes -> tree of shardings. With it, arrays are jax.Arrays, each
      put on its devices before the next one is read, and a process reads the parts that its own
      devices hold. Without it they are numpy arrays.

  Raises UserError: a file is missing or damaged, a name is missing, unknown or of another shape.
  """
  dtype = np.dtype(np.float32 if dtype is None else dtype)
  stored = foreign.scan(published.weights_file(folder))
  shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype),
                        jax.eval_shape(tower.init, jax.random.key(0)))
  flat = flax.traverse_util.flatten_dict(shapes, sep='/')
  expected = {}
  for ours, leaf in flat.items():
    stacked = ours.startswith('blocks/')
    shape = their_shape(ours, leaf.shape[stacked:], tower.patch)
    for block in range(tower.depth if stacked else 1):
      expected[their_name(ours).format(block)] = jax.ShapeDtypeStruct(shape, dtype)
  weights.fit({name: jax.ShapeDtypeStruct(tensor.shape, dtype) for name, tensor in stored.items()},
              expected, folder)
  where = {} if place is None else flax.traverse_util.flatten_dict(place(shapes), sep='/')
  tree = {}
  for ours, leaf in flat.items():
    numbers = functools.partial(_numbers, folder, stored, tower, ours, dtype)
    if where:
      tree[ours] = jax.make_array_from_callback(leaf.shape, where[ours], _once(numbers))
      tree[ours].block_until_ready()  # and what it was read into is free
    else:
      tree[ours] = numbers((slice(None),) * len(leaf.shape))
  return flax.traverse_util.unflatten_dict(tree, sep='/')


def _once(function):
  """`function` of slices, which is called once for each part, however many devices hold it."""
  known = {}

  def call(at):
    if str(at) not in known:  # before Python 3.12 slices cannot be keys
      known[str(at)] = function(at)
    return known[str(at)]

  return call


def _numbers(folder, stored, tower, ours, dtype, at):
  """The part `at` (slices) of our parameter: a numpy array of `dtype`."""
  tensor = functools.partial(_tensor, folder, stored, tower, ours)
  if not ours.startswith('blocks/'):
    return tensor(their_name(ours), at).astype(dtype)
  blocks, numbers = range(tower.depth)[at[0]], None
  for i, block in enumerate(blocks):
    one = tensor(their_name(ours).format(block), at[1:])
    numbers = np.empty((len(blocks), *one.shape), dtype) if numbers is None else numbers
    numbers[i] = one
  return numbers


def _tensor(folder, stored, tower, ours, name, at):
  """The part `at` of one block's parameter, or of one outside the blocks, as a file has it."""
  if ours.endswith('kernel') and ours != 'embed/patch/kernel':
    tensor = stored[name].part((slice(None), at[0])).T  # of each output, the inputs wanted
    at = (slice(None), *at[1:])
  else:
    tensor = stored[name].load()
    if ours in TABLES:
      tensor = tensor[0]
    elif ours == 'embed/patch/kernel':
      tensor = np.moveaxis(tensor.reshape(*tensor.shape[:2], -1), 1, 2).reshape(len(tensor), -1).T
  if tensor.dtype.name not in FLOATS:
    raise UserError(f'{folder}: {name} is {tensor.dtype}: give weights that are not quantised')
  if ours.startswith(ROTATED):
    tensor = tensor[..., paired_order(tower.width, tower.heads)]
  return tensor[at]
