"""T5: the same numbers as transformers' from the same files."""

import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import t5_folders
from t5_folders import SENTENCES, TINY, run_ours, run_theirs, some_tokens, tensors_of, theirs, write

from avlink_jax.codecs import pretrained_text, t5


@pytest.fixture(scope='module', autouse=True)
def quickly_compiled():
  with t5_folders.quickly_compiled():
    yield


@pytest.fixture
def folder(tmp_path):
  return write(tmp_path / 'model', 'tokenizer.json')


# The model

@pytest.mark.parametrize('changes', [
    {}, {'feed_forward_proj': 'relu'}, {'feed_forward_proj': 'gated-silu'},
    {'relative_attention_num_buckets': 32, 'relative_attention_max_distance': 128},
    {'relative_attention_num_buckets': 5, 'layer_norm_epsilon': 1e-2}])
def test_the_numbers_are_those_of_transformers(tmp_path, changes):
  """On a padded batch longer than the largest distance, in which padding is arbitrary tokens."""
  model, folder = theirs(tmp_path, TINY | changes)
  tokens, mask = some_tokens([160, 97, 1], 160)
  ours, wanted = run_ours(folder, tokens, mask), run_theirs(model, tokens, mask)
  assert np.abs(wanted[mask]).max() > 1
  np.testing.assert_allclose(ours[mask], wanted[mask], rtol=0, atol=1e-4)
  assert not ours[~mask].any()


def test_padding_says_nothing(tmp_path):
  folder = write(tmp_path)
  tokens, mask = some_tokens([20, 7], 20)
  out = run_ours(folder, tokens, mask)
  other = run_ours(folder, np.where(mask, tokens, 5).astype(np.int32), mask)
  np.testing.assert_array_equal(out, other)
  short = run_ours(folder, tokens[1:, :7], mask[1:, :7])
  np.testing.assert_allclose(out[1:, :7], short, atol=1e-5)


def test_bfloat16_is_float32_to_two_digits(tmp_path):
  folder = write(tmp_path)
  tokens, mask = some_tokens([20, 7], 20)
  full, half = (run_ours(folder, tokens, mask, dtype) for dtype in ('float32', 'bfloat16'))
  assert half.dtype == np.float32
  assert 1e-4 < np.abs(half - full).max() / np.abs(full).max() < 0.05


@pytest.mark.parametrize('buckets, distance', [(32, 128), (8, 20), (4, 2), (5, 9), (64, 1000)])
def test_buckets_are_those_of_transformers(buckets, distance):
  torch = pytest.importorskip('torch')
  modeling = pytest.importorskip('transformers.models.t5.modeling_t5')
  offsets = torch.arange(400)[None] - torch.arange(400)[:, None]
  wanted = modeling.T5Attention._relative_position_bucket(
      offsets, num_buckets=buckets, max_distance=distance)
  np.testing.assert_array_equal(t5.relative_buckets(400, buckets, distance), wanted)


def test_buckets_of_a_small_case_by_hand():
  """Half of 8 for later keys; 0 and 1 apart, then from 2 to 8 in two steps of a factor of 2."""
  np.testing.assert_array_equal(t5.relative_buckets(10, 8, 8)[0],
                                [0, 5, 6, 6, 7, 7, 7, 7, 7, 7])
  np.testing.assert_array_equal(t5.relative_buckets(10, 8, 8)[:, 0],
                                [0, 1, 2, 2, 3, 3, 3, 3, 3, 3])


FLAN_LARGE = t5.T5Config(32128, 1024, 64, 2816, 24, 16, dense_act_fn='gelu_new', is_gated_act=True)


def test_flan_t5_large_has_its_published_size():
  shapes = jax.eval_shape(t5.T5(FLAN_LARGE).init, jax.random.key(0))
  assert sum(x.size for x in jax.tree.leaves(shapes)) == 341_231_104


def test_transformers_counts_the_same():
  torch, transformers = pytest.importorskip('torch'), pytest.importorskip('transformers')
  with torch.device('meta'):
    model = transformers.T5EncoderModel(transformers.T5Config(
        vocab_size=32128, d_model=1024, d_kv=64, d_ff=2816, num_layers=24, num_heads=16,
        feed_forward_proj='gated-gelu'))
  assert sum(p.numel() for p in model.parameters()) == 341_231_104


# Files

