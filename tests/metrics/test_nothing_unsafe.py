"""Nothing unsafe is loaded: no file of a user's runs code, and no name in one leads elsewhere.

(A config is Python by design, and runs as its author wrote it.)
"""

import ast
import hashlib
import io
import json
import os
import pathlib
import pickle
import shutil
import struct
import zipfile

import numpy as np
import pytest
from made_clips import make_clip, steady

from avlink_jax.codecs import hifigan_import
from avlink_jax.codecs.text_cache import EmbeddingCache
from avlink_jax.data.batch import Layout
from avlink_jax.data.media import decode as media
from avlink_jax.data.prepare import embeddings
from avlink_jax.data.sources import features, records
from avlink_jax.data.sources.folder import Folder
from avlink_jax.errors import MediaError, UserError
from avlink_jax.evaluation.pairs import exact_events, find
from avlink_jax.samples.folder import complete, read_manifest, write_sample
from avlink_jax.samples.gallery import write_gallery
from avlink_jax.storage import weights

PACKAGE = pathlib.Path(weights.__file__).parents[1]
READER = PACKAGE / 'storage' / 'foreign.py'  # its Unpickler knows nothing but NumPy's arrays


class Bomb:
  """Makes a file when it is unpickled."""

  def __init__(self, path):
    self._path = str(path)

  def __reduce__(self):
    return os.mkdir, (self._path,)


@pytest.fixture
def bomb(tmp_path):
  """(bytes of a pickle, where something is once anybody has loaded it)."""
  mark = tmp_path / 'went_off'
  yield pickle.dumps({'generator': Bomb(mark), 'features': Bomb(mark)})
  assert not mark.exists()


def test_the_bomb_goes_off_where_it_is_unpickled(tmp_path):
  pickle.loads(pickle.dumps(Bomb(tmp_path / 'went_off')))
  assert (tmp_path / 'went_off').exists()


# -- no pickle

def test_no_module_unpickles_or_runs_what_it_reads():
  for path in PACKAGE.rglob('*.py'):
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.Import | ast.ImportFrom):
        names = [node.module or ''] if isinstance(node, ast.ImportFrom) else [
            name.name for name in node.names]
        unsafe = {name.split('.')[0] for name in names} & {
            'pickle', 'dill', 'joblib', 'shelve', 'marshal', 'yaml', 'tarfile'}
        assert unsafe <= ({'pickle'} if path == READER else set()), path
      if not isinstance(node, ast.Call):
        continue
      called = ast.unparse(node.func)
      told = {word.arg: ast.unparse(word.value) for word in node.keywords}
      assert called not in ('eval', 'exec', 'compile', '__import__', 'os.system'), path
      assert not called.endswith('extractall'), path
      if called == 'np.load':
        assert told.get('allow_pickle') == 'False', path
      assert not called.startswith('pickle.') or called == 'pickle.UnpicklingError', path
      if called == 'torch.load':
        assert told.get('weights_only') == 'True', path


def test_pickled_features_are_refused(bomb, tmp_path):
  (tmp_path / 'a.npz').write_bytes(bomb)
  np.savez(tmp_path / 'b.npz', features=np.array([Bomb(tmp_path / 'went_off')] * 3, object))
  np.save(tmp_path / 'c.npy', np.array([Bomb(tmp_path / 'went_off')] * 3, object))
  shutil.move(tmp_path / 'c.npy', tmp_path / 'c.npz')
  for name in 'abc':
    with pytest.raises(MediaError, match='cannot be read'):
      features.read(tmp_path / f'{name}.mp4', 8, 6.0)


def test_weights_files_that_are_pickles_are_refused(bomb, tmp_path):
  (tmp_path / 'w.safetensors').write_bytes(bomb)
  with pytest.raises(UserError, match='not a safetensors file'):
    weights.read(tmp_path / 'w.safetensors')
  assert weights.header(tmp_path / 'w.safetensors') == {}


def vocoder_folder(folder):
  folder.mkdir()
  (folder / 'config.json').write_text(json.dumps({
      'resblock': '1', 'upsample_rates': [2], 'upsample_kernel_sizes': [4], 'num_mels': 8,
      'upsample_initial_channel': 8, 'resblock_kernel_sizes': [3],
      'resblock_dilation_sizes': [[1]]}))
  return folder


