"""Other people's weights come out of each format whole, and nothing in a file is run."""

import hashlib
import io
import json
import os
import pickle
import sys
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from avlink_jax.errors import UserError
from avlink_jax.storage import foreign

torch = pytest.importorskip('torch')
TREE = {'params': {'conv': {'kernel': np.arange(24, dtype=np.float32).reshape(2, 3, 4)}},
        'list': [np.float64([1, 2]), {'deep': np.int32([[3]])}], 'words': 'no array'}
FLAT = {'params.conv.kernel': TREE['params']['conv']['kernel'], 'list.0': TREE['list'][0],
        'list.1.deep': TREE['list'][1]['deep']}


def same(found, expected):
  return found.keys() == expected.keys() and all(
      np.array_equal(found[k], expected[k]) and found[k].dtype == expected[k].dtype for k in found)


def refused(path, said='', **how):
  """The one line in which reading a file ends."""
  with pytest.raises(UserError, match=said) as caught:
    foreign.read(path, **how)
  line = str(caught.value)
  assert '\n' not in line and line.startswith(f'{path}: ')
  return line


# -- formats

def test_safetensors_are_read_and_only_those_that_are_asked_for(tmp_path):
  path = tmp_path / 'a.safetensors'
  tensors = {'audio.w': np.ones((2, 3), np.float32), 'text.w': np.ones(2).astype(jnp.bfloat16)}
  safetensors.numpy.save_file(tensors, path)
  assert same(foreign.read(path), tensors)
  assert list(foreign.read(path, lambda name: 'audio' in name)) == ['audio.w']
  assert {name: stored.shape for name, stored in foreign.scan(path).items()} == {
      'audio.w': (2, 3), 'text.w': (2,)}


def test_an_index_gives_the_tensors_of_all_its_files(tmp_path):
  for name in 'ab':
    safetensors.numpy.save_file({name: np.ones(2)}, tmp_path / f'{name}.safetensors')
  path = tmp_path / 'model.safetensors.index.json'
  path.write_text(json.dumps({'weight_map': {name: f'{name}.safetensors' for name in 'ab'}}))
  assert foreign.read(path).keys() == {'a', 'b'}
  (tmp_path / 'b.safetensors').unlink()
  with pytest.raises(UserError, match='b.safetensors: no such file'):
    foreign.read(path)


@pytest.mark.parametrize('name', ['../a.safetensors', '/etc/passwd', 'deep/a.safetensors',
                                  'model.safetensors.index.json', 7])
def test_an_index_names_no_file_outside_its_folder_and_not_itself(tmp_path, name):
  (tmp_path / 'in').mkdir()
  safetensors.numpy.save_file({'a': np.ones(2)}, tmp_path / 'a.safetensors')
  path = tmp_path / 'in' / 'model.safetensors.index.json'
  path.write_text(json.dumps({'weight_map': {'a': name}}))
  refused(path, 'not an index of safetensors files')


def test_numpy_files_are_read(tmp_path):
  np.save(tmp_path / 'one.npy', FLAT['list.0'])
  np.savez(tmp_path / 'all.npz', **FLAT)
  assert same(foreign.read(tmp_path / 'one.npy'), {'one': FLAT['list.0']})
  assert same(foreign.read(tmp_path / 'all.npz'), FLAT)


@pytest.mark.parametrize('protocol', [3, 4])
def test_pickled_numpy_arrays_of_a_known_file_come_out_whole(tmp_path, protocol):
  more = {'columns': np.asfortranarray(np.arange(6.0).reshape(2, 3))}
  path = tmp_path / 'w.ckpt'
  path.write_bytes(pickle.dumps({**TREE, **more}, protocol))
  assert same(foreign.read(path, verified=True), {**FLAT, **more})
  refused(path, 'not a torch checkpoint')


def test_a_known_npy_file_of_one_object_is_its_object(tmp_path):
  np.save(tmp_path / 'w.npy', np.array(TREE, object))
  found = foreign.read(tmp_path / 'w.npy', verified=True)
  assert same({name.removeprefix('0.'): array for name, array in found.items()}, FLAT)
  refused(tmp_path / 'w.npy', 'Object arrays')


