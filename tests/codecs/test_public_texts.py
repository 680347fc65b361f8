"""umT5 and Qwen3 from published folders: transformers' numbers, and what the pipelines do."""

import json
import shutil

import jax
import numpy as np
import public_texts
import pytest
import safetensors.numpy
from t5_folders import SENTENCES, told

from avlink_jax.codecs import pretrained_text, text_files

KINDS = {'umt5': public_texts.save_umt5, 'qwen3': public_texts.save_qwen3}
PROMPTS = ['', 'a drum', *SENTENCES, ' '.join(SENTENCES)]


@pytest.fixture(scope='module', autouse=True)
def quickly_compiled():
  with public_texts.quickly_compiled():
    yield


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
  root = tmp_path_factory.mktemp('public')
  for kind, save in KINDS.items():
    save(root / kind)
  return root


def pipeline(folder, texts, places):
  """Hidden states (B, places, width) as the pipelines take them: tokens padded to all places, the
  states of padding set to zero."""
  torch, transformers = pytest.importorskip('torch'), pytest.importorskip('transformers')
  tokenizer = transformers.AutoTokenizer.from_pretrained(folder / 'tokenizer')
  given = tokenizer(texts, padding='max_length', truncation=True, max_length=places,
                    add_special_tokens=True, return_tensors='pt')
  ids, mask = given['input_ids'].clone(), given['attention_mask']
  with torch.no_grad():
    if folder.name == 'umt5':
      model = transformers.UMT5EncoderModel.from_pretrained(folder / 'text_encoder')
      states = model.float().eval()(ids, mask).last_hidden_state
    else:
      model = transformers.AutoModelForCausalLM.from_pretrained(folder / 'text_encoder')
      states = model.float().eval()(ids, attention_mask=mask, output_hidden_states=True,
                                    use_cache=False).hidden_states[-1]
  return np.where(mask[..., None].bool(), states, 0), mask.numpy().astype(bool)


def close(ours, theirs):
  assert np.abs(theirs).max() > 0.5
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.parametrize('kind', KINDS)
def test_numbers_are_those_of_transformers_padded_and_full(folders, kind):
  """Prompts of all lengths in one batch, the longest of which fills all places and is cut."""
  theirs, mask = pipeline(folders / kind, PROMPTS, 40)
  encoder = pretrained_text.load(folders / kind, max_tokens=40)
  module = pretrained_text.KINDS[kind].module
  tokens = np.zeros(mask.shape, np.int32)
  for row, prompt in zip(tokens, PROMPTS, strict=True):
    ids = encoder._ids(prompt) if kind == 'umt5' else encoder.tokenize(prompt)[:40]
    row[:len(ids)] = ids
  ours = np.asarray(module.embed(encoder.model, encoder.params, tokens, mask, 'float32'))
  assert mask[-1].all() and 0 < mask[1].sum() < 40 and not ours[~mask].any()
  close(ours, theirs)


@pytest.mark.parametrize('kind', KINDS)
def test_prompts_are_prepared_as_the_pipelines_do(folders, kind):
  """All places are attended to, with zeros beyond the prompt."""
  suffix = ' duration: 5.2s' if kind == 'qwen3' else ''
  texts = [prompt + suffix if prompt else '' for prompt in PROMPTS]
  theirs, mask = pipeline(folders / kind, texts, 40)
  encoder = pretrained_text.load(folders / kind, max_tokens=40, kind=kind, seconds=5.16)
  prepared = encoder.prepare(PROMPTS)
  np.testing.assert_array_equal(prepared['mask'], mask)
  embedding, attended = encoder.encode({}, prepared)
  assert np.asarray(attended).all() and not np.asarray(embedding)[~mask].any()
  np.testing.assert_allclose(embedding, theirs, rtol=2**-11, atol=1e-4)  # float16's


def test_an_empty_prompt_is_zeros_for_moss_and_umt5_of_nothing_for_wan(folders):
  empty = pretrained_text.load(folders / 'qwen3', max_tokens=None, seconds=2.0).prepare(['', ' '])
  assert empty['embedding'].shape == (2, 512, 16) and not empty['embedding'].any()
  assert not empty['mask'].any()
  empty = pretrained_text.load(folders / 'umt5', max_tokens=None).prepare([''])
  theirs, _ = pipeline(folders / 'umt5', [''], 512)
  np.testing.assert_allclose(empty['embedding'], theirs, rtol=2**-11, atol=1e-4)
  assert empty['mask'].sum() == 1 and empty['embedding'].any()


def test_the_length_of_the_clip_is_part_of_what_qwen3_reads(folders, tmp_path):
  made = [pretrained_text.load(folders / 'qwen3', tmp_path, 40, seconds=seconds).prepare(['rain'])
          for seconds in (5.06, 5.12, 5.16)]
  np.testing.assert_array_equal(made[0]['embedding'], made[1]['embedding'])  # 5.1 s
  assert np.abs(made[2]['embedding'] - made[0]['embedding']).max() > 0.01
  assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize('kind, places', [('umt5', 8), ('qwen3', 24)])
def test_what_is_cut_is_told_once_and_counted(folders, kind, places, capsys):
  encoder = pretrained_text.load(folders / kind, max_tokens=places, seconds=1.0)
  encoder.prepare([*SENTENCES[:3], 'ow'])
  assert list(encoder.cut) == SENTENCES[:3]
  line, = capsys.readouterr().err.splitlines()
  assert SENTENCES[0] in line and f'cut to {places}' in line
  assert f'this model reads at most {places}' in told(encoder.check, SENTENCES[0])


