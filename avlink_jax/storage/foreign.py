"""Other people's weights: one reader for all formats, and nothing in a file is run.

    .safetensors, or the .json index of several        safetensors
    .npz, .npy                                         NumPy, no pickles
    .onnx, also zipped: the float32 initializers       onnx (an extra)
    torch's checkpoints: .pt, .pth, .bin, …            torch (an extra), weights_only
    pickled NumPy arrays, where the reader has         pickle, with NumPy's names for arrays alone
    compared the file's checksum: some .npy, .ckpt

torch and onnx are needed by those alone whose files are in these formats: public vocoders, LPIPS,
the networks of metrics. A machine without them reads a copy that was converted once elsewhere:

    python -m avlink_jax.storage.foreign FILE... OUT.safetensors

The copy's header says what it was made of: `source`, its name, and `sha256`, its checksum.
"""

import contextlib
import functools
import hashlib
import importlib
import json
import pathlib
import pickle
import re
import sys
import tempfile
import textwrap
import typing
import zipfile
from collections.abc import Callable

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from avlink_jax.errors import MISTAKE, UserError
from avlink_jax.storage.atomic import replacing

SAFE_TORCH = (2, 6)  # before it weights_only could be made to run code (CVE-2025-32434)
# What pickled NumPy arrays call, by names of before NumPy 2.
NUMPY = {'numpy.dtype': np.dtype, 'numpy.ndarray': np.ndarray,
         'numpy.core.multiarray._reconstruct': np.zeros(1).__reduce__()[0]}
TORCH, LEGACY_TORCH = b'PK\x03\x04', b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'  # first bytes
WANTED = 'a torch checkpoint of tensors alone'


class Unreadable(UserError):
  """A file that is damaged, or not of the format that it should be of."""


class Stored(typing.NamedTuple):
  """A tensor in a file: its shape, and how to read it."""
  shape: tuple
  load: Callable[[], np.ndarray]


def read(path, keys=None, known=False) -> dict:
  """{name: array} of a file of weights.

  Args:
    path: the file.
    keys: function of a name that says whether to read that tensor; None: all.
    known: whether the file has the checksum that it should have. Pickled NumPy arrays are read
      only then: NumPy follows the pointers of an array that says it has some.

  Raises:
    Unreadable: damaged, or more in it than arrays.
    UserError: no such file, or a library that is missing.
  """
  return {name: stored.load() for name, stored in scan(path, known).items()
          if keys is None or keys(name)}


def scan(path, known=False) -> dict:
  """{name: Stored} of a file of weights, whose tensors are read one by one; as `read` else.

  Names of nested dicts and lists are joined by dots.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise UserError(f'{path}: no such file')
  if path.suffix == '.safetensors':
    return _safetensors(path)
  if path.suffix == '.json':
    return _index(path)
  if path.name.endswith(('.onnx', '.onnx.zip')):
    return _onnx(path)
  if known and path.suffix in ('.npy', '.ckpt'):
    return _pickled(path)
  if path.suffix in ('.npy', '.npz'):
    return _numpy(path)
  return _torch(path)


def origin(path):
  """sha256 of the file that a .safetensors was converted from; None where it does not say."""
  try:
    with safetensors.safe_open(path, framework='numpy') as file:
      return (file.metadata() or {}).get('sha256')
  except (OSError, safetensors.SafetensorError):
    return None


def checksum(path) -> str:
  """A file's sha256, in hexadecimal."""
  with pathlib.Path(path).open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def convert(paths, out):
  """Writes the arrays of `paths` into one .safetensors file. Raises UserError."""
  arrays, about = {}, {'source': ' '.join(pathlib.Path(path).name for path in paths)}
  for path in paths:
    arrays |= {name: np.array(array, order='C') for name, array in read(path).items()}
  if not arrays:
    raise UserError(f'{about["source"]}: no arrays in it')
  about['sha256'] = ' '.join(map(checksum, paths))
  with replacing(out) as partial:
    safetensors.numpy.save_file(arrays, partial, about)
    partial.chmod(0o644)  # safetensors makes files that only their owner can read


@contextlib.contextmanager
def _readable(path, wanted):
  """Turns whatever a library raises over a broken file into one line."""
  try:
    yield
  except UserError:
    raise
  except Exception as error:  # they raise what the bytes happen to run into
    reason = str(error).rpartition('WeightsUnpickler error:')[2]
    if called := re.search(r'GLOBAL (\S+)', reason):  # torch says how to load it all the same
      reason = f'it calls {called[1]}'
    reason = textwrap.shorten(reason, 120, placeholder=' …') or type(error).__name__
    raise Unreadable(f'{path}: not {wanted} ({reason}): fetch it again') from None


def _library(name, path):
  """A library that only some files need; UserError with the way out where it is missing."""
  try:
    return importlib.import_module(name)
  except ImportError:
    raise UserError(
        f'{path}: needs {name} to be read: pip install {name} (the extra [{name}]), or convert it '
        f'once where {name} is: python -m avlink_jax.storage.foreign {path} '
        f'{path.name}.safetensors') from None