@pytest.mark.parametrize('kind', ['plain', 'torch'])
def test_a_torch_checkpoint_gives_its_tensors_and_runs_nothing(bomb, tmp_path, kind):
  torch = pytest.importorskip('torch')
  path = vocoder_folder(tmp_path / 'voice') / 'g_00000001'
  if kind == 'plain':
    path.write_bytes(bomb)
  else:
    torch.save({'generator': {'w': torch.zeros(2), 'bomb': Bomb(tmp_path / 'went_off')}}, path)
  with pytest.raises(UserError, match='not a torch checkpoint of tensors alone'):
    hifigan_import.load(path)


def test_a_pickle_in_the_text_cache_counts_as_nothing(bomb, tmp_path):
  array = io.BytesIO()
  np.save(array, np.array([Bomb(tmp_path / 'went_off')], object))
  (tmp_path / 'key.npy').write_bytes(bomb)
  assert EmbeddingCache(tmp_path).get('key') is None
  blob = array.getvalue()  # with the right sum behind it, somebody made it so
  (tmp_path / 'key.npy').write_bytes(blob + hashlib.sha256(blob).digest())
  assert EmbeddingCache(tmp_path).get('key') is None


def test_records_state_a_version_and_a_pickle_is_none(bomb, tmp_path):
  about = {'version': records.VERSION, 'layout': records.layout_of(Layout(2.0, 6.0, 8, 16)),
           'audio': True, 'video': True, 'high': None, 'codec': None, 'text': None}
  shard = tmp_path / 'train-00000-of-00001.array_record'
  records.write_shard(shard, [bomb])
  counts = {'train': {shard.stem: {'clips': 1, 'records': 1, 'bytes': shard.stat().st_size}}}
  (tmp_path / 'records.json').write_text(json.dumps({**about, 'counts': counts}))
  source = records.Records(tmp_path, 'train', Layout(2.0, 6.0, 8, 16))
  with pytest.raises(MediaError, match='damaged record .not a record'):
    source.load(0)
  (tmp_path / 'records.json').write_bytes(bomb)
  with pytest.raises(UserError, match='cannot be read as the records'):
    records.read_about(tmp_path)
  np.save(tmp_path / 'keys.npy', np.array([Bomb(tmp_path / 'went_off')], object))
  os.replace(tmp_path / 'keys.npy', tmp_path / 'text-00000-of-00001.keys.npy')
  with pytest.raises(UserError, match='missing or damaged'):
    embeddings.Embeddings(tmp_path, {'files': 1, 'fingerprint': ''})


@pytest.mark.parametrize('name', ['../secret', '/etc/passwd', 'train-00000-of-00001/../../x', ''])
def test_records_name_no_shard_outside_their_folder(tmp_path, name):
  (tmp_path / 'records.json').write_text(json.dumps({
      'version': records.VERSION, 'layout': records.layout_of(Layout(2.0, 6.0, 8, 16)),
      'audio': True, 'video': True, 'high': None, 'codec': None, 'text': None,
      'counts': {'train': {name: {'clips': 1, 'records': 1, 'bytes': 1}}}}))
  with pytest.raises(UserError, match='its counts are damaged'):
    records.Records(tmp_path, 'train', Layout(2.0, 6.0, 8, 16))


# -- names lead nowhere

@pytest.fixture
def outside(tmp_path):
  """A folder to work in, beside things that are none of its business."""
  make_clip(tmp_path / 'secret.mp4', steady(12, 1.0))
  (tmp_path / 'in').mkdir()
  return tmp_path / 'in'


LEADING_OUT = ('../secret.mp4', '/etc/passwd', '~/x.mp4', 'file:///etc/passwd', '../' * 400 + 'etc',
               'a\0b', 'x' * 5_000_000, './././../secret.mp4')


