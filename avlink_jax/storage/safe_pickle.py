"""Arrays out of pickles and torch checkpoints, without unpickling: opcodes are read as data.

A pickle is a program that can run anything. Here its opcodes build dicts, lists, tuples and
numbers; of what it calls, a few things are known by name and done by this file: NumPy's ways to
make an array, a dtype and a scalar, torch's way to make a tensor, bytes written as text, an
ordered dict. Everything else becomes an inert mark. Nothing is imported, looked up or called by a
name in the file.

Formats: a pickle (`.ckpt`), NumPy's `.npy` around a pickled object, torch's zip archive (1.6 and
later) and its older stream. The opcodes: Python's `pickletools`; the layouts: NumPy's
`__reduce__`, torch's `serialization.py`.
"""

import io
import pickletools
import struct
import typing
import zipfile
import zlib

import numpy as np

DEEPEST = 40  # nested containers; a file that refers to itself goes on for ever
STORAGES = {'Float': '<f4', 'Double': '<f8', 'Half': '<f2', 'Long': '<i8', 'Int': '<i4',
            'Short': '<i2', 'Char': '<i1', 'Byte': '<u1', 'Bool': '<?'}
LEGACY_TORCH = 0x1950a86a20f9469cfc6c  # the first of the pickles in a stream

# What reading raises where bytes are not what they should be (NotImplementedError and RuntimeError:
# archives that are encrypted or packed in another way).
MALFORMED = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError,
             StopIteration, EOFError, struct.error, zlib.error, zipfile.BadZipFile)


class Damaged(Exception):
  """Not a file of these formats, or not whole."""


class Inert(typing.NamedTuple):
  """What a pickle names or calls and nobody here does."""
  name: str


class _Made:
  """An array or a dtype: made first, told later (BUILD) what it is."""

  def __init__(self, value=None):
    self.value = value


class _Storage(typing.NamedTuple):
  key: str
  dtype: str


class _Tensor(typing.NamedTuple):
  storage: _Storage
  offset: int
  size: tuple
  stride: tuple


def read(content, part='') -> dict:
  """{name: array} of all arrays in a file; names of nested dicts and lists are joined by dots.

  Args:
    content: bytes, or a binary file at its beginning.
    part: only tensors whose name has this in it; the others of an archive are not even read.

  Raises:
    Damaged: it is none of the formats, or not whole.
  """
  stream = io.BytesIO(content) if isinstance(content, bytes) else content
  try:
    if zipfile.is_zipfile(stream):
      return _torch_archive(stream, part)
    stream.seek(0)
    if stream.read(6) == b'\x93NUMPY':
      length, = struct.unpack('<2xH', stream.read(4))
      stream.seek(10 + length)
      return _flat(_value(stream), {}, part)
    stream.seek(0)
    first = _value(stream)
    return _torch_stream(stream, part) if first == LEGACY_TORCH else _flat(first, {}, part)
  except MALFORMED as error:
    raise Damaged(f'{type(error).__name__}: {error}'[:200]) from None


def _torch_archive(stream, part):
  with zipfile.ZipFile(stream) as archive:
    names = archive.namelist()
    root = next(name for name in names if name.endswith('data.pkl'))
    tree = _value(io.BytesIO(archive.read(root)))
    folder = root.removesuffix('data.pkl') + 'data/'
    return _flat(tree, _Lazy(lambda key: archive.read(folder + key)), part)


class _Lazy:
  """Storages of an archive, each read when it is asked for, and not kept."""

  def __init__(self, load):
    self._load = load

  def __getitem__(self, key):
    return self._load(key)


def _torch_stream(stream, part):
  _value(stream), _value(stream)  # version, about the machine
  tree, keys = _value(stream), _value(stream)
  sizes = {tensor.storage.key: np.dtype(tensor.storage.dtype).itemsize
           for tensor in _leaves(tree) if isinstance(tensor, _Tensor)}
  storages = {}
  for key in keys:
    count, = struct.unpack('<q', stream.read(8))
    if key not in sizes:
      raise ValueError('a storage that no tensor uses')
    storages[key] = stream.read(count * sizes[key])
  return _flat(tree, storages, part)


def _leaves(tree, depth=0):
  if depth > DEEPEST:
    raise ValueError('nested too deeply')
  if isinstance(tree, dict | list) or type(tree) is tuple:
    for value in tree.values() if isinstance(tree, dict) else tree:
      yield from _leaves(value, depth + 1)
  else:
    yield tree


def _flat(tree, storages, part, name='', depth=0):
  """{dotted name: array} of a tree."""
  if depth > DEEPEST:
    raise ValueError('nested too deeply')
  if isinstance(tree, _Made):
    tree = tree.value
  if isinstance(tree, _Tensor):
    tree = _tensor(tree, storages) if part in name else None
  if isinstance(tree, np.ndarray):
    return {name: tree}
  if isinstance(tree, dict):
    inside = tree.items()
  elif isinstance(tree, list) or type(tree) is tuple:
    inside = enumerate(tree)
  else:
    return {}
  found = {}
  for key, value in inside:
    found |= _flat(value, storages, part, f'{name}.{key}' if name else str(key), depth + 1)
  return found


