"""A T5 folder that cannot be used is told in one line: what, where, what to do."""

import json
import sys
import types

import numpy as np
import pytest
import t5_folders
from t5_folders import TINY, tensors_of, told, write

from avlink_jax.codecs.pretrained_text import load


@pytest.fixture(scope='module', autouse=True)
def quickly_compiled():
  with t5_folders.quickly_compiled():
    yield


@pytest.fixture
def folder(tmp_path):
  return write(tmp_path / 'model', 'tokenizer.json')


def test_a_folder_that_is_not_there_is_told(tmp_path):
  for source in (tmp_path / 'nowhere', './nowhere', '~/no/where', tmp_path / 'a b'):
    line = told(load, source)
    assert f'{source}: no such folder: give a T5 folder of config.json' in line
  (tmp_path / 'file').write_text('')
  assert 'file: no such folder' in told(load, tmp_path / 'file')


def hub(monkeypatch, download):
  monkeypatch.setitem(sys.modules, 'huggingface_hub',
                      types.SimpleNamespace(snapshot_download=download))


def test_a_hub_that_cannot_be_reached_is_told_in_one_line(monkeypatch):
  def fail(name, **options):
    raise ConnectionError('no route\nto the host')
  hub(monkeypatch, fail)
  assert told(load, 'google/flan-t5-nano').startswith(
      'google/flan-t5-nano: no such folder, nor to be had from the hub: no route to the host: give')


def test_without_the_hub_s_package_that_is_told(monkeypatch):
  monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
  assert 'pip install huggingface_hub' in told(load, 'google/flan-t5-nano')


def test_of_a_hub_only_what_is_needed_is_fetched(monkeypatch, folder):
  asked = {}

  def download(name, allow_patterns):
    asked[name] = allow_patterns
    return str(folder)

  hub(monkeypatch, download)
  encoder = load('google/flan-t5-nano', kind='t5')
  assert encoder.fingerprint == load(folder).fingerprint
  model = {'config.json', 'model.safetensors', 'model.safetensors.index.json',
           'model-*.safetensors'}
  tokenizer = {'tokenizer.json', 'spiece.model'}
  assert set(asked['google/flan-t5-nano']) == {
      *model, *tokenizer, *(f'text_encoder/{name}' for name in model),
      *(f'tokenizer/{name}' for name in tokenizer)}


@pytest.mark.parametrize('name, line', [
    ('config.json', 'config.json: No such file or directory: give a T5 folder'),
    ('model.safetensors', 'neither model.safetensors nor model.safetensors.index.json in it'),
    ('tokenizer.json', 'neither tokenizer.json nor spiece.model in it')])
def test_a_file_that_is_missing_is_told_by_name(folder, name, line):
  (folder / name).unlink()
  assert line in told(load, folder)


def test_pickled_weights_are_refused_with_the_way_out(folder):
  (folder / 'model.safetensors').rename(folder / 'pytorch_model.bin')
  line = told(load, folder)
  assert 'are not read' in line and line.endswith(
      f'storage.foreign {folder}/pytorch_model*.bin {folder}/model.safetensors')


@pytest.mark.parametrize('name', ['config.json', 'model.safetensors', 'tokenizer.json',
                                  'spiece.model', 'model.safetensors.index.json'])
@pytest.mark.parametrize('content', [b'', b'not what it says it is', b'\xff\0' * 50, b'[1]'])
def test_a_file_that_is_damaged_is_told_by_name(folder, name, content):
  if name == 'spiece.model':
    pytest.importorskip('sentencepiece')
    (folder / 'tokenizer.json').unlink()
  if 'index' in name:
    (folder / 'model.safetensors').unlink()
  (folder / name).write_bytes(content)
  assert told(load, folder).startswith(f'{folder / name}: ')


def test_weights_cut_short_are_told(folder):
  path = folder / 'model.safetensors'
  path.write_bytes(path.read_bytes()[:-50])
  assert 'model.safetensors: ' in (line := told(load, folder)) and 'fetch it again' in line


def test_a_piece_that_the_index_names_and_is_not_there_is_told(folder):
  (folder / 'model.safetensors').rename(folder / 'model-00001-of-00002.safetensors')
  (folder / 'model.safetensors.index.json').write_text(json.dumps({'weight_map': {
      'a': 'model-00001-of-00002.safetensors', 'b': 'model-00002-of-00002.safetensors'}}))
  assert told(load, folder).startswith(f'{folder}/model-00002-of-00002.safetensors: ')


