"""Captions: tables of all usual kinds, text files beside clips, and what of them is told."""

import json
import unicodedata

import pytest
from made_clips import make_clip, steady
from micro import build, micro_config
from test_folder import OPTIONS, touch, write_clip
from test_records import made, opened

from avlink_jax.data import pipeline
from avlink_jax.data.sources.folder import Folder
from avlink_jax.errors import UserError
from avlink_jax.sampling import inputs


def folder_of(tmp_path, tables, *names):
  """Folder of empty clips with these {name: content of a table or text}."""
  touch(tmp_path, *(names or ('a.mp4', 'b.mp4')))
  for name, content in tables.items():
    (tmp_path / name).write_text(content, encoding='utf-8')
  return Folder(tmp_path, **OPTIONS)


def captions_of(folder):
  return [(folder.caption(i), folder.caption(i, 'video')) for i in range(len(folder))]


APART = [('a knock', 'a door'), ('rain', 'rain')]


@pytest.mark.parametrize('table, content', [
    ('captions.csv', 'file,caption,audio_caption,video_caption\na.mp4,,a knock,a door\n'
                     'b.mp4,rain,,\n'),
    ('captions.tsv', 'file\taudio_caption\tvideo_caption\na.mp4\ta knock\ta door\n'
                     'b.mp4\train\train\n'),
    ('captions.csv', 'file\tcaption\tvideo_caption\na.mp4\ta knock\ta door\nb.mp4\train\n'),
    ('metadata.csv', 'file_name,caption,video_caption\na.mp4,a knock,a door\nb.mp4,rain,\n'),
    ('metadata.jsonl', '{"file_name": "a.mp4", "audio_caption": "a knock", "video_caption": '
                       '"a door"}\n\n{"file_name": "b.mp4", "caption": "rain", "n": 3}\n'),
    ('metadata.tsv', 'File_Name\tAudio_Caption\tvideo_caption\na.mp4\ta knock\ta door\n'
                     'b.mp4\train\train\n')])
def test_tables_of_every_kind_give_captions_of_audio_and_video(tmp_path, table, content):
  folder = folder_of(tmp_path, {table: content})
  assert captions_of(folder) == APART and not folder.notes
  assert folder.coverage == 'captions: 2 of 2 clips'


def test_a_loaded_clip_has_both_captions(tmp_path):
  write_clip(tmp_path / 'a.mp4')
  (tmp_path / 'metadata.jsonl').write_text(json.dumps(
      {'file_name': 'a.mp4', 'audio_caption': 'knock', 'video_caption': 'door', 'license': 'CC0'}))
  clip = Folder(tmp_path, **OPTIONS).load(0)
  assert (clip.audio_caption, clip.video_caption, clip.licence) == ('knock', 'door', 'CC0')


def test_a_text_file_beside_a_clip_is_its_caption(tmp_path):
  folder = folder_of(tmp_path, {'a.txt': '\ufeffa dog\nbarks \x00\n', 'captions.csv':
                                'file,caption\nb.mp4,rain\n', 'other.txt': 'nobody'})
  assert captions_of(folder) == [('a dog barks', 'a dog barks'), ('rain', 'rain')]
  assert folder.coverage == 'captions: 2 of 2 clips'
  assert len(folder.notes) == 1 and '1 .txt (other.txt)' in folder.notes[0]
  assert captions_of(Folder(tmp_path, captions='', **OPTIONS)) == [('', '')] * 2
  assert captions_of(Folder(tmp_path / 'a.mp4', **OPTIONS)) == [('a dog barks', 'a dog barks')]


def test_a_row_comes_before_the_text_beside(tmp_path):
  folder = folder_of(tmp_path, {'a.txt': 'text', 'captions.csv': 'file,caption\na.mp4,row\n'})
  assert captions_of(folder) == [('row', 'row'), ('', '')]


@pytest.mark.parametrize('form', ['NFC', 'NFD'])
def test_names_are_the_same_however_their_accents_are_written(tmp_path, form):
  other = {'NFC': 'NFD', 'NFD': 'NFC'}[form]
  name = unicodedata.normalize(form, 'café/é.mp4')
  touch(tmp_path, name)
  for row in (name, 'é.mp4'):
    (tmp_path / 'captions.csv').write_text(
        f'file,caption\n{unicodedata.normalize(other, row)},one\n', encoding='utf-8')
    folder = Folder(tmp_path, **OPTIONS)
    assert folder.caption(0) == 'one' and not folder.notes


def test_two_files_whose_names_differ_in_form_alone_are_told_apart(tmp_path):
  names = [unicodedata.normalize(form, 'é.mp4') for form in ('NFD', 'NFC')]
  folder = folder_of(tmp_path, {'captions.csv': f'file,caption\n{names[1]},one\n'}, *names)
  by_file = dict(zip([file.name for file in folder._files], captions_of(folder), strict=True))
  assert by_file == {names[1]: ('one', 'one'), names[0]: ('', '')}


