"""Hashes by which content is known again."""

import hashlib
import json

import jax
import numpy as np


def add_tree(digest, tree, dtype=None):
  """Feeds a pytree's arrays into a hashlib digest: names, types, shapes and bytes.

  `dtype`: every array is read as that type, and its own does not count.
  """
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    array = np.asarray(leaf, dtype)
    kind = '' if dtype else f' {array.dtype}'
    digest.update(f'{jax.tree_util.keystr(path)}{kind} {array.shape}'.encode())
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))


def key(content) -> str:
  """32 hexadecimal digits that stand for what JSON can hold."""
  return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]
