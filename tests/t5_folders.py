"""T5 folders as Hugging Face writes them, small, and transformers' numbers of the same files."""

import contextlib
import functools
import json
import pathlib
import tempfile
import types

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from micro import plain_jit

from avlink_jax.codecs import t5
from avlink_jax.errors import UserError

SENTENCES = [
    'a ball bounces on a wooden floor', 'a hammer strikes metal three times in a large hall',
    'rain drops fall into a tin bucket', 'a drum stick hits a drum', 'glass breaks, then silence',
    'a metronome ticks slowly', 'Someone knocks at the door: twice.', 'footsteps on gravel']
VOCAB = 120
TINY = {'model_type': 't5', 'vocab_size': VOCAB, 'd_model': 16, 'd_kv': 6, 'd_ff': 24,
        'num_layers': 2, 'num_heads': 3, 'feed_forward_proj': 'gated-gelu', 'eos_token_id': 1,
        'relative_attention_num_buckets': 8, 'relative_attention_max_distance': 20}
OPTIMISED = t5.embed


@contextlib.contextmanager
def quickly_compiled():
  """Most of the tests' time is LLVM's; where OPTIMISED is put back, they run what users run."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(t5, 'embed', plain_jit(t5.T5.apply, static_argnums=(0, 4)))
    yield


def count_computed(monkeypatch):
  """A list of how many captions each call of the compiled encoder is given from now on."""
  calls, apply = [], t5.embed

  def counting(model, params, tokens, mask, dtype):
    calls.append(int(mask.any(-1).sum()))
    return apply(model, params, tokens, mask, dtype)

  monkeypatch.setattr(t5, 'embed', counting)
  return calls


# Files

def tensors_of(config, seed=0):
  """Random encoder weights under the names that Hugging Face files have, and a decoder's."""
  rng = np.random.default_rng(seed)
  c, inner = types.SimpleNamespace(**config), config['d_kv'] * config['num_heads']
  made = {'shared.weight': (VOCAB, c.d_model), 'encoder.final_layer_norm.weight': (c.d_model,),
          'decoder.final_layer_norm.weight': (7,), 'lm_head.weight': (3, 3),
          'encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight': (
              c.relative_attention_num_buckets, c.num_heads)}
  for n in range(c.num_layers):
    block = f'encoder.block.{n}.layer'
    made |= {f'{block}.{i}.layer_norm.weight': (c.d_model,) for i in (0, 1)}
    made |= {f'{block}.0.SelfAttention.{x}.weight': (inner, c.d_model) for x in 'qkv'}
    made[f'{block}.0.SelfAttention.o.weight'] = (c.d_model, inner)
    made |= {f'{block}.1.DenseReluDense.{x}.weight': (c.d_ff, c.d_model) for x in ('wi_0', 'wi_1')}
    made[f'{block}.1.DenseReluDense.wo.weight'] = (c.d_model, c.d_ff)
  return {name: (('norm' in name) + 0.3 * rng.standard_normal(shape)).astype(np.float32)
          for name, shape in made.items()}


@functools.cache
def tokenizer_json():
  """A Unigram tokenizer of SENTENCES, put together as flan-T5's is: a file's text."""
  tokenizers = pytest.importorskip('tokenizers')
  made = tokenizers.Tokenizer(tokenizers.models.Unigram())
  made.normalizer = tokenizers.normalizers.NFKC()
  made.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([
      tokenizers.pre_tokenizers.WhitespaceSplit(),
      tokenizers.pre_tokenizers.Metaspace(prepend_scheme='always')])
  made.train_from_iterator(SENTENCES, tokenizers.trainers.UnigramTrainer(
      vocab_size=100, special_tokens=['<pad>', '</s>', '<unk>'], unk_token='<unk>',
      show_progress=False))
  made.post_processor = tokenizers.processors.TemplateProcessing(
      single='$A </s>', special_tokens=[('</s>', 1)])
  made.enable_truncation(5)  # as in files that were saved so; the length is ours to set
  made.enable_padding(length=40)
  return made.to_str().encode()


@functools.cache
def spiece_model():
  """A sentencepiece model of SENTENCES: a file's bytes."""
  sentencepiece = pytest.importorskip('sentencepiece')
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder, 'spiece.model')
    with path.open('wb') as file:
      sentencepiece.SentencePieceTrainer.train(
          sentence_iterator=iter(SENTENCES), model_writer=file, vocab_size=100, pad_id=0, eos_id=1,
          unk_id=2, bos_id=-1, hard_vocab_limit=False, minloglevel=2)
    return path.read_bytes()


def write(folder, tokenizer=None, config=TINY, tensors=None):
  """A model's folder, with a tokenizer of the name given."""
  folder.mkdir(exist_ok=True)
  (folder / 'config.json').write_text(json.dumps(config))
  safetensors.numpy.save_file(tensors or tensors_of(config), folder / 'model.safetensors')
  if tokenizer:
    (folder / tokenizer).write_bytes(
        {'tokenizer.json': tokenizer_json, 'spiece.model': spiece_model}[tokenizer]())
  return folder


# What the model makes of them, and what transformers does

def theirs(tmp_path, config, **saving):
  """(transformers' encoder with weights that leave nothing at its start, folder of its files)."""
  torch, transformers = pytest.importorskip('torch'), pytest.importorskip('transformers')
  model = transformers.T5EncoderModel(transformers.T5Config(
      **{k: v for k, v in config.items() if k != 'model_type'})).eval()
  generator = torch.Generator().manual_seed(0)
  with torch.no_grad():
    for name, x in model.named_parameters():
      x.copy_(0.3 * torch.randn(x.shape, generator=generator) + ('norm' in name))
  model.save_pretrained(tmp_path, **saving)
  return model, tmp_path


def run_theirs(model, tokens, mask):
  torch = pytest.importorskip('torch')
  with torch.no_grad():
    return model(torch.from_numpy(tokens).long(), torch.from_numpy(mask).long())[0].numpy()


def run_ours(folder, tokens, mask, dtype='float32'):
  config = t5.read_config(folder / 'config.json')
  params, _ = t5.read_weights(folder, config, jnp.dtype(dtype))
  return np.asarray(t5.embed(t5.T5(config), params, tokens, mask, dtype))


def some_tokens(lengths, width, seed=0):
  tokens = np.random.default_rng(seed).integers(3, VOCAB, (len(lengths), width)).astype(np.int32)
  return tokens, np.arange(width) < np.array(lengths)[:, None]


def told(call, *args, **kwargs):
  """The one line of the mistake that a call ends in."""
  with pytest.raises(UserError) as error:
    call(*args, **kwargs)
  line = str(error.value)
  assert '\n' not in line and len(line) < 600
  return line