def test_captions_name_no_file_outside_their_folder(outside):
  make_clip(outside / 'a.mp4', steady(12, 1.0))
  rows = ''.join(f'{name},said\n' for name in (*LEADING_OUT, 'loop/a.mp4'))
  (outside / 'captions.csv').write_text(f'file,caption\n{rows}a.mp4,mine\n')
  (outside / 'loop').symlink_to(outside / 'loop')
  folder = Folder(outside, height=8, width=8, sample_rate=16000)
  assert [folder.name(i) for i in range(len(folder))] == ['a'] and folder.caption(0) == 'mine'
  assert '9 of 10 rows name no file of the folder' in folder.notes[0]
  assert len(folder.notes[0]) < 1000 and '\0' not in folder.notes[0]


def test_a_list_of_files_named_as_a_clip_opens_none_of_them(outside):
  """FFmpeg would play them, whatever their names end in."""
  shutil.copy(outside.parent / 'secret.mp4', outside / 'b.mp4')
  lists = {'concat.mp4': 'ffconcat version 1.0\nfile b.mp4\n',
           'concat.ts': 'ffconcat version 1.0\nfile ../secret.mp4\n',
           'hls.m3u8': '#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n'
                       '../secret.mp4\n#EXT-X-ENDLIST\n',
           'sdp.mp4': 'v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n'
                      'm=video 9 RTP/AVP 96\na=rtpmap:96 H264/90000\n'}
  for name, content in lists.items():
    (outside / name).write_text(content)
    with pytest.raises(MediaError) as caught:
      media.decode(outside / name)
    assert caught.value.reason == 'not a media file', name


def test_a_manifest_reads_and_removes_nothing_outside_its_folder(outside):
  black = np.zeros((6, 36, 64, 3), np.uint8)
  write_sample(outside, 'one', frames=black, fps=6)
  row, = read_manifest(outside)
  for name in (*LEADING_OUT, 'one.mp4/../../secret.mp4', '', None, ['../secret.mp4'], 7):
    path = outside / 'manifest.jsonl'
    path.write_text(json.dumps({**row, 'files': {'video': name, 'audio': name}}) + '\n')
    assert complete(outside) == {}
    page = write_gallery(outside).read_text()
    assert 'src="' not in page and 'secret' not in page
    exact_events(outside)
    assert find(outside, '--generated').keys() == {'one'}
    write_sample(outside, 'one', frames=black, fps=6)
    assert (outside.parent / 'secret.mp4').exists() and complete(outside).keys() == {'one'}
  path.write_text('[' * 100_000)
  with pytest.raises(UserError, match='line 1'):
    read_manifest(outside)


@pytest.mark.parametrize('id', ['../secret', '/tmp/x', '..', '.', 'a/../../b', 'x' * 5000, '\0',
                                'c:\\x', '.hidden'])
def test_a_clip_whatever_it_is_called_is_written_inside_its_folder(outside, id):
  before = {path: path.read_bytes() for path in outside.parent.iterdir() if path.is_file()}
  row = write_sample(outside, id, frames=np.zeros((6, 36, 64, 3), np.uint8), fps=6)
  assert {path: path.read_bytes() for path in outside.parent.iterdir() if path.is_file()} == before
  assert sorted(path.name for path in outside.iterdir()) == sorted(
      ['manifest.jsonl', row['files']['video']])


def test_an_archive_of_features_writes_nothing(outside):
  with zipfile.ZipFile(outside / 'a.npz', 'w') as archive:
    vectors = io.BytesIO()
    np.save(vectors, np.ones((3, 8), np.float32))
    for name in ('features.npy', '../evil.npy', '/tmp/evil.npy'):
      archive.writestr(name, vectors.getvalue())
  before = sorted(outside.parent.rglob('*'))
  assert features.read(outside / 'a.mp4', 8, 6.0)[0].shape == (3, 8)
  assert sorted(outside.parent.rglob('*')) == before


def test_weights_with_a_header_of_lies_are_told(tmp_path):
  for header in (b'{"a":{"dtype":"F32","shape":[4000000000000],"data_offsets":[0,16000000000000]}}',
                 b'{"a":' * 10_000, b'\xff' * 40):
    (tmp_path / 'w.safetensors').write_bytes(struct.pack('<Q', len(header)) + header)
    with pytest.raises(UserError, match='not a safetensors file'):
      weights.read(tmp_path / 'w.safetensors')
