"""Embeddings of captions made beforehand: each distinct caption once, and no T5 needed after."""

import json
import shutil

import numpy as np
import pytest
import t5_folders
from micro import build, micro_config
from test_records import config_of

from avlink_jax.build import build_text
from avlink_jax.codecs import pretrained_text
from avlink_jax.data import pipeline
from avlink_jax.data.prepare import command as prepare
from avlink_jax.data.prepare import embeddings
from avlink_jax.data.sources import records
from avlink_jax.errors import UserError


@pytest.fixture(scope='module', autouse=True)
def quickly_compiled():
  with t5_folders.quickly_compiled():
    yield


@pytest.fixture(scope='module')
def t5(tmp_path_factory):
  return t5_folders.write(tmp_path_factory.mktemp('t5') / 'model', 'tokenizer.json')


def prepared(folder, t5, *more, source='impacts'):
  prepare.prepare([f'--source={source}', f'--output={folder}', '--limit=5', '--splits=train',
                   '--seconds=2', '--height=8', '--width=16', '--processes=1', '--shard_clips=2',
                   f'--t5={t5}', '--max_tokens=12', *more])
  return folder


def with_t5(source, t5, **changes):
  return config_of('v2a', source, **{'text.encoder': 't5', 'text.t5': str(t5), 'text.width': 16,
                                     'text.max_tokens': 12, **changes})


@pytest.fixture(scope='module')
def folder(tmp_path_factory, t5):
  return prepared(tmp_path_factory.mktemp('r') / 'r', t5)


def test_prepared_embeddings_are_those_that_t5_makes_and_it_is_not_needed(folder, t5, tmp_path):
  models, task = build(with_t5(folder, '/gone'))
  source = pipeline.open_source(with_t5(folder, '/gone'), models.layout, 'train', task.reads)
  captions = [source.load(i).audio_caption for i in range(5)] + ['']
  models.modalities['audio'].text.check('')  # as a run does at its start
  ours = models.modalities['audio'].text.prepare(captions)
  theirs = pretrained_text.load(t5, max_tokens=12).prepare(captions)
  assert np.abs(theirs['embedding']).max() > 0.1
  np.testing.assert_array_equal(ours['embedding'], theirs['embedding'])
  np.testing.assert_array_equal(ours['mask'], theirs['mask'])
  with pytest.raises(UserError, match='/gone: no such folder'):
    models.modalities['audio'].text.prepare(['never said'])


def test_each_distinct_caption_is_embedded_once(tmp_path, t5, monkeypatch):
  calls = t5_folders.count_computed(monkeypatch)
  for _ in range(2):
    prepared(tmp_path / 'r', t5)
    about = json.loads((tmp_path / 'r' / 'records.json').read_text())
    reports = [json.loads(path.read_text()) for path in (tmp_path / 'r').glob('train-*.json')]
    captions = {text for report in reports for text in report['captions']} | {''}
    assert sum(calls) == len(captions) > 5
  assert about['text']['files'] == 1


def test_captions_are_found_across_many_files(tmp_path, t5, monkeypatch):
  monkeypatch.setattr(embeddings, 'CAPTIONS_PER_FILE', 3)
  folder = prepared(tmp_path / 'r', t5)
  files = records.read_about(folder)['text']['files']
  assert files >= 3
  table = embeddings.Embeddings(folder, records.read_about(folder)['text'])
  encoder = pretrained_text.load(t5, max_tokens=12)
  for report in map(json.loads, (p.read_text() for p in folder.glob('train-*.json'))):
    for text in report['captions']:
      np.testing.assert_array_equal(table.get(text), encoder.rows([text])[text])
  assert table.get('never said') is None


def test_captions_that_share_a_hash_are_told_apart(tmp_path, t5, monkeypatch):
  monkeypatch.setattr(embeddings, 'key', lambda caption: 7)
  encoder = pretrained_text.load(t5, max_tokens=12)
  captions = ['a ball', 'rain', 'wind']
  embeddings.write(tmp_path, 0, 1, captions, encoder)
  table = embeddings.Embeddings(tmp_path, {'files': 1, 'fingerprint': encoder.fingerprint})
  table._cache.get = lambda key: None
  for text in captions:
    np.testing.assert_array_equal(table.get(text), encoder.rows([text])[text])
  assert table.get('snow') is None


def test_another_text_encoder_is_told(folder, t5, tmp_path):
  with pytest.raises(UserError, match='embedded with max_tokens=12: set --config.text.max_tokens'):
    build_text(with_t5(folder, t5, **{'text.max_tokens': 20}), 'audio')
  other = shutil.copytree(t5, tmp_path / 'other')

  about = records.read_about(folder)
  text = build_text(with_t5(folder, other), 'audio')
  text.prepared.fingerprint = 'another'
  with pytest.raises(UserError, match='is not the T5 that made the embeddings'):
    text.prepare(['never said'])
  assert about['text']['width'] == 16


@pytest.mark.parametrize('suffix', ['array_record', 'keys.npy'])
def test_lost_or_cut_embeddings_are_told(folder, t5, tmp_path, suffix):
  name = f'text-00000-of-00001.{suffix}'
  there = shutil.copytree(folder, tmp_path / 'r')
  content = (there / name).read_bytes()
  (there / name).write_bytes(content[:len(content) // 2])
  with pytest.raises(UserError, match='missing or damaged|cut short'):
    build_text(with_t5(there, t5), 'audio')
  (there / name).unlink()
  with pytest.raises(UserError, match='missing or damaged.*prepare command again'):
    build_text(with_t5(there, t5), 'audio')


def test_words_that_are_trained_keep_their_captions_plain(folder):
  config = micro_config('v2a', **{'data.source': str(folder)})
  assert build_text(config, 'audio').prepare(['a ball']).dtype == np.int32
