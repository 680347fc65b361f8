"""Encoder of T5 (App. C: flan-t5-large), always frozen.

The model and the reader of its files; t5_text.py builds a text encoder from them.

Architecture: Raffel et al. 2020 (arXiv 1910.10683), and Shazeer 2020 (arXiv 2002.05202) for the
gated MLP of T5 v1.1 and flan-T5. Files, their names and their tensors: those of Hugging Face.
"""

import contextlib
import dataclasses
import functools
import hashlib
import importlib
import json
import math
import pathlib
import textwrap

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from avlink_jax.errors import UserError
from avlink_jax.storage import foreign, weights

EOS = '</s>'
TOKENIZERS = {'tokenizer.json': 'tokenizers', 'spiece.model': 'sentencepiece'}  # file: library
WEIGHTS = ('model.safetensors', 'model.safetensors.index.json')
FOLDER = 'give a T5 folder of config.json, model.safetensors and tokenizer.json'
ACTIVATIONS = {'relu': nn.relu, 'gelu_new': nn.gelu, 'silu': nn.silu}


@contextlib.contextmanager
def as_user_error(where, remedy, *kinds):
  """Context that turns errors of these kinds into a one-line UserError."""
  try:
    yield
  except kinds as error:
    reason = getattr(error, 'strerror', None) or textwrap.shorten(
        str(error), 160, placeholder=' …')
    raise UserError(f'{where}: {reason or type(error).__name__}: {remedy}') from None


@dataclasses.dataclass(frozen=True)
class T5Config:
  """Sizes of a T5 encoder, named as in its config.json, with T5's defaults."""
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


def read_config(path):
  """Reads config.json: T5Config. Raises UserError: no such file, another model, a bad value."""
  with as_user_error(path, FOLDER, OSError, ValueError):
    raw = json.loads(pathlib.Path(path).read_text(encoding='utf-8'))
  kind = raw.get('model_type') if isinstance(raw, dict) else None
  if kind != 't5':
    raise UserError(f'{path}: model_type is {kind!r}: give a T5 or flan-T5 (model_type t5)')
  # 'relu', or 'gated-gelu', which means the tanh approximation; `dense_act_fn` overrides it.
  gate, _, name = str(raw.get('feed_forward_proj', 'relu')).rpartition('-')
  raw = {'dense_act_fn': 'gelu_new' if (gate, name) == ('gated', 'gelu') else name,
         'is_gated_act': gate == 'gated'} | raw
  fields = dataclasses.fields(T5Config)
  config = T5Config(**{f.name: raw.get(f.name, f.default) for f in fields})
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
  """T5's encoder. Parameters: {'embedding', 'relative_bias', 'layers' (stacked), 'norm'}."""
  config: T5Config

  def init(self, key):
    """Fresh parameters, float32, for their shapes; real ones are read from files."""
    c, keys = self.config, jax.random.split(key, 3)
    block = lambda key: Block(c).init(key, jnp.zeros((1, 2, c.d_model)), 0.0)['params']  # noqa: E731
    table = (c.relative_attention_num_buckets, c.num_heads)
    return {'embedding': jax.random.normal(keys[0], (c.vocab_size, c.d_model)),
            'relative_bias': jax.random.normal(keys[1], table),
            'layers': jax.vmap(block)(jax.random.split(keys[2], c.num_layers)),
            'norm': {'scale': jnp.ones(c.d_model)}}

  def apply(self, params, tokens, mask, dtype=jnp.float32):
    """Tokens int (B, L), mask bool (B, L) -> float32 (B, L, d_model), zero where the mask is False.

    `dtype` is used for matrix products only; float32 means full precision on accelerators too.
    """
    c = self.config
    buckets = relative_buckets(tokens.shape[1], c.relative_attention_num_buckets,
                               c.relative_attention_max_distance)
    bias = rearrange(params['relative_bias'].astype(jnp.float32)[buckets], 't s h -> 1 h t s')
    bias = jnp.where(mask[:, None, None, :], bias, -1e30)  # shared by all layers
    x = params['embedding'][tokens].astype(jnp.float32)
    block = lambda x, layer: (Block(c, dtype).apply({'params': layer}, x, bias), None)  # noqa: E731
    with jax.default_matmul_precision('highest'):
      x, _ = jax.lax.scan(block, x, params['layers'])
    x = nn.RMSNorm(c.layer_norm_epsilon).apply({'params': params['norm']}, x)
    return jnp.where(mask[..., None], x, 0)


embed = jax.jit(T5.apply, static_argnums=(0, 4))


