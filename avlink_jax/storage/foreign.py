"""Reader of other projects' weights in all their formats, which never executes a file's code.

    .safetensors, or the .json index of several        safetensors
    .npz, .npy                                         NumPy, no pickles
    .onnx, also zipped: the float32 initializers       onnx (an extra)
    torch's checkpoints: .pt, .pth, .bin, …            torch (an extra), weights_only
    pickled NumPy arrays in .npy or .ckpt files        pickle, restricted to NumPy's array types
    whose checksum has been verified

torch and onnx are only needed for files in these formats: published vocoders, LPIPS, the networks
of metrics. A machine without them can read a copy that was converted elsewhere:

    python -m avlink_jax.storage.foreign FILE... OUT.safetensors

The copy's header has the name (`source`) and the checksum (`sha256`) of the original.
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

SAFE_TORCH = (2, 6)  # earlier versions can execute code despite weights_only (CVE-2025-32434)
# Functions that pickled NumPy arrays call, by their names before NumPy 2.
NUMPY = {'numpy.dtype': np.dtype, 'numpy.ndarray': np.ndarray,
         'numpy.core.multiarray._reconstruct': np.zeros(1).__reduce__()[0]}
TORCH, LEGACY_TORCH = b'PK\x03\x04', b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'  # first bytes
OTHERS = ('.json', '.npy', '.npz', '.onnx', '.zip', '.ckpt')  # suffixes of formats without metadata
TORCH_FORMAT = 'a torch checkpoint of tensors alone'


class Unreadable(UserError):
  """File that is damaged, or not of the expected format."""


class Stored(typing.NamedTuple):
  """Tensor in a file: its shape, and functions that read all of it, or a part by its slices.

  Only of .safetensors files is `part` less to read."""
  shape: tuple
  load: Callable[[], np.ndarray]
  part: Callable[[tuple], np.ndarray]


def read(path, keys=None, verified=False) -> dict:
  """Reads a weights file: {name: array}.

  Args:
    path: the file.
    keys: function of a name, whether to read that tensor; None: all.
    verified: whether the file's checksum is the expected one. Pickled NumPy arrays are read only
      then: NumPy would follow pointers in the file.

  Raises:
    Unreadable: damaged, or it contains more than arrays.
    UserError: no such file, or a library is missing.
  """
  return {name: stored.load() for name, stored in scan(path, verified).items()
          if keys is None or keys(name)}


def scan(path, verified=False) -> dict:
  """Lists a weights file's tensors: {name: Stored}; arguments and errors as in `read`.

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
  if verified and path.suffix in ('.npy', '.ckpt'):
    return _pickled(path)
  if path.suffix in ('.npy', '.npz'):
    return _numpy(path)
  return _torch(path)


def metadata(path):
  """Mapping 'metadata' that a torch checkpoint has beside its tensors, or that `convert` took from
  one into a .safetensors file; None without it. Raises as `read`."""
  path = pathlib.Path(path)
  if path.suffix == '.safetensors':
    with _readable(path, 'a safetensors file'):
      header = safetensors.safe_open(path, framework='numpy').metadata() or {}
      return json.loads(header.get('metadata', 'null'))
  if path.suffix in OTHERS:
    return None
  tree = _torch_tree(path)
  return tree.get('metadata') if isinstance(tree, dict) else None


def origin(path):
  """sha256 of the file that a .safetensors file was converted from, or None."""
  try:
    with safetensors.safe_open(path, framework='numpy') as file:
      return (file.metadata() or {}).get('sha256')
  except (OSError, safetensors.SafetensorError):
    return None


def checksum(path) -> str:
  """sha256 of a file, hexadecimal."""
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
  if len(paths) == 1 and (described := metadata(paths[0])):
    about['metadata'] = json.dumps(described, default=lambda _: None)  # arrays and the like
  with replacing(out) as partial:
    safetensors.numpy.save_file(arrays, partial, about)
    partial.chmod(0o644)  # safetensors creates files that only their owner can read


@contextlib.contextmanager
def _readable(path, expected):
  """Context that turns a library's errors about a broken file into Unreadable."""
  try:
    yield
  except UserError:
    raise
  except Exception as error:  # libraries raise anything for broken files
    reason = str(error).rpartition('WeightsUnpickler error:')[2]
    if called := re.search(r'GLOBAL (\S+)', reason):  # torch's text recommends unsafe loading
      reason = f'it calls {called[1]}'
    reason = textwrap.shorten(reason, 120, placeholder=' …') or type(error).__name__
    raise Unreadable(f'{path}: not {expected} ({reason}): fetch it again') from None


