"""Weights as files: trees to and from safetensors, with names a person can read.

A file holds what a later stage or a sampler needs of one trained part and nothing of the
optimiser: `params/...` (the moving average) and `stats/...`. Its header carries how it was made.
"""

import json
import os
import pathlib
import re
import sys
from typing import Any

import flax
import jax
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from avlink_jax.errors import UserError
from avlink_jax.storage.atomic import replacing

BUNDLED = pathlib.Path(__file__).parents[1] / 'assets'
# Whose run makes a part, and under whose name its weights are bundled; else the part's own.
PARTS = {'codec': 'mel_vae', 'audio': 't2a', 'video': 't2v', 'vocoder': 'vocoder',
         'video_codec': 'video_vae', 'upsampler': 'upsampler'}

PACKED_FROM = 2048  # numbers: smaller arrays are not worth a byte a number
SCALE = '.scale'  # after the name of a packed array: what its bytes are multiples of


def save(path: str | os.PathLike, tree: Any, about: dict, dtype: Any = None) -> None:
  """Writes a tree of arrays; `about` is a flat dict of strings.

  Floats become `dtype` if given. Of np.int8 large matrices become whole multiples of 1/127 of the
  largest number that goes to the same output, a byte each; the rest is float16.
  """
  flat = flax.traverse_util.flatten_dict(jax.tree.map(np.asarray, tree), sep='/')
  if dtype == np.int8:
    flat = {k: v for name, value in flat.items() for k, v in _packed(name, value).items()}
  elif dtype is not None:
    flat = {k: v.astype(dtype) if np.issubdtype(v.dtype, np.floating) else v
            for k, v in flat.items()}
  with replacing(path) as partial:
    safetensors.numpy.save_file({k: np.ascontiguousarray(v) for k, v in flat.items()}, partial,
                                metadata={k: str(v) for k, v in about.items()})
    partial.chmod(0o644)  # safetensors makes files that only their owner can read


def _packed(name, value):
  """{name in the file: array} of a tree's array."""
  if not np.issubdtype(value.dtype, np.floating):
    return {name: value}
  if value.ndim < 2 or value.size < PACKED_FROM:
    return {name: value.astype(np.float16)}
  scale = np.maximum(np.abs(value).max(axis=-2, keepdims=True), 1e-20).astype(np.float32) / 127
  return {name: np.round(value / scale).astype(np.int8), name + SCALE: scale}


def _unpacked(flat):
  """{name: array} of a file with its packed arrays as float32."""
  scales = {k: v for k, v in flat.items() if k.endswith(SCALE)}
  return {k: v * scales[k + SCALE] if k + SCALE in scales else v
          for k, v in flat.items() if k not in scales}


def read(path: str | os.PathLike) -> tuple[dict, dict[str, str]]:
  """(tree of float32 arrays, header) of a file written by `save`."""
  try:
    with safetensors.safe_open(path, framework='numpy') as file:
      flat = {k: file.get_tensor(k) for k in file.keys()}
      about = file.metadata() or {}
  except FileNotFoundError:
    raise UserError(f'{path}: no such weights file') from None
  except safetensors.SafetensorError as error:
    raise UserError(f'{path}: not a safetensors file ({error})') from None
  floats = (np.floating, ml_dtypes.bfloat16)
  flat = {k: v.astype(np.float32) if any(np.issubdtype(v.dtype, f) for f in floats) else v
          for k, v in flat.items()}
  return flax.traverse_util.unflatten_dict(_unpacked(flat), sep='/'), about


def header(path):
  """What a weights file says of how it was made; {} where there is none or it cannot be read."""
  try:
    with safetensors.safe_open(path, framework='numpy') as file:
      return file.metadata() or {}
  except (OSError, safetensors.SafetensorError):
    return {}


def fit(tree, like, where):
  """`tree` if its names and shapes are those of `like`; otherwise a UserError that names them.

  Branches of `like` in which there is nothing (a text encoder that is not trained) come with it,
  as files do not hold them.
  """
  got = flax.traverse_util.flatten_dict(tree, sep='/')
  whole = flax.traverse_util.flatten_dict(like, sep='/', keep_empty_nodes=True)
  if differing := differences(tree, like):
    raise UserError(f'{where}: these weights are of another model: {differing}')
  return flax.traverse_util.unflatten_dict({k: got.get(k, empty) for k, empty in whole.items()},
                                           sep='/')


