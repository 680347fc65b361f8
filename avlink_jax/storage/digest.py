"""Hashes that identify content."""

import hashlib
import json

import numpy as np


def add_tree(digest, tree, dtype=None):
  """Adds a pytree's arrays to a hashlib digest: names, types, shapes and bytes.

  dtype: arrays are converted to it first, and their own type is not added.
  """
  import jax  # here: who hashes no arrays, such as evaluate, needs none
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    array = np.asarray(leaf, dtype)
    kind = '' if dtype else f' {array.dtype}'
    digest.update(f'{jax.tree_util.keystr(path)}{kind} {array.shape}'.encode())
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))


def of_file(path) -> str:
  """Hash of a file's bytes: 32 hexadecimal digits. Raises OSError."""
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()[:32]


def key(content) -> str:
  """Hash of JSON-like content: 32 hexadecimal digits."""
  return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]