def _library(name, path):
  """Imports a library that only some files need. Raises UserError: it is missing."""
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
                         functools.partial(file.get_tensor, name),
                         lambda at, name=name: file.get_slice(name)[at]) for name in file.keys()}


def _index(path):
  """Tensors of all files that an index names, in the same folder."""
  with _readable(path, 'an index of safetensors files'):
    names = set(json.loads(path.read_text())['weight_map'].values())
    for name in names:
      if pathlib.PurePath(name).name != name or not name.endswith('.safetensors'):
        raise ValueError(f'{name!r} is not a file of this folder')
  tensors = {}
  for name in sorted(names):
    tensors |= scan(path.with_name(name))
  return tensors


def _numpy(path):
  with _readable(path, 'a file of NumPy arrays alone'):
    loaded = np.load(path, allow_pickle=False)
    return _flat({path.stem: loaded} if path.suffix == '.npy' else dict(loaded))


def _pickled(path):
  """Tensors of a pickle of NumPy arrays, or of a .npy file with one pickled object."""
  with _readable(path, 'pickled NumPy arrays alone'), path.open('rb') as file:
    if path.suffix == '.npy':
      np.lib.format.read_magic(file)
      np.lib.format.read_array_header_1_0(file)
    return _flat(_Unpickler(file, encoding='latin1').load())


class _Unpickler(pickle.Unpickler):
  """Unpickler of dicts, lists, numbers, strings and NumPy arrays; any other class is an error.

  See Python's documentation, `pickle`, "Restricting Globals".
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
    if zipfile.is_zipfile(path):  # the model and its external data
      with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
          if not name.endswith('/'):
            pathlib.Path(folder, pathlib.PurePath(name).name).write_bytes(archive.read(name))
      model, = pathlib.Path(folder).glob('*.onnx')
    return _flat({tensor.name: onnx.numpy_helper.to_array(tensor)
                  for tensor in onnx.load(model).graph.initializer
                  if tensor.data_type == onnx.TensorProto.FLOAT})


def _torch(path):
  with _readable(path, TORCH_FORMAT):
    return _flat(_torch_tree(path))


def _torch_tree(path):
  """Content of a torch checkpoint; tensors are read on demand."""
  with path.open('rb') as file:
    first = file.read(len(LEGACY_TORCH))
  if not first.startswith((TORCH, LEGACY_TORCH)):
    raise Unreadable(f'{path}: not {TORCH_FORMAT}: fetch it again')
  torch = _library('torch', path)
  if tuple(map(int, torch.__version__.split('.')[:2])) < SAFE_TORCH:
    raise UserError(f'{path}: needs torch {".".join(map(str, SAFE_TORCH))} or newer to be read '
                    f'safely, this is {torch.__version__}: pip install --upgrade torch')
  numbers = [(_Number, f'numpy.{name}') for name in (
      'dtype', 'core.multiarray.scalar', '_core.multiarray.scalar')]
  with _readable(path, TORCH_FORMAT), torch.serialization.safe_globals(numbers):
    return torch.load(path, map_location='cpu', weights_only=True, mmap=first.startswith(TORCH))


class _Number:
  """Placeholder for NumPy numbers in torch checkpoints, such as a loss, which are ignored."""

  def __init__(self, *_):
    pass

  def __setstate__(self, state):
    pass


def _flat(tree, name='', depth=0):
  """Flattens a tree: {dotted name: Stored}; values that are no numeric arrays are ignored."""
  if depth > 40:
    raise ValueError('nested too deeply')
  if hasattr(tree, 'detach'):  # a torch tensor, which is not copied
    tree = _array(tree.detach())
  if isinstance(tree, np.ndarray) and not tree.dtype.hasobject:
    return {name: Stored(tree.shape, lambda: tree, tree.__getitem__)}
  if isinstance(tree, dict):
    inside = tree.items()
  elif isinstance(tree, np.ndarray):
    inside = enumerate(tree.ravel())
  elif isinstance(tree, list | tuple):
    inside = enumerate(tree)
  else:
    return {}
  tensors = {}
  for key, value in inside:
    tensors |= _flat(value, f'{name}.{key}' if name else str(key), depth + 1)
  return tensors


def _array(tensor):
  """NumPy view of a torch tensor; bfloat16 as ml_dtypes' type."""
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
