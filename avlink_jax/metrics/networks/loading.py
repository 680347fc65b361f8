"""A network's weights: found in the user's folder or in an installed package, checked, read."""

import importlib.util
import os
import pathlib

import jax
import numpy as np

from avlink_jax.errors import UserError
from avlink_jax.storage import foreign

VARIABLE = 'AVLINK_WEIGHTS'
SHA256 = 64  # digits


def folder_of(told):
  """The folder with networks' weights: `told` by --networks, else by AVLINK_WEIGHTS; None.

  Raises:
    UserError: there is no such folder.
  """
  folder = told or os.environ.get(VARIABLE)
  if folder and not pathlib.Path(folder).is_dir():
    raise UserError(f'--networks={folder}: no such folder (also read from {VARIABLE})')
  return folder or None


def find(network, folder=None):
  """Path of the file with a network's weights: in `folder`, else in the package that carries it.

  Its copy FILE.safetensors, which foreign.py makes, comes first: no other library reads it.

  Raises:
    UserError: it is in neither; says how to get it.
  """
  places = [pathlib.Path(folder)] if folder else []
  if network.package:
    name, inside = network.package
    spec = importlib.util.find_spec(name)  # where it is, without importing it
    places += [pathlib.Path(place, inside)
               for place in (spec.submodule_search_locations or () if spec else ())]
  for place in places:
    for path in (place / f'{network.file}.safetensors', place / network.file):
      if path.is_file():
        return path
  there = f' into {folder}' if folder else ' into a folder and name that by --networks'
  or_put = f', or put {network.file}{there}' if network.package else ''
  how = network.source if network.package else f'put {network.file}{there}; from {network.source}'
  raise UserError(f'no weights of {network.name} here: {how}{or_put}')


def load(network, path):
  """{name: float32 array}, as `network.forward` takes it, from the public file at `path`.

  Raises:
    UserError: not the public file, damaged, or of another network.
  """
  if not (found := checksum(path)).startswith(network.sha256):
    raise UserError(f'{path}: not the public weights of {network.name}: sha256 {found[:16]}…, '
                    f'not {network.sha256[:16]}…; get it anew: {network.source}')
  try:
    weights = network.rename(foreign.read(
        path, lambda name: any(part in name for part in network.parts),
        verified=len(network.sha256) == SHA256))
    weights = {name: np.asarray(array, np.float32) for name, array in weights.items()
               if not name.endswith('num_batches_tracked')}
    _require_fitting(network, weights)
  except (foreign.Unreadable, KeyError, ValueError, TypeError) as error:
    raise UserError(f'{path}: not the weights of {network.name} '
                    f'({" ".join(str(error).removeprefix(f"{path}: ").split())[:120]})') from None
  return weights


def checksum(path) -> str:
  """sha256 of a public file, in hexadecimal; of a converted copy that of what it was made of."""
  return foreign.origin(path) or foreign.checksum(path)


def _require_fitting(network, weights):
  """Goes through the network with shapes alone: names and sizes must do. Raises KeyError,
  TypeError, ValueError."""
  count = round(max(2.0, network.shortest) * network.rate)
  shortest = (count, 8, 8, 3) if network.sees else (count,)
  x = network.prepare(np.zeros(shortest, np.uint8 if network.sees else np.float32))
  shapes = jax.eval_shape(network.forward, weights, x)
  numbers, classes = network.size
  if shapes['embedding'].shape[-1] != numbers or classes and (
      shapes['logits'].shape[-1] != classes):
    raise ValueError('it gives something else')