def differences(tree, like, part=''):
  """Names and shapes in which `tree` is not `like`, the first three of those with `part` in their
  names; '' where there are none."""
  got, wanted = (flax.traverse_util.flatten_dict(t, sep='/') for t in (tree, like))
  differing = [f'{k}: {getattr(got.get(k), "shape", "missing")} in the file, '
               f'{getattr(wanted.get(k), "shape", "absent")} in the model'
               for k in sorted(got.keys() | wanted.keys()) if part in k
               if k not in got or k not in wanted or got[k].shape != wanted[k].shape]
  more = f' and {len(differing) - 3} more' if len(differing) > 3 else ''
  return '; '.join(differing[:3]) + more


# Kernels that see the data itself, patches of it: rows go pixel by pixel, channels within.
DATA_INPUTS = re.compile(r'embed/(patch|wide/Dense_0)/kernel$|head/seen/kernel$')


def overlay(tree, given, pixels=lambda name: 1):
  """`tree` with what fits of `given`: (merged, names taken, names widened, names left).

  Taken is what agrees in name and shape. Widened are the inputs (DATA_INPUTS) of a model that gets
  more channels than the given one: what is known keeps its weights, the new channels begin with
  zeros, so that the model says at first what the given one says. `pixels(name)`: of a patch.
  """
  flat = flax.traverse_util.flatten_dict(tree, sep='/', keep_empty_nodes=True)
  other = flax.traverse_util.flatten_dict(given, sep='/')
  merged, taken, widened, left = dict(flat), [], [], []
  for name, old in flat.items():
    if not hasattr(old, 'shape'):
      continue
    new = other.get(name)
    if new is not None and new.shape == old.shape:
      taken.append(name)
    elif new is not None and (wide := widen(name, new, old.shape, pixels(name))) is not None:
      new = wide
      widened.append(name)
    else:
      left.append(name)
      continue
    merged[name] = jax.make_array_from_callback(  # of each process only what its devices hold
        new.shape, old.sharding, lambda at, new=new: new[at])
  return flax.traverse_util.unflatten_dict(merged, sep='/'), taken, widened, left


def widen(name, kernel, shape, pixels):
  """A kernel (pixels · channels, out) for more channels, None where that is not what differs."""
  if not (DATA_INPUTS.search(name) and kernel.ndim == len(shape) == 2
          and kernel.shape[1] == shape[1] and kernel.shape[0] < shape[0]
          and kernel.shape[0] % pixels == shape[0] % pixels == 0):
    return None
  wide = np.zeros((pixels, shape[0] // pixels, shape[1]), kernel.dtype)
  wide[:, :kernel.shape[0] // pixels] = np.asarray(kernel).reshape(pixels, -1, shape[1])
  return wide.reshape(shape)


def trained_by(part):
  """The task that trains a part (a key of `config.frozen`, or 'vocoder')."""
  return PARTS.get(part, part)


def bundled(part, scale):
  """Where a part's weights come with the package, if they do."""
  return BUNDLED / scale / f'{trained_by(part)}.safetensors'


def locate(part, given, scale):
  """Path of a part's weights: 'bundled' (of this scale), a workdir, or a .safetensors file."""
  key = 'sample.vocoder' if part == 'vocoder' else f'frozen.{part}'
  if given == 'bundled':
    path = bundled(part, scale)
    if not path.exists():
      raise UserError(f'no {trained_by(part)} weights are bundled for scale {scale!r}: train them '
                      f'(--config=configs/{trained_by(part)}.py:{scale}) and set '
                      f'--config.{key} to that workdir, or use scale nano')
    return path
  if not given:
    raise UserError(f'--config.{key} is not set: give a workdir of '
                    f'configs/{trained_by(part)}.py or a .safetensors file (scale nano has bundled '
                    'weights: try --config=configs/v2a.py:nano)')
  path = pathlib.Path(given)
  return path / 'weights.safetensors' if path.is_dir() else path


def main():
  """`python -m avlink_jax.storage.weights RUN/weights.safetensors OUT.safetensors [int8]`: a copy
  of half the size, or of a quarter, as bundled with the package."""
  source, out, *packed = sys.argv[1:]
  tree, about = read(source)
  save(out, tree, about, dtype=np.int8 if packed == ['int8'] else np.float16)
  print(json.dumps({'bytes': pathlib.Path(out).stat().st_size, **about}))


if __name__ == '__main__':
  main()