def _safetensors(path):
  with _readable(path, 'a safetensors file'):
    file = safetensors.safe_open(path, framework='numpy')
    return {name: Stored(tuple(file.get_slice(name).get_shape()),
                         functools.partial(file.get_tensor, name)) for name in file.keys()}


def _index(path):
  """The tensors of all files that an index names, which lie beside it."""
  with _readable(path, 'an index of safetensors files'):
    names = set(json.loads(path.read_text())['weight_map'].values())
    for name in names:
      if pathlib.PurePath(name).name != name or not name.endswith('.safetensors'):
        raise ValueError(f'{name!r} is not a file of this folder')
  found = {}
  for name in sorted(names):
    found |= scan(path.with_name(name))
  return found


def _numpy(path):
  with _readable(path, 'a file of NumPy arrays alone'):
    loaded = np.load(path, allow_pickle=False)
    return _flat({path.stem: loaded} if path.suffix == '.npy' else dict(loaded))


def _pickled(path):
  """Pickled NumPy arrays: a file of them, or the one object of a .npy file."""
  with _readable(path, 'pickled NumPy arrays alone'), path.open('rb') as file:
    if path.suffix == '.npy':
      np.lib.format.read_magic(file)
      np.lib.format.read_array_header_1_0(file)
    return _flat(_Unpickler(file, encoding='latin1').load())


class _Unpickler(pickle.Unpickler):
  """Makes dicts, lists, numbers, words and NumPy's arrays; any other name ends the reading.

  This is the way of Python's documentation, `pickle`, "Restricting Globals".
  """

  def find_class(self, module, name):
    full = f'{module}.{name}'.replace('numpy._core.', 'numpy.core.')
    if full not in NUMPY:
      raise pickle.UnpicklingError(f'it calls {full}')
    return NUMPY[full]


def _onnx(path):
  onnx = _library('onnx', path)
  with (_readable(path, 'an ONNX model'), tempfile.TemporaryDirectory() as folder):
    model = path
    if zipfile.is_zipfile(path):  # the model, and beside it the data that it names
      with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
          if not name.endswith('/'):
            pathlib.Path(folder, pathlib.PurePath(name).name).write_bytes(archive.read(name))
      model, = pathlib.Path(folder).glob('*.onnx')
    return _flat({tensor.name: onnx.numpy_helper.to_array(tensor)
                  for tensor in onnx.load(model).graph.initializer
                  if tensor.data_type == onnx.TensorProto.FLOAT})


def _torch(path):
  with path.open('rb') as file:
    begin = file.read(len(LEGACY_TORCH))
  if not begin.startswith((TORCH, LEGACY_TORCH)):
    raise Unreadable(f'{path}: not {WANTED}: fetch it again')
  torch = _library('torch', path)
  if tuple(map(int, torch.__version__.split('.')[:2])) < SAFE_TORCH:
    raise UserError(f'{path}: needs torch {".".join(map(str, SAFE_TORCH))} or newer to be read '
                    f'safely, this is {torch.__version__}: pip install --upgrade torch')
  numbers = [(_Number, f'numpy.{name}') for name in (
      'dtype', 'core.multiarray.scalar', '_core.multiarray.scalar')]
  with _readable(path, WANTED), torch.serialization.safe_globals(numbers):
    return _flat(torch.load(path, map_location='cpu', weights_only=True,
                            mmap=begin.startswith(TORCH)))  # read when asked for


class _Number:
  """In the place of NumPy's numbers in torch's checkpoints, such as a loss: they are left out."""

  def __init__(self, *_):
    pass

  def __setstate__(self, state):
    pass


def _flat(tree, name='', depth=0):
  """{dotted name: Stored} of a tree; what is no array or tensor of numbers is left out."""
  if depth > 40:
    raise ValueError('nested too deeply')
  if hasattr(tree, 'detach'):  # a torch tensor, of which no copy is made
    tree = _array(tree.detach())
  if isinstance(tree, np.ndarray) and not tree.dtype.hasobject:
    return {name: Stored(tree.shape, lambda: tree)}
  if isinstance(tree, dict):
    inside = tree.items()
  elif isinstance(tree, np.ndarray):
    inside = enumerate(tree.ravel())
  elif isinstance(tree, list | tuple):
    inside = enumerate(tree)
  else:
    return {}
  found = {}
  for key, value in inside:
    found |= _flat(value, f'{name}.{key}' if name else str(key), depth + 1)
  return found


def _array(tensor):
  """A torch tensor as NumPy sees it; bfloat16, which it does not know, as JAX does."""
  import torch
  if tensor.dtype == torch.bfloat16:
    return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
  return tensor.numpy()


def main():
  if len(sys.argv) < 3:
    print(__doc__)
    return MISTAKE
  try:
    convert(sys.argv[1:-1], sys.argv[-1])
  except UserError as error:
    print(f'foreign: {error}', file=sys.stderr)
    return MISTAKE
  return 0


if __name__ == '__main__':
  sys.exit(main())