def test_weights_in_pieces_are_read_as_one(tmp_path):
  model, folder = theirs(tmp_path / 'many', TINY, max_shard_size='5KB')
  assert len(list(folder.glob('model-*.safetensors'))) > 2
  tokens, mask = some_tokens([9], 9)
  np.testing.assert_allclose(run_ours(folder, tokens, mask), run_theirs(model, tokens, mask),
                             atol=1e-4)
  config = t5.read_config(folder / 'config.json')
  model.save_pretrained(tmp_path / 'one')
  assert t5.read_weights(folder, config)[1] == t5.read_weights(tmp_path / 'one', config)[1]


@pytest.mark.parametrize('names', ['both', 'only the alias'])
def test_the_table_of_tokens_may_have_either_name_or_both(tmp_path, names):
  config = t5.read_config(write(tmp_path / 'a') / 'config.json')
  tensors = tensors_of(TINY)
  tensors['encoder.embed_tokens.weight'] = tensors['shared.weight'].copy()
  if names != 'both':
    del tensors['shared.weight']
  params, _ = t5.read_weights(write(tmp_path / 'b', tensors=tensors), config)
  jax.tree.map(np.testing.assert_array_equal, params, t5.read_weights(tmp_path / 'a', config)[0])


@pytest.mark.parametrize('dtype', [np.float16, ml_dtypes.bfloat16])
def test_half_size_files_are_read_to_the_last_bit(tmp_path, dtype):
  tensors = {name: x.astype(dtype) for name, x in tensors_of(TINY).items()}
  folder = write(tmp_path, tensors=tensors)
  params, _ = t5.read_weights(folder, t5.read_config(folder / 'config.json'))
  assert {x.dtype for x in jax.tree.leaves(params)} == {np.dtype(np.float32)}
  np.testing.assert_array_equal(params['embedding'], tensors['shared.weight'].astype(np.float32))
  np.testing.assert_array_equal(
      params['layers']['wo']['kernel'][1],
      tensors['encoder.block.1.layer.1.DenseReluDense.wo.weight'].astype(np.float32).T)


def test_matrices_are_held_in_the_dtype_they_are_used_in(tmp_path):
  folder = write(tmp_path)
  params, _ = t5.read_weights(folder, t5.read_config(folder / 'config.json'), jnp.bfloat16)
  assert params['layers']['q']['kernel'].dtype == params['embedding'].dtype == jnp.bfloat16
  assert params['relative_bias'].dtype == params['norm']['scale'].dtype == np.float32


@pytest.mark.parametrize('said, wanted', [
    ({'feed_forward_proj': 'gated-gelu'}, ('gelu_new', True)),
    ({'feed_forward_proj': 'relu'}, ('relu', False)),
    ({}, ('relu', False)),
    ({'dense_act_fn': 'gelu_new', 'is_gated_act': True}, ('gelu_new', True)),
    ({'feed_forward_proj': 'gated-silu'}, ('silu', True))])
def test_configs_of_every_age_name_the_activation(tmp_path, said, wanted):
  raw = {k: v for k, v in TINY.items() if 'feed' not in k and 'relative' not in k}
  (tmp_path / 'config.json').write_text(json.dumps(raw | said))
  config = t5.read_config(tmp_path / 'config.json')
  assert (config.dense_act_fn, config.is_gated_act) == wanted
  assert (config.d_kv, config.relative_attention_num_buckets,
          config.relative_attention_max_distance) == (6, 32, 128)


PROMPTS = ['', 'a ball bounces on glass', '  Two   spaces\n', 'ﬁne ½ 鼓 🥁 é',
           'a </s> within <pad> </s>', ' '.join(SENTENCES)]


def test_tokens_are_those_of_transformers(folder):
  transformers = pytest.importorskip('transformers')
  plain = dict(padding=False, truncation=False)
  theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / 'tokenizer.json'))
  tokenize = pretrained_text.load(folder).tokenize
  for prompt in PROMPTS:
    assert tokenize(prompt) == theirs(prompt, **plain)['input_ids'], prompt
  theirs = transformers.T5TokenizerFast.from_pretrained(folder, extra_ids=0)
  for prompt in PROMPTS[:3] + PROMPTS[4:]:  # it leaves out this file's Unicode normalisation
    assert tokenize(prompt) == theirs(prompt, **plain)['input_ids'], prompt
  assert tokenize('') == [1]


def test_a_folder_with_spiece_model_alone_gives_the_same_tokens(tmp_path):
  transformers = pytest.importorskip('transformers')
  folder = write(tmp_path, 'spiece.model')
  tokenize = pretrained_text.load(folder).tokenize
  theirs = transformers.T5Tokenizer.from_pretrained(folder, extra_ids=0)
  for prompt in PROMPTS[:4] + PROMPTS[5:]:
    assert tokenize(prompt) == theirs(prompt)['input_ids'], prompt
  assert tokenize('') == [1]
