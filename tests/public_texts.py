"""Text encoders as pipelines publish them, tiny and random: `text_encoder/` and `tokenizer/`.

Models and tokenizers are written by transformers' own classes.
"""

import contextlib
import functools
import json
import pathlib

import pytest
from micro import plain_jit
from t5_folders import SENTENCES, tokenizer_json

from avlink_jax.codecs import qwen3, t5

UMT5 = dict(vocab_size=120, d_kv=6, d_ff=24, num_layers=2, num_heads=3,
            feed_forward_proj='gated-gelu', relative_attention_num_buckets=8,
            relative_attention_max_distance=20)
QWEN3 = dict(vocab_size=320, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, head_dim=8, max_position_embeddings=1024,
             rope_parameters={'rope_type': 'default', 'rope_theta': 1e6},
             tie_word_embeddings=True, bos_token_id=0, eos_token_id=0, pad_token_id=0)
PAD = '<|endoftext|>'  # of Qwen3's tokenizer


def save_umt5(folder, width=16, seed=0, **changes):
  """Writes `folder/text_encoder/` and `folder/tokenizer/` with a umT5, as in Wan's pipelines."""
  transformers = pytest.importorskip('transformers')
  model = transformers.UMT5EncoderModel(transformers.UMT5Config(d_model=width, **UMT5 | changes))
  raw = json.loads(tokenizer_json()) | {'truncation': None, 'padding': None}
  _save(folder, model, seed, _tokenizer(json.dumps(raw), eos_token='</s>', pad_token='<pad>',
                                        unk_token='<unk>'))


def save_qwen3(folder, width=16, seed=0, **changes):
  """Writes `folder/text_encoder/` and `folder/tokenizer/` with a Qwen3, as in MOSS-SoundEffect's
  pipeline."""
  transformers = pytest.importorskip('transformers')
  model = transformers.Qwen3ForCausalLM(
      transformers.Qwen3Config(hidden_size=width, **QWEN3 | changes))
  _save(folder, model, seed, _tokenizer(byte_pairs(), eos_token=PAD, pad_token=PAD))


@functools.cache
def byte_pairs():
  """A byte-level BPE of SENTENCES with Qwen's steps, which adds no tokens: a file's text."""
  tokenizers = pytest.importorskip('tokenizers')
  made = tokenizers.Tokenizer(tokenizers.models.BPE())
  made.normalizer = tokenizers.normalizers.NFC()
  made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
  made.decoder = tokenizers.decoders.ByteLevel()
  made.train_from_iterator(SENTENCES, tokenizers.trainers.BpeTrainer(
      vocab_size=300, special_tokens=[PAD], show_progress=False,
      initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet()))
  made.post_processor = tokenizers.processors.ByteLevel(trim_offsets=False)
  return made.to_str()


def _tokenizer(text, **tokens):
  tokenizers, transformers = (pytest.importorskip(n) for n in ('tokenizers', 'transformers'))
  return transformers.PreTrainedTokenizerFast(
      tokenizer_object=tokenizers.Tokenizer.from_str(text), padding_side='right', **tokens)


def _save(folder, model, seed, tokenizer):
  """Gives a model weights that leave nothing at its start, and saves it in pieces."""
  torch = pytest.importorskip('torch')
  generator = torch.Generator().manual_seed(seed)
  with torch.no_grad():
    for name, x in model.named_parameters():
      x.copy_(0.3 * torch.randn(x.shape, generator=generator) + ('norm' in name))
  model.eval().save_pretrained(pathlib.Path(folder, 'text_encoder'), max_shard_size='8KB')
  tokenizer.save_pretrained(pathlib.Path(folder, 'tokenizer'))


@contextlib.contextmanager
def quickly_compiled():
  """Context in which encoders are compiled without optimisation."""
  with pytest.MonkeyPatch.context() as patch:
    for module, model in ((t5, t5.T5), (qwen3, qwen3.Qwen3)):
      patch.setattr(module, 'embed', plain_jit(model.apply, static_argnums=(0, 4)))
    yield
