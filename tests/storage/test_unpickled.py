"""Weights are read out of pickles, torch checkpoints and ONNX files, and nothing in them is run."""

import io
import os
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avlink_jax.storage import onnx_file
from avlink_jax.storage import safe_pickle as unpickled

torch = pytest.importorskip('torch')
TREE = {'params': {'conv': {'kernel': np.arange(24, dtype=np.float32).reshape(2, 3, 4)}},
        'list': [np.float64([1, 2]), {'deep': np.int32([[3]])}], 'words': 'no array'}


def flat(tree):
  return {'params.conv.kernel': tree['params']['conv']['kernel'], 'list.0': tree['list'][0],
          'list.1.deep': tree['list'][1]['deep']}


def same(found, expected):
  return found.keys() == expected.keys() and all(
      np.array_equal(found[k], expected[k]) and found[k].dtype == expected[k].dtype for k in found)


@pytest.mark.parametrize('protocol', range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickled_arrays_come_out_whole(protocol):
  tree = {**TREE, 'columns': np.asfortranarray(np.arange(6.0).reshape(2, 3)),
          'big_endian': np.arange(3, dtype='>f4')}
  expected = {**flat(TREE), 'columns': tree['columns'], 'big_endian': tree['big_endian']}
  assert same(unpickled.read(pickle.dumps(tree, protocol)), expected)


def test_an_npy_file_of_one_object_is_its_object():
  file = io.BytesIO()
  np.save(file, np.array(TREE, object))
  found = unpickled.read(file.getvalue())
  assert same({name.removeprefix('0.'): array for name, array in found.items()}, flat(TREE))


def checkpoint(tree, archive):
  file = io.BytesIO()
  torch.save(tree, file, _use_new_zipfile_serialization=archive)
  return file.getvalue()


@pytest.mark.parametrize('archive', [True, False])
def test_torch_checkpoints_give_what_torch_gives(archive):
  base = torch.randn(6, 4)
  network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
  tree = {'state': network.state_dict(), 'view': base[2:4, 1:], 'turned': base.T,
          'half': base.half(), 'one': torch.tensor(3), 'own': torch.nn.Parameter(base[0]),
          'none': torch.zeros(0, 3)}
  content = checkpoint(tree, archive)
  found = unpickled.read(content)
  known = torch.load(io.BytesIO(content), weights_only=True)
  expected = {f'state.{name}': value for name, value in known.pop('state').items()} | known
  assert same(found, {name: value.detach().numpy() for name, value in expected.items()})


class Bomb:
  def __init__(self, path):
    self._path = str(path)

  def __reduce__(self):
    return os.mkdir, (self._path,)


@pytest.mark.parametrize('kind', ['pickle', 'archive', 'stream'])
def test_nothing_is_run(kind, tmp_path):
  tree = {'a': torch.ones(2) if kind != 'pickle' else np.ones(2, np.float32),
          'bomb': Bomb(tmp_path / 'went_off')}
  content = pickle.dumps(tree) if kind == 'pickle' else checkpoint(tree, kind == 'archive')
  assert same(unpickled.read(content), {'a': np.ones(2, np.float32)})
  assert not (tmp_path / 'went_off').exists()
  pickle.loads(pickle.dumps(Bomb(tmp_path / 'went_off')))  # it would have
  assert (tmp_path / 'went_off').exists()


def test_a_tensor_that_reaches_outside_its_storage_is_refused():
  content = checkpoint({'a': torch.ones(5, 7)}, True)
  assert unpickled.read(content)
  lies = {b'K\x05K\x07\x86': b'K\x06K\x07\x86', b'K\x07K\x01\x86': b'K\x09K\x01\x86'}
  for one, other in lies.items():
    assert content.count(one) == 1
    with pytest.raises(unpickled.Damaged):
      unpickled.read(content.replace(one, other))


WHOLE = [pickle.dumps(TREE), checkpoint({'a': torch.ones(3, 2), 'b': [torch.zeros(4)]}, False),
         checkpoint({'a': torch.ones(3, 2), 'b': [torch.zeros(4)]}, True)]


@given(st.sampled_from(WHOLE), st.data())
def test_whatever_is_in_a_file_it_is_read_or_refused(content, data):
  content = bytearray(content)
  for _ in range(data.draw(st.integers(1, 4))):
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
  content = bytes(content[:data.draw(st.integers(0, len(content)))])
  try:
    unpickled.read(content)
  except unpickled.Damaged:
    pass


@pytest.mark.parametrize(
    'content', [b'', b'\x80', b'PK\x03\x04', b'\x93NUMPY', b'words', b'N' * 99])
def test_what_is_no_such_file_is_refused(content):
  with pytest.raises(unpickled.Damaged):
    unpickled.read(content)


# -- ONNX

def field(number, content):
  """A field of protobuf: bytes, or an integer."""
  def varint(value):
    out = bytearray()
    while value > 127:
      out.append(value & 127 | 128)
      value >>= 7
    return bytes(out + bytes([value]))
  if isinstance(content, int):
    return varint(number << 3) + varint(content)
  return varint(number << 3 | 2) + varint(len(content)) + content


def onnx_model(array, name, outside=None):
  """(model, data): a model with one initializer, inside it or in a file beside it."""
  dims = b''.join(field(1, size) for size in array.shape)
  tensor = dims + field(2, 1) + field(8, name.encode())
  if outside is None:
    tensor += field(9, array.tobytes())
  else:
    for pair in (('location', 'model.data'), ('offset', str(outside)),
                 ('length', str(array.nbytes))):
      tensor += field(13, field(1, pair[0].encode()) + field(2, pair[1].encode()))
  return field(1, 8) + field(7, field(2, b'graph') + field(5, tensor))


def test_the_arrays_of_an_onnx_model_inside_it_and_beside_it():
  array = np.random.default_rng(0).standard_normal((300, 2, 3)).astype(np.float32)
  assert same(onnx_file.read(onnx_model(array, 'w')), {'w': array})
  assert same(onnx_file.read(onnx_model(array, 'w', 200), bytes(200) + array.tobytes()),
              {'w': array})
  for model, data in ((onnx_model(array, 'w')[:-5], b''), (onnx_model(array, 'w', 10), bytes(99)),
                      (b'words', b''), (b'', b'')):
    with pytest.raises(unpickled.Damaged):
      onnx_file.read(model, data)
