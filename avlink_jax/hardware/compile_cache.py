"""Programs that took long to compile are kept, for the next run of the same config."""

import os

import jax


def use(folder):
  """Keeps them in `folder`, or a bucket; not where it is '' or JAX was told another one.

  Nor on CPUs: there a program is made for the very processor that compiled it, and one that shares
  the folder might know other instructions.
  """
  if folder and not jax.config.jax_compilation_cache_dir and jax.default_backend() != 'cpu':
    jax.config.update('jax_compilation_cache_dir', os.path.expanduser(folder))
