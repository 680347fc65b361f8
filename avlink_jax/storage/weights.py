"""Weights files: trees as safetensors, with readable names.

A file has what a later stage or a sampler needs of a trained part, without the optimiser:
`params/...` (the moving average) and `stats/...`. Its header describes the run that trained it.
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
# Task that trains a part, which is also the bundled file's name; for other parts the part's name.
PARTS = {'codec': 'mel_vae', 'audio': 't2a', 'video': 't2v', 'vocoder': 'vocoder',
         'video_codec': 'video_vae', 'upsampler': 'upsampler'}

OWN = 'bundled'  # source of weights that the package brings along
OF_RUN = 'weights.safetensors'  # in the workdir of a run that has ended, or by avlink_jax.export

PACKED_FROM = 2048  # elements; smaller arrays are not packed to a byte an element
SCALE = '.scale'  # suffix of the name of a packed array's scale


def save(path: str | os.PathLike, tree: Any, about: dict, dtype: Any = None) -> None:
  """Writes a tree of arrays; `about` is a flat dict for the header.

  Floats are converted to `dtype` unless it is None. np.int8 packs large matrices as multiples of
  1/127 of the largest magnitude in each output column; other arrays become float16.

  Raises UserError: it cannot be written.
  """
  flat = flax.traverse_util.flatten_dict(jax.tree.map(np.asarray, tree), sep='/')
  if dtype == np.int8:
    flat = {k: v for name, value in flat.items() for k, v in _packed(name, value).items()}
  elif dtype is not None:
    flat = {k: v.astype(dtype) if np.issubdtype(v.dtype, np.floating) else v
            for k, v in flat.items()}
  with replacing(path) as partial:
    try:
      safetensors.numpy.save_file({k: np.ascontiguousarray(v) for k, v in flat.items()}, partial,
                                  metadata={k: str(v) for k, v in about.items()})
    except safetensors.SafetensorError as error:  # a full disk, in words
      raise OSError(str(error)) from None
    partial.chmod(0o644)  # safetensors creates files that only their owner can read


def _packed(name, value):
  """Mapping {name in the file: array} for an array of a tree."""
  if not np.issubdtype(value.dtype, np.floating):
    return {name: value}
  if value.ndim < 2 or value.size < PACKED_FROM:
    return {name: value.astype(np.float16)}
  scale = np.abs(value).max(axis=-2, keepdims=True).astype(np.float32) / 127
  scale = np.where(scale > 0, scale, 1)
  normal = np.finfo(np.float16)
  if (normal.smallest_normal <= scale).all() and (scale <= normal.max).all():
    scale = scale.astype(np.float16)
  steps = np.round(value / scale.astype(np.float32))
  return {name: np.clip(steps, -127, 127).astype(np.int8), name + SCALE: scale}


def _unpacked(flat):
  """Mapping {name: array} with a file's packed arrays as float32."""
  scales = {k: v for k, v in flat.items() if k.endswith(SCALE)}
  return {k: v * scales[k + SCALE] if k + SCALE in scales else v
          for k, v in flat.items() if k not in scales}


def read(path: str | os.PathLike) -> tuple[dict, dict[str, str]]:
  """Reads a file written by `save`: (tree of float32 arrays, header). Raises UserError."""
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
  """Header of a weights file; {} if it is missing or unreadable."""
  try:
    with safetensors.safe_open(path, framework='numpy') as file:
      return file.metadata() or {}
  except (OSError, safetensors.SafetensorError):
    return {}


def fit(tree, like, where):
  """Checks that a tree has the names and shapes of `like`, and returns it.

  Empty branches of `like` (a text encoder that is not trained), which files lack, are added. Raises
  UserError, which lists differences.
  """
  flat = flax.traverse_util.flatten_dict(tree, sep='/')
  expected = flax.traverse_util.flatten_dict(like, sep='/', keep_empty_nodes=True)
  if differing := differences(tree, like):
    raise UserError(f'{where}: these weights are of another model: {differing}')
  return flax.traverse_util.unflatten_dict(
      {k: flat.get(k, empty) for k, empty in expected.items()}, sep='/')