@pytest.mark.parametrize('kind', KINDS)
def test_bfloat16_is_float32_to_two_digits(folders, kind):
  full, half = (pretrained_text.load(folders / kind, max_tokens=40, dtype=dtype, seconds=1.0)
                for dtype in ('float32', 'bfloat16'))
  assert half.params['embedding'].dtype.name == 'bfloat16'
  full, half = (encoder.prepare(SENTENCES)['embedding'] for encoder in (full, half))
  assert 1e-4 < np.linalg.norm(half - full) / np.linalg.norm(full) < 0.03


@pytest.mark.parametrize('kind, sizes, count', [
    ('umt5', dict(vocab_size=256384, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64,
                  feed_forward_proj='gated-gelu'), 5_680_910_336),
    ('qwen3', dict(vocab_size=151936, hidden_size=2048, intermediate_size=6144,
                   num_hidden_layers=28, num_attention_heads=16, num_key_value_heads=8,
                   head_dim=128), 1_720_574_976)])
def test_the_published_sizes_have_the_tensors_of_transformers(tmp_path, kind, sizes, count):
  """Wan's umT5-xxl and MOSS's Qwen3-1.7B, whose embeddings and head are one."""
  torch, transformers = pytest.importorskip('torch'), pytest.importorskip('transformers')
  name = {'umt5': 'UMT5', 'qwen3': 'Qwen3'}[kind]
  config = getattr(transformers, f'{name}Config')(**sizes)
  config.save_pretrained(tmp_path)
  about = pretrained_text.KINDS[kind]
  shapes = jax.eval_shape(about.model(about.module.read_config(tmp_path / 'config.json')).init,
                          jax.random.key(0))
  with torch.device('meta'):
    model = getattr(transformers, {'umt5': 'UMT5EncoderModel', 'qwen3': 'Qwen3Model'}[kind])(config)
  assert sum(x.size for x in jax.tree.leaves(shapes)) == count == sum(
      x.numel() for x in model.parameters())


# Strict loading

def changed(folders, kind, folder, change):
  """Copy of a published folder whose tensors, in one file, are what `change` makes of them."""
  shutil.copytree(folders / kind, folder)
  tensors = {}
  for path in (folder / 'text_encoder').glob('*.safetensors*'):
    if path.suffix == '.safetensors':
      tensors |= safetensors.numpy.load_file(path)
    path.unlink()
  change(tensors)
  safetensors.numpy.save_file(tensors, folder / 'text_encoder' / 'model.safetensors')
  return folder


NAMES = {'umt5': 'encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight',
         'qwen3': 'model.layers.1.self_attn.k_norm.weight'}


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('change, words', [
    (lambda t, name: t.pop(name), 'missing in the file'),
    (lambda t, name: t.update({name: t[name][:1]}), 'in the file, '),
    (lambda t, name: t.update({name.replace('1', '7', 1): t[name]}), 'absent in the model')],
    ids=['missing', 'wrong shape', 'extra'])
def test_weights_of_another_model_are_refused_by_name(folders, tmp_path, kind, change, words):
  name = NAMES[kind]
  folder = changed(folders, kind, tmp_path / kind, lambda tensors: change(tensors, name))
  line = told(pretrained_text.load, folder)
  assert words in line and name.replace('1', '7' if 'absent' in words else '1', 1) in line
  assert line.startswith(str(folder / 'text_encoder'))


@pytest.mark.parametrize('kind, changes, words', [
    ('umt5', {'model_type': 'mt5'}, "model_type is 'mt5': give a umT5 (model_type umt5)"),
    ('umt5', {'d_kv': None}, 'd_kv=None'),
    ('qwen3', {'model_type': 'qwen2'}, "model_type is 'qwen2': give a Qwen3 (model_type qwen3)"),
    ('qwen3', {'hidden_size': 0}, 'hidden_size=0'),
    ('qwen3', {'attention_bias': True}, 'attention_bias=True'),
    ('qwen3', {'num_key_value_heads': 3}, 'num_key_value_heads=3'),
    ('qwen3', {'rope_parameters': {'rope_type': 'yarn', 'rope_theta': 1e4}}, "'yarn'"),
    ('qwen3', {'rope_parameters': None}, 'rope_theta=None')])
def test_a_config_of_another_model_is_refused_by_name(folders, tmp_path, kind, changes, words):
  shutil.copytree(folders / kind, tmp_path / kind)
  path = tmp_path / kind / 'text_encoder' / 'config.json'
  path.write_text(json.dumps(json.loads(path.read_text()) | changes))
  line = told(pretrained_text.load, tmp_path / kind, kind=kind)
  assert words in line and line.startswith(str(path))


@pytest.mark.parametrize('kind', KINDS)
def test_a_folder_without_its_tokenizer_is_told(folders, tmp_path, kind):
  shutil.copytree(folders / kind, tmp_path / kind)
  shutil.rmtree(tmp_path / kind / 'tokenizer')
  assert f'{tmp_path / kind}/tokenizer: n' in told(pretrained_text.load, tmp_path / kind)


def test_the_rotary_base_may_stand_where_older_files_have_it(folders, tmp_path):
  shutil.copytree(folders / 'qwen3', tmp_path / 'qwen3')
  path = tmp_path / 'qwen3' / 'text_encoder' / 'config.json'
  raw = json.loads(path.read_text())
  path.write_text(json.dumps(raw | {'rope_parameters': None, 'rope_theta': 1_000_000}))
  for folder in (folders / 'qwen3', tmp_path / 'qwen3'):
    _, config = pretrained_text.read_config(text_files.find(folder, ''))
    assert config.rope_theta == 1e6
