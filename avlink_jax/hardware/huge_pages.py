"""Memory in huge pages, for training on a CPU: two nano blocks take 45 ms instead of 81.

XLA allocates a program's intermediate arrays, a hundred megabytes for two nano blocks with their
gradient, at each call and frees them afterwards. In pages of 4 KiB that is 25,000 zeroed pages a
call, in pages of 2 MiB 129. glibc uses huge pages if an environment variable is set when a process
starts, so this process restarts itself. On an accelerator the arrays are not in system memory, and
nothing is done.

    python -m tests.benchmarks.blocks
    GLIBC_TUNABLES= python -m tests.benchmarks.blocks
"""

import importlib.util
import os
import pathlib
import sys

TUNABLES = 'GLIBC_TUNABLES'
# Device files of accelerators, and JAX's packages for them.
ACCELERATORS = {'nvidia[0-9]*': ('jax_cuda12_plugin', 'jax_cuda13_plugin'),
                'accel*': ('libtpu',), 'vfio/[0-9]*': ('libtpu',)}


def ask():
  """Restarts this process with huge pages enabled in glibc. Returns if the variable is already set,
  on an accelerator, and on systems other than Linux.
  """
  if sys.platform == 'linux' and TUNABLES not in os.environ and not on_accelerator():
    os.environ[TUNABLES] = 'glibc.malloc.hugetlb=1'
    os.execv(sys.executable, sys.orig_argv)


def on_accelerator(devices='/dev'):
  """Tells whether JAX would use a GPU or TPU, determined without importing it."""
  if chosen := os.environ.get('JAX_PLATFORMS'):
    return chosen.split(',')[0] != 'cpu'
  return any(any(pathlib.Path(devices).glob(device))
             and any(map(importlib.util.find_spec, packages))
             for device, packages in ACCELERATORS.items())