def differences(tree, like, part=''):
  """Text on the first three differences in names and shapes from `like`, among names that contain
  `part`; '' if there are none."""
  flat, expected = (flax.traverse_util.flatten_dict(t, sep='/') for t in (tree, like))
  differing = [f'{k}: {getattr(flat.get(k), "shape", "missing")} in the file, '
               f'{getattr(expected.get(k), "shape", "absent")} in the model'
               for k in sorted(flat.keys() | expected.keys()) if part in k
               if k not in flat or k not in expected or flat[k].shape != expected[k].shape]
  more = f' and {len(differing) - 3} more' if len(differing) > 3 else ''
  return '; '.join(differing[:3]) + more


# Kernels applied to patches of the data: rows are ordered by pixel, then by channel.
DATA_INPUTS = re.compile(r'embed/(patch|wide/Dense_0)/kernel$|head/seen/kernel$')


def overlay(tree, source, pixels=lambda name: 1):
  """Replaces arrays of `tree` by those of `source` that fit: (merged, names taken, names widened,
  names left).

  Arrays are taken if name and shape agree. Input kernels (DATA_INPUTS) of a model with more
  channels than `source` are widened: the new channels get zero weights, so outputs do not change.
  pixels: function of a name, the number of pixels in a patch.
  """
  flat = flax.traverse_util.flatten_dict(tree, sep='/', keep_empty_nodes=True)
  other = flax.traverse_util.flatten_dict(source, sep='/')
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
    merged[name] = jax.make_array_from_callback(  # only the shards of this process's devices
        new.shape, old.sharding, lambda at, new=new: new[at])
  return flax.traverse_util.unflatten_dict(merged, sep='/'), taken, widened, left


def widen(name, kernel, shape, pixels):
  """Widens a kernel (pixels · channels, out) to more channels; None if other axes differ."""
  if not (DATA_INPUTS.search(name) and kernel.ndim == len(shape) == 2
          and kernel.shape[1] == shape[1] and kernel.shape[0] < shape[0]
          and kernel.shape[0] % pixels == shape[0] % pixels == 0):
    return None
  wide = np.zeros((pixels, shape[0] // pixels, shape[1]), kernel.dtype)
  wide[:, :kernel.shape[0] // pixels] = np.asarray(kernel).reshape(pixels, -1, shape[1])
  return wide.reshape(shape)


def trained_by(part):
  """Task that trains a part (a key of `config.frozen`, or 'vocoder')."""
  return PARTS.get(part, part)


def bundled(part, scale, source=OWN):
  """Path of a part's bundled weights, which need not exist; `source`: 'bundled' or 'bundled:NAME'
  for those of another config than the part's usual one."""
  name = source.partition(':')[2] or trained_by(part)
  return BUNDLED / scale / f'{name}.safetensors'


def is_bundled(source):
  """Tells whether a source of weights names bundled ones."""
  return source.partition(':')[0] == OWN


def locate(part, source, scale):
  """Path of a part's weights; `source`: 'bundled' or 'bundled:NAME' (for this scale), a workdir, or
  a .safetensors file. Raises UserError: it is '', or nothing is bundled."""
  key = 'sample.vocoder' if part == 'vocoder' else f'frozen.{part}'
  if is_bundled(source):
    path = bundled(part, scale, source)
    if not path.exists():
      raise UserError(f'no {path.stem} weights are bundled for scale {scale!r}: train them '
                      f'(--config=configs/{path.stem}.py:{scale}) and set '
                      f'--config.{key} to that workdir, or use scale nano')
    return path
  if not source:
    raise UserError(f'--config.{key} is not set: give a workdir of '
                    f'configs/{trained_by(part)}.py or a .safetensors file (scale nano has bundled '
                    'weights: try --config=configs/v2a.py:nano)')
  path = pathlib.Path(source)
  if not os.path.isdir(path):
    return path
  if not (path / OF_RUN).exists() and (path / 'checkpoints').is_dir():
    raise UserError(f'--config.{key}={source}: that run has not ended: python -m avlink_jax.export '
                    f'{source} writes the weights of one of its checkpoints: give that file')
  return path / OF_RUN


def main():
  """Writes a copy in float16 or int8, as bundled with the package:

  python -m avlink_jax.storage.weights RUN/weights.safetensors OUT.safetensors [int8]"""
  source, out, *packed = sys.argv[1:]
  tree, about = read(source)
  save(out, tree, about, dtype=np.int8 if packed == ['int8'] else np.float16)
  print(json.dumps({'bytes': pathlib.Path(out).stat().st_size, **about}))


if __name__ == '__main__':
  main()
