"""A folder of clips as a source: names, splits, captions, mistakes."""

import shutil

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from avlink_jax.data.media import mux
from avlink_jax.data.sources.captions import clean_caption
from avlink_jax.data.sources.folder import SPLITS, Folder
from avlink_jax.errors import MediaError, UserError

OPTIONS = dict(height=36, width=64, sample_rate=16000, max_fps=6)


def touch(root, *names):
  """Empty files: enough for everything but decoding."""
  for name in names:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).touch()


def names_of(folder):
  return [folder.name(i) for i in range(len(folder))]


def write_clip(path, level=100):
  mux.write_mp4(path, frames=np.full((12, 36, 64, 3), level, np.uint8), fps=12,
                audio=np.zeros(16000), sample_rate=16000)


def test_media_files_are_listed_in_order_and_the_rest_is_left_out(tmp_path):
  touch(tmp_path, 'b.MP4', 'a.mkv', 'deep/er/c.webm', '.hidden.mp4', '.cache/d.mp4', 'notes.txt',
        'captions.txt', 'e.mp4.part', 'poster.jpg')
  assert names_of(Folder(tmp_path, **OPTIONS)) == ['a', 'b', 'deep__er__c']


def test_what_is_left_out_is_counted_and_named(tmp_path):
  touch(tmp_path, 'a.mp4', 'a.npz', 'a.txt', 'captions.csv', '.hidden.jpg', 'x/b.wav', 'c.xyz',
        'd.xyz', 'README', 'x/README.txt')
  (tmp_path / 'captions.csv').write_text('file,caption\na.mp4,a dog\n')
  note, = Folder(tmp_path, **OPTIONS).notes
  assert note == (f'{tmp_path}: 5 files are left out, by their endings no clips here: '
                  '2 .xyz (c.xyz, …), 1 .txt (README.txt), 1 .wav (b.wav), '
                  '1 without ending (README)')
  note, = Folder(tmp_path, need_video=False, **OPTIONS).notes
  assert '.wav' not in note
  touch(tmp_path, *[f'x.{n}' for n in range(20)])
  assert Folder(tmp_path, **OPTIONS).notes[0].endswith(' and 16 further endings')


def test_a_single_file_that_is_no_media_is_told(tmp_path):
  touch(tmp_path, 'poster.jpg')
  for name, content in (('list.csv', b'file,caption\n'), ('clips.tar', b'x' * 2000),
                        ('notes.xyz', b'no media here\n' * 99)):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f'{name}: not a media file; give a folder of clips, a'):
      Folder(tmp_path / name, **OPTIONS)
  write_clip(tmp_path / 'a.mp4')
  (tmp_path / 'a.mp4').rename(tmp_path / 'recording')  # it is one, whatever it is called
  assert names_of(Folder(tmp_path / 'recording', **OPTIONS)) == ['recording']


def test_of_a_samples_folder_each_clip_stands_once(tmp_path):
  """Not again as it was before it was enlarged; a file merely called so is a clip."""
  touch(tmp_path, 'a.mp4', 'a_low.mp4', 'b_low.mp4')
  (tmp_path / 'manifest.jsonl').write_text(
    '{"id": "a", "files": {"video": "a.mp4", "low": "a_low.mp4"}}\n')
  assert names_of(Folder(tmp_path, **OPTIONS)) == ['a', 'b_low']
  assert '1 low-resolution videos of samples are left out' in Folder(tmp_path, **OPTIONS).notes[0]
  (tmp_path / 'manifest.jsonl').write_text('{"audio_filepath": "a.mp4"}\n')  # somebody else's
  assert len(Folder(tmp_path, **OPTIONS)) == 3


def test_a_clip_is_called_the_same_whatever_else_there_is(tmp_path):
  touch(tmp_path, 'dog.mp4', 'b/dog.mp4')
  assert names_of(Folder(tmp_path, **OPTIONS)) == ['b__dog', 'dog']
  touch(tmp_path, 'a/dog.mp4', 'b/dog.mov', 'b/cat.mp4', 'dog.MP4', 'dog.avi')
  assert names_of(Folder(tmp_path, **OPTIONS)) == [
      'a__dog', 'b__cat', 'b__dog-mov', 'b__dog', 'dog-MP4', 'dog-avi', 'dog']
  assert names_of(Folder(tmp_path / 'b' / 'dog.mov', **OPTIONS)) == ['dog']


def test_sound_beside_a_video_of_that_name_has_its_ending(tmp_path):
  touch(tmp_path, 'a.aac', 'a.webm', 'b.wav')
  assert names_of(Folder(tmp_path, **OPTIONS, need_video=False)) == ['a-aac', 'a', 'b']