@pytest.mark.parametrize('changes, words', [
    ({'model_type': 'bert'}, ["model_type is 'bert'", 'T5']),
    ({'model_type': None}, ['model_type is None']),
    ({'d_model': None}, ['d_model=None']),
    ({'num_layers': 0}, ['num_layers=0']),
    ({'d_ff': '24', 'd_kv': -1}, ["d_ff='24'", 'd_kv=-1']),
    ({'feed_forward_proj': 'gated-tanh'}, ["dense_act_fn='tanh'"]),
    ({'is_gated_act': 'yes'}, ["is_gated_act='yes'"]),
    ({'relative_attention_num_buckets': 3}, ['relative_attention_num_buckets=3']),
    ({'relative_attention_max_distance': 2}, ['relative_attention_max_distance=2'])])
def test_a_config_of_another_model_is_told(folder, changes, words):
  (folder / 'config.json').write_text(json.dumps(TINY | changes))
  line = told(load, folder)
  assert line.startswith(f'{folder}/config.json: ') and all(word in line for word in words)


def test_a_number_that_is_missing_is_told(folder):
  (folder / 'config.json').write_text(json.dumps({k: v for k, v in TINY.items() if k != 'd_kv'}))
  assert "d_kv='missing'" in told(load, folder)


def test_weights_of_another_model_are_told_by_name(folder):
  tensors = tensors_of(TINY)
  name = 'encoder.block.1.layer.0.SelfAttention.q.weight'
  write(folder, tensors={k: v for k, v in tensors.items() if k != name})
  assert f'{name}: missing in the file, (18, 16) in the model' in told(load, folder)
  write(folder, tensors=tensors | {name: np.zeros((18, 8), np.float32)})
  assert f'{name}: (18, 8) in the file, (18, 16) in the model' in told(load, folder)
  write(folder, tensors=tensors, config=TINY | {'num_layers': 1})  # one that would be left out
  assert 'encoder.block.1.layer.0.SelfAttention.k.weight: ' in (line := told(load, folder))
  assert ' more' in line
  write(folder, tensors=tensors | {name: np.zeros((18, 16), np.int8)})
  assert f'{name} is int8' in told(load, folder)


def test_a_tokenizer_of_another_model_is_told(folder):
  raw = json.loads((folder / 'tokenizer.json').read_text())
  write(folder, config=TINY | {'vocab_size': 50},
        tensors=tensors_of(TINY) | {'shared.weight': np.zeros((50, 16), np.float32)})
  assert f'{len(raw["model"]["vocab"])} tokens, 50 in the model' in told(load, folder)
  write(folder)
  text = json.dumps(raw).replace('</s>', '[SEP]')
  (folder / 'tokenizer.json').write_text(text)
  assert 'no </s> in it' in told(load, folder)


@pytest.mark.parametrize('library', ['tokenizers', 'sentencepiece'])
def test_a_missing_library_is_told(folder, monkeypatch, library):
  if library == 'sentencepiece':
    (folder / 'tokenizer.json').rename(folder / 'spiece.model')
  monkeypatch.setitem(sys.modules, library, None)
  assert f'pip install {library}' in told(load, folder)


def test_weights_that_give_no_numbers_are_told(folder):
  tensors = tensors_of(TINY)
  tensors['encoder.final_layer_norm.weight'][3] = np.nan
  write(folder, tensors=tensors)
  assert "no finite numbers of 'a drum'" in told(load(folder).prepare, ['a drum'])


def test_a_cache_folder_that_cannot_be_used_is_told(folder, tmp_path):
  (tmp_path / 'taken').write_text('')
  encoder = load(folder, tmp_path / 'taken')
  assert 'taken/' in told(encoder.prepare, ['a drum'])
  encoder = load(folder, tmp_path / 'cache')
  encoder.prepare(['a drum'])
  file, = (tmp_path / 'cache').iterdir()
  file.unlink()
  file.mkdir()
  assert 'text cache folder' in told(load(folder, tmp_path / 'cache').prepare, ['a drum'])


@pytest.mark.parametrize('options', [{'max_tokens': 0}, {'dtype': 'float16'}])
def test_options_out_of_range_are_told(folder, options):
  assert next(iter(options)) in told(load, folder, **options)