def _tensor(tensor, storages):
  """A tensor is a view of a storage; one that reaches outside of it is an error."""
  values = np.frombuffer(storages[tensor.storage.key], tensor.storage.dtype)
  size, stride = tuple(map(int, tensor.size)), tuple(map(int, tensor.stride))
  if min((*size, *stride, tensor.offset), default=0) < 0 or len(size) != len(stride):
    raise ValueError('a tensor of a negative size')
  last = tensor.offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
  if 0 in size:
    return np.zeros(size, values.dtype)
  if last >= len(values):
    raise ValueError('a tensor that reaches outside its storage')
  view = np.lib.stride_tricks.as_strided(
      values[tensor.offset:], size, [step * values.itemsize for step in stride], writeable=False)
  return np.array(view)


def _value(stream):
  """What the pickle at a stream's position builds; the stream is left behind its end."""
  stack, marks, memo = [], [], {}

  def pop(count):
    if count > len(stack):
      raise IndexError('the stack is empty')
    values = stack[len(stack) - count:]
    del stack[len(stack) - count:]
    return values

  def to_mark():
    return pop(len(stack) - marks.pop())

  for opcode, arg, _ in pickletools.genops(stream):
    name = opcode.name
    if name in _CONSTANTS:
      stack.append(_CONSTANTS[name])
    elif name in _EMPTY:
      stack.append(_EMPTY[name]())
    elif name in ('PROTO', 'FRAME'):
      continue
    elif name == 'STOP':
      return stack[-1]
    elif name == 'MARK':
      marks.append(len(stack))
    elif name in ('TUPLE1', 'TUPLE2', 'TUPLE3'):
      stack.append(tuple(pop(int(name[-1]))))
    elif name in ('TUPLE', 'LIST'):
      stack.append((tuple if name == 'TUPLE' else list)(to_mark()))
    elif name in ('APPEND', 'APPENDS'):
      values = pop(1) if name == 'APPEND' else to_mark()
      stack[-1].extend(values)
    elif name in ('SETITEM', 'SETITEMS'):
      values = pop(2) if name == 'SETITEM' else to_mark()
      _set_items(stack[-1], values)
    elif name == 'GLOBAL':
      stack.append(Inert(arg))
    elif name == 'STACK_GLOBAL':
      stack.append(Inert(' '.join(pop(2))))
    elif name in ('REDUCE', 'NEWOBJ'):
      function, arguments = pop(2)
      stack.append(_called(function, arguments))
    elif name == 'BUILD':
      state, = pop(1)
      if isinstance(stack[-1], _Made):
        _build(stack[-1], state)
    elif name == 'BINPERSID':
      kind, of, key, *_ = pop(1)[0]
      stack.append(_Storage(key, STORAGES[of.name.split()[-1].removesuffix('Storage')]))
    elif name == 'MEMOIZE':
      memo[len(memo)] = stack[-1]
    elif name.endswith('PUT'):
      memo[arg] = stack[-1]
    elif name.endswith('GET'):
      stack.append(memo[arg])
    elif name == 'POP':
      pop(1)
    elif opcode.arg is not None:
      stack.append(arg)
    else:
      raise ValueError(f'opcode {name}')
  raise ValueError('ends before its end')


_CONSTANTS = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False}
_EMPTY = {'EMPTY_DICT': dict, 'EMPTY_LIST': list, 'EMPTY_TUPLE': tuple, 'EMPTY_SET': list}


def _set_items(target, values):
  if isinstance(target, dict):
    target.update((key if isinstance(key, str | int) else str(key), value)
                  for key, value in zip(values[::2], values[1::2], strict=True))


def _called(function, arguments):
  """The calls that are known, done here; an inert mark for any other."""
  match getattr(function, 'name', '').replace('_core', 'core').split():
    case ['numpy.core.multiarray', '_reconstruct']:
      return _Made()
    case ['numpy.core.numeric', '_frombuffer']:
      content, dtype, shape, order = arguments
      return np.frombuffer(content, dtype.value).reshape(shape, order=order)
    case ['numpy', 'dtype']:
      return _Made(_plain_dtype(arguments[0]))
    case ['numpy.core.multiarray', 'scalar']:
      dtype, content = arguments
      return np.frombuffer(content, dtype.value)[0]
    case ['_codecs', 'encode']:
      return arguments[0].encode('latin1')
    case ['torch._utils', '_rebuild_tensor_v2']:
      return _Tensor(*arguments[:4])
    case ['torch._utils', '_rebuild_parameter']:
      return arguments[0]
    case ['collections', 'OrderedDict']:
      return {}
    case name:
      return Inert(' '.join(name))


def _plain_dtype(name):
  """Of numbers; None for any other, whose arrays are left out."""
  dtype = np.dtype(str(name))
  return dtype if dtype.kind in 'fiub' else None


def _build(made, state):
  """The state of an array (version, shape, dtype, by columns?, content) or of a dtype."""
  if made.value is None and len(state) == 5:
    _, shape, dtype, by_columns, content = state
    if isinstance(content, list):  # an array of objects: its objects
      made.value = content
    elif dtype.value is not None:
      content = content.encode('latin1') if isinstance(content, str) else content
      made.value = np.frombuffer(content, dtype.value).reshape(
          shape, order='F' if by_columns else 'C')
  elif isinstance(made.value, np.dtype) and state[1] in ('<', '>'):
    made.value = made.value.newbyteorder(state[1])