def test_in_a_list_names_depend_on_earlier_lines_alone(tmp_path):
  (tmp_path / 'list.txt').write_text('/x/dog.mp4\n/y/dog.mp4\n')
  before = names_of(Folder(tmp_path / 'list.txt', **OPTIONS))
  (tmp_path / 'list.txt').write_text('/x/dog.mp4\n/y/dog.mp4\n/w/dog.mov\n/y/cat.mp4\n')
  assert before == ['dog', 'y__dog-mp4']
  assert names_of(Folder(tmp_path / 'list.txt', **OPTIONS)) == [*before, 'w__dog-mov', 'cat']


def test_two_clips_that_would_be_called_the_same_are_an_error(tmp_path):
  touch(tmp_path, 'a/dog.mp4', 'a__dog.mp4')
  with pytest.raises(UserError, match='called a__dog; rename'):
    Folder(tmp_path, **OPTIONS)


def test_noise_is_drawn_from_what_a_clip_is_and_not_from_where_it_lies(tmp_path):
  write_clip(tmp_path / 'dog.mp4')
  (tmp_path / 'sub').mkdir()
  shutil.copy(tmp_path / 'dog.mp4', tmp_path / 'sub' / 'dog.mp4')
  write_clip(tmp_path / 'sub' / 'cat.mp4', level=30)
  noise = {name: Folder(tmp_path, **OPTIONS, for_sampling=True).load(i).noise
           for i, name in enumerate(['dog', 'sub__cat', 'sub__dog'])}
  alone = Folder(tmp_path / 'sub' / 'dog.mp4', **OPTIONS, for_sampling=True).load(0)
  assert noise['dog'] == noise['sub__dog'] == alone.noise != noise['sub__cat']
  assert not Folder(tmp_path, **OPTIONS).load(0).noise  # training has no use for it


def test_a_loaded_clip_has_its_name_caption_and_size(tmp_path):
  write_clip(tmp_path / 'one.mp4')
  (tmp_path / 'captions.csv').write_text('file,caption\none.mp4,a dog barks\n')
  clip = Folder(tmp_path, **OPTIONS).load(0)
  assert clip.id == 'one' and clip.source == str(tmp_path / 'one.mp4')
  assert clip.audio_caption == clip.video_caption == 'a dog barks'
  assert clip.frames.shape == (6, 36, 64, 3) and clip.audio.shape == (16000,)


def test_a_broken_clip_is_listed_and_fails_only_when_loaded(tmp_path):
  write_clip(tmp_path / 'good.mp4')
  touch(tmp_path, 'bad.mp4')
  folder = Folder(tmp_path, **OPTIONS)
  assert names_of(folder) == ['bad', 'good']
  with pytest.raises(MediaError, match='empty file'):
    folder.load(0)
  assert folder.load(1).id == 'good'


def test_silent_clips_load_where_sound_is_not_needed(tmp_path):
  mux.write_mp4(tmp_path / 'silent.mp4', frames=np.zeros((6, 36, 64, 3), np.uint8), fps=6)
  with pytest.raises(MediaError, match='no audio stream'):
    Folder(tmp_path, **OPTIONS).load(0)
  assert len(Folder(tmp_path, **OPTIONS, need_audio=False).load(0).audio) == 0


def test_files_of_sound_are_clips_where_no_picture_is_needed(tmp_path):
  sounds = [f'{n}{suffix}' for n, suffix in enumerate(
    ('.wav', '.FLAC', '.mp3', '.ogg', '.opus', '.m4a', '.aac'))]
  touch(tmp_path, *sounds, 'z.mp4', 'notes.txt', 'poster.jpg')
  assert names_of(Folder(tmp_path, **OPTIONS)) == ['z']
  assert names_of(Folder(tmp_path, **OPTIONS, need_video=False)) == [*'0123456', 'z']


def test_clips_without_picture_are_as_long_as_their_sound(tmp_path):
  wave = np.sin(np.arange(24000) * 0.05).astype(np.float32) * 0.5
  soundfile.write(tmp_path / 'a.wav', np.stack([wave, wave], axis=1), 16000)
  soundfile.write(tmp_path / 'b.flac', wave, 16000)
  soundfile.write(tmp_path / 'c.ogg', wave, 16000)
  mux.write_mp4(tmp_path / 'blind.mp4', audio=wave, sample_rate=16000)
  (tmp_path / 'captions.csv').write_text('file,caption\na.wav,a hum\n')
  folder = Folder(tmp_path, **OPTIONS, need_video=False)
  assert names_of(folder) == ['a', 'b', 'blind', 'c']
  for clip in (folder.load(i) for i in range(4)):
    assert clip.frames.shape == (0, 0, 0, 3) and len(clip.frame_times) == 0
    assert clip.duration == pytest.approx(1.5, abs=0.03)  # codecs fill up the last block
    assert len(clip.audio) == round(clip.duration * 16000) and np.abs(clip.audio).max() > 0.4
  assert folder.load(0).audio_caption == 'a hum'
  with pytest.raises(MediaError, match='no video stream'):
    Folder(tmp_path / 'a.wav', **OPTIONS).load(0)


