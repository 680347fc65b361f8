"""Memory in huge pages, for a process that computes on the CPU.

XLA takes a program's intermediate arrays, a hundred megabytes of two nano blocks with their
gradient, from the system at each call and gives them back after it. In pages of 4 KiB the kernel
hands them out, zeroed, 25,000 times a call, in pages of 2 MiB 129 times. glibc asks for those if
told so before the process starts. Looped over, 45 ms with it and 81 ms without on one core:

    python -m tests.benchmarks.blocks
    GLIBC_TUNABLES= python -m tests.benchmarks.blocks
"""

import os
import sys

TUNABLES = 'GLIBC_TUNABLES'


def ask():
  """Starts this process anew, as itself, with glibc asking for huge pages; comes back where that
  is so already, where the variable is set otherwise, and where there is no Linux."""
  if sys.platform == 'linux' and TUNABLES not in os.environ:
    os.environ[TUNABLES] = 'glibc.malloc.hugetlb=1'
    os.execv(sys.executable, sys.orig_argv)
