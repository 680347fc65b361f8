"""Encoder of T5 (App. C: flan-t5-large) and of umT5 (Wan's umT5-xxl), always frozen.

The model and the reader of its files; pretrained_text.py builds a text encoder from them.

Architecture: Raffel et al. 2020 (arXiv 1910.10683), and Shazeer 2020 (arXiv 2002.05202) for the
gated MLP of T5 v1.1 and flan-T5. umT5 (Chung et al. 2023, arXiv 2304.09151) differs from T5 v1.1 in
that each layer has a relative bias of its own. Files, their names and their tensors: those of
Hugging Face.
"""

import dataclasses
import functools
import math
import pathlib
import typing

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from avlink_jax.codecs import text_files
from avlink_jax.errors import UserError

EOS = '</s>'
FOLDER = 'give a T5 folder of config.json, model.safetensors and tokenizer.json'
ACTIVATIONS = {'relu': nn.relu, 'gelu_new': nn.gelu, 'silu': nn.silu}


@dataclasses.dataclass(frozen=True)
class T5Config:
  """Sizes of a T5 encoder, named as in its config.json, with T5's defaults."""
  shared_bias: typing.ClassVar = True  # one relative bias for all layers
  vocab_size: int
  d_model: int
  d_kv: int
  d_ff: int
  num_layers: int
  num_heads: int
  relative_attention_num_buckets: int = 32
  relative_attention_max_distance: int = 128
  layer_norm_epsilon: float = 1e-6
  dense_act_fn: str = 'relu'
  is_gated_act: bool = False


class UMT5Config(T5Config):
  """Sizes of a umT5 encoder."""
  shared_bias = False


MODELS = {'t5': T5Config, 'umt5': UMT5Config}  # model_type of config.json


def read_config(path):
  """Reads config.json: T5Config or UMT5Config. Raises UserError: no such file, another model, a bad
  value."""
  raw = text_files.read_json(path, FOLDER)
  kind = raw.get('model_type')
  if kind not in MODELS:
    raise UserError(f'{path}: model_type is {kind!r}: give a T5 or flan-T5 (model_type t5), or a '
                    'umT5 (umt5)')
  # 'relu', or 'gated-gelu', which means the tanh approximation; `dense_act_fn` overrides it.
  default = 'relu' if kind == 't5' else 'gated-gelu'
  gate, _, name = str(raw.get('feed_forward_proj', default)).rpartition('-')
  raw = {'dense_act_fn': 'gelu_new' if (gate, name) == ('gated', 'gelu') else name,
         'is_gated_act': gate == 'gated'} | raw
  fields = dataclasses.fields(T5Config)
  config = MODELS[kind](**{f.name: raw.get(f.name, f.default) for f in fields})
  bad = [f.name for f in fields if not isinstance(value := getattr(config, f.name), f.type)
         or f.type in (int, float) and value <= 0 or f.type is str and value not in ACTIVATIONS]
  most = 0 if bad else 4 * config.relative_attention_max_distance
  if not bad and not 4 <= config.relative_attention_num_buckets < most:
    bad = ['relative_attention_num_buckets', 'relative_attention_max_distance']
  if bad:
    faults = ', '.join(f'{name}={raw.get(name, "missing")!r}' for name in bad)
    raise UserError(f'{path}: {faults}: no T5 is made like that')
  return config


def relative_buckets(length, buckets, max_distance):
  """Relative-position buckets of (query m, key n): int (length, length), on the host.

  Half of the buckets are for keys after the query. In each half, half are for single distances and
  half grow logarithmically up to `max_distance`; larger distances share the last. Each operation is
  in float32, as in training: a more exact logarithm could round differently.
  """
  offset = np.arange(length) - np.arange(length)[:, None]
  distance, half, exact = np.abs(offset), buckets // 2, buckets // 4
  log = np.log(np.maximum(distance, 1).astype(np.float32) / np.float32(exact))
  log = log / np.float32(math.log(max_distance / exact)) * np.float32(half - exact)
  far = np.minimum(exact + log.astype(int), half - 1)
  return (offset > 0) * half + np.where(distance < exact, distance, far)


class Block(nn.Module):
  """Self-attention and MLP, with skips in float32, since T5's values run into the thousands."""
  config: T5Config
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, bias):
    """x float32 (B, L, C), bias of the (unscaled) logits (B, H, L, L) -> float32 (B, L, C)."""
    c, activation = self.config, ACTIVATIONS[self.config.dense_act_fn]
    dense = functools.partial(nn.Dense, use_bias=False, dtype=self.dtype)
    norm = functools.partial(nn.RMSNorm, c.layer_norm_epsilon, dtype=self.dtype)
    y = norm(name='attention_norm')(x)
    q, k, v = (rearrange(dense(c.num_heads * c.d_kv, name=name)(y), 'b t (h d) -> b h t d',
                         h=c.num_heads) for name in 'qkv')
    logits = jnp.einsum('bhtd,bhsd->bhts', q, k, preferred_element_type=jnp.float32)
    y = jnp.einsum('bhts,bhsd->bhtd', nn.softmax(logits + bias).astype(self.dtype), v)
    x = x + dense(c.d_model, name='o')(rearrange(y, 'b h t d -> b t (h d)'))
    y = norm(name='mlp_norm')(x)
    gate = activation(dense(c.d_ff, name='wi_0' if c.is_gated_act else 'wi')(y))
    y = gate * dense(c.d_ff, name='wi_1')(y) if c.is_gated_act else gate
    return x + dense(c.d_model, name='wo')(y)


