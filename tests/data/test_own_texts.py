"""A text encoder for each tower: from published folders, prepared once, and not needed after."""

import json

import numpy as np
import public_texts
import pytest
from micro import build
from t5_folders import told
from test_records import config_of, made

from avlink_jax import build as model_builder
from avlink_jax.codecs import pretrained_text
from avlink_jax.configs import common
from avlink_jax.data import pipeline
from avlink_jax.data.prepare import embeddings
from avlink_jax.data.sources import records


@pytest.fixture(scope='module', autouse=True)
def quickly_compiled():
  with public_texts.quickly_compiled():
    yield


@pytest.fixture(scope='module')
def published(tmp_path_factory):
  """Folder with `moss` and `wan`, whose embeddings have 24 and 16 numbers."""
  root = tmp_path_factory.mktemp('published')
  public_texts.save_qwen3(root / 'moss', width=24)
  public_texts.save_umt5(root / 'wan')
  return root


@pytest.fixture(scope='module')
def prepared(tmp_path_factory, published):
  return made(tmp_path_factory.mktemp('records') / 'r', f'--audio_text={published}/moss',
              f'--video_text={published}/wan', '--splits=train', limit=3)


def own(published, task='v2a', source='impacts', **changes):
  config = config_of(task, source)
  common.add_texts(config, audio='qwen3', video='umt5')
  config.frozen.update(audio=f'{published}/moss', video=f'{published}/wan')
  config.update_from_flattened_dict(changes)
  return config


def test_each_tower_has_its_own_encoder_sized_by_the_folder_of_its_weights(published):
  models, task = build(own(published))
  audio, video = models.texts['audio'], models.texts['video']
  assert (audio.kind, audio.width, audio.max_tokens, audio.seconds) == ('qwen3', 24, 512, 2.0)
  assert (video.kind, video.width, video.max_tokens, video.seconds) == ('umt5', 16, 512, None)
  assert task.texts == models.texts
  shapes = {name: modality.text.shapes(3) for name, modality in models.modalities.items()}
  for name, prompts in shapes.items():
    made = models.modalities[name].text.prepare(['a', 'a drum', ''])
    assert {k: v.shape for k, v in made.items()} == {k: v.shape for k, v in prompts.items()}


def test_a_folder_of_its_own_comes_before_the_tower_s(published):
  config = own(published, **{'frozen.audio': 'bundled', 'frozen.video': '/none',
                             'texts.video.folder': str(published / 'wan'), 'texts.video.width': 16,
                             'texts.video.max_tokens': 20, 'texts.audio.width': 8})
  models, _ = build(config)
  assert models.texts['video'].prepare(['a drum'])['embedding'].shape == (1, 20, 16)
  assert '--config.texts.audio.folder is not set: give' in told(models.texts['audio'].check, '')


@pytest.mark.parametrize('frozen', ['', 'bundled', 'a/video.safetensors', '/none', '.'])
def test_weights_of_our_own_have_no_text_encoder(published, frozen):
  text = build(own(published, **{'frozen.video': frozen}))[0].texts['video']
  assert text.width == 0 and 'texts.video.folder is not set' in told(text.check, '')


def test_a_shared_encoder_is_one_object():
  texts = model_builder.build_texts(config_of('v2a'))
  assert texts['audio'] is texts['video']


@pytest.mark.parametrize('task, names', [
    ('t2a', ['audio']), ('t2v', ['video']), ('v2a', ['audio', 'video']), ('mel_vae', [])])
def test_only_prompts_that_a_task_reads_are_embedded(task, names):
  models, task = build(config_of(task))
  source = pipeline.open_source(task.config, models.layout, 'train', task.reads)
  examples = pipeline.make_examples(source, models.layout, task.readers, task.config.data)
  batch, _ = pipeline.first_batch(examples, task.prepare, 2)
  assert [name for name in batch if name.endswith('_text')] == [f'{name}_text' for name in names]


@pytest.mark.parametrize('section, encoder, words', [
    ('texts.audio', 'words', "texts.audio.encoder='words': use t5, umt5 or qwen3"),
    ('texts.video', 'clip', "texts.video.encoder='clip': use t5, umt5 or qwen3"),
    ('text', 'qwen3', "text.encoder='qwen3': use words or t5")])