def test_a_picture_that_is_not_needed_still_sets_the_length(tmp_path):
  write_clip(tmp_path / 'one.mp4')
  clip = Folder(tmp_path, **OPTIONS, need_video=False).load(0)
  assert len(clip.frames) == 0 and clip.duration == pytest.approx(1.0, abs=0.001)


def test_sound_is_needed_all_the_same(tmp_path):
  mux.write_mp4(tmp_path / 'silent.mp4', frames=np.zeros((6, 36, 64, 3), np.uint8), fps=6)
  with pytest.raises(MediaError, match='no audio stream'):
    Folder(tmp_path, **OPTIONS, need_video=False).load(0)


def test_one_file_is_a_folder_of_one(tmp_path):
  touch(tmp_path, 'a.mp4', 'b.mp4')
  assert names_of(Folder(tmp_path / 'b.mp4', **OPTIONS)) == ['b']


# -- splits

@settings(max_examples=40, deadline=None)
@given(count=st.integers(3, 60), seed=st.integers(0, 99))
def test_splits_share_out_all_clips_and_none_is_empty(tmp_path_factory, count, seed):
  root = tmp_path_factory.mktemp('clips')
  touch(root, *[f'clip-{seed}-{n}.mp4' for n in range(count)])
  splits = [names_of(Folder(root, split=split, **OPTIONS)) for split in SPLITS]
  assert all(splits)
  assert sorted(sum(splits, [])) == sorted(names_of(Folder(root, **OPTIONS)))


def test_a_large_folder_is_split_about_90_5_5(tmp_path):
  touch(tmp_path, *[f'{n}.mp4' for n in range(1000)])
  counts = [len(Folder(tmp_path, split=split, **OPTIONS)) for split in SPLITS]
  np.testing.assert_allclose(counts, [900, 50, 50], atol=25)


def test_a_clip_keeps_its_split_when_others_come_and_when_the_folder_moves(tmp_path):
  touch(tmp_path / 'old', *[f'{n}.mp4' for n in range(200)])
  touch(tmp_path / 'new', *[f'{n}.mp4' for n in range(400)])
  for split in SPLITS:
    before = set(names_of(Folder(tmp_path / 'old', split=split, **OPTIONS)))
    after = set(names_of(Folder(tmp_path / 'new', split=split, **OPTIONS)))
    assert before == {name for name in after if int(name) < 200}


def test_two_clips_are_in_every_split_and_that_is_said(tmp_path):
  touch(tmp_path, 'a.mp4', 'b.mp4')
  folder = Folder(tmp_path, split='test', **OPTIONS)
  assert names_of(folder) == ['a', 'b']
  assert 'fewer than three' in folder.notes[0]


def test_split_folders_are_the_splits(tmp_path):
  touch(tmp_path, 'train/a.mp4', 'train/b.mp4', 'test/c.mp4', 'stray.mp4')
  assert names_of(Folder(tmp_path, split='train', **OPTIONS)) == ['a', 'b']
  folder = Folder(tmp_path, split='test', **OPTIONS)
  assert names_of(folder) == ['c'] and '1 clips lie outside' in folder.notes[0]
  assert names_of(Folder(tmp_path, **OPTIONS)) == ['stray', 'test__c', 'train__a', 'train__b']
  with pytest.raises(UserError, match='no clips in validation/'):
    Folder(tmp_path, split='validation', **OPTIONS)


def test_an_unknown_split_is_an_error(tmp_path):
  touch(tmp_path, 'a.mp4')
  with pytest.raises(UserError, match="unknown split 'val': one of train, validation, test"):
    Folder(tmp_path, split='val', **OPTIONS)


# -- captions

def captions_of(tmp_path, content, *names):
  touch(tmp_path, *(names or ('a.mp4', 'b.mp4')))
  (tmp_path / 'captions.csv').write_bytes(
    content if isinstance(content, bytes) else content.encode())
  folder = Folder(tmp_path, **OPTIONS)
  assert all(row.audio == row.video for row in folder._captions.rows.values())
  return {file.name: row.audio for file, row in folder._captions.rows.items()}, folder.notes


