"""The arrays of an ONNX model: protobuf's wire format, as far as that takes.

Only the initializers of the graph are looked at (ONNX's `onnx.proto`: ModelProto.graph = 7,
GraphProto.initializer = 5, TensorProto.dims = 1, data_type = 2, name = 8, raw_data = 9,
external_data = 13). What the graph computes is written in JAX by whoever uses them.
"""

import math

import numpy as np

from avlink_jax.storage.safe_pickle import MALFORMED, Damaged

FLOAT, FLOAT_BYTES = 1, 4


def read(model: bytes, data: bytes = b'') -> dict:
  """{name: float32 array} of the float initializers of a model.

  Args:
    model: the `.onnx` file.
    data: the file beside it that its tensors name, where they are kept apart.

  Raises:
    Damaged: not an ONNX model, or tensors that lie outside of `data`.
  """
  try:
    graph, = [value for number, value in _fields(model) if number == 7]
    tensors = [_tensor(value, data) for number, value in _fields(graph) if number == 5]
  except MALFORMED as error:
    raise Damaged(f'{error}'[:200]) from None
  return dict(tensor for tensor in tensors if tensor)


def _tensor(message, data):
  dims, kind, name, raw, external = [], None, '', b'', {}
  for number, value in _fields(message):
    if number == 1:
      dims += [value] if isinstance(value, int) else _packed(value)
    elif number == 2:
      kind = value
    elif number == 8:
      name = value.decode()
    elif number == 9:
      raw = value
    elif number == 13:
      pair = dict(_fields(value))
      external[pair[1].decode()] = pair[2].decode()
  if kind != FLOAT:
    return None
  if external:
    start = int(external.get('offset', 0))
    raw = data[start:start + int(external.get('length', math.prod(dims) * FLOAT_BYTES))]
  return name, np.frombuffer(raw, '<f4').reshape(dims)


def _fields(message):
  """(field number, integer or bytes) of a message, in order."""
  at = 0
  while at < len(message):
    tag, at = _varint(message, at)
    number, kind = tag >> 3, tag & 7
    if kind == 0:
      value, at = _varint(message, at)
    elif kind in (1, 5):
      length = 8 if kind == 1 else 4
      value, at = message[at:at + length], at + length
    elif kind == 2:
      length, at = _varint(message, at)
      value, at = message[at:at + length], at + length
    else:
      raise ValueError(f'wire type {kind}')
    if at > len(message):
      raise ValueError('a field that is cut off')
    yield number, value


def _varint(message, at):
  value = shift = 0
  while True:
    byte = message[at]
    value |= (byte & 127) << shift
    at, shift = at + 1, shift + 7
    if not byte & 128:
      return value, at
    if shift > 63:
      raise ValueError('a number without end')


def _packed(content):
  values, at = [], 0
  while at < len(content):
    value, at = _varint(content, at)
    values.append(value)
  return values