@pytest.mark.parametrize('archive', [True, False])
def test_torch_checkpoints_give_what_torch_gives(tmp_path, archive):
  base = torch.randn(6, 4)
  network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
  tree = {'state': network.state_dict(), 'view': base[2:4, 1:], 'turned': base.T,
          'half': base.half(), 'one': torch.tensor(3), 'own': torch.nn.Parameter(base[0]),
          'none': torch.zeros(0, 3)}
  torch.save({**tree, 'brain': base.bfloat16()}, tmp_path / 'w.pt',
             _use_new_zipfile_serialization=archive)
  found = foreign.read(tmp_path / 'w.pt')
  brain = found.pop('brain')
  assert brain.dtype == jnp.bfloat16
  np.testing.assert_array_equal(brain.astype(np.float32), base.bfloat16().float())
  state = {f'state.{name}': value for name, value in tree.pop('state').items()}
  assert same(found, {name: value.detach().numpy() for name, value in (state | tree).items()})


def test_the_float_initializers_of_an_onnx_model_inside_it_and_beside_it(tmp_path):
  onnx = pytest.importorskip('onnx')
  arrays = {'w': np.random.default_rng(0).standard_normal((300, 2, 3)).astype(np.float32),
            'steps': np.arange(3)}
  graph = onnx.helper.make_graph([], 'graph', [], [], [
      onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()])
  model = onnx.helper.make_model(graph)
  path = tmp_path / 'w.onnx'
  onnx.save(model, path)
  assert same(foreign.read(path), {'w': arrays['w']})
  onnx.save(model, path, save_as_external_data=True, location='w.data', size_threshold=0)
  assert same(foreign.read(path), {'w': arrays['w']})
  with zipfile.ZipFile(tmp_path / 'w.onnx.zip', 'w') as archive:
    for name in ('w.onnx', 'w.data'):
      archive.write(tmp_path / name, f'folder/{name}')
  assert same(foreign.read(tmp_path / 'w.onnx.zip'), {'w': arrays['w']})
  (tmp_path / 'w.data').unlink()
  refused(path, 'not an ONNX model')
  path.write_bytes(b'words')
  refused(path, 'not an ONNX model')


# -- nothing is run

class Bomb:
  """Makes a folder when it is unpickled."""

  def __init__(self, path):
    self._path = str(path)

  def __reduce__(self):
    return os.mkdir, (self._path,)


@pytest.mark.parametrize('name, said', [
    ('archive.pt', 'it calls posix.mkdir'), ('stream.pt', 'it calls posix.mkdir'),
    ('plain.pt', 'not a torch checkpoint'), ('object.npy', 'Object arrays'),
    ('object.npz', 'Object arrays'), ('known.npy', 'it calls posix.mkdir'),
    ('known.ckpt', 'it calls posix.mkdir')])
def test_a_malicious_pickle_runs_nothing_and_is_refused_in_a_line(name, said, tmp_path):
  mark, path = tmp_path / 'went_off', tmp_path / name
  if name in ('archive.pt', 'stream.pt'):
    torch.save({'a': torch.ones(2), 'bomb': Bomb(mark)}, path,
               _use_new_zipfile_serialization=name == 'archive.pt')
  elif path.suffix == '.npy':
    np.save(path, np.array([Bomb(mark)], object))
  elif path.suffix == '.npz':
    np.savez(path, a=np.array([Bomb(mark)], object))
  else:
    path.write_bytes(pickle.dumps({'a': np.ones(2), 'bomb': Bomb(mark)}))
  refused(path, said, verified=name.startswith('known'))
  assert not mark.exists()
  pickle.loads(pickle.dumps(Bomb(mark)))  # it would have
  assert mark.exists()


@pytest.mark.parametrize('call', [b'cbuiltins\neval\n', b'cnumpy\nload\n', b'cos\nsystem\n',
                                  b'cnumpy.core.multiarray\nfromfile\n', b'inumpy\nload\n',
                                  b'\x8c\x05numpy\x8c\x0endarray.tofile\x93'])
def test_a_known_pickle_makes_numpy_arrays_and_calls_nothing_else(tmp_path, call):
  path = tmp_path / 'w.ckpt'
  path.write_bytes(b'\x80\x04(' + call + b'(\x8c\x01xtR.')
  refused(path, 'it calls ', verified=True)


def test_numbers_of_numpy_in_a_checkpoint_are_left_out_and_its_arrays_refused(tmp_path):
  """NumPy believes what a pickle says of an array's memory."""
  torch.save({'a': torch.ones(2), 'loss': np.float64(3)}, tmp_path / 'w.pt')
  assert foreign.read(tmp_path / 'w.pt').keys() == {'a'}
  torch.save({'a': np.ones(2)}, tmp_path / 'w.pt')
  refused(tmp_path / 'w.pt', 'it calls numpy')


def torch_file(tree, archive):
  file = io.BytesIO()
  torch.save(tree, file, _use_new_zipfile_serialization=archive)
  return file.getvalue()