@pytest.mark.parametrize('content', [
  'file,caption\na.mp4,"a dog, barking"\nb.mp4,\n',
  'file,caption\r\na.mp4,"a dog, barking"\r\nb.mp4,\r\n',
  b'\xef\xbb\xbffile,caption\na.mp4,"a dog, barking"\nb.mp4,""\n',  # byte-order mark
  ' File , Caption \na.mp4, "a dog, barking" \n\nb.mp4\n',  # spaces, blank line, short row
  'file,caption\na.mp4,a dog, barking\nb.mp4,\n',  # a comma nobody quoted
  'id,file,caption\n1,a.mp4,"a\n dog,\tbarking"\n2,b.mp4,\n',  # more columns, a line break
  'caption,file\n"a dog, barking",a.mp4\n,b.mp4\n',
])
def test_captions_are_read_however_the_csv_was_written(tmp_path, content):
  captions, notes = captions_of(tmp_path, content)
  assert captions == {'a.mp4': 'a dog, barking', 'b.mp4': ''} and not notes


def test_rows_without_a_file_are_counted_and_listed(tmp_path):
  rows = ''.join(f'gone{n}.mp4,x\n' for n in range(7))
  captions, notes = captions_of(tmp_path, f'file,caption\na.mp4,one\n{rows}a.mp4,two\n')
  assert captions == {'a.mp4': 'one'}
  assert '7 of 9 rows name no file' in notes[0] and 'gone0.mp4' in notes[0]
  assert '2 more' in notes[0]
  assert '1 of 9 rows repeat a file' in notes[1]


def test_rows_may_name_a_path_or_a_file(tmp_path):
  content = 'file,caption\ntrain/a.mp4,one\nb.mp4,two\nc.mp4,which?\n'
  captions, notes = captions_of(
    tmp_path, content, 'train/a.mp4', 'test/b.mp4', 'train/c.mp4', 'test/c.mp4')
  assert captions == {'a.mp4': 'one', 'b.mp4': 'two'}  # c.mp4 could be either
  assert 'c.mp4' in notes[0]


def test_captions_of_other_splits_are_not_missing(tmp_path):
  touch(tmp_path, 'train/a.mp4', 'test/b.mp4')
  (tmp_path / 'captions.csv').write_text('file,caption\na.mp4,one\nb.mp4,two\n')
  assert Folder(tmp_path, split='train', **OPTIONS).notes == []


@pytest.mark.parametrize('content, told', [
  ('', "found 'nothing'"), ('a.mp4,a dog\n', "found 'a.mp4,a dog'"),
  ('file;caption\na.mp4;x\n', "found 'file;caption'"),
  ('file,caption\n'.encode('utf-16'), 'cannot be read'),
  ('file,caption\na.mp4,caf\xe9\n'.encode('latin-1'), 'cannot be read')])
def test_a_malformed_csv_is_one_clear_line(tmp_path, content, told):
  with pytest.raises(UserError) as caught:
    captions_of(tmp_path, content)
  assert told in str(caught.value) and 'captions.csv' in str(caught.value)
  assert '\n' not in str(caught.value)


def test_captions_may_lie_elsewhere(tmp_path):
  touch(tmp_path / 'clips', 'a.mp4')
  (tmp_path / 'mine.csv').write_text('file,caption\nclips/a.mp4,one\n')
  folder = Folder(tmp_path / 'clips', captions=tmp_path / 'mine.csv', **OPTIONS)
  assert folder.caption(0) == 'one'
  with pytest.raises(UserError, match='no such captions file'):
    Folder(tmp_path / 'clips', captions=tmp_path / 'gone.csv', **OPTIONS)


@pytest.mark.parametrize('text, clean', [
  ('  a\tdog \n barks ', 'a dog barks'), ('e\u0301', '\u00e9'), ('a\x00b\x1bc\x7fd', 'a b c d'),
  ('a\u2028b\u00a0c', 'a b c'), ('\ufeffa', 'a'), ('x\u202ey', 'x y'), ('a\ud800b', 'a b'),
  ('\U0001f468\u200d\U0001f469', '\U0001f468\u200d\U0001f469'), ('', ''), ('<b>"&', '<b>"&')])
def test_captions_are_cleaned(text, clean):
  assert clean_caption(text) == clean


@given(st.text())
@settings(max_examples=60, deadline=None)
def test_a_clean_caption_is_one_line_of_utf8_and_stays_as_it_is(text):
  clean = clean_caption(text)
  clean.encode('utf-8')
  assert clean == clean_caption(clean) and clean.split() == clean.split(' ') or clean == ''


# -- mistakes

def test_a_wrong_or_empty_folder_is_one_clear_line(tmp_path):
  with pytest.raises(UserError, match='no such folder'):
    Folder(tmp_path / 'gone', **OPTIONS)
  (tmp_path / 'notes.txt').touch()
  with pytest.raises(UserError, match='no media files'):
    Folder(tmp_path, **OPTIONS)
