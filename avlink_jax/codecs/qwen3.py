"""Qwen3, a language model whose last hidden layer encodes prompts (MOSS-SoundEffect v2's), frozen.

The model and the reader of its files; pretrained_text.py builds a text encoder from them.

Architecture: the Qwen3 report (arXiv 2505.09388): causal, RMSNorm before each part, grouped-query
attention (arXiv 2305.13245) with an RMSNorm over each head of q and k, rotary positions with the
halves of a head as pairs, SwiGLU. Files, their names and their tensors: those of Hugging Face.
"""

import dataclasses
import functools
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from avlink_jax.codecs import text_files
from avlink_jax.errors import UserError

FOLDER = ('give the folder of a pipeline with Qwen3 in text_encoder/ (config.json, '
          'model.safetensors) and tokenizer/tokenizer.json')


@dataclasses.dataclass(frozen=True)
class Qwen3Config:
  """Sizes of a Qwen3, named as in its config.json."""
  vocab_size: int
  hidden_size: int
  intermediate_size: int
  num_hidden_layers: int
  num_attention_heads: int
  num_key_value_heads: int
  head_dim: int
  rms_norm_eps: float
  rope_theta: float


# Values of config.json that mean something else than what this file computes are refused.
PLAIN = {'hidden_act': ('silu',), 'attention_bias': (False,), 'use_sliding_window': (False,),
         'rope_scaling': (None,), 'quantization_config': (None,)}


def read_config(path):
  """Reads config.json: Qwen3Config. Raises UserError: no such file, another model, a bad value."""
  raw = text_files.read_json(path, FOLDER)
  if (kind := raw.get('model_type')) != 'qwen3':
    raise UserError(f'{path}: model_type is {kind!r}: give a Qwen3 (model_type qwen3)')
  rope = raw.get('rope_parameters') or {}  # newer files have the rotary base and its kind here
  raw = raw | {'rope_theta': rope.get('rope_theta', raw.get('rope_theta'))}
  if rope.get('rope_type', 'default') != 'default':
    raw['rope_scaling'] = rope
  fields = dataclasses.fields(Qwen3Config)
  values = {f.name: raw.get(f.name) for f in fields}
  numbers = {int: int, float: (int, float)}
  bad = [f.name for f in fields if not isinstance(values[f.name], numbers[f.type])
         or isinstance(values[f.name], bool) or values[f.name] <= 0]
  bad += [name for name, plain in PLAIN.items() if raw.get(name, plain[0]) not in plain]
  if not bad:
    config = Qwen3Config(**{f.name: f.type(values[f.name]) for f in fields})
    if config.num_attention_heads % config.num_key_value_heads or config.head_dim % 2:
      bad = ['num_attention_heads', 'num_key_value_heads', 'head_dim']
  if bad:
    faults = ', '.join(f'{name}={raw.get(name, "missing")!r}' for name in bad)
    raise UserError(f'{path}: {faults}: no Qwen3 that this program reads is made like that')
  return config


def rotate(x, theta):
  """Rotates x (B, H, L, D) by the position along L: pairs (i, i + D/2), angle p·θ^(−2i/D)."""
  half = x.shape[-1] // 2
  frequency = np.float32(theta) ** (-np.arange(half, dtype=np.float32) / np.float32(half))
  angle = np.arange(x.shape[-2], dtype=np.float32)[:, None] * frequency
  cos, sin = np.cos(angle), np.sin(angle)
  a, b = x[..., :half], x[..., half:]
  return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


