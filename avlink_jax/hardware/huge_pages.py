"""Memory in huge pages, for who trains on a CPU: two nano blocks take 45 ms instead of 81.

XLA takes a program's intermediate arrays, a hundred megabytes of two nano blocks with their
gradient, from the system at each call and gives them back after it. In pages of 4 KiB the kernel
hands them out, zeroed, 25,000 times a call, in pages of 2 MiB 129 times. glibc asks for those if a
variable says so before the process starts, which is too early for Python: so the process starts
itself anew. On an accelerator those arrays are not the system's, and nothing is done.

    python -m tests.benchmarks.blocks
    GLIBC_TUNABLES= python -m tests.benchmarks.blocks
"""

import importlib.util
import os
import pathlib
import sys

TUNABLES = 'GLIBC_TUNABLES'
# Devices that accelerators show, and the packages through which JAX uses them.
ACCELERATORS = {'nvidia[0-9]*': ('jax_cuda12_plugin', 'jax_cuda13_plugin'),
                'accel*': ('libtpu',), 'vfio/[0-9]*': ('libtpu',)}


def ask():
  """Starts this process anew, as itself, with glibc asking for huge pages; comes back where that
  is so already, where the variable is set otherwise, on an accelerator and where there is no Linux.
  """
  if sys.platform == 'linux' and TUNABLES not in os.environ and not on_accelerator():
    os.environ[TUNABLES] = 'glibc.malloc.hugetlb=1'
    os.execv(sys.executable, sys.orig_argv)


def on_accelerator(devices='/dev'):
  """Whether JAX would compute on a GPU or TPU, found out without importing it."""
  if chosen := os.environ.get('JAX_PLATFORMS'):
    return chosen.split(',')[0] != 'cpu'
  return any(any(pathlib.Path(devices).glob(device))
             and any(map(importlib.util.find_spec, packages))
             for device, packages in ACCELERATORS.items())
