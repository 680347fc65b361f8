"""Who asks for huge pages is started anew once, as it was; a variable that is set stays."""

import os
import subprocess
import sys

import pytest

PROGRAM = '''
import os, sys
from avlink_jax.hardware import huge_pages
print("begun", flush=True)
huge_pages.ask()
print(os.environ["GLIBC_TUNABLES"], sys.argv[1:], sys.flags.dont_write_bytecode)
'''


def said(**variables):
  environment = {k: v for k, v in os.environ.items() if k != 'GLIBC_TUNABLES'} | variables
  return subprocess.run([sys.executable, '-B', '-c', PROGRAM, 'a b'], env=environment, text=True,
                        capture_output=True, check=True, timeout=60).stdout.splitlines()


@pytest.mark.skipif(sys.platform != 'linux', reason='glibc only')
def test_asking_starts_the_same_command_once_more_and_only_once():
  assert said() == ['begun', 'begun', "glibc.malloc.hugetlb=1 ['a b'] 1"]


def test_what_the_user_has_set_stays():
  assert said(GLIBC_TUNABLES='') == ['begun', " ['a b'] 1"]