class Block(nn.Module):
  """Causal self-attention and SwiGLU, with skips in float32, since Qwen3's values run into the ten
  thousands."""
  config: Qwen3Config
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x):
    """x float32 (B, L, C) -> float32 (B, L, C)."""
    c = self.config
    dense = functools.partial(nn.Dense, use_bias=False, dtype=self.dtype)
    norm = functools.partial(nn.RMSNorm, c.rms_norm_eps)
    y = norm(dtype=self.dtype, name='attention_norm')(x)

    def heads(name, count):
      return rearrange(dense(count * c.head_dim, name=name)(y), 'b t (h d) -> b h t d', h=count)

    q = norm(dtype=jnp.float32, name='q_norm')(heads('q', c.num_attention_heads))
    k = norm(dtype=jnp.float32, name='k_norm')(heads('k', c.num_key_value_heads))
    v = heads('v', c.num_key_value_heads)
    q, k = (rotate(x, c.rope_theta).astype(self.dtype) for x in (q, k))
    q = rearrange(q, 'b (g n) t d -> b g n t d', g=c.num_key_value_heads)
    logits = jnp.einsum('bgntd,bgsd->bgnts', q, k, preferred_element_type=jnp.float32)
    earlier = np.tri(x.shape[1], dtype=bool)
    weight = nn.softmax(jnp.where(earlier, logits * c.head_dim ** -0.5, -1e30))
    y = jnp.einsum('bgnts,bgsd->bgntd', weight.astype(self.dtype), v)
    x = x + dense(c.hidden_size, name='o')(rearrange(y, 'b g n t d -> b t (g n d)'))
    y = norm(dtype=self.dtype, name='mlp_norm')(x)
    gate = nn.silu(dense(c.intermediate_size, name='gate')(y))
    return x + dense(c.hidden_size, name='down')(gate * dense(c.intermediate_size, name='up')(y))


@dataclasses.dataclass(frozen=True)
class Qwen3:
  """Qwen3 without its head. Parameters: {'embedding', 'layers' (stacked), 'norm'}."""
  config: Qwen3Config

  @property
  def width(self):
    return self.config.hidden_size

  def init(self, key):
    """Fresh parameters, float32, for their shapes; real ones are read from files."""
    c, keys = self.config, jax.random.split(key)
    block = lambda key: Block(c).init(key, jnp.zeros((1, 2, c.hidden_size)))['params']  # noqa: E731
    return {'embedding': jax.random.normal(keys[0], (c.vocab_size, c.hidden_size)),
            'layers': jax.vmap(block)(jax.random.split(keys[1], c.num_hidden_layers)),
            'norm': {'scale': jnp.ones(c.hidden_size)}}

  def apply(self, params, tokens, mask, dtype=jnp.float32):
    """Hidden layer after the final norm: tokens int (B, L), mask bool (B, L) -> float32 (B, L, C),
    zero where the mask is False.

    Padding follows the tokens, so that causal attention never sees it. `dtype` is used for matrix
    products only; float32 means full precision on accelerators too.
    """
    c = self.config
    block = lambda x, layer: (Block(c, dtype).apply({'params': layer}, x), None)  # noqa: E731
    x = params['embedding'][tokens].astype(jnp.float32)
    with jax.default_matmul_precision('highest'):
      x, _ = jax.lax.scan(block, x, params['layers'])
    x = nn.RMSNorm(c.rms_norm_eps).apply({'params': params['norm']}, x)
    return jnp.where(mask[..., None], x, 0)


embed = jax.jit(Qwen3.apply, static_argnums=(0, 4))


def _hf_name(ours):
  """Hugging Face's name of a parameter, with {} for the layer."""
  part = ours.removeprefix('layers/').split('/')[0]
  module = {'attention_norm': 'input_layernorm', 'mlp_norm': 'post_attention_layernorm',
            'q_norm': 'self_attn.q_norm', 'k_norm': 'self_attn.k_norm'}.get(
                part, f'{"self_attn" if part in "qkvo" else "mlp"}.{part}_proj')
  return {'embedding': 'model.embed_tokens', 'norm': 'model.norm'}.get(
      part, f'model.layers.{{}}.{module}') + '.weight'


def read_weights(folder, config, dtype=jnp.float32):
  """Reads the model: (parameters of `Qwen3(config)` as numpy arrays, digest of the tensors read).

  Matrices are in `dtype`, norms in float32. The head of a Qwen3ForCausalLM is left out; names of a
  bare Qwen3Model lack 'model.'.
  Raises UserError: no file, damaged, tensors missing, unexpected or of wrong shape.
  """
  files = text_files.scan(pathlib.Path(folder), FOLDER)
  files.pop('lm_head.weight', None)
  files = {name if name.startswith('model.') else f'model.{name}': stored
           for name, stored in files.items()}
  shapes = jax.eval_shape(Qwen3(config).init, jax.random.key(0))
  return text_files.read_weights(folder, files, shapes, _hf_name, dtype)


def read_tokenizer(folder, config):
  """Reads tokenizer.json: (function from text to token ids, digest of the file). No token is added
  to a text's own, so that an empty text has none.

  Raises UserError: no tokenizer, damaged, of another model, missing library.
  """
  return text_files.read_tokenizer(
      folder, config.vocab_size, FOLDER, kinds=('tokenizer.json',))
