"""Persistent cache of compiled programs."""

import os

import jax


def use(folder):
  """Enables the cache in `folder` (also in a bucket), unless it is '' or JAX has another one set.

  It stays off on CPUs: their programs are compiled for one processor's instruction set, and another
  machine may share the folder.
  """
  if folder and not jax.config.jax_compilation_cache_dir and jax.default_backend() != 'cpu':
    jax.config.update('jax_compilation_cache_dir', os.path.expanduser(folder))