def test_an_unknown_encoder_is_told(published, section, encoder, words):
  config = config_of('v2a') if section == 'text' else own(published)
  config.update_from_flattened_dict({f'{section}.encoder': encoder})
  assert words in told(build, config)


def test_a_folder_with_another_encoder_is_told(published):
  config = own(published, **{'frozen.audio': f'{published}/wan'})
  assert "model_type is 'umt5': give a Qwen3" in told(build, config)


# Prepared

def test_prepared_embeddings_are_those_of_each_encoder_and_neither_is_needed(
    prepared, published, monkeypatch):
  about = records.read_about(prepared)['text']
  assert {name: (text['kind'], text['width'], text['max_tokens'], text['seconds'], text['files'])
          for name, text in about.items()} == {
              'audio': ('qwen3', 24, 512, 2.0, 1), 'video': ('umt5', 16, 512, 2.0, 1)}
  theirs = {name: pretrained_text.load(published / folder, max_tokens=512, seconds=2.0)
            for name, folder in (('audio', 'moss'), ('video', 'wan'))}
  monkeypatch.setattr(pretrained_text, 'load', None)
  models, task = build(own('/gone', source=prepared))
  task.check_prompt('')
  clip = pipeline.open_source(task.config, models.layout, 'train', task.reads).load(0)
  captions = {'audio': clip.audio_caption, 'video': clip.video_caption}
  assert captions['audio'] != captions['video']
  for name, caption in captions.items():
    prompts = [caption, '']
    ours = models.texts[name].prepare(prompts)
    np.testing.assert_array_equal(ours['embedding'], theirs[name].prepare(prompts)['embedding'])
    assert ours['embedding'][0].any()
  assert not models.texts['audio'].prepare([''])['embedding'].any()


def test_prompts_that_were_not_prepared_are_embedded_by_the_same_encoder_or_none(
    prepared, published, tmp_path):
  text = build(own(published, source=prepared))[0].texts['audio']
  assert text.prepare(['never said'])['embedding'].any()
  public_texts.save_qwen3(tmp_path / 'other', width=24, seed=1)
  text = build(own(published, source=prepared, **{
      'texts.audio.folder': str(tmp_path / 'other')}))[0].texts['audio']
  assert 'is not the Qwen3 that made the embeddings' in told(text.prepare, ['never said'])


@pytest.mark.parametrize('changes, words', [
    ({'data.seconds': 1.0}, 'duration: 2.0s: set --config.data.seconds=2'),
    ({'texts.video.max_tokens': 20}, 'max_tokens=512: set --config.texts.video.max_tokens=512'),
    ({'texts.audio.width': 7}, 'width=24: set --config.texts.audio.width=24'),
    ({'texts.audio.encoder': 'umt5'}, 'embedded by Qwen3, and this run reads audio prompts by')])
def test_embeddings_of_another_kind_are_told(prepared, published, changes, words):
  assert words in told(build, own(published, source=prepared, **changes))


def test_embeddings_of_one_t5_are_no_other_encoder_s(prepared, published, tmp_path):
  about = records.read_about(prepared)
  one = {k: v for k, v in about['text']['audio'].items() if k not in ('kind', 'dtype', 'seconds')}
  assert list(embeddings.tables(one)) == ['text'] and embeddings.tables(None) == {}
  (tmp_path / 'records.json').write_text(json.dumps(about | {'text': one}))
  assert 'embedded by T5' in told(build, own(published, source=tmp_path))


def test_one_encoder_for_both_and_one_for_each_are_told(published, tmp_path):
  line = told(made, tmp_path / 'r', f'--t5={published}/wan', f'--audio_text={published}/moss')
  assert '--t5 embeds captions of both' in line


def test_captions_that_are_cut_are_counted(published, tmp_path, capsys):
  made(tmp_path / 'r', f'--audio_text={published}/moss', '--splits=train', '--max_tokens=10',
       limit=1)
  lines = [line for line in capsys.readouterr().err.splitlines() if 'embedded' in line]
  assert lines == ['prepare: captions of audio: 1 of 1 files are embedded, 2 captions of it cut to '
                   '10 tokens']