WHOLE = [torch_file({'a': torch.ones(3, 2), 'b': [torch.zeros(4)]}, False),
         torch_file({'a': torch.ones(3, 2), 'b': [torch.zeros(4)]}, True)]


@given(st.sampled_from(WHOLE), st.data())
@settings(max_examples=50)
def test_whatever_is_in_a_file_it_is_read_or_refused(tmp_path_factory, content, data):
  content = bytearray(content)
  for _ in range(data.draw(st.integers(1, 4))):
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
  path = tmp_path_factory.mktemp('damaged') / 'w.pt'
  path.write_bytes(content[:data.draw(st.integers(0, len(content)))])
  try:
    foreign.read(path)
  except foreign.Unreadable:
    pass


@pytest.mark.parametrize('name', ['w.safetensors', 'w.npy', 'w.npz', 'w.ckpt', 'w.index.json'])
@pytest.mark.parametrize(
    'content', [b'', b'\x80', b'PK\x03\x04', b'\x93NUMPY', b'words', b'N' * 99])
def test_what_is_no_such_file_is_refused(tmp_path, name, content):
  (tmp_path / name).write_bytes(content)
  refused(tmp_path / name, 'fetch it again')


# -- converted once

@pytest.mark.parametrize('library, content', [
    ('torch', foreign.LEGACY_TORCH), ('torch', WHOLE[1]), ('onnx', b'')])
def test_without_its_library_a_file_names_the_extra_and_the_conversion(
    tmp_path, monkeypatch, library, content):
  monkeypatch.setitem(sys.modules, library, None)
  path = tmp_path / ('w.onnx' if library == 'onnx' else 'w.pt')
  path.write_bytes(content)
  line = refused(path, f'needs {library} to be read: pip install {library}')
  assert f'[{library}]' in line and line.endswith(
      f'python -m avlink_jax.storage.foreign {path} {path.name}.safetensors')


def test_a_torch_that_could_be_made_to_run_code_is_not_used(tmp_path, monkeypatch):
  monkeypatch.setattr(torch, '__version__', '2.5.1')
  (tmp_path / 'w.pt').write_bytes(WHOLE[0])
  refused(tmp_path / 'w.pt', 'needs torch 2.6 or newer')


def test_a_converted_copy_has_the_same_arrays_and_says_what_it_was_made_of(tmp_path):
  path, copy = tmp_path / 'w.pt', tmp_path / 'w.pt.safetensors'
  path.write_bytes(torch_file({'a': {'b': torch.ones(3, 2).T}, 'one': torch.tensor(3.0)}, True))
  foreign.convert([path], copy)
  assert same(foreign.read(copy), {'a.b': np.ones((2, 3), np.float32), 'one': np.float32(3)})
  assert foreign.origin(copy) == hashlib.sha256(path.read_bytes()).hexdigest()
  assert foreign.origin(path) is None


def test_what_a_checkpoint_says_of_itself_is_kept_by_its_copy(tmp_path):
  path, copy = tmp_path / 'w.pth', tmp_path / 'w.pth.safetensors'
  torch.save({'state_dict': {'a': torch.ones(2)}, 'metadata': {'kwargs': {'rates': [2, 3]}}}, path)
  foreign.convert([path], copy)
  for file in path, copy:
    assert foreign.metadata(file) == {'kwargs': {'rates': [2, 3]}}
  torch.save({'a': torch.ones(2)}, path)
  foreign.convert([path], copy)
  assert foreign.metadata(path) is None and foreign.metadata(copy) is None


def test_the_command_converts_several_files_into_one_or_says_in_a_line_why_not(
    tmp_path, monkeypatch, capsys):
  for name in 'ab':
    (tmp_path / f'{name}.pt').write_bytes(torch_file({name: torch.ones(2)}, True))
  (tmp_path / 'bad.pt').write_bytes(b'words')

  def run(*files):
    monkeypatch.setattr(sys, 'argv', ['foreign', *files])
    return foreign.main()

  files = [str(tmp_path / f'{name}.pt') for name in ('a', 'b', 'bad')]
  assert run(*files[:2], tmp_path / 'both.safetensors') == 0
  assert foreign.read(tmp_path / 'both.safetensors').keys() == {'a', 'b'}
  assert run(*files, tmp_path / 'none.safetensors') == 2
  said = capsys.readouterr().err
  assert said.startswith(f'foreign: {files[2]}: not a torch') and said.count('\n') == 1
  assert not (tmp_path / 'none.safetensors').exists()
  assert run(files[0]) == 2 and 'FILE... OUT.safetensors' in capsys.readouterr().out