def test_coverage_is_told_for_audio_and_video_apart(tmp_path):
  folder = folder_of(tmp_path, {'captions.csv': 'file,audio_caption\na.mp4,x\n'}, 'a.mp4', 'b.mp4',
                     'c.mp4')
  assert folder.coverage == 'captions: of audio 1, of video 0 of 3 clips'
  (tmp_path / 'captions.csv').unlink()
  assert Folder(tmp_path, **OPTIONS).coverage == 'captions: 0 of 3 clips'


def test_of_two_tables_the_one_that_is_not_read_is_named(tmp_path):
  folder = folder_of(tmp_path, {'captions.csv': 'file,caption\na.mp4,one\n',
                                'metadata.csv': 'file_name,caption\na.mp4,two\n'})
  assert folder.caption(0) == 'one'
  assert folder.notes == [f'{tmp_path}/metadata.csv: not read, since there is captions.csv']


@pytest.mark.parametrize('table, content', [
    ('metadata.csv', 'id,label\n1,dog\n'), ('metadata.jsonl', '{"file_name": "a.mp4", "n": 1}\n')])
def test_metadata_about_something_else_is_left_alone_and_named(tmp_path, table, content):
  folder = folder_of(tmp_path, {table: content, 'a.txt': 'text'})
  assert folder.caption(0) == 'text'
  assert folder.notes == [f'{tmp_path}/{table}: not read, since it has no columns file_name and '
                          'caption']


@pytest.mark.parametrize('content', ['{"file_name": "a.mp4"\n', '["a.mp4", "dog"]\n', '[' * 90_000])
def test_lines_that_are_no_objects_are_told(tmp_path, content):
  with pytest.raises(UserError, match='metadata.jsonl: line 2 is no JSON object'):
    folder_of(tmp_path, {'metadata.jsonl': '{"file_name": "a.mp4", "caption": "x"}\n' + content})


def test_a_list_of_files_has_its_captions_beside_it(tmp_path):
  touch(tmp_path, 'far/a.mp4', 'far/b.mp4', 'far/c.mp4')
  (tmp_path / 'list.txt').write_text('far/a.mp4\nfar/b.mp4\n')
  (tmp_path / 'captions.csv').write_text('file,caption\nfar/a.mp4,one\nc.mp4,three\n')
  (tmp_path / 'far' / 'b.txt').write_text('two')
  folder = Folder(tmp_path / 'list.txt', **OPTIONS)
  assert [caption for caption, _ in captions_of(folder)] == ['one', 'two']
  assert '1 of 2 rows name no file' in folder.notes[0] and 'c.mp4' in folder.notes[0]


def test_a_template_takes_columns_of_any_table(tmp_path):
  touch(tmp_path, 'a.mp4', 'b.mp4')
  (tmp_path / 'metadata.jsonl').write_text(
      '{"file_name": "a.mp4", "label": "dog"}\n{"file_name": "b.mp4"}\n')
  folder = Folder(tmp_path, template='the sound of {label}', **OPTIONS)
  assert [caption for caption, _ in captions_of(folder)] == ['the sound of dog', 'the sound of']


def test_what_is_odd_and_how_many_have_captions_is_told_when_sampling(tmp_path, capsys):
  make_clip(tmp_path / 'a.mp4', steady(12, 1.0))
  (tmp_path / 'captions.csv').write_text('file,caption\nb.mp4,rain\n')
  config = micro_config('v2a', **{'data.source': str(tmp_path)})
  models, task = build(config)
  for given in (dict(input_path=str(tmp_path)), {}):
    inputs.find_clips(task, config, **given)
    told = capsys.readouterr().err
    assert '1 of 1 rows name no file of the folder: b.mp4' in told
    assert 'captions: 0 of 1 clips' in told
  pipeline.tell(pipeline.open_source(config, models.layout, 'train'), write=False)
  assert not capsys.readouterr().err


def test_prepared_records_have_both_captions(tmp_path, capsys):
  (tmp_path / 'clips').mkdir()
  make_clip(tmp_path / 'clips' / 'a.mp4', steady(12))
  (tmp_path / 'clips' / 'metadata.csv').write_text(
      'file_name,audio_caption,video_caption\na.mp4,knock,door\n')
  made(tmp_path / 'r', '--splits=train', '--shots=0', source=tmp_path / 'clips')
  assert 'prepare: train: captions: 1 of 1 clips' in capsys.readouterr().err
  clip = opened(tmp_path / 'r')[0].load(0)
  assert (clip.audio_caption, clip.video_caption) == ('knock', 'door')