@dataclasses.dataclass(frozen=True)
class T5:
  """T5's encoder. Parameters: {'embedding', 'relative_bias', 'layers' (stacked), 'norm'}; of umT5
  'relative_bias' is in 'layers'."""
  config: T5Config

  @property
  def width(self):
    return self.config.d_model

  def init(self, key):
    """Fresh parameters, float32, for their shapes; real ones are read from files."""
    c, keys = self.config, jax.random.split(key, 3)
    block = lambda key: Block(c).init(key, jnp.zeros((1, 2, c.d_model)), 0.0)['params']  # noqa: E731
    table = (c.relative_attention_num_buckets, c.num_heads)
    bias = {'relative_bias': jax.random.normal(
        keys[1], table if c.shared_bias else (c.num_layers, *table))}
    layers = jax.vmap(block)(jax.random.split(keys[2], c.num_layers))
    return {'embedding': jax.random.normal(keys[0], (c.vocab_size, c.d_model)),
            'layers': layers if c.shared_bias else layers | bias,
            'norm': {'scale': jnp.ones(c.d_model)}} | (bias if c.shared_bias else {})

  def apply(self, params, tokens, mask, dtype=jnp.float32):
    """Tokens int (B, L), mask bool (B, L) -> float32 (B, L, d_model), zero where the mask is False.

    `dtype` is used for matrix products only; float32 means full precision on accelerators too.
    """
    c = self.config
    buckets = relative_buckets(tokens.shape[1], c.relative_attention_num_buckets,
                               c.relative_attention_max_distance)

    def bias_of(table):  # of the logits, (B, H, L, L)
      bias = rearrange(table.astype(jnp.float32)[buckets], 't s h -> 1 h t s')
      return jnp.where(mask[:, None, None, :], bias, -1e30)

    shared = bias_of(params['relative_bias']) if c.shared_bias else None

    def block(x, layer):
      bias = shared if c.shared_bias else bias_of(layer['relative_bias'])
      layer = {name: part for name, part in layer.items() if name != 'relative_bias'}
      return Block(c, dtype).apply({'params': layer}, x, bias), None

    x = params['embedding'][tokens].astype(jnp.float32)
    with jax.default_matmul_precision('highest'):
      x, _ = jax.lax.scan(block, x, params['layers'])
    x = nn.RMSNorm(c.layer_norm_epsilon).apply({'params': params['norm']}, x)
    return jnp.where(mask[..., None], x, 0)


embed = jax.jit(T5.apply, static_argnums=(0, 4))


def _hf_name(ours, shared_bias):
  """Hugging Face's name of a parameter, with {} for the layer."""
  part = ours.removeprefix('layers/').split('/')[0]
  if part == 'relative_bias':
    block = '0' if shared_bias else '{}'
    return f'encoder.block.{block}.layer.0.SelfAttention.relative_attention_bias.weight'
  layer = {'attention_norm': '0.layer_norm', 'mlp_norm': '1.layer_norm'}.get(
      part, f'{"0.SelfAttention" if part in "qkvo" else "1.DenseReluDense"}.{part}')
  return {'embedding': 'shared', 'norm': 'encoder.final_layer_norm'}.get(
      part, f'encoder.block.{{}}.layer.{layer}') + '.weight'


def read_weights(folder, config, dtype=jnp.float32):
  """Reads the encoder: (parameters of `T5(config)` as numpy arrays, digest of the tensors read).

  Matrices are in `dtype`, norms and the relative bias in float32. A decoder and its head, which
  some files have too, are left out.
  Raises UserError: no file, damaged, encoder tensors missing, unexpected or of wrong shape.
  """
  files = {name: stored for name, stored in text_files.scan(pathlib.Path(folder), FOLDER).items()
           if not name.startswith(('decoder.', 'lm_head.'))}
  alias = files.pop('encoder.embed_tokens.weight', None)  # the table's second or only name
  files = ({'shared.weight': alias} if alias else {}) | files
  shapes = jax.eval_shape(T5(config).init, jax.random.key(0))
  return text_files.read_weights(
      folder, files, shapes, functools.partial(_hf_name, shared_bias=config.shared_bias), dtype)


def read_tokenizer(folder, config):
  """Reads the tokenizer: (function from text to token ids ending with </s>, digest of the file).

  Raises UserError: no tokenizer, damaged, of another model, missing library.
  """
  return text_files.read_tokenizer(folder, config.vocab_size, FOLDER, end=EOS)