def _hf_name(ours):
  """Hugging Face's name of a parameter, with {} for the layer."""
  part = ours.removeprefix('layers/').split('/')[0]
  layer = {'attention_norm': '0.layer_norm', 'mlp_norm': '1.layer_norm'}.get(
      part, f'{"0.SelfAttention" if part in "qkvo" else "1.DenseReluDense"}.{part}')
  return {'embedding': 'shared', 'norm': 'encoder.final_layer_norm', 'relative_bias':
          'encoder.block.0.layer.0.SelfAttention.relative_attention_bias'}.get(
              part, f'encoder.block.{{}}.layer.{layer}') + '.weight'


def _weights_file(folder):
  """Path of a folder's safetensors file, or of the index of its shards."""
  for name in WEIGHTS:
    if (folder / name).exists():
      return folder / name
  if any(folder.glob('pytorch_model*.bin')):
    raise UserError(f'{folder}: pickled weights (.bin) are not read: convert them once: python -m '
                    f'avlink_jax.storage.foreign {folder}/pytorch_model*.bin {folder}/{WEIGHTS[0]}')
  raise UserError(f'{folder}: neither {" nor ".join(WEIGHTS)} in it: {FOLDER}')


def read_weights(folder, config, dtype=jnp.float32):
  """Reads the encoder: (parameters of `T5(config)` as numpy arrays, digest of the tensors read).

  Matrices are in `dtype`, norms and the relative bias in float32.
  Raises UserError: no file, damaged, encoder tensors missing, unexpected or of wrong shape.
  """
  shapes = jax.eval_shape(T5(config).init, jax.random.key(0))
  targets, tree, digest = {}, {}, hashlib.sha256()
  for ours, leaf in flax.traverse_util.flatten_dict(shapes, sep='/').items():
    matrix = ours.endswith('kernel')
    tree[ours] = np.empty(leaf.shape, dtype if matrix or ours == 'embedding' else jnp.float32)
    for layer in range(config.num_layers) if ours.startswith('layers/') else [...]:
      view = tree[ours][layer]
      # Files have matrices as (out, in).
      targets[_hf_name(ours).format(layer)] = view.T if matrix else view
  files = foreign.scan(_weights_file(folder))
  alias = files.pop('encoder.embed_tokens.weight', None)  # the table's second or only name
  files = ({'shared.weight': alias} if alias else {}) | files
  weights.fit({name: jax.ShapeDtypeStruct(stored.shape, dtype) for name, stored in files.items()
               if name in targets or name.startswith('encoder.')}, targets, folder)
  for name, target in sorted(targets.items()):
    target[...] = tensor = files[name].load()
    if tensor.dtype not in (jnp.float32, jnp.bfloat16, jnp.float16):
      raise UserError(f'{folder}: {name} is {tensor.dtype}: give weights that are not quantised')
    digest.update(f'{name} {tensor.dtype} {tensor.shape}'.encode())
    digest.update(np.ascontiguousarray(tensor).reshape(-1).view(np.uint8))
  return flax.traverse_util.unflatten_dict(tree, sep='/'), digest.hexdigest()


def read_tokenizer(folder, vocab_size):
  """Reads the tokenizer: (function from text to token ids ending with </s>, digest of the file).

  Raises UserError: no tokenizer, damaged, of another model, missing library.
  """
  path = next((folder / name for name in TOKENIZERS if (folder / name).exists()), None)
  if path is None:
    raise UserError(f'{folder}: neither {" nor ".join(TOKENIZERS)} in it: {FOLDER}')
  with as_user_error(path, f'pip install {TOKENIZERS[path.name]}', ImportError):
    library = importlib.import_module(TOKENIZERS[path.name])
  with as_user_error(path, 'fetch it again', Exception):  # `tokenizers` raises plain Exception
    if path.suffix == '.json':
      tokenizer = library.Tokenizer.from_file(str(path))
      tokenizer.no_truncation()
      tokenizer.no_padding()
      split = lambda text: tokenizer.encode(text, add_special_tokens=False).ids  # noqa: E731
      eos, size = tokenizer.token_to_id(EOS), tokenizer.get_vocab_size()
    else:
      tokenizer = library.SentencePieceProcessor(model_file=str(path))
      split, size = tokenizer.encode, tokenizer.get_piece_size()
      eos = tokenizer.piece_to_id(EOS)
      eos = None if eos == tokenizer.unk_id() else eos
  if eos is None or size > vocab_size:
    fault = f'no {EOS} in it' if eos is None else f'{size:,} tokens, {vocab_size:,} in the model'
    raise UserError(f'{path}: {fault}: give the tokenizer that came with the weights')
  tokenize = lambda text: [*split(text.encode(errors='replace').decode()), eos]  # noqa: E731
  return tokenize, hashlib.sha256(path.read_bytes()).hexdigest()
